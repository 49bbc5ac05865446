//! How much a plugin may use.

use serde::Serialize;

use crate::check::{Check, Fields};
use crate::message::quoted;
use crate::problem::ProblemCode;
use crate::size::{ByteSize, Cpu};
use crate::tree::{Kind, Node};

/// Limits on what a plugin uses. In a manifest: what it asks for; in a policy: the most it gets;
/// in grants: what holds. `None` leaves the limit to the host's own default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// Memory of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Open file descriptors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u32>,
    /// One message, in either direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_size: Option<ByteSize>,
    /// Calls and streams at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<u32>,
}

impl Resources {
    pub(crate) const KEYS: [&'static str; 6] = [
        "memory",
        "cpu",
        "pids",
        "open_files",
        "message_size",
        "streams",
    ];

    pub(crate) fn read(check: &mut Check, node: &Node, location: &str) -> Resources {
        match check.map(node, location, &Self::KEYS) {
            Some(fields) => Self::read_fields(check, &fields),
            None => Resources::default(),
        }
    }

    pub(crate) fn read_fields(check: &mut Check, fields: &Fields<'_>) -> Resources {
        let mut size = |key: &str| {
            let (location, node) = fields.get(key)?;
            read_size(check, node, &location)
        };
        let (memory, message_size) = (size("memory"), size("message_size"));
        let cpu = fields
            .get("cpu")
            .and_then(|(location, node)| read_cpu(check, node, &location));
        let mut count = |key: &str| {
            let (location, node) = fields.get(key)?;
            let count = check.integer(node, &location, 1..=1 << 22)?;
            u32::try_from(count).ok()
        };
        Resources {
            memory,
            cpu,
            pids: count("pids"),
            open_files: count("open_files"),
            message_size,
            streams: count("streams"),
        }
    }

    /// The smaller of each pair of limits.
    #[must_use]
    pub(crate) fn within(&self, ceiling: &Resources) -> Resources {
        fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        Resources {
            memory: smaller(self.memory, ceiling.memory),
            cpu: smaller(self.cpu, ceiling.cpu),
            pids: smaller(self.pids, ceiling.pids),
            open_files: smaller(self.open_files, ceiling.open_files),
            message_size: smaller(self.message_size, ceiling.message_size),
            streams: smaller(self.streams, ceiling.streams),
        }
    }

    /// These limits, and those of the other where there are none.
    #[must_use]
    pub(crate) fn or(&self, other: &Resources) -> Resources {
        Resources {
            memory: self.memory.or(other.memory),
            cpu: self.cpu.or(other.cpu),
            pids: self.pids.or(other.pids),
            open_files: self.open_files.or(other.open_files),
            message_size: self.message_size.or(other.message_size),
            streams: self.streams.or(other.streams),
        }
    }

    /// The text of one limit, if it is given.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        let mut texts = self.texts().into_iter();
        texts.find(|(other, _)| *other == key).map(|(_, text)| text)
    }

    /// Key and text of each limit that is given.
    pub(crate) fn texts(&self) -> Vec<(&'static str, String)> {
        let texts = [
            ("memory", self.memory.map(|limit| limit.to_string())),
            ("cpu", self.cpu.map(|limit| limit.to_string())),
            ("pids", self.pids.map(|limit| limit.to_string())),
            ("open_files", self.open_files.map(|limit| limit.to_string())),
            (
                "message_size",
                self.message_size.map(|limit| limit.to_string()),
            ),
            ("streams", self.streams.map(|limit| limit.to_string())),
        ];
        texts
            .into_iter()
            .filter_map(|(key, text)| Some((key, text?)))
            .collect()
    }
}

fn read_size(check: &mut Check, node: &Node, location: &str) -> Option<ByteSize> {
    let (Kind::Plain(text) | Kind::Text(text)) = &node.kind else {
        check.wrong_type(node, location, "a size");
        return None;
    };
    match text.parse::<ByteSize>() {
        Ok(size) => Some(size),
        Err(_) if crate::tree::is_null(&node.kind) => {
            check.wrong_type(node, location, "a size");
            None
        }
        Err(error) => {
            let near = error.near_miss().map(str::to_owned);
            check
                .report(
                    node.at,
                    ProblemCode::InvalidSize,
                    location,
                    error.to_string(),
                )
                .near(near)
                .help("a size is a whole number and a unit, such as `64MiB`");
            None
        }
    }
}

fn read_cpu(check: &mut Check, node: &Node, location: &str) -> Option<Cpu> {
    let text = match &node.kind {
        Kind::Plain(text) if !crate::tree::is_null(&node.kind) => text,
        Kind::Text(text) => text,
        _ => {
            check.wrong_type(node, location, "a number of cores");
            return None;
        }
    };
    let cpu = Cpu::parse(text);
    if cpu.is_none() {
        check
            .report(
                node.at,
                ProblemCode::OutOfRange,
                location,
                format!(
                    "{} is not a number of cores from 0.001 to 1024",
                    quoted(text)
                ),
            )
            .help("write cores, such as `2` or `0.5`");
    }
    cpu
}
