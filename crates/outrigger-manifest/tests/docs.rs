//! The reference pages know every code and every key, and their examples are valid.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use outrigger_manifest::{Layers, Manifest, Places, Policy, ProblemCode};
use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/manifest.md");
const ERRORS: &str = include_str!("../../../docs/errors.md");
const CONFIGURATION: &str = include_str!("../../../docs/configuration.md");

#[test]
fn every_code_has_its_cause_and_resolution() {
    for code in ProblemCode::ALL {
        assert!(ERRORS.contains(&format!("\n| `{code}` | ")), "{code}");
    }
}

/// `UPDATE_EXPECTED=1 cargo test -p outrigger-manifest` writes the tables again.
#[test]
fn the_tables_of_keys_are_those_of_the_code() {
    let manifest = outrigger_manifest::reference::tables();
    let manifest = manifest
        .into_iter()
        .map(|(name, table)| (name.to_owned(), table));
    has_tables("manifest.md", PAGE, manifest);
    let configuration = outrigger_manifest::reference::configuration_tables();
    has_tables("configuration.md", CONFIGURATION, configuration);
}

fn has_tables(file: &str, text: &str, tables: impl IntoIterator<Item = (String, String)>) {
    let mut page = text.to_owned();
    for (name, table) in tables {
        let mark = format!("<!-- keys: {name} -->\n");
        let (before, rest) = page.split_once(&mark).expect(&name);
        let after = rest.split_once("\n\n").expect(&name).1;
        let after = after.trim_start_matches('\n');
        page = format!("{before}{mark}{table}\n{after}");
    }
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        fs::write(docs.join(file), &page).unwrap();
        return;
    }
    assert!(
        page == text,
        "docs/{file} has other tables than the code; run `UPDATE_EXPECTED=1 cargo test -p outrigger-manifest`"
    );
}

#[test]
fn every_key_is_on_the_page() {
    let mut keys = BTreeSet::new();
    collect(&Manifest::json_schema(), &mut keys);
    collect(&Policy::json_schema(), &mut keys);
    for key in keys {
        assert!(
            PAGE.contains(&format!("`{key}`")) || PAGE.contains(&format!("{key}:")),
            "{key}"
        );
    }
}

#[test]
fn the_example_manifest_has_every_key_and_the_animals_are_valid() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let text = fs::read_to_string(examples.join("manifest.example.yaml")).unwrap();
    let manifest = Manifest::parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
    let places = Places::new("/plugins/example", "/data/example").unwrap();
    let decision = Policy::allow_requested().decide(&manifest, &places);
    assert!(decision.is_complete(), "{:?}", decision.refused());
    let mut keys = BTreeSet::new();
    collect(&Manifest::json_schema(), &mut keys);
    for key in keys {
        let written = text.lines().any(|line| {
            let key_of = line.trim_start_matches([' ', '-']).split_once(':');
            key_of.is_some_and(|(written, _)| written == key)
        });
        assert!(written, "{key} is not in manifest.example.yaml");
    }
    for folder in fs::read_dir(examples.join("animals")).unwrap() {
        let file = folder.unwrap().path().join("manifest.yaml");
        let text = fs::read_to_string(&file).unwrap();
        Manifest::parse(&text).unwrap_or_else(|problems| panic!("{}: {problems}", file.display()));
    }
}

fn collect(schema: &Value, keys: &mut BTreeSet<String>) {
    match schema {
        Value::Object(entries) => {
            if let Some(Value::Object(properties)) = entries.get("properties") {
                keys.extend(properties.keys().cloned());
            }
            entries.values().for_each(|value| collect(value, keys));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, keys)),
        _ => {}
    }
}

fn examples(page: &str) -> Vec<&str> {
    let blocks = page.split("```yaml\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

#[test]
fn the_examples_are_valid() {
    let [configuration] = examples(CONFIGURATION)[..] else {
        panic!("not one example of a configuration")
    };
    let layers = Layers::new().file("docs/configuration.md", "", configuration.as_bytes());
    layers
        .read()
        .unwrap_or_else(|problems| panic!("{problems:?}"));
    let examples = examples(PAGE);
    let [manifest, policy] = examples[..] else {
        panic!("{} examples", examples.len())
    };
    Manifest::parse(manifest).unwrap_or_else(|problems| panic!("{problems}"));
    Policy::parse(policy).unwrap_or_else(|problems| panic!("{problems}"));
}
