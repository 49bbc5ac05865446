//! The reference page knows every code and every key, and its examples are valid.

use std::collections::BTreeSet;

use outrigger_manifest::{Manifest, Policy, ProblemCode};
use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/manifest.md");

#[test]
fn every_code_has_its_cause_and_resolution() {
    for code in ProblemCode::ALL {
        assert!(PAGE.contains(&format!("\n| `{code}` | ")), "{code}");
    }
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

#[test]
fn the_examples_are_valid() {
    let examples: Vec<&str> = PAGE
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    let [manifest, policy] = examples[..] else {
        panic!("{} examples", examples.len())
    };
    Manifest::parse(manifest).unwrap_or_else(|problems| panic!("{problems}"));
    Policy::parse(policy).unwrap_or_else(|problems| panic!("{problems}"));
}
