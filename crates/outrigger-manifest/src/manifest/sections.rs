//! The sections of a manifest that say who the plugin is and how host and plugin meet.

use outrigger_wire::Transport;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::check::{Check, Fields, Side};
use crate::entries::environment::check_reserved;
use crate::keys::{Group, Key, Presence, Section, Shape};
use crate::message::quoted;
use crate::name::{Entrypoint, PluginName};
use crate::problem::ProblemCode;
use crate::shapes::{Bool, Label, Prose, Variable, Whole, Word, word};
use crate::tree::Node;

pub(crate) static NAME: Key<PluginName> = Key::required(
    "name",
    "1 to 64 of `a-z`, `0-9`, `-`, `_`, `.`; begins with a letter, ends with a letter or digit, no two of `-`, `_`, `.` in a row",
);
pub(crate) static FORMAT: Key<Word<Transport>> =
    Key::required("format", "the RPC it speaks: Go's net/rpc, or gRPC");
pub(crate) static ENTRYPOINT: Key<Entrypoint> = Key::required(
    "entrypoint",
    "its program, relative to its folder; no `..`, not absolute",
);
pub(crate) static TYPE: Key<Label> = Key::optional(
    "type",
    "what kind of plugin it is, in the application's own words",
);
pub(crate) static LANGUAGE: Key<Label> = Key::optional("language", "what it is written in");
pub(crate) static VERSION: Key<Version> = Key::optional("version", "`1.0.0`, `2.1.0-rc.1`");
pub(crate) static PLUGIN: Section = Section {
    about: "who the plugin is and how it is started",
    keys: &[&NAME, &FORMAT, &ENTRYPOINT, &TYPE, &LANGUAGE, &VERSION],
};

/// Who the plugin is and how it is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Plugin {
    pub(crate) name: PluginName,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    #[serde(rename = "format", serialize_with = "word")]
    pub(crate) transport: Transport,
    pub(crate) entrypoint: Entrypoint,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown")]
    pub(crate) version: Option<semver::Version>,
}

fn shown<S: Serializer>(
    version: &Option<semver::Version>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    version
        .as_ref()
        .map(ToString::to_string)
        .serialize(serializer)
}

impl Group for Plugin {
    fn section() -> &'static Section {
        &PLUGIN
    }

    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<Plugin> {
        let name = NAME.read(check, fields);
        let transport = FORMAT.read(check, fields);
        let entrypoint = ENTRYPOINT.read(check, fields);
        let kind = TYPE.read(check, fields);
        let language = LANGUAGE.read(check, fields);
        let version = VERSION.read(check, fields);
        Some(Plugin {
            name: name?,
            kind,
            transport: transport?,
            entrypoint: entrypoint?,
            language,
            version,
        })
    }
}

/// A semantic version.
pub(crate) struct Version;

impl Shape for Version {
    type Value = semver::Version;

    fn kind(_: Side) -> String {
        "semantic version".to_owned()
    }

    fn schema(_: Side) -> Value {
        json!({"type": "string"})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<semver::Version> {
        let text = check.literal(node, location)?;
        let version = semver::Version::parse(text);
        if let Err(error) = &version {
            let message = format!("{} is not a semantic version: {error}", quoted(text));
            check
                .report(node.at, ProblemCode::InvalidVersion, location, message)
                .near(near_version(text));
        }
        version.ok()
    }
}

/// `v1.2` → `1.2.0`.
fn near_version(text: &str) -> Option<String> {
    let bare = text.trim().trim_start_matches(['v', 'V']);
    let padded = match bare.split('.').count() {
        1 => format!("{bare}.0.0"),
        2 => format!("{bare}.0"),
        _ => bare.to_owned(),
    };
    semver::Version::parse(&padded)
        .ok()
        .map(|version| version.to_string())
}

pub(crate) static DESCRIPTION: Key<Prose> =
    Key::new("description", Presence::MayBeEmpty, "what it is for");
pub(crate) static MAINTAINER: Key<Prose> =
    Key::new("maintainer", Presence::MayBeEmpty, "who looks after it");
pub(crate) static URL: Key<Prose> = Key::new("url", Presence::MayBeEmpty, "where to read more");
pub(crate) static ABOUT: Section = Section {
    about: "what people read about the plugin",
    keys: &[&DESCRIPTION, &MAINTAINER, &URL],
};

/// What people read about a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct About {
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maintainer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl About {
    /// What the plugin is for.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Who looks after it.
    #[must_use]
    pub fn maintainer(&self) -> Option<&str> {
        self.maintainer.as_deref()
    }

    /// Where to read more.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }
}

impl Group for About {
    fn section() -> &'static Section {
        &ABOUT
    }

    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<About> {
        Some(About {
            description: DESCRIPTION.read(check, fields),
            maintainer: MAINTAINER.read(check, fields),
            url: URL.read(check, fields),
        })
    }
}

