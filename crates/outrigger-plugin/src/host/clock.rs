//! Time and randomness of the host.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
use outrigger_wire::proto::host as messages;
use tonic::Streaming;

use super::calls::call;
use super::{Host, HostError, time};

/// Time and randomness of the host.
///
/// ```no_run
/// # async fn example(host: outrigger_plugin::Host) -> Result<(), outrigger_plugin::HostError> {
/// use std::time::Duration;
///
/// let clock = host.clock();
/// let mut ticks = clock.ticks(Duration::from_secs(1)).await?;
/// while let Some(missed) = ticks.next().await? {
///     println!("{:?}; {missed} ticks were missed", clock.now().await?);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Clock(pub(super) Host);

impl Clock {
    /// The time of day.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn now(&self) -> Result<SystemTime, HostError> {
        let reply = call!(self.0, clock.now, messages::NowRequest {})?;
        time::from_wire(reply.time).ok_or_else(|| HostError::protocol("clock.now"))
    }

    /// The time since a moment that stays the same while the host runs.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn monotonic(&self) -> Result<Duration, HostError> {
        let reply = call!(self.0, clock.monotonic, messages::MonotonicRequest {})?;
        Ok(Duration::from_nanos(reply.nanoseconds))
    }

    /// Waits at the host, for at most its `call_timeout`.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn sleep(&self, time: Duration) -> Result<(), HostError> {
        let milliseconds = time::millis(time);
        call!(self.0, clock.sleep, messages::SleepRequest { milliseconds })?;
        Ok(())
    }

    /// Ticks with a period of at least a millisecond, until the value is dropped.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn ticks(&self, period: Duration) -> Result<Ticks, HostError> {
        let period_ms = time::millis(period);
        let ticks = call!(self.0, clock.ticks, messages::TicksRequest { period_ms })?;
        Ok(Ticks(ticks))
    }

    /// Random bytes from the host's kernel, at most 64 KiB.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn random(&self, length: u32) -> Result<Bytes, HostError> {
        Ok(call!(self.0, clock.random, messages::RandomRequest { length })?.data)
    }

    /// A UUID of version 7, which sorts by time.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn uuid(&self) -> Result<String, HostError> {
        Ok(call!(self.0, clock.uuid, messages::UuidRequest { version: 7 })?.uuid)
    }
}

/// Ticks of the host's clock.
#[derive(Debug)]
pub struct Ticks(Streaming<messages::TicksResponse>);

impl Ticks {
    /// Waits for the next tick and says how many went by unseen; nothing when
    /// the host has stopped ticking.
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
