//! The published JSON Schemas, for editors. They say less than the readers of this crate, which
//! alone decide what is valid.

use serde_json::{Value, json};

use crate::check::Side;
use crate::configuration::{CONFIGURATION, Configuration};
use crate::manifest::{MANIFEST, Manifest, SCHEMA_VERSION};
use crate::policy::{POLICY, Policy, SECTION};

impl Manifest {
    /// The JSON Schema of a manifest, as committed under `schema/manifest.schema.json`.
    #[must_use]
    pub fn json_schema() -> Value {
        let schema = MANIFEST.schema(Side::Request);
        document(schema, "manifest", "Manifest of an outrigger plugin")
    }
}

impl Policy {
    /// The JSON Schema of a policy, as committed under `schema/policy.schema.json`.
    #[must_use]
    pub fn json_schema() -> Value {
        let schema = POLICY.schema(Side::Allow);
        let mut schema = document(schema, "policy", "Policy of an outrigger host");
        schema["$defs"] = json!({"section": SECTION.schema(Side::Allow)});
        schema
    }
}

impl Configuration {
    /// The JSON Schema of a configuration, as committed under
    /// `schema/configuration.schema.json`.
    #[must_use]
    pub fn json_schema() -> Value {
        let schema = CONFIGURATION.schema(Side::Request);
        let title = "Configuration of an outrigger application";
        document(schema, "configuration", title)
    }
}

fn document(mut schema: Value, name: &str, title: &str) -> Value {
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["$id"] = json!(format!(
        "https://outrigger.rs/schema/{SCHEMA_VERSION}/{name}.schema.json"
    ));
    schema["title"] = json!(title);
    schema
}
