//! How much a log record matters.

use std::fmt;
use std::str::FromStr;

use crate::{Coded, Excerpt};

/// How much a log record matters, least first.
///
/// ```
/// use outrigger_wire::Level;
///
/// assert_eq!(" Warn ".parse(), Ok(Level::Warn));
/// assert!(Level::Warn < Level::Error);
/// assert!("off".parse::<Level>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// Every step.
    Trace,
    /// For whoever looks for a fault.
    Debug,
    /// What happens in the normal course of things.
    Info,
    /// What somebody should look at.
    Warn,
    /// What went wrong.
    Error,
}

impl Level {
    /// All of them, least first.
    pub const ALL: [Level; 5] = [
        Level::Trace,
        Level::Debug,
        Level::Info,
        Level::Warn,
        Level::Error,
    ];

    /// The word that stands for this level in a log record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

/// As the host's log service has it.
#[cfg(feature = "messages")]
mod message {
    use super::Level;
    use crate::proto::host::LogLevel;

    impl Level {
        /// The level of a message; none where it does not say one.
        pub fn from_message(level: LogLevel) -> Option<Level> {
            Level::ALL.into_iter().find(|own| level == (*own).into())
        }
    }

    impl From<Level> for LogLevel {
        fn from(level: Level) -> LogLevel {
            match level {
                Level::Trace => LogLevel::Trace,
                Level::Debug => LogLevel::Debug,
                Level::Info => LogLevel::Info,
                Level::Warn => LogLevel::Warn,
                Level::Error => LogLevel::Error,
            }
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    /// White space around the word and its case do not matter.
    fn from_str(word: &str) -> Result<Level, UnknownLevel> {
        let trimmed = word.trim();
        Level::ALL
            .into_iter()
            .find(|level| trimmed.eq_ignore_ascii_case(level.as_str()))
            .ok_or_else(|| UnknownLevel {
                observed: Excerpt::from(word),
            })
    }
}

/// A word that names no level (`unknown-level`).
///
/// *Cause:* the word is none of the five. *Resolution:* correct it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{observed} is not a level (`trace`, `debug`, `info`, `warn` or `error`)")]
pub struct UnknownLevel {
    /// The word as it was found.
    pub observed: Excerpt,
}

impl Coded for UnknownLevel {
    fn code(&self) -> &'static str {
        "unknown-level"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_in_any_case_and_with_space_around() {
        for (word, level) in [
            ("trace", Level::Trace),
            ("DEBUG", Level::Debug),
            (" Info\t", Level::Info),
            ("wArN", Level::Warn),
            ("error", Level::Error),
        ] {
            assert_eq!(word.parse(), Ok(level), "{word}");
        }
    }

    #[cfg(feature = "messages")]
    #[test]
    fn a_message_says_one_of_the_levels_or_none() {
        use crate::proto::host::LogLevel;

        for level in Level::ALL {
            assert_eq!(Level::from_message(level.into()), Some(level));
        }
        assert_eq!(Level::from_message(LogLevel::Unspecified), None);
    }

    #[test]
    fn other_words_are_no_level() {
        for word in ["", "off", "warning", "err", "inf o", "5"] {
            assert_eq!(word.parse::<Level>().unwrap_err().code(), "unknown-level");
        }
        insta::assert_snapshot!(
            "Off\n".parse::<Level>().unwrap_err(),
            @r#""Off\n" is not a level (`trace`, `debug`, `info`, `warn` or `error`)"#
        );
    }
}
