//! Entries about files.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{At, Entry};
use crate::check::{Check, Fields, Side};
use crate::choices::Access;
use crate::flow::word_text;
use crate::keys::{Group, Key, Presence, Section, Shape};
use crate::message::quoted;
use crate::path::PathTemplate;
use crate::permissions::Permissions;
use crate::problem::{Position, ProblemCode};
use crate::shapes::{Bool, Word};
use crate::tree::Node;

pub(crate) static PATH: Key<PathTemplate> = Key::required(
    "path",
    "absolute, or beginning with `${plugin_dir}`, `${data_dir}` or `${HOME}`; no `..`",
);
pub(crate) static PERMISSIONS: Key<Permissions> = Key::new(
    "permissions",
    Presence::RequiredUnlessDenied,
    "what is wanted there, at least one",
)
.denied_default("all");
pub(crate) static RECURSIVE: Key<Bool> = Key::optional(
    "recursive",
    "`false`: the path and its direct entries, which for a file is the file alone, and `list` shows what is in the path itself; `true`: everything below too",
)
.default("`false`")
.denied_default("`true`");
pub(crate) static ACCESS: Key<AccessWord> = Key::optional(
    "access",
    "through the host, or by the plugin itself under rules of the kernel; `direct` needs `recursive: true`, as the kernel cannot keep to one level",
)
.default("`mediated`")
.denied_default("both");

pub(crate) static SECTION: Section = Section {
    about: "part of the file tree",
    keys: &[&PATH, &PERMISSIONS, &RECURSIVE, &ACCESS],
};

/// A request for, or a rule about, part of the file tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilesystemEntry {
    pub(crate) at: At,
    pub(crate) path: PathTemplate,
    pub(crate) permissions: Permissions,
    /// Whether everything below is meant, or only the path and its direct entries.
    pub(crate) recursive: bool,
    /// Where it asks or allows: direct only when recursive, as the kernel cannot confine to one
    /// level. In a denial: `None` denies every access.
    pub(crate) access: Option<Access>,
}

impl FilesystemEntry {
    pub(crate) fn access(&self) -> Access {
        self.access.unwrap_or(Access::Mediated)
    }

    pub(crate) fn text(&self) -> String {
        self.text_with(self.permissions)
    }

    /// The entry as it would be written with other permissions.
    pub(crate) fn text_with(&self, permissions: Permissions) -> String {
        let path = self.path.to_string();
        filesystem_text(&path, permissions, self.recursive, self.access())
    }
}

pub(crate) fn filesystem_text(
    path: &str,
    permissions: Permissions,
    recursive: bool,
    access: Access,
) -> String {
    let path = word_text(path);
    let recursive = if recursive { ", recursive: true" } else { "" };
    let access = match access {
        Access::Mediated => "",
        Access::Direct => ", access: direct",
    };
    format!("{{path: {path}, permissions: [{permissions}]{recursive}{access}}}")
}

impl Group for FilesystemEntry {
    fn section() -> &'static Section {
        &SECTION
    }

    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<FilesystemEntry> {
        let denied = check.side == Side::Deny;
        let path = PATH.read(check, fields);
        let permissions = PERMISSIONS.read_or(check, fields, Permissions::ALL);
        let recursive = RECURSIVE.read_or(check, fields, denied);
        let absent = (!denied).then_some(Access::Mediated);
        let access = ACCESS.given(check, fields).map(|given| given.or(absent));
        if !denied && access == Some(Some(Access::Direct)) && recursive == Some(false) {
            check
                .report(
                    fields.position(ACCESS.name),
                    ProblemCode::DirectNotRecursive,
                    &fields.location(ACCESS.name),
                    "direct access is only possible with `recursive: true`",
                )
                .help("the kernel cannot confine a plugin to one level: make it recursive, or mediated");
        }
        Some(FilesystemEntry {
            at: At(fields.at()),
            path: path?,
            permissions: permissions?,
            recursive: recursive?,
            access: access?,
        })
    }
}

impl Entry for FilesystemEntry {
    fn at(&self) -> Position {
        self.at.0
    }

    fn clash(
        &self,
        earlier: &Self,
        first: &str,
    ) -> Option<(ProblemCode, String, Option<&'static str>)> {
        let same_access = self.access == earlier.access;
        if self.path != earlier.path || (self.recursive != earlier.recursive && same_access) {
            return None;
        }
        let code = if same_access {
            ProblemCode::DuplicateEntry
        } else {
            ProblemCode::Contradiction
        };
        let path = quoted(&self.path.to_string());
        let message = format!("{path} is named in {first} already");
        Some((
            code,
            message,
            Some("say everything about one path in one entry"),
        ))
    }
}

/// A way of access; only direct access can be denied by itself.
pub(crate) struct AccessWord;

impl Shape for AccessWord {
    type Value = Access;

    fn kind(side: Side) -> String {
        match side {
            Side::Request | Side::Allow => Word::<Access>::kind(side),
            Side::Deny => "`direct`".to_owned(),
        }
    }

    fn schema(side: Side) -> Value {
        match side {
            Side::Request | Side::Allow => Word::<Access>::schema(side),
            Side::Deny => json!({"const": "direct"}),
        }
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<Access> {
        match check.side {
            Side::Request | Side::Allow => Word::<Access>::read(check, node, location),
            Side::Deny => {
                let direct = &[(Access::Direct.as_str(), Access::Direct)];
                check.word(node, location, "an access one can deny by itself", direct)
            }
        }
    }
}

impl Serialize for FilesystemEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(PATH.name, &self.path)?;
        map.serialize_entry(PERMISSIONS.name, &self.permissions)?;
        map.serialize_entry(RECURSIVE.name, &self.recursive)?;
        if let Some(access) = self.access {
            map.serialize_entry(ACCESS.name, &access)?;
        }
        map.end()
    }
}
