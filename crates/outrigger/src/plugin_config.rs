//! A plugin's own configuration: what an operator writes for it, checked against the
//! schema that the plugin ships.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jsonschema::PatternOptions;
use outrigger_manifest::{Document, Problems};
use outrigger_wire::Coded;
use outrigger_wire::text::printable;

/// The schema in a plugin's folder.
const SCHEMA: &str = "config.schema.json";
/// The most bytes of either file.
const LARGEST: u64 = 256 << 10;

/// Why a plugin's own configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginConfigError {
    /// The file is there and cannot be read.
    #[error("the configuration `{}` of a plugin could not be read", shown(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file has problems: it is no YAML, or not what the plugin's schema wants.
    #[error("{}", .0.headline())]
    Invalid(Problems),
    /// The schema that the plugin ships cannot be used.
    #[error("the schema `{}` of a plugin cannot be used", shown(path))]
    Schema {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        text: String,
    },
}

impl PluginConfigError {
    /// What else is known, a line for each fact.
    pub(crate) fn details(&self) -> Vec<String> {
        match self {
            Self::Unreadable { source, .. } => vec![source.to_string()],
            Self::Invalid(problems) => problems
                .iter()
                .map(|problem| printable(&format!("{}:{problem}", problems.file())).into_owned())
                .collect(),
            Self::Schema { text, .. } => vec![printable(text).into_owned()],
        }
    }
}

impl Coded for PluginConfigError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "plugin-config-unreadable",
            Self::Invalid(_) => "plugin-config-invalid",
            Self::Schema { .. } => "plugin-schema-invalid",
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        let text = match self {
            Self::Unreadable { .. } => return None,
            Self::Invalid(_) => "the plugin's `config.schema.json` says what it takes",
            Self::Schema { .. } => "ask the plugin's author for a schema that can be used",
        };
        Some(text.into())
    }
}

/// Where the configuration of one plugin is, and what it must be like.
#[derive(Clone, Debug)]
pub(crate) struct PluginConfig {
    path: PathBuf,
    schema: PathBuf,
}

impl PluginConfig {
    /// That of the plugin `name`, whose folder is `folder`, among the files in `configs`.
    pub(crate) fn new(configs: &Path, name: &str, folder: &Path) -> Self {
        Self {
            path: configs.join(format!("{name}.yaml")),
            schema: folder.join(SCHEMA),
        }
    }

    /// What it says, as JSON; nothing if there is no file, and no schema that wants one.
    pub(crate) fn read(&self) -> Result<Option<String>, PluginConfigError> {
        let file =
            |problems: Problems| PluginConfigError::Invalid(problems.in_file(shown(&self.path)));
        let document = match contents(&self.path)? {
            Some(bytes) => Some(Document::parse_bytes(&bytes).map_err(file)?),
            None => None,
        };
        if let Some(bytes) = contents(&self.schema)? {
            let missing = Document::empty();
            let document = document.as_ref().unwrap_or(&missing);
            let wrong = self.against(&bytes, document)?;
            if !wrong.is_empty() {
                return Err(file(document.problems(wrong)));
            }
        }
        Ok(document.map(|document| document.value().to_string()))
    }

    /// What the schema forbids: where, and what. Values are not shown: they may be secrets.
    fn against(
        &self,
        schema: &[u8],
        document: &Document,
    ) -> Result<Vec<(String, String)>, PluginConfigError> {
        let unusable = |text: String| PluginConfigError::Schema {
            path: self.schema.clone(),
            text,
        };
        let schema = serde_json::from_slice(schema).map_err(|error| unusable(error.to_string()))?;
        let schema = jsonschema::options()
            // In time that grows with the text alone: the plugin wrote the patterns.
            .with_pattern_options(PatternOptions::regex())
            .build(&schema)
            .map_err(|error| unusable(error.to_string()))?;
        let wrong = schema.iter_errors(document.value()).map(|error| {
            let place = error.instance_path().as_str().to_owned();
            (place, error.masked().to_string())
        });
        Ok(wrong.take(outrigger_manifest::MAX_PROBLEMS).collect())
    }

    /// Tells for a plugin that runs what its configuration is: first what was read before its
    /// start, and then each time that the files have changed and are sound.
    pub(crate) fn watched(self, plugin: String, first: String) -> impl Fn() -> Option<String> {
        let seen = Mutex::new((Some(first), self.stamps()));
        move || {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(first) = seen.0.take() {
                return Some(first);
            }
            let stamps = self.stamps();
            if seen.1 == stamps {
                return None;
            }
            seen.1 = stamps;
            match self.read() {
                Ok(Some(text)) => Some(text),
                Ok(None) => None,
                Err(error) => {
                    let details = error.details().join("; ");
                    tracing::warn!(
                        plugin, %error, details,
                        "the plugin keeps the configuration that it has"
                    );
                    None
                }
            }
        }
    }

    /// What changes with the files.
    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.path, &self.schema].map(|path| {
            let found = path.metadata().ok()?;
            Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
        })
    }
}

/// Number, size and time of a file.
type Stamp = (u64, u64, i64, i64);

/// What stands in a file; nothing if there is none.
fn contents(path: &Path) -> Result<Option<Vec<u8>>, PluginConfigError> {
    let read = || {
        if !path.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut bytes = Vec::new();
        // One byte more than is taken shows that there are too many.
        File::open(path)?
            .take(LARGEST + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST {
            return Err(io::Error::other("it is larger than 256 KiB"));
        }
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PluginConfigError::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string()).into_owned()
}
