//! Files of one crate that use each other in a circle: none can be read, tested or
//! moved without the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Result;

/// Files that are one thing in several parts, as `crate/module` names them: what
/// these use of each other is left out.
const ONE_THING: &[&[&str]] = &[
    // A value may be an interface, which holds a value.
    &["outrigger-gob/interface", "outrigger-gob/value"],
    // One state machine: the session, who drives it and its streams.
    &[
        "outrigger-transport/yamux/driver",
        "outrigger-transport/yamux/session",
        "outrigger-transport/yamux/stream",
    ],
];

/// A path in the source, such as `crate::a::B`, by its words.
type Words = Vec<String>;

/// One problem for every crate with circles, naming what each file in one uses of
/// the others.
pub(crate) fn find(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for folder in fs::read_dir(root.join("crates"))? {
        let folder = folder?;
        let name = folder.file_name().to_string_lossy().into_owned();
        let mut files = BTreeMap::new();
        collect(&folder.path().join("src"), &mut Vec::new(), &mut files)?;
        let mut edges = edges(&name, &files);
        keep_circles(&mut edges);
        if !edges.is_empty() {
            let edges: Vec<_> = edges
                .iter()
                .map(|(from, to)| format!("  {from} uses {to}"))
                .collect();
            problems.push(format!(
                "files that use each other in a circle:\n{}",
                edges.join("\n")
            ));
        }
    }
    Ok(problems)
}

/// The paths that each module's file names, and what it hands on by another name.
#[derive(Default)]
struct Module {
    paths: Vec<Words>,
    imports: BTreeMap<String, Words>,
}

