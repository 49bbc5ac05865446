//! The published JSON Schemas, for editors. They say less than the readers of this crate, which
//! alone decide what is valid.

use serde_json::{Map, Value, json};

use crate::choices::{Access, Format, HostService, ProcessControl, Protocol, SandboxMode};
use crate::manifest::{Manifest, SCHEMA_VERSION};
use crate::path::PathBase;
use crate::permissions::Permissions;
use crate::policy::Policy;

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
const NAME: &str = "^[a-z][a-z0-9]*([-_.][a-z0-9]+)*$";
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
const VARIABLE_PATTERN: &str = "^([A-Za-z_][A-Za-z0-9_]*)?\\*?$";
const SIZE: &str = "^[0-9]+ *([KMGT]iB|kB|MB|GB|TB|B)?$";
const PORT_RANGE: &str = "^[0-9]{1,5}(-[0-9]{1,5})?$";

impl Manifest {
    /// The JSON Schema of a manifest, as committed under `schema/manifest.schema.json`.
    #[must_use]
    pub fn json_schema() -> Value {
        let plugin = object(
            "Who the plugin is and how it is started.",
            [
                (
                    "name",
                    described(
                        json!({"type": "string", "pattern": NAME, "maxLength": 64}),
                        "Its name: 1 to 64 of a-z, 0-9, `-`, `_` and `.`.",
                    ),
                ),
                (
                    "type",
                    described(
                        json!({"type": "string", "minLength": 1}),
                        "What kind of plugin it is, in the application's own words.",
                    ),
                ),
                (
                    "format",
                    described(words(Format::WORDS), "Which RPC it speaks."),
                ),
                (
                    "entrypoint",
                    described(
                        json!({"type": "string", "pattern": "^[^/]"}),
                        "Its program, relative to its folder.",
                    ),
                ),
                (
                    "language",
                    described(
                        json!({"type": "string", "minLength": 1}),
                        "The language it is written in.",
                    ),
                ),
                (
                    "version",
                    described(
                        json!({"type": "string"}),
                        "Its version, a semantic version such as `1.0.0`.",
                    ),
                ),
            ],
            &["name", "format", "entrypoint"],
        );
        let prose = || json!({"type": ["string", "number", "boolean", "null"]});
        let about = section(object(
            "What people read about it.",
            [
                ("description", described(prose(), "What it is for.")),
                ("maintainer", described(prose(), "Who looks after it.")),
                ("url", described(prose(), "Where to read more.")),
            ],
            &[],
        ));
        let handshake = object(
            "What host and plugin must agree on before they talk.",
            [
                (
                    "protocol_version",
                    described(
                        json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
                        "Version of the plugin's interfaces.",
                    ),
                ),
                (
                    "magic_cookie_key",
                    described(
                        json!({"type": "string", "pattern": VARIABLE}),
                        "Environment variable that carries the magic cookie.",
                    ),
                ),
                (
                    "magic_cookie_value",
                    described(
                        json!({"type": ["string", "number", "boolean"]}),
                        "The magic cookie.",
                    ),
                ),
            ],
            &Manifest::HANDSHAKE_KEYS,
        );
        let security = section(object(
            "How the connection is protected.",
            [(
                "auto_mtls",
                described(
                    json!({"type": "boolean"}),
                    "Whether one-time certificates are wanted.",
                ),
            )],
            &[],
        ));
        let value = json!({"type": ["string", "number", "boolean"]});
        let environment = section(object(
            "Variables of the environment.",
            [
                (
                    "read",
                    described(
                        section(list(json!({"type": "string", "pattern": VARIABLE}))),
                        "Names of the host's variables to read.",
                    ),
                ),
                (
                    "set",
                    described(
                        json!({"type": ["object", "null"], "propertyNames": {"pattern": VARIABLE}, "additionalProperties": value}),
                        "Variables wanted in the plugin's own environment.",
                    ),
                ),
            ],
            &[],
        ));
        let mut capabilities = entries(false);
        capabilities.insert("environment".to_owned(), environment);
        document(
            "manifest",
            "Manifest of an outrigger plugin",
            [
                ("plugin", plugin),
                ("about", about),
                ("handshake", handshake),
                ("security", security),
                (
                    "capabilities",
                    section(object_of(
                        "What it asks for; what is absent is denied.",
                        capabilities,
                        &[],
                    )),
                ),
                (
                    "resources",
                    section(resources("How much it wants to use at most.")),
                ),
                (
                    "sandbox",
                    described(
                        words(SandboxMode::WORDS),
                        "How strictly it must be confined; default `require`.",
                    ),
                ),
                (
                    "jit",
                    described(
                        json!({"type": "boolean"}),
                        "Whether it makes machine code while it runs; default false.",
                    ),
                ),
                (
                    "services",
                    described(
                        list(words(HostService::WORDS)),
                        "The host services it wants; default: those of its capabilities, `clock` and `log`.",
                    ),
                ),
            ],
            &["plugin", "handshake"],
        )
    }
}

