//! Load that does not wait for answers, over two plugins that replace each other: every
//! call has one answer or one typed error, and none that is not marked is done twice.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use outrigger_host::{Channel, Launch, PluginSet, RouteError, Router, RunningPlugin, SafeToRepeat};
use outrigger_interop::proto::bench::bench_client::BenchClient;
use outrigger_interop::proto::bench::{Payload, StreamRequest};
use outrigger_interop::{Bench, bench_cookie};
use support::SOON;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

const LEDGER: &str = env!("CARGO_BIN_EXE_ledger");
const SWITCHES: usize = 50;
/// Of so many calls one is a stream.
const STREAMS: u64 = 10;
/// Of so many calls one is marked as safe to repeat.
const SAFE: u64 = 3;
/// Parts of a stream; one takes the plugin 10 ms.
const PARTS: u32 = 12;
/// How long a busy machine may take for the calls that are left at the end.
const AT_LAST: Duration = Duration::from_secs(60);
/// From the end of one drain to the next switch.
const BETWEEN: Duration = Duration::from_millis(40);
/// How long the calls of an old generation have where they are cut off.
const SHORT_DRAIN: Duration = Duration::from_millis(20);

/// A plugin with its ledger.
struct Plugin {
    running: RunningPlugin,
    ledger: PathBuf,
}

impl Plugin {
    async fn start(ledger: &Path) -> Self {
        let launch = Launch::new(LEDGER, bench_cookie())
            .env("OUTRIGGER_LEDGER", ledger)
            .offer(1, PluginSet::new().with::<Bench>("bench"));
        Self {
            running: launch.start().await.expect("a plugin"),
            ledger: ledger.to_owned(),
        }
    }

    /// How often it executed which call.
    fn executed(&self) -> BTreeMap<u64, usize> {
        let text = std::fs::read_to_string(&self.ledger).expect("the ledger");
        let mut executed = BTreeMap::new();
        for line in text.lines() {
            *executed.entry(line.parse().expect("a number")).or_default() += 1;
        }
        executed
    }
}

fn is_stream(id: u64) -> bool {
    id.is_multiple_of(STREAMS)
}

fn is_safe(id: u64) -> bool {
    id.is_multiple_of(SAFE)
}

fn marked<T>(id: u64, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if is_safe(id) {
        request.extensions_mut().insert(SafeToRepeat);
    }
    request
}

async fn call(mut client: BenchClient<Channel>, id: u64) -> Result<(), Status> {
    let data = Bytes::copy_from_slice(&id.to_be_bytes());
    if !is_stream(id) {
        let answer = client
            .echo(marked(id, Payload { data: data.clone() }))
            .await?;
        assert_eq!(answer.into_inner().data, data, "the answer to another call");
        return Ok(());
    }
    let request = StreamRequest {
        bytes: id,
        chunk: PARTS,
    };
    let mut parts = client.down(marked(id, request)).await?.into_inner();
    let mut count = 0;
    while let Some(part) = parts.message().await? {
        assert_eq!(part.data, data, "a part of another stream");
        count += 1;
    }
    assert_eq!(count, PARTS, "a stream that ends early ends with an error");
    Ok(())
}

/// What became of each call.
type Answers = Arc<Mutex<BTreeMap<u64, Result<(), Status>>>>;

/// Calls `rate` times a second, whether answers come or not, until it is told to end;
/// then it waits for the answers. Returns how many calls it made.
async fn load(router: Router, rate: u32, answers: Answers, end: CancellationToken) -> u64 {
    let client = BenchClient::new(router.channel());
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    // A machine that cannot make so many makes fewer.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut calls = tokio::task::JoinSet::new();
    let mut made = 0;
    while !end.is_cancelled() {
        ticks.tick().await;
        let (client, answers, id) = (client.clone(), answers.clone(), made);
        calls.spawn(async move {
            let answer = call(client, id).await;
            let before = answers.lock().expect("lock").insert(id, answer);
            assert!(before.is_none(), "a second answer to {id}");
        });
        made += 1;
        while let Some(ended) = calls.try_join_next() {
            ended.expect("a call");
        }
    }
    let rest = async {
        while let Some(ended) = calls.join_next().await {
            ended.expect("a call");
        }
    };
    let ended = tokio::time::timeout(AT_LAST, rest).await;
    ended.expect("every call has an end");
    made
}

async fn the_accounts_balance(rate: u32) {
    let dir = tempfile::tempdir().expect("a directory");
    let plugins = [
        Plugin::start(&dir.path().join("a")).await,
        Plugin::start(&dir.path().join("b")).await,
    ];
    let router = Router::for_plugin("ledger");
    let switch = |turn: usize| router.switch(plugins[turn % 2].running.connection().clone());
    assert!(switch(0).is_none());
    let (answers, end) = (Answers::default(), CancellationToken::new());
    let loading = load(router.clone(), rate, answers.clone(), end.clone());
    let loading = tokio::spawn(loading);
    for turn in 1..=SWITCHES {
        tokio::time::sleep(BETWEEN).await;
        let old = switch(turn).expect("a generation before");
        // Every other generation has the time that its streams take.
        let patience = if turn % 2 == 0 { SOON } else { SHORT_DRAIN };
        match tokio::time::timeout(patience, old.drained()).await {
            Ok(()) => assert_eq!(old.in_flight(), 0),
            Err(_) => {
                assert_eq!(turn % 2, 1, "no stream takes so long");
                old.end();
            }
        }
    }
    end.cancel();
    let made = loading.await.expect("the load");
    let answers = std::mem::take(&mut *answers.lock().expect("lock"));
    assert_eq!(answers.len() as u64, made, "each call has one answer");
    let [a, b] = plugins.each_ref().map(Plugin::executed);
    let (mut cut, mut answered) = (0, 0);
    for (id, answer) in &answers {
        let counts = [&a, &b].map(|executed| executed.get(id).copied().unwrap_or_default());
        let times: usize = counts.iter().sum();
        match answer {
            Ok(()) => {
                answered += 1;
                assert!(times >= 1, "{id} was answered by nobody");
            }
            Err(status) => {
                let error = RouteError::behind(status);
                let error = error.unwrap_or_else(|| panic!("{id}: {status:?}"));
                assert_eq!(error.code(), "plugin-replaced", "{id}");
                cut += 1;
            }
        }
        let most = if is_safe(*id) { 2 } else { 1 };
        assert!(times <= most, "{id} was done {times} times");
    }
    assert!(cut > 0, "no call was cut off, which this test is about");
    assert!(answered > cut, "{answered} answered, {cut} cut off");
    let known = |executed: &BTreeMap<u64, usize>| executed.keys().all(|id| *id < made);
    assert!(known(&a) && known(&b), "a call that nobody made");
    for plugin in plugins {
        support::stops_cleanly(plugin.running).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_lost_or_done_twice_at_100_calls_a_second() {
    the_accounts_balance(100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_lost_or_done_twice_at_1000_calls_a_second() {
    the_accounts_balance(1000).await;
}
