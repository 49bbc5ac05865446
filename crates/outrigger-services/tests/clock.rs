//! `outrigger.host.v1.Clock`.

mod support;

use std::time::{Duration, Instant, SystemTime};

use outrigger_services::Limits;
use outrigger_wire::proto::host::*;
use support::plugin::{Plugin, failure};
use tonic::{Code, Status};

const SECTIONS: &str = "services: [clock]";

async fn monotonic(plugin: &Plugin) -> u64 {
    let reply: Result<MonotonicResponse, Status> =
        plugin.call("Clock/Monotonic", MonotonicRequest {}).await;
    reply.expect("a time").nanoseconds
}

#[tokio::test]
async fn time_is_the_hosts_and_sleeping_takes_its_time() {
    let plugin = Plugin::new(SECTIONS).await;
    let before = SystemTime::now();
    let reply: NowResponse = plugin.call("Clock/Now", NowRequest {}).await.expect("now");
    let now = SystemTime::try_from(reply.time.expect("a time")).expect("a time");
    assert!(before <= now && now <= SystemTime::now());
    let (start, local) = (monotonic(&plugin).await, Instant::now());
    let request = SleepRequest { milliseconds: 30 };
    let slept: Result<SleepResponse, Status> = plugin.call("Clock/Sleep", request).await;
    slept.expect("it slept");
    assert!(local.elapsed() >= Duration::from_millis(30));
    assert!(monotonic(&plugin).await - start >= 30_000_000);
    plugin.close().await;
}

#[tokio::test]
async fn a_sleep_longer_than_a_call_is_refused_and_one_that_is_given_up_ends() {
    let limits = Limits {
        call_timeout: Duration::from_secs(5),
        calls: 1,
        ..Limits::default()
    };
    let plugin = Plugin::with(SECTIONS, limits).await;
    for milliseconds in [5000, u64::MAX] {
        let request = SleepRequest { milliseconds };
        let outcome = plugin
            .call::<_, SleepResponse>("Clock/Sleep", request)
            .await;
        assert_eq!(failure(outcome).0, Code::InvalidArgument);
    }
    plugin.records_of("sleep").await;
    let request = SleepRequest { milliseconds: 4900 };
    let sleep = plugin.call::<_, SleepResponse>("Clock/Sleep", request);
    let given_up = tokio::time::timeout(Duration::from_millis(20), sleep).await;
    assert!(given_up.is_err());
    let local = Instant::now();
    // There is room for one call only.
    monotonic(&plugin).await;
    assert!(local.elapsed() < Duration::from_secs(3));
    assert_eq!(plugin.records_of("sleep").await[0].code, "cancelled");
    plugin.close().await;
}

#[tokio::test]
async fn ticks_come_once_per_period_until_they_are_given_up() {
    let plugin = Plugin::new(SECTIONS).await;
    let ticks = async |period_ms| {
        plugin
            .download::<_, TicksResponse>("Clock/Ticks", TicksRequest { period_ms })
            .await
    };
    assert_eq!(failure(ticks(0).await.map(|_| ())).0, Code::InvalidArgument);
    plugin.records_of("ticks").await;
    let start = Instant::now();
    let mut stream = ticks(5).await.expect("ticks");
    let mut periods = 0;
    for _ in 0..6 {
        let tick = stream.message().await.expect("a tick").expect("one more");
        periods += 1 + tick.missed;
    }
    let passed = u64::try_from(start.elapsed().as_millis()).expect("a short time");
    assert!(
        periods >= 6 && periods * 5 <= passed,
        "{periods} in {passed} ms"
    );
    drop(stream);
    assert_eq!(plugin.records_of("ticks").await[0].code, "cancelled");
    plugin.close().await;
}

#[tokio::test]
async fn random_bytes_and_uuids_are_bounded_and_differ() {
    let plugin = Plugin::new(SECTIONS).await;
    let random = async |length| -> Result<RandomResponse, Status> {
        plugin.call("Clock/Random", RandomRequest { length }).await
    };
    let bytes = random(65_536).await.expect("bytes").data;
    assert_eq!(bytes.len(), 65_536);
    assert_ne!(bytes, random(65_536).await.expect("bytes").data);
    assert_eq!(failure(random(65_537).await).0, Code::InvalidArgument);
    let uuid = async |version| -> Result<UuidResponse, Status> {
        plugin.call("Clock/Uuid", UuidRequest { version }).await
    };
    let (first, second) = (
        uuid(0).await.expect("one").uuid,
        uuid(7).await.expect("one").uuid,
    );
    assert!(first < second, "version 7 is in the order of time");
    assert_eq!(uuid(4).await.expect("one").uuid.as_bytes()[14], b'4');
    assert_eq!(failure(uuid(5).await).0, Code::InvalidArgument);
    plugin.close().await;
}