impl Policy {
    /// The JSON Schema of a policy, as committed under `schema/policy.schema.json`.
    #[must_use]
    pub fn json_schema() -> Value {
        let names = || list(json!({"type": "string", "pattern": VARIABLE_PATTERN}));
        let rules = |denies: bool| {
            let mut rules = entries(denies);
            let environment = object(
                "Names of variables, with a `*` at the end for all that begin so.",
                [
                    (
                        "read",
                        described(names(), "Variables of the host that may be read."),
                    ),
                    (
                        "set",
                        described(names(), "Variables that may be set for the plugin."),
                    ),
                ],
                &[],
            );
            rules.insert("environment".to_owned(), environment);
            rules.insert(
                "services".to_owned(),
                described(list(words(HostService::WORDS)), "Host services."),
            );
            rules
        };
        let allow = json!({"oneOf": [
            {"const": "requested", "description": "Whatever a manifest asks."},
            object_of("What may be granted.", rules(false), &[]),
        ]});
        let section = object(
            "Rules for plugins.",
            [
                (
                    "sandbox",
                    described(
                        words(SandboxMode::WORDS),
                        "The least strict mode that a manifest may ask for; default `require`.",
                    ),
                ),
                (
                    "jit",
                    described(
                        json!({"type": "boolean"}),
                        "Whether machine code may be made; default false.",
                    ),
                ),
                ("resources", resources("The most that is granted.")),
                ("allow", allow),
                (
                    "deny",
                    object_of(
                        "What is never granted, whatever allows it.",
                        rules(true),
                        &[],
                    ),
                ),
            ],
            &[],
        );
        let mut schema = document(
            "policy",
            "Policy of an outrigger host",
            [
                ("default", json!({"$ref": "#/$defs/section"})),
                (
                    "plugins",
                    json!({
                        "type": ["object", "null"],
                        "description": "Rules for single plugins, beside the defaults.",
                        "propertyNames": {"pattern": NAME, "maxLength": 64},
                        "additionalProperties": {"$ref": "#/$defs/section"},
                    }),
                ),
            ],
            &[],
        );
        schema["$defs"] = json!({"section": section});
        schema
    }
}

fn document<const N: usize>(
    name: &str,
    title: &str,
    properties: [(&str, Value); N],
    required: &[&str],
) -> Value {
    let mut schema = object("", properties, required);
    schema["$schema"] = json!(DIALECT);
    schema["$id"] = json!(format!(
        "https://outrigger.rs/schema/{SCHEMA_VERSION}/{name}.schema.json"
    ));
    schema["title"] = json!(title);
    schema["properties"]["schema"] =
        described(json!({"const": SCHEMA_VERSION}), "Version of this schema.");
    schema
}

