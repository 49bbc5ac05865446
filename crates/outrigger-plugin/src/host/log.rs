//! The host's log.

pub use outrigger_wire::Level as LogLevel;
use outrigger_wire::proto::host as messages;

use super::calls::call;
use super::{Host, HostError};

/// The host's log, under the plugin's name.
///
/// What the plugin logs with `tracing` goes to the host in any case. A record
/// that is written here is with the host when [`write`](Self::write) returns.
///
/// ```no_run
/// # async fn example(host: outrigger_plugin::Host) -> Result<(), outrigger_plugin::HostError> {
/// use outrigger_plugin::host::LogLevel;
///
/// let fields = [("rows".to_owned(), "12".to_owned())];
/// host.log().write(LogLevel::Info, "imported", fields).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Log(pub(super) Host);

impl Log {
    /// Writes one record and says whether the host keeps its level.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn write(
        &self,
        level: LogLevel,
        message: impl Into<String>,
        fields: impl IntoIterator<Item = (String, String)>,
    ) -> Result<bool, HostError> {
        let record = messages::LogRecord {
            level: messages::LogLevel::from(level).into(),
            message: message.into(),
            fields: fields.into_iter().collect(),
            ..messages::LogRecord::default()
        };
        let records = vec![record];
        Ok(call!(self.0, log.write, messages::WriteLogRequest { records })?.written > 0)
    }

    /// The least severe level that the host keeps; nothing when it keeps none.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn level(&self) -> Result<Option<LogLevel>, HostError> {
        let reply = call!(self.0, log.level, messages::LevelRequest {})?;
        Ok(LogLevel::from_message(reply.level()))
    }
}
