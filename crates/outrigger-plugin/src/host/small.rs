//! Clock, log and session.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
pub use outrigger_wire::logs::Level as LogLevel;
use outrigger_wire::proto::host as messages;
use tonic::Streaming;

use super::file::time;
use super::{Host, HostError, call};
use crate::proto::host::clock_client::ClockClient;
use crate::proto::host::log_client::LogClient;
use crate::proto::host::session_client::SessionClient;

/// Time and randomness of the host.
#[derive(Clone, Debug)]
pub struct Clock(Host);

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Clock {
    pub(super) fn new(host: Host) -> Self {
        Self(host)
    }

    /// The time of day.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn now(&self) -> Result<SystemTime, HostError> {
        let reply = call!(self.0, ClockClient, "clock", now, messages::NowRequest {})?;
        time(reply.time).ok_or_else(|| HostError::protocol("clock.now"))
    }

    /// The time since a moment that stays the same while the host runs.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn monotonic(&self) -> Result<Duration, HostError> {
        let request = messages::MonotonicRequest {};
        let reply = call!(self.0, ClockClient, "clock", monotonic, request)?;
        Ok(Duration::from_nanos(reply.nanoseconds))
    }

    /// Waits at the host, for at most its `call_timeout`.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn sleep(&self, time: Duration) -> Result<(), HostError> {
        let milliseconds = millis(time);
        let request = messages::SleepRequest { milliseconds };
        call!(self.0, ClockClient, "clock", sleep, request)?;
        Ok(())
    }

    /// Ticks with a period of at least a millisecond, until it is dropped.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn ticks(&self, period: Duration) -> Result<Ticks, HostError> {
        let period_ms = millis(period);
        let request = messages::TicksRequest { period_ms };
        let ticks = call!(self.0, ClockClient, "clock", ticks, request)?;
        Ok(Ticks(ticks))
    }

    /// Random bytes from the host's kernel, at most 64 KiB.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn random(&self, length: u32) -> Result<Bytes, HostError> {
        let request = messages::RandomRequest { length };
        Ok(call!(self.0, ClockClient, "clock", random, request)?.data)
    }

    /// A UUID of version 7, which sorts by time.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn uuid(&self) -> Result<String, HostError> {
        let request = messages::UuidRequest { version: 7 };
        Ok(call!(self.0, ClockClient, "clock", uuid, request)?.uuid)
    }
}

/// Ticks of the host's clock.
#[derive(Debug)]
pub struct Ticks(Streaming<messages::TicksResponse>);

impl Ticks {
    /// Waits for the next tick and says how many went by unseen; nothing when
    /// the host ticks no longer.
    ///
    /// # Errors
    /// See [`HostError`].
    ///
    /// # Cancel safety
    /// No tick is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<u64>, HostError> {
        match self.0.next().await {
            None => Ok(None),
            Some(Ok(tick)) => Ok(Some(tick.missed)),
            Some(Err(status)) => Err(HostError::status("clock.ticks", status)),
        }
    }
}

/// The host's log, under the plugin's name. What the plugin logs with `tracing`
/// goes to the host in any case; this is for records that must not get lost.
#[derive(Clone, Debug)]
pub struct Log(Host);

impl Log {
    pub(super) fn new(host: Host) -> Self {
        Self(host)
    }

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
            module: String::new(),
            fields: fields.into_iter().collect::<HashMap<_, _>>(),
            time: None,
        };
        let records = vec![record];
        let request = messages::WriteLogRequest { records };
        Ok(call!(self.0, LogClient, "log", write, request)?.written > 0)
    }

    /// The least severe level that the host keeps; nothing when it keeps none.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn level(&self) -> Result<Option<LogLevel>, HostError> {
        let request = messages::LevelRequest {};
        let level = call!(self.0, LogClient, "log", level, request)?.level();
        Ok(LogLevel::from_message(level))
    }
}

/// What this plugin is to the host.
#[derive(Clone, Debug)]
pub struct Session(Host);

impl Session {
    pub(super) fn new(host: Host) -> Self {
        Self(host)
    }

    /// The name that the host gave this plugin.
    pub fn plugin(&self) -> &str {
        &self.0.about().plugin
    }

    /// What tells this run of the plugin from every other one.
    pub fn instance(&self) -> &str {
        &self.0.about().instance
    }

    /// The services that are granted, by short name.
    pub fn services(&self) -> &[String] {
        &self.0.about().services
    }

    /// What the host bounds, if it said.
    pub fn limits(&self) -> Option<&messages::Limits> {
        self.0.about().limits.as_ref()
    }

    /// The grants in force.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn grants(&self) -> Result<messages::GrantsResponse, HostError> {
        let request = messages::GrantsRequest {};
        call!(self.0, SessionClient, "session", grants, request)
    }

    /// What was used up so far.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn usage(&self) -> Result<messages::UsageResponse, HostError> {
        let request = messages::UsageRequest {};
        call!(self.0, SessionClient, "session", usage, request)
    }
}