/// The sections that manifests and policies share.
fn entries(denies: bool) -> Map<String, Value> {
    let needs = |keys: &'static [&'static str]| if denies { &[][..] } else { keys };
    let path = || {
        let beginnings: Vec<&str> = PathBase::PLACEHOLDERS
            .iter()
            .map(|(placeholder, _)| *placeholder)
            .collect();
        let text = format!(
            "An absolute path, or one that begins with {}.",
            beginnings.join(", ")
        );
        described(json!({"type": "string", "pattern": "^(/|\\$\\{)"}), &text)
    };
    let access = if denies {
        json!({"const": "direct"})
    } else {
        words(Access::WORDS)
    };
    let recursive = if denies {
        "default true"
    } else {
        "default false"
    };
    let file = object(
        "Part of the file tree.",
        [
            ("path", path()),
            ("permissions", filled(words(Permissions::WORDS))),
            (
                "recursive",
                described(
                    json!({"type": "boolean"}),
                    &format!(
                        "Whether everything below is meant, or only the direct entries; {recursive}."
                    ),
                ),
            ),
            (
                "access",
                described(
                    access,
                    "Through the host, or by the plugin itself; only recursive entries can be direct.",
                ),
            ),
        ],
        if denies {
            &["path"]
        } else {
            &["path", "permissions"]
        },
    );
    let port = json!({"anyOf": [
        {"type": "integer", "minimum": 1, "maximum": 65535},
        {"type": "string", "pattern": PORT_RANGE},
    ]});
    let host = json!({"type": "string", "minLength": 1});
    let network = |hosts: &'static str, required: &'static [&'static str]| {
        maps(object(
            "Connections.",
            [
                ("protocol", words(Protocol::WORDS)),
                (hosts, filled(host.clone())),
                ("ports", filled(port.clone())),
            ],
            needs(required),
        ))
    };
    let egress = described(
        section(network("hosts", &["protocol", "hosts", "ports"])),
        "Connections to open: host names, `*.` wildcards, addresses and networks.",
    );
    let ingress = described(
        section(network(
            "allowed_origins",
            &["protocol", "allowed_origins", "ports"],
        )),
        "Connections to accept: host names, addresses and networks they may come from.",
    );
    let literal = json!({"type": ["string", "number", "boolean"]});
    let exec = object(
        "A command and its arguments, matched one by one.",
        [
            ("command", path()),
            (
                "args",
                described(
                    list(literal),
                    "A lone `*` stands for one argument, as the last for any number; never for one that begins with `-`.",
                ),
            ),
        ],
        &["command"],
    );
    let mut process = vec![("exec", section(maps(exec)))];
    for (word, _) in ProcessControl::WORDS {
        process.push((word, filled(json!({"const": "children"}))));
    }
    let mut all = Map::new();
    all.insert("filesystem".to_owned(), section(maps(file)));
    all.insert(
        "network".to_owned(),
        either_spelling(
            "Connections.",
            vec![("egress", egress), ("ingress", ingress)],
        ),
    );
    all.insert(
        "process".to_owned(),
        either_spelling(
            "Commands to run, and control over what was started.",
            process,
        ),
    );
    all
}

/// A map, or a list of maps with one key each.
fn either_spelling(description: &str, properties: Vec<(&str, Value)>) -> Value {
    let properties: Map<String, Value> = properties
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    let whole = object_of("", properties, &[]);
    let mut single = whole.clone();
    single["minProperties"] = json!(1);
    single["maxProperties"] = json!(1);
    json!({
        "description": description,
        "oneOf": [whole, {"type": "array", "items": single}, {"type": "null"}],
    })
}

fn resources(description: &str) -> Value {
    let size = || json!({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": SIZE}]});
    let count = || json!({"type": "integer", "minimum": 1, "maximum": 1 << 22});
    object(
        description,
        [
            (
                "memory",
                described(size(), "Memory of the process, such as `64MiB`."),
            ),
            (
                "cpu",
                described(
                    json!({"type": ["number", "string"]}),
                    "Cores, such as `0.5`.",
                ),
            ),
            ("pids", described(count(), "Processes and threads.")),
            ("open_files", described(count(), "Open file descriptors.")),
            (
                "message_size",
                described(size(), "One message, in either direction."),
            ),
            (
                "streams",
                described(count(), "Calls and streams at one time."),
            ),
        ],
        &[],
    )
}

fn object<const N: usize>(
    description: &str,
    properties: [(&str, Value); N],
    required: &[&str],
) -> Value {
    let properties = properties
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    object_of(description, properties, required)
}

fn object_of(description: &str, properties: Map<String, Value>, required: &[&str]) -> Value {
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if description.is_empty() {
        schema
    } else {
        described(schema, description)
    }
}

/// A section that may also be named without a value.
fn section(mut schema: Value) -> Value {
    if let Some(kind) = schema.get("type").cloned() {
        schema["type"] = json!([kind, "null"]);
    } else if let Some(Value::Array(ways)) = schema.get_mut("anyOf") {
        ways.push(json!({"type": "null"}));
    }
    schema
}

fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

/// A list of maps, or the one map alone.
fn maps(item: Value) -> Value {
    json!({"anyOf": [item.clone(), list(item)]})
}

fn filled(items: Value) -> Value {
    json!({"type": "array", "items": items, "minItems": 1, "uniqueItems": true})
}

fn words<T>(words: &[(&'static str, T)]) -> Value {
    let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    json!({"enum": words})
}

fn described(mut schema: Value, description: &str) -> Value {
    schema["description"] = json!(description);
    schema
}
