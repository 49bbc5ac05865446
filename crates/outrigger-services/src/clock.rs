//! Time and randomness of the host.

use std::io;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use futures_util::{Stream, StreamExt};
use outrigger_manifest::HostService;
use outrigger_wire::proto::host::*;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::arguments::Arguments;
use crate::fault::Fault;
use crate::operation::{Described, Operation, described};
use crate::proto::host::clock_server;
use crate::running::{Caller, calls};
use crate::session::Session;
use crate::streaming::Replies;

const fn operation(name: &'static str) -> Operation {
    Operation::new(HostService::Clock, name)
}

/// The most random bytes of one call.
const MOST_RANDOM: u32 = 64 << 10;
/// The longest time between two ticks: a day.
const LONGEST_PERIOD: u64 = 24 * 60 * 60 * 1000;

/// What [`monotonic`] counts from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// `outrigger.host.v1.Clock` for one plugin connection.
pub(crate) struct ClockService(Arc<Session>);

impl ClockService {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self(session)
    }

    fn session(&self) -> &Arc<Session> {
        &self.0
    }
}

calls! {
    ClockService as clock_server::Clock;
    /// What the service can be asked for.
    pub(crate) const OPERATIONS and [TicksRequest::OPERATION];
    now: NowRequest {} -> NowResponse = |_, _, _| {
        let time = Some(SystemTime::now().into());
        Ok(NowResponse { time })
    };
    monotonic: MonotonicRequest {} -> MonotonicResponse = |_, _, _| {
        let nanoseconds = monotonic();
        Ok(MonotonicResponse { nanoseconds })
    };
    sleep: SleepRequest { milliseconds } -> SleepResponse = |service, _, request| {
        let time = Duration::from_millis(request.milliseconds);
        let most = service.session().limits().call_timeout;
        if time >= most {
            let most = most.as_millis();
            let text = format!("a sleep is shorter than {most} ms (`call_timeout`)");
            return Err(Fault::abuse(text));
        }
        tokio::time::sleep(time).await;
        Ok(SleepResponse {})
    };
    random: RandomRequest { length } -> RandomResponse = |_, running, request| {
        let data = random(request.length)?;
        running.read(data.len() as u64);
        Ok(RandomResponse { data: data.into() })
    };
    uuid: UuidRequest { version } -> UuidResponse = |_, _, request| {
        let uuid = uuid(request.version)?;
        Ok(UuidResponse { uuid })
    };
    {
        type TicksStream = Replies<TicksResponse>;

        async fn ticks(
            &self,
            request: Request<TicksRequest>,
        ) -> Result<Response<Self::TicksStream>, Status> {
            let (caller, request) = Caller::of(request);
            let show = |shown: &mut Arguments| request.show(shown);
            let running = self.session().begin_call(TicksRequest::OPERATION, &caller, show)?;
            match ticks(request.period_ms) {
                Ok(ticks) => Ok(Response::new(Box::pin(ticks.map(move |missed| {
                    // Ticks have no end of their own: their record is made when
                    // the plugin lets go of them.
                    let _ = &running;
                    Ok(TicksResponse { missed })
                })))),
                Err(fault) => Err(running.fail(&fault)),
            }
        }
    }
}

described! { operation("ticks"), TicksRequest { period_ms } }

/// Nanoseconds since a moment of this process's own.
fn monotonic() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Bytes from the kernel's generator.
fn random(length: u32) -> Result<Vec<u8>, Fault> {
    if length > MOST_RANDOM {
        let text = format!("at most {MOST_RANDOM} random bytes at a time");
        return Err(Fault::abuse(text));
    }
    let mut bytes = vec![0; length as usize];
    getrandom::fill(&mut bytes).map_err(io::Error::from)?;
    Ok(bytes)
}

/// A new UUID; version 0 stands for 7.
fn uuid(version: u32) -> Result<String, Fault> {
    match version {
        0 | 7 => Ok(Uuid::now_v7().to_string()),
        4 => Ok(Uuid::new_v4().to_string()),
        _ => Err(Fault::abuse("only UUID versions 4 and 7")),
    }
}

/// One item per period, for as long as somebody takes them: how many periods
/// passed while nobody did.
fn ticks(period_ms: u64) -> Result<impl Stream<Item = u64> + Send, Fault> {
    if !(1..=LONGEST_PERIOD).contains(&period_ms) {
        let text = format!("the period is between 1 and {LONGEST_PERIOD} ms");
        return Err(Fault::abuse(text));
    }
    let period = Duration::from_millis(period_ms);
    let first = tokio::time::Instant::now() + period;
    Ok(futures_util::stream::unfold(first, move |due| async move {
        tokio::time::sleep_until(due).await;
        let late = tokio::time::Instant::now().saturating_duration_since(due);
        let missed = late.as_millis() / u128::from(period_ms);
        let missed = u32::try_from(missed).unwrap_or(u32::MAX);
        Some((u64::from(missed), due + period * missed + period))
    }))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[test]
    fn random_bytes_and_uuids_differ_and_have_bounds() {
        let bytes = |length| random(length).expect("random bytes");
        assert_eq!(bytes(0), Vec::<u8>::new());
        assert_eq!(bytes(MOST_RANDOM).len(), 65536);
        assert_ne!(bytes(32), bytes(32));
        // The last bytes are filled too.
        assert!(bytes(MOST_RANDOM)[65000..].iter().any(|byte| *byte != 0));
        assert!(matches!(random(MOST_RANDOM + 1), Err(Fault::Abuse(_))));
        for (asked, version) in [(0, 7), (7, 7), (4, 4)] {
            let text = uuid(asked).expect("a version");
            let made: Uuid = text.parse().expect("a UUID");
            assert_eq!(made.get_version_num(), version);
        }
        assert!(matches!(uuid(1), Err(Fault::Abuse(_))));
        assert!(monotonic() <= monotonic());
    }

    #[tokio::test(start_paused = true)]
    async fn periods_that_nobody_waited_for_are_counted_and_the_beat_is_kept() {
        let start = tokio::time::Instant::now();
        let mut ticks = Box::pin(ticks(10).expect("a period"));
        assert_eq!(ticks.next().await, Some(0));
        assert_eq!(ticks.next().await, Some(0));
        assert_eq!(start.elapsed(), Duration::from_millis(20));
        tokio::time::advance(Duration::from_millis(35)).await;
        assert_eq!(ticks.next().await, Some(2));
        assert_eq!(ticks.next().await, Some(0));
        assert_eq!(start.elapsed(), Duration::from_millis(60));
        for period in [0, LONGEST_PERIOD + 1] {
            assert!(matches!(super::ticks(period), Err(Fault::Abuse(_))));
        }
    }
}