fn collect(dir: &Path, at: &mut Words, files: &mut BTreeMap<Words, Module>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let stem = stem.into_owned();
        if path.is_dir() && !["generated", "bin"].contains(&&*stem) {
            at.push(stem);
            collect(&path, at, files)?;
            at.pop();
        } else if path.extension().is_some_and(|end| end == "rs") && stem != "tests" {
            let mut module = at.clone();
            if !["lib", "main", "mod"].contains(&&*stem) {
                module.push(stem);
            }
            files.insert(module, read(&fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

fn read(text: &str) -> Module {
    let code: Vec<&str> = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let code = code.join("\n");
    // Tests inside a file stand at its end.
    let code = code.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut tokens = tokens(code).into_iter().peekable();
    let mut module = Module::default();
    while let Some(token) = tokens.next() {
        match &*token {
            "use" => tree(&mut tokens, Vec::new(), &mut module),
            "crate" | "super" | "self" if tokens.peek().is_some_and(|next| next == "::") => {
                let mut path = vec![token];
                while tokens.next_if(|next| next == "::").is_some() {
                    path.extend(tokens.next());
                }
                module.paths.push(path);
            }
            _ => {}
        }
    }
    module
}

fn tokens(code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let word = rest.find(|c: char| c != '_' && !c.is_alphanumeric());
        let length = match word.unwrap_or(rest.len()) {
            0 if rest.starts_with("::") => 2,
            0 => c.len_utf8(),
            length => length,
        };
        if !c.is_whitespace() {
            tokens.push(rest[..length].to_owned());
        }
        rest = &rest[length..];
    }
    tokens
}

/// What follows `use`, or a `{` in it: paths that begin with `before`.
fn tree(
    tokens: &mut std::iter::Peekable<std::vec::IntoIter<String>>,
    before: Words,
    module: &mut Module,
) {
    let mut path = before.clone();
    let mut name = None;
    while let Some(token) = tokens.next() {
        match &*token {
            "::" => {}
            "{" => {
                tree(tokens, std::mem::take(&mut path), module);
            }
            "as" => name = tokens.next(),
            "," | "}" | ";" => {
                if path.len() > before.len() {
                    let last = path.last().cloned().unwrap_or_default();
                    module
                        .imports
                        .insert(name.take().unwrap_or(last), path.clone());
                    module.paths.push(path);
                }
                path = before.clone();
                if token != "," {
                    return;
                }
            }
            "self" if !path.is_empty() => module.paths.push(path.clone()),
            _ => path.push(token),
        }
    }
}

fn edges(name: &str, files: &BTreeMap<Words, Module>) -> BTreeSet<(String, String)> {
    let shown = |module: &[String]| format!("{name}/{}", module.join("/"));
    let mut edges = BTreeSet::new();
    for (from, module) in files {
        for path in &module.paths {
            let Some(to) = target(from, path, files, 0) else {
                continue;
            };
            // A part may use what the whole defines.
            if !from.starts_with(&to) {
                edges.insert((shown(from), shown(&to)));
            }
        }
    }
    edges.retain(|(from, to)| {
        let parts = |thing: &&&[&str]| thing.contains(&&**from) && thing.contains(&&**to);
        !ONE_THING.iter().any(|thing| parts(&thing))
    });
    edges
}

/// The module whose file defines what `path` names in `from`.
fn target(
    from: &[String],
    path: &[String],
    files: &BTreeMap<Words, Module>,
    followed: usize,
) -> Option<Words> {
    let mut at = from.to_vec();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => {
            at.clear();
            rest = &path[1..];
        }
        "self" => rest = &path[1..],
        "super" => {
            while let Some(("super", after)) = rest.split_first().map(|(word, r)| (&**word, r)) {
                at.pop()?;
                rest = after;
            }
        }
        child => {
            at.push(child.to_owned());
            if !files.contains_key(&at) {
                return None;
            }
            rest = &path[1..];
        }
    }
    while let Some((word, after)) = rest.split_first() {
        at.push(word.clone());
        if !files.contains_key(&at) {
            at.pop();
            break;
        }
        rest = after;
    }
    let passed_on = rest
        .first()
        .and_then(|word| files.get(&at)?.imports.get(word));
    match passed_on {
        Some(path) if followed < 8 => target(&at, path, files, followed + 1),
        _ => files.contains_key(&at).then_some(at),
    }
}

/// Leaves what stands in circles, or between two.
fn keep_circles(edges: &mut BTreeSet<(String, String)>) {
    loop {
        let before = edges.len();
        let from: BTreeSet<_> = edges.iter().map(|(from, _)| from.clone()).collect();
        let to: BTreeSet<_> = edges.iter().map(|(_, to)| to.clone()).collect();
        edges.retain(|edge| to.contains(&edge.0) && from.contains(&edge.1));
        if edges.len() == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<(String, String)> {
        let files = files
            .iter()
            .map(|(name, text)| (vec![(*name).to_owned()], read(text)))
            .collect();
        let mut edges = edges("c", &files);
        keep_circles(&mut edges);
        edges.into_iter().collect()
    }

    #[test]
    fn a_circle_is_found_and_what_leads_to_it_is_not_in_it() {
        let found = circles(&[
            ("a", "use crate::{b::{self}, d};"),
            ("b", "fn f() -> crate::a::Y {}"),
            ("d", ""),
            ("e", "use super::a::Y;"),
        ]);
        let edge = |from: &str, to: &str| (format!("c/{from}"), format!("c/{to}"));
        assert_eq!(found, [edge("a", "b"), edge("b", "a")]);
    }

    #[test]
    fn what_a_module_hands_on_belongs_to_where_it_is_defined() {
        let handed_on = [
            ("a", "use crate::b::Z;"),
            ("b", "pub use crate::d::Z;\nuse crate::a::Y;"),
            ("d", ""),
        ];
        assert_eq!(circles(&handed_on), []);
    }

    #[test]
    fn comments_and_tests_use_nothing() {
        let text = "// use crate::b::X;\n#[cfg(test)]\nmod tests { use crate::b::X; }";
        assert_eq!(circles(&[("a", text), ("b", "use crate::a::Y;")]), []);
    }
}
