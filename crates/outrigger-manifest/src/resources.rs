//! How much a plugin may use.

use serde::Serialize;

use crate::check::{Check, Fields};
use crate::keys::{Group, Key, Section};
use crate::shapes::Whole;
use crate::size::{ByteSize, Cpu};

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

static MEMORY: Key<ByteSize> = Key::optional("memory", "memory of the process, such as `64MiB`");
static CPU: Key<Cpu> = Key::optional("cpu", "cores of processor time, such as `0.5`");
static PIDS: Key<Count> = Key::optional("pids", "processes and threads");
static OPEN_FILES: Key<Count> = Key::optional("open_files", "open file descriptors");
static MESSAGE_SIZE: Key<ByteSize> =
    Key::optional("message_size", "one message, in either direction");
static STREAMS: Key<Count> = Key::optional("streams", "calls and streams at one time");
pub(crate) static SECTION: Section = Section {
    about: "",
    keys: &[&MEMORY, &CPU, &PIDS, &OPEN_FILES, &MESSAGE_SIZE, &STREAMS],
};

/// The most of what is counted.
const MOST: u32 = 1 << 22;

type Count = Whole<1, { MOST }>;

impl Group for Resources {
    fn section() -> &'static Section {
        &SECTION
    }

    fn from_fields(check: &mut Check, fields: &Fields<'_>) -> Option<Resources> {
        Some(Resources {
            memory: MEMORY.read(check, fields),
            cpu: CPU.read(check, fields),
            pids: PIDS.read(check, fields),
            open_files: OPEN_FILES.read(check, fields),
            message_size: MESSAGE_SIZE.read(check, fields),
            streams: STREAMS.read(check, fields),
        })
    }
}

impl Resources {
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

    /// Gives one limit, by its key and the text that [`text`](Self::text) has of it; `None` when
    /// they are none.
    pub(crate) fn set(&mut self, key: &str, text: &str) -> Option<()> {
        let count = |text: &str| text.parse().ok().filter(|count| (1..=MOST).contains(count));
        let size = |text: &str| text.parse::<ByteSize>().ok();
        match key {
            key if key == MEMORY.name => self.memory = Some(size(text)?),
            key if key == CPU.name => self.cpu = Some(Cpu::parse(text)?),
            key if key == PIDS.name => self.pids = Some(count(text)?),
            key if key == OPEN_FILES.name => self.open_files = Some(count(text)?),
            key if key == MESSAGE_SIZE.name => self.message_size = Some(size(text)?),
            key if key == STREAMS.name => self.streams = Some(count(text)?),
            _ => return None,
        }
        Some(())
    }

    /// The text of one limit, if it is given.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        let mut texts = self.texts().into_iter();
        texts.find(|(other, _)| *other == key).map(|(_, text)| text)
    }

    /// Key and text of each limit that is given.
    pub(crate) fn texts(&self) -> Vec<(&'static str, String)> {
        let texts = [
            (MEMORY.name, self.memory.map(|limit| limit.to_string())),
            (CPU.name, self.cpu.map(|limit| limit.to_string())),
            (PIDS.name, self.pids.map(|limit| limit.to_string())),
            (
                OPEN_FILES.name,
                self.open_files.map(|limit| limit.to_string()),
            ),
            (
                MESSAGE_SIZE.name,
                self.message_size.map(|limit| limit.to_string()),
            ),
            (STREAMS.name, self.streams.map(|limit| limit.to_string())),
        ];
        texts
            .into_iter()
            .filter_map(|(key, text)| Some((key, text?)))
            .collect()
    }
}
