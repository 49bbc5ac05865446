//! Every code that an error of ours can have is explained, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../docs/errors.md");

/// Words with a hyphen in our sources that are no code of an error. What is new there is either
/// one of these, or needs its row in `docs/errors.md`.
const NO_CODES: &[&str] = &[
    // Words of files and of the command line.
    "at-once",
    "auto-mtls",
    "best-effort",
    "on-failure",
    "trust-first",
    // What the lock file makes of a plugin.
    "asks-for-less",
    "asks-for-more",
    "first-use",
    "new-program",
    "new-version",
    // Kinds of methods and of what is found about a program.
    "bidi-stream",
    "by-itself",
    "client-stream",
    "server-stream",
    // Names of headers.
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-timeout",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "transfer-encoding",
    // Names of threads, files and the kernel's own.
    "key-users",
    "outrigger-audit",
    "outrigger-commands",
    "outrigger-fd",
    "outrigger-lifeline",
    "outrigger-temp",
    "outrigger-watch",
    "plugin-stderr",
    "plugin-stdout",
    "sysrq-trigger",
    "tested-1",
    // Names of crates, folders and modules that are written.
    "go-plugin",
    "outrigger-host",
    "outrigger-plugin",
    "proc-inside",
    "proc-macro",
    "python-plugin",
    "rust-host",
    "rust-plugin",
    // What the rest of a sentence or a record is about.
    "link-local",
    "outside-only",
    "really-complex-permanent-string-value",
    "records-dropped",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn explained() -> BTreeSet<String> {
    let rows: Vec<&str> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .collect();
    let mut codes = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        let [code, rest @ ..] = &cells[..] else {
            panic!("{row}")
        };
        assert_eq!(rest.len(), 3, "{row}");
        assert!(rest.iter().all(|cell| !cell.trim().is_empty()), "{row}");
        let code = code.trim_end_matches('`').to_owned();
        assert!(codes.insert(code), "twice: {row}");
    }
    codes
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && name != "generated" {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// The texts of a source file that may be codes: words with a hyphen anywhere, and every word in
/// a function that is called `code`.
fn candidates(source: &str) -> BTreeSet<String> {
    let source = source
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let mut found = BTreeSet::new();
    let mut in_code = false;
    for line in source.lines() {
        if line.trim_start().starts_with("//") || line.trim_start().starts_with("#[") {
            continue;
        }
        in_code = line.contains("fn code(&self)") || (in_code && line != "    }");
        for text in line.split('"').skip(1).step_by(2) {
            let word = !text.is_empty()
                && text.starts_with(|c: char| c.is_ascii_lowercase())
                && text.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && text
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            if word && (in_code || text.contains('-')) {
                found.insert(text.to_owned());
            }
        }
    }
    found
}

#[test]
fn every_code_of_an_error_is_explained_and_no_other() {
    let mut files = Vec::new();
    for folder in fs::read_dir(root().join("crates")).expect("crates") {
        let folder = folder.expect("a crate").path();
        // Its texts are those of other programs, or are read when ours are built.
        let aside = [
            "outrigger-testing",
            "outrigger-macros",
            "outrigger-gob-derive",
        ];
        if !aside.iter().any(|name| folder.ends_with(name)) {
            sources(&folder.join("src"), &mut files);
        }
    }
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut all = String::new();
    for file in files {
        let source = fs::read_to_string(&file).expect("text");
        for word in candidates(&source) {
            found.insert(word, file.clone());
        }
        all.push_str(&source);
    }
    assert!(found.contains_key("handshake-malformed") && found.contains_key("cancelled"));
    let explained = explained();
    let missing: Vec<String> = found
        .iter()
        .filter(|(word, _)| !explained.contains(*word) && !NO_CODES.contains(&word.as_str()))
        .map(|(word, file)| format!("{word} in {}", file.display()))
        .collect();
    assert!(
        missing.is_empty(),
        "explain these in crates/outrigger-cli/docs/errors.md, or say in this test that they are no codes:\n{}",
        missing.join("\n")
    );
    let gone = |code: &&String| !all.contains(&format!("\"{code}\""));
    let gone: Vec<&String> = explained.iter().filter(gone).collect();
    assert!(gone.is_empty(), "explained, and in no source: {gone:?}");
    for word in NO_CODES {
        assert!(found.contains_key(*word), "{word} is in no source any more");
    }
}

/// `UPDATE_EXPECTED=1 cargo test -p outrigger-cli --test explained` writes the page again.
#[test]
fn the_page_of_errors_is_what_the_command_prints() {
    let page = root().join("docs/errors.md");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&page, PAGE).expect("written");
    }
    let written = fs::read_to_string(page).expect("text");
    assert!(
        written == PAGE,
        "docs/errors.md is not crates/outrigger-cli/docs/errors.md"
    );
}