pub(crate) static PROTOCOL_VERSION: Key<Whole<0, { u32::MAX }>> =
    Key::required("protocol_version", "version of the plugin's interfaces");
pub(crate) static COOKIE_KEY: Key<CookieKey> = Key::required(
    "magic_cookie_key",
    "environment variable that carries the magic cookie",
);
pub(crate) static COOKIE_VALUE: Key<CookieValue> =
    Key::required("magic_cookie_value", "the magic cookie");
pub(crate) static HANDSHAKE: Section = Section {
    about: "what host and plugin must agree on before they talk",
    keys: &[&PROTOCOL_VERSION, &COOKIE_KEY, &COOKIE_VALUE],
};

/// What host and plugin must agree on before they talk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Handshake {
    protocol_version: u32,
    magic_cookie_key: String,
    magic_cookie_value: String,
}

impl Handshake {
    /// Version of the plugin's interfaces.
    #[must_use]
    pub fn protocol_version(&self) -> u32 {
        self.protocol_version
    }

    /// Environment variable that carries the magic cookie.
    #[must_use]
    pub fn magic_cookie_key(&self) -> &str {
        &self.magic_cookie_key
    }

    /// The magic cookie.
    #[must_use]
    pub fn magic_cookie_value(&self) -> &str {
        &self.magic_cookie_value
    }
}

impl Group for Handshake {
    fn section() -> &'static Section {
        &HANDSHAKE
    }

    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<Handshake> {
        let protocol_version = PROTOCOL_VERSION.read(check, fields);
        let magic_cookie_key = COOKIE_KEY.read(check, fields);
        let magic_cookie_value = COOKIE_VALUE.read(check, fields);
        Some(Handshake {
            protocol_version: protocol_version?,
            magic_cookie_key: magic_cookie_key?,
            magic_cookie_value: magic_cookie_value?,
        })
    }
}

/// The variable of the magic cookie.
pub(crate) struct CookieKey;

impl Shape for CookieKey {
    type Value = String;

    fn kind(side: Side) -> String {
        Variable::kind(side)
    }

    fn schema(side: Side) -> Value {
        Variable::schema(side)
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<String> {
        let name = Variable::read(check, node, location)?;
        check_reserved(check, node.at, location, &name);
        Some(name)
    }
}

/// The magic cookie.
pub(crate) struct CookieValue;

impl Shape for CookieValue {
    type Value = String;

    fn kind(_: Side) -> String {
        "text, not empty".to_owned()
    }

    fn schema(_: Side) -> Value {
        json!({"type": ["string", "number", "boolean"]})
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<String> {
        let text = check.literal(node, location)?;
        if text.is_empty() {
            let message = "the magic cookie is empty";
            check.report(node.at, ProblemCode::EmptyValue, location, message);
            return None;
        }
        Some(text.to_owned())
    }
}

pub(crate) static AUTO_MTLS: Key<Bool> = Key::optional(
    "auto_mtls",
    "whether one-time certificates are wanted; left out, the host decides",
);
pub(crate) static SECURITY: Section = Section {
    about: "how the connection is protected",
    keys: &[&AUTO_MTLS],
};

/// How the connection is protected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Security {
    pub(crate) auto_mtls: Option<bool>,
}

impl Group for Security {
    fn section() -> &'static Section {
        &SECURITY
    }

    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<Security> {
        Some(Security {
            auto_mtls: AUTO_MTLS.read(check, fields),
        })
    }
}
