//! The bodies of the fuzz targets, as plain functions so that tests call them too. They take
//! arbitrary bytes and panic if a promise is broken.

use crate::{Host, Layers, Manifest, Places, Policy, Problems, Source};

/// The longest line that one problem may take, whatever the file says.
const LONGEST_PROBLEM: usize = 8 * 1024;

/// A file is refused with problems inside itself, or survives being printed again; what it asks
/// is granted in full by the policy that grants everything, and not at all by the one that grants
/// nothing.
pub fn manifest(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Manifest::parse(&text) {
        Ok(manifest) => {
            let printed = manifest.to_yaml();
            assert_eq!(
                Manifest::parse(&printed).as_ref(),
                Ok(&manifest),
                "{printed}"
            );
            check_decisions(&manifest);
        }
        Err(problems) => check_problems(&text, &problems),
    }
    match Policy::parse(&text) {
        Ok(policy) => {
            let printed = policy.to_yaml();
            assert_eq!(Policy::parse(&printed).as_ref(), Ok(&policy), "{printed}");
        }
        Err(problems) => check_problems(&text, &problems),
    }
    if let Ok(host) = text.parse::<Host>() {
        assert_eq!(host.to_string().parse::<Host>().as_ref(), Ok(&host));
    }
}

/// A configuration is refused with problems inside itself, or every value of it has a source; each
/// value of a valid one can be given again in a variable and then is what it was.
pub fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let layers = Layers::new().file("fuzz.yaml", "/srv", text.as_bytes());
    let read = match layers.read() {
        Ok(read) => read,
        Err(problems) => {
            return problems
                .iter()
                .for_each(|problems| check_problems(&text, problems));
        }
    };
    let mut again = Layers::new();
    for setting in read.settings() {
        if let (Some(variable), Source::File { .. }) = (&setting.variable, &setting.source)
            && !setting.value.is_null()
        {
            again = again.variable(variable, &setting.value_text());
        }
    }
    let again = again
        .read()
        .unwrap_or_else(|problems| panic!("{problems:?}"));
    for change in read.changes(&again) {
        let own = change.key.starts_with("plugins.");
        // An empty variable counts as not set.
        assert!(own || change.before == "", "{change}");
    }
}

fn check_decisions(manifest: &Manifest) {
    let Ok(places) = Places::new("/plugins/x", "/data/x").and_then(|p| p.with_home("/home/x"))
    else {
        return;
    };
    let everything = Policy::allow_requested().decide(manifest, &places);
    assert!(everything.is_complete(), "{:?}", everything.refused());
    let grants = everything.grants();
    assert_eq!(grants.sandbox(), manifest.sandbox());
    for grant in grants.filesystem() {
        let verdict = grants.filesystem_verdict(grant.path(), grant.permissions());
        assert!(verdict.is_ok(), "{verdict:?}");
    }
    for (name, _) in &manifest.requests().capabilities.environment.read {
        assert!(grants.environment().read(name).is_ok());
    }
    let nothing = Policy::allow_nothing().decide(manifest, &places).grants();
    assert!(nothing.filesystem().is_empty());
    assert!(nothing.network().egress_grants().is_empty());
    assert!(nothing.network().ingress_grants().is_empty());
    assert!(nothing.process().exec_grants().is_empty());
    assert_eq!(nothing.environment().names().count(), 0);
    assert_eq!(nothing.environment().set().count(), 0);
    assert!(!nothing.jit());
}

fn check_problems(text: &str, problems: &Problems) {
    let lines: Vec<usize> = crate::lines::lines(text)
        .map(|line| line.chars().count())
        .collect();
    assert!(problems.len() > 0);
    assert!(problems.iter().map(crate::Problem::position).is_sorted());
    for problem in problems {
        let (line, column) = (problem.line() as usize, problem.column() as usize);
        assert!((1..=lines.len()).contains(&line), "{problem}");
        assert!((1..=lines[line - 1] + 1).contains(&column), "{problem}");
        let shown = problem.to_string();
        assert!(shown.len() <= LONGEST_PROBLEM, "{} bytes", shown.len());
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_holds_on_every_sample_and_on_pieces_of_it() {
        for folder in ["valid", "invalid"] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("samples")
                .join(folder);
            for entry in std::fs::read_dir(folder).unwrap() {
                let bytes = std::fs::read(entry.unwrap().path()).unwrap();
                manifest(&bytes);
                configuration(&bytes);
                for end in (0..bytes.len()).step_by(29) {
                    manifest(&bytes[..end]);
                    configuration(&bytes[..end]);
                }
            }
        }
        for bytes in [
            b"".to_vec(),
            b"\xff\xfe\0".to_vec(),
            "[".repeat(100_000).into_bytes(),
            "a: ".repeat(50_000).into_bytes(),
            "- ".repeat(100_000).into_bytes(),
        ] {
            manifest(&bytes);
            configuration(&bytes);
        }
    }
}
