//! The tables in the documentation are those of the protos and of the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use outrigger_services::{HOST_SERVICES_DESCRIPTORS, operations};
use outrigger_wire::SystemError;
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::Code;

const END: &str = "<!-- end -->";
/// One test at a time writes the page.
static PAGE: Mutex<()> = Mutex::new(());

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The first sentence of the comment before each line that starts with `rpc`.
fn comments(proto: &str) -> Vec<(String, String)> {
    let (mut comment, mut found) = (Vec::new(), Vec::new());
    for line in proto.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("//") {
            comment.push(text.trim().to_owned());
        } else if let Some(rest) = line.strip_prefix("rpc ") {
            let name = rest.split('(').next().unwrap_or_default().to_owned();
            let text = comment.join(" ");
            let sentence = text.split_inclusive(". ").next().unwrap_or_default();
            found.push((name, sentence.trim().to_owned()));
            comment.clear();
        } else {
            comment.clear();
        }
    }
    found
}

/// `ReadFile` as records write it: `read_file`.
fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

fn files(package: &str) -> Vec<prost_types::FileDescriptorProto> {
    let set = FileDescriptorSet::decode(HOST_SERVICES_DESCRIPTORS).expect("descriptors");
    let files = set.file.into_iter();
    files.filter(|file| file.package() == package).collect()
}

/// One row for each operation of the code, in the order of the protos.
fn table() -> String {
    let (mut count, mut text) = (0, String::new());
    text.push_str("| operation | in records | decided by | calls | what it does |\n");
    text.push_str("| --- | --- | --- | --- | --- |\n");
    for file in files("outrigger.host.v1") {
        let path = root().join("proto").join(file.name());
        let comments = comments(&std::fs::read_to_string(path).expect("the proto"));
        for service in &file.service {
            for method in &service.method {
                count += 1;
                let calls = match (method.client_streaming(), method.server_streaming()) {
                    (false, false) => "once",
                    (false, true) => "stream of replies",
                    (true, false) => "stream of requests",
                    (true, true) => "streams both ways",
                };
                let (service, name) = (service.name(), method.name());
                let (capability, recorded) = (snake_case(service), snake_case(name));
                let operation = operations()
                    .find(|known| known.capability == capability && known.name == recorded);
                let operation = operation.unwrap_or_else(|| panic!("{service}.{name}"));
                let comment = comments.iter().find(|(of, _)| of == name);
                let comment = comment.map_or("", |(_, text)| text.as_str());
                writeln!(
                    text,
                    "| `{service}.{name}` | `{capability}.{recorded}` | {} | {calls} | {comment} |",
                    operation.judged_by
                )
                .expect("a string");
            }
        }
    }
    format!("{count} operations.\n\n{text}")
}

/// Each reason with its status and the system errors that it stands for.
fn system_errors() -> String {
    let mut kinds: BTreeMap<(&str, i32), Vec<String>> = BTreeMap::new();
    for error in SystemError::known() {
        let names = kinds.entry((error.reason(), error.status())).or_default();
        names.push(format!("`{}`", error.name()));
    }
    let mut text = String::from("| reason | status | `errno` |\n| --- | --- | --- |\n");
    for ((reason, status), names) in kinds {
        let names = if names.len() > 10 {
            "all others".to_owned()
        } else {
            names.join(", ")
        };
        let code = format!("{:?}", Code::from(status));
        let code = code
            .chars()
            .enumerate()
            .fold(String::new(), |code, (at, letter)| {
                let gap = if at > 0 && letter.is_uppercase() {
                    "_"
                } else {
                    ""
                };
                code + gap + &letter.to_uppercase().to_string()
            });
        writeln!(text, "| `{reason}` | `{code}` | {names} |").expect("a string");
    }
    text
}

/// Compares what stands behind `begin` in the page with `table`.
fn is_documented(begin: &str, table: &str) {
    let _alone = PAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = root().join("docs/capabilities/README.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(begin).expect("the table's beginning");
    let (_, after) = rest.split_once(END).expect("the table's end");
    let current = format!("{before}{begin}{table}{END}{after}");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &current).expect("written");
    } else {
        assert_eq!(page, current, "run with UPDATE=1 to write it anew");
    }
}

#[test]
fn the_documented_table_is_that_of_the_code_and_the_protos() {
    is_documented("<!-- operations -->\n", &table());
}

#[test]
fn every_call_of_both_contracts_is_an_operation_and_no_other_is_left_over() {
    let mut left: BTreeSet<String> = BTreeSet::new();
    for operation in operations() {
        let name = format!("{}.{}", operation.capability, operation.name);
        assert!(left.insert(name), "{operation:?} is there twice");
    }
    for file in files("outrigger.host.v1") {
        for service in &file.service {
            for method in &service.method {
                let (service, method) = (snake_case(service.name()), snake_case(method.name()));
                assert!(
                    left.remove(&format!("{service}.{method}")),
                    "{service}.{method}"
                );
            }
        }
    }
    for file in files("hostserve.v1") {
        for method in file.service.iter().flat_map(|service| &service.method) {
            let name = method.name();
            let services = ["filesystem", "environment"];
            let known = services.map(|service| left.remove(&format!("{service}.{name}")));
            assert_eq!(known.iter().filter(|known| **known).count(), 1, "{name}");
        }
    }
    // What is recorded without being a call that a plugin makes.
    let others = ["network.incoming", "session.call", "session.descriptors"];
    let others = others
        .into_iter()
        .chain(["session.turned_away", "services.call"]);
    assert_eq!(left, others.map(str::to_owned).collect());
}

#[test]
fn the_documented_system_errors_are_those_of_the_code() {
    is_documented("<!-- system errors -->\n", &system_errors());
}
