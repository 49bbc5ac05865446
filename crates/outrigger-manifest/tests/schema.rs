//! The published schemas are those that the code makes, and know every valid sample.
//!
//! `UPDATE_EXPECTED=1 cargo test -p outrigger-manifest` writes the published files again.

use std::fs;
use std::path::Path;

use outrigger_manifest::{Configuration, Manifest, Policy};
use serde_json::Value;

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_published_schemas_are_current() {
    for (name, schema) in [
        ("manifest", Manifest::json_schema()),
        ("policy", Policy::json_schema()),
        ("configuration", Configuration::json_schema()),
    ] {
        let path = folder().join(format!("schema/{name}.schema.json"));
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&path, format!("{:#}\n", schema)).unwrap();
        }
        let published: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap_or_default())
            .unwrap_or_default();
        assert!(
            published == schema,
            "{} is not what the code makes; run `UPDATE_EXPECTED=1 cargo test -p outrigger-manifest`",
            path.display()
        );
    }
}

#[test]
fn every_valid_sample_fits_its_schema() {
    for entry in fs::read_dir(folder().join("samples/valid")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let value: Value = parsed(&text);
        if name.starts_with("configuration-") {
            let schema = Configuration::json_schema();
            // The other name of one section is only for files of others.
            if name != "configuration-mq"
                && let Err(why) = fits(&value, &schema, &schema, "")
            {
                panic!("{name}: {why}");
            }
            continue;
        }
        let (schema, printed) = if name.starts_with("policy-") {
            let policy = Policy::parse(&text).unwrap();
            (
                Policy::json_schema(),
                serde_json::to_value(&policy).unwrap(),
            )
        } else {
            let manifest = Manifest::parse(&text).unwrap();
            (
                Manifest::json_schema(),
                serde_json::to_value(&manifest).unwrap(),
            )
        };
        for value in [value, printed] {
            if let Err(why) = fits(&value, &schema, &schema, "") {
                panic!("{name}: {why}");
            }
        }
    }
}

#[test]
fn the_schema_refuses_what_is_not_known() {
    let text = "{plugin: {name: cat, format: rpc, entrypoint: cat}, handshake: {protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}}";
    let schema = Manifest::json_schema();
    let good: Value = parsed(text);
    assert_eq!(fits(&good, &schema, &schema, ""), Ok(()));
    for (pointer, key, value) in [
        ("", "colour", Value::from("red")),
        ("/plugin", "nme", Value::from("cat")),
        ("/plugin", "format", Value::from("grcp")),
        ("/handshake", "protocol_version", Value::from("1")),
    ] {
        let mut bad = good.clone();
        bad.pointer_mut(pointer).unwrap()[key] = value;
        assert!(fits(&bad, &schema, &schema, "").is_err(), "{pointer}/{key}");
    }
}

/// The text as an editor would read it, `off` being a word.
fn parsed(text: &str) -> Value {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text.trim_start_matches('\u{feff}'), options).unwrap()
}

/// As much of JSON Schema as ours use, patterns left out.
fn fits(value: &Value, schema: &Value, root: &Value, at: &str) -> Result<(), String> {
    let schema = match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    let fail = |why: &str| Err(format!("{at}: {why}: {value}"));
    if let Some(types) = schema.get("type") {
        let types: Vec<&str> = match types {
            Value::String(one) => vec![one],
            many => many
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one.as_str().unwrap())
                .collect(),
        };
        let is = |kind: &&str| match *kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            other => panic!("unknown type {other}"),
        };
        if !types.iter().any(is) {
            return fail(&format!("is not {types:?}"));
        }
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return fail("is not the constant");
    }
    if schema
        .get("enum")
        .is_some_and(|words| !words.as_array().unwrap().contains(value))
    {
        return fail("is not among the words");
    }
    for (word, count) in [("oneOf", 1..=1), ("anyOf", 1..=usize::MAX)] {
        if let Some(options) = schema.get(word).and_then(Value::as_array) {
            let tried: Vec<_> = options
                .iter()
                .map(|option| fits(value, option, root, at))
                .collect();
            if !count.contains(&tried.iter().filter(|result| result.is_ok()).count()) {
                return fail(&format!("{word}: {tried:?}"));
            }
        }
    }
    if let Some(number) = value.as_u64() {
        let bound = |word: &str| schema.get(word).and_then(Value::as_u64);
        if bound("minimum").is_some_and(|low| number < low)
            || bound("maximum").is_some_and(|high| number > high)
        {
            return fail("is out of range");
        }
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for (index, value) in values.iter().enumerate() {
            fits(value, items, root, &format!("{at}[{index}]"))?;
        }
    }
    let Some(entries) = value.as_object() else {
        return Ok(());
    };
    for required in schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if !entries.contains_key(required.as_str().unwrap()) {
            return fail(&format!("lacks {required}"));
        }
    }
    for (key, value) in entries {
        let at = format!("{at}.{key}");
        match (
            schema.pointer(&format!("/properties/{key}")),
            schema.get("additionalProperties"),
        ) {
            (Some(property), _) => fits(value, property, root, &at)?,
            (None, Some(Value::Bool(false))) => return Err(format!("{at}: is not known")),
            (None, Some(others)) => fits(value, others, root, &at)?,
            (None, None) => {}
        }
    }
    Ok(())
}
