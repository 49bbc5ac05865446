//! Where a routed channel's calls go, and what becomes of those whose plugin is
//! replaced or dies.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use outrigger_transport::proto::health::health_client::HealthClient;
use outrigger_transport::proto::health::health_server::{Health, HealthServer};
use outrigger_transport::{
    CallObserver, Channel, ChannelOptions, EndedCall, OwnedTask, RouteError, Router, SafeMethods,
    SafeToRepeat, ServeLimits, ServiceSet, serve_connection,
};
use outrigger_wire::proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use outrigger_wire::{Coded, ErrorInfo, HOST_DOMAIN};
use prost_types::FileDescriptorSet;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

const LIMIT: Duration = Duration::from_secs(10);

/// What a plugin was asked, and within which time it had to answer.
type Asked = (String, Option<Duration>);

/// A plugin that answers with its number, and notes what it was asked.
#[derive(Clone)]
struct Plugin {
    number: i32,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Calls named `slow` are answered when this is true.
    released: watch::Sender<bool>,
}

#[tonic::async_trait]
impl Health for Plugin {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let timeout = request.metadata().get("grpc-timeout").map(|value| {
            let text = value.to_str().expect("text");
            let (amount, unit) = text.split_at(text.len() - 1);
            let amount: u64 = amount.parse().expect("a number");
            Duration::from_nanos(amount * if unit == "n" { 1 } else { 1000 })
        });
        let service = request.into_inner().service;
        self.asked
            .lock()
            .expect("lock")
            .push((service.clone(), timeout));
        if service == "slow" {
            let mut released = self.released.subscribe();
            let _ = released.wait_for(|released| *released).await;
        }
        let status = self.number;
        Ok(Response::new(HealthCheckResponse { status }))
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        pending().await
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    /// One message, and the end when it is released.
    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let status = self.number;
        let mut released = self.released.subscribe();
        let end = stream::once(async move {
            let _ = released.wait_for(|released| *released).await;
        });
        let end = end.filter_map(async |()| None);
        let first = stream::iter([Ok(HealthCheckResponse { status })]);
        Ok(Response::new(first.chain(end).boxed()))
    }
}

impl Plugin {
    fn new(number: i32) -> Self {
        Self {
            number,
            asked: Arc::default(),
            released: watch::Sender::new(false),
        }
    }

    /// How often it was asked for `name`.
    fn asked(&self, name: &str) -> usize {
        let asked = self.asked.lock().expect("lock");
        asked.iter().filter(|(asked, _)| asked == name).count()
    }

    fn timeouts(&self) -> Vec<Option<Duration>> {
        let asked = self.asked.lock().expect("lock");
        asked.iter().map(|(_, timeout)| *timeout).collect()
    }

    /// Connects to it; it dies with the returned task.
    async fn start(&self) -> (Channel, OwnedTask) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let services = ServiceSet::new().with(HealthServer::new(self.clone()));
        let serving = OwnedTask::spawn(serve_connection(
            Box::new(far),
            services,
            ServeLimits::default(),
            CancellationToken::new(),
        ));
        let channel = Channel::connect(Box::new(near), ChannelOptions::default()).await;
        (channel.expect("connected"), serving)
    }
}

fn request(name: &str) -> Request<HealthCheckRequest> {
    let service = name.to_owned();
    Request::new(HealthCheckRequest { service })
}

fn safe(name: &str) -> Request<HealthCheckRequest> {
    let mut request = request(name);
    request.extensions_mut().insert(SafeToRepeat);
    request
}

async fn ask(router: &Router, request: Request<HealthCheckRequest>) -> Result<i32, Status> {
    let mut client = HealthClient::new(router.channel());
    let answer = tokio::time::timeout(LIMIT * 10, client.check(request)).await;
    Ok(answer.expect("in time")?.into_inner().status)
}

/// Calls beside the test; they have begun when `is_begun` says so.
async fn begin(
    router: &Router,
    request: Request<HealthCheckRequest>,
    is_begun: impl Fn() -> bool,
) -> tokio::task::JoinHandle<Result<i32, Status>> {
    let router = router.clone();
    let call = tokio::spawn(async move { ask(&router, request).await });
    holds(is_begun).await;
    call
}

/// Waits until `state` holds.
async fn holds(state: impl Fn() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !state() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.expect("the state");
}

async fn watching(router: &Router) -> Streaming<HealthCheckResponse> {
    let mut client = HealthClient::new(router.channel());
    let mut stream = client.watch(request("")).await.expect("begun").into_inner();
    stream.message().await.expect("a message").expect("one");
    stream
}

/// Asserts why there was no answer, for programs and for people.
fn assert_code(status: &Status, code: &str) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let info = ErrorInfo::find(status.details(), HOST_DOMAIN).expect("a reason");
    assert_eq!(info.reason, code);
    let error = RouteError::behind(status).expect("the source");
    assert_eq!(error.code(), code);
    assert_eq!(Coded::code(error), code);
    assert_eq!(error.to_string(), status.message());
}

#[tokio::test]
async fn new_calls_go_to_the_new_plugin_and_those_in_flight_end_in_the_old_one() {
    let (old, new) = (Plugin::new(1), Plugin::new(2));
    let router = Router::new();
    let (channel, _old) = old.start().await;
    assert!(router.switch(channel).is_none());
    let slow = begin(&router, request("slow"), || old.asked("slow") == 1).await;
    let mut stream = watching(&router).await;

    let (channel, _new) = new.start().await;
    let draining = router.switch(channel).expect("a generation before");
    assert_eq!(ask(&router, request("now")).await.expect("an answer"), 2);
    assert_eq!((old.asked("now"), new.asked("now")), (0, 1));
    assert_eq!(draining.in_flight(), 2);
    let drained = draining.drained();
    let mut drained = std::pin::pin!(drained);
    assert!(drained.as_mut().now_or_never().is_none());

    old.released.send_replace(true);
    assert_eq!(slow.await.expect("a task").expect("an answer"), 1);
    assert!(stream.message().await.expect("its end").is_none());
    // The stream itself is kept: what counts is its end.
    tokio::time::timeout(LIMIT, drained).await.expect("drained");
    assert_eq!(draining.in_flight(), 0);
}

#[tokio::test]
async fn a_call_that_its_caller_gives_up_is_not_in_flight_any_more() {
    let plugin = Plugin::new(1);
    let router = Router::new();
    let (channel, _plugin) = plugin.start().await;
    router.switch(channel);
    let slow = begin(&router, request("slow"), || plugin.asked("slow") == 1).await;
    let stream = watching(&router).await;
    let draining = router.hold().expect("a generation before");
    assert_eq!(draining.in_flight(), 2);
    slow.abort();
    drop(stream);
    tokio::time::timeout(LIMIT, draining.drained())
        .await
        .expect("drained");
}

#[tokio::test]
async fn what_is_left_at_the_end_of_a_drain_is_told_that_its_plugin_was_replaced() {
    let (old, new) = (Plugin::new(1), Plugin::new(2));
    let router = Router::for_plugin("greeter");
    let (channel, _old) = old.start().await;
    router.switch(channel);
    let slow = begin(&router, request("slow"), || old.asked("slow") == 1).await;
    let mut stream = watching(&router).await;
    let (channel, _new) = new.start().await;
    let draining = router.switch(channel).expect("a generation before");
    draining.end();
    let status = slow.await.expect("a task").expect_err("it was cut off");
    assert_code(&status, "plugin-replaced");
    assert_eq!(
        status.message(),
        "plugin `greeter` was replaced before it had answered; it may have done the work"
    );
    let status = stream.message().await.expect_err("it was cut off");
    assert_code(&status, "plugin-replaced");
    // It was made once: nobody had said that it is safe to repeat.
    assert_eq!((old.asked("slow"), new.asked("slow")), (1, 0));
    // The plugin was told, and nobody waits there any more.
    holds(|| old.released.receiver_count() == 0).await;
}

#[tokio::test]
async fn calls_wait_for_the_first_plugin_and_while_it_is_held() {
    let plugin = Plugin::new(1);
    let router = Router::new();
    let mut client = HealthClient::new(router.channel());
    let waiting = client.check(request("first"));
    let mut waiting = std::pin::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    let (channel, _plugin) = plugin.start().await;
    router.switch(channel.clone());
    let answer = tokio::time::timeout(LIMIT, waiting).await.expect("in time");
    assert_eq!(answer.expect("an answer").into_inner().status, 1);

    let draining = router.hold().expect("a generation before");
    draining.drained().await;
    let mut client = HealthClient::new(router.channel());
    let mut hurried = request("hurried");
    hurried.set_timeout(Duration::from_millis(20));
    let status = client.check(hurried).await.expect_err("too late");
    assert_code(&status, "plugin-starting");
    assert_eq!(plugin.asked("hurried"), 0);

    // Who waited tells the plugin how much is left.
    let mut patient = request("patient");
    patient.set_timeout(LIMIT);
    let waiting = client.check(patient);
    let mut waiting = std::pin::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    tokio::time::sleep(Duration::from_millis(20)).await;
    router.switch(channel);
    waiting.await.expect("an answer");
    let timeouts = plugin.timeouts();
    let left = timeouts.last().copied().flatten().expect("a timeout");
    assert!(left <= LIMIT - Duration::from_millis(20), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_deadline_waits_a_minute_and_no_more_than_1024_wait() {
    let router = Router::new();
    let begun = tokio::time::Instant::now();
    let mut waiting = Vec::new();
    for _ in 0..1024 {
        let mut client = HealthClient::new(router.channel());
        waiting.push(Box::pin(async move { client.check(request("")).await }));
        let waits = waiting.last_mut().expect("one");
        assert!(waits.as_mut().now_or_never().is_none());
    }
    let status = ask(&router, request("")).await.expect_err("too many");
    assert_code(&status, "plugin-starting");
    assert_eq!(
        status.message(),
        "the plugin is not ready yet, and 1024 calls wait for it already"
    );
    assert_eq!(begun.elapsed(), Duration::ZERO);
    for call in waiting {
        let status = call.await.expect_err("no plugin");
        assert_code(&status, "plugin-starting");
        assert_eq!(
            status.message(),
            "the plugin is not ready yet; the call waited 60.0 s for it"
        );
    }
    assert_eq!(begun.elapsed().as_secs(), 60);
    // Their places are free again.
    let mut client = HealthClient::new(router.channel());
    let call = client.check(request(""));
    let mut call = std::pin::pin!(call);
    assert!(call.as_mut().now_or_never().is_none());
}

#[tokio::test]
async fn refused_calls_fail_at_once_and_those_that_wait_with_them() {
    let router = Router::new();
    let mut client = HealthClient::new(router.channel());
    let waiting = client.check(request(""));
    let mut waiting = std::pin::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    router.refuse(
        "plugin `greeter` ended six times in a minute",
        "plugin-failed",
    );
    for status in [
        waiting.await.expect_err("refused"),
        ask(&router, request("")).await.expect_err("refused"),
    ] {
        assert_code(&status, "plugin-failed");
        let why = "plugin `greeter` ended six times in a minute";
        assert_eq!(status.message(), why);
    }
    let plugin = Plugin::new(1);
    let (channel, _plugin) = plugin.start().await;
    assert!(router.switch(channel).is_none());
    assert_eq!(ask(&router, request("")).await.expect("an answer"), 1);
}

#[tokio::test]
async fn a_call_that_is_marked_safe_is_made_once_more_when_its_plugin_dies() {
    let path = "/grpc.health.v1.Health/Check";
    for by_method in [false, true] {
        let (first, second, third) = (Plugin::new(1), Plugin::new(2), Plugin::new(3));
        let router = Router::new();
        if by_method {
            router.mark_safe([path].into_iter().collect());
        }
        let (channel, life) = first.start().await;
        router.switch(channel);
        let mut call = if by_method {
            request("slow")
        } else {
            safe("slow")
        };
        call.set_timeout(LIMIT);
        let call = begin(&router, call, || first.asked("slow") == 1).await;
        let unsafe_call = match by_method {
            false => Some(begin(&router, request("unsafe"), || first.asked("unsafe") == 1).await),
            true => None,
        };
        drop(unsafe_call);
        drop(life);
        let (channel, life) = second.start().await;
        router.switch(channel);
        holds(|| second.asked("slow") == 1).await;
        let left = second.timeouts()[0].expect("a timeout");
        assert!(left < LIMIT, "{left:?}");
        // Never twice.
        drop(life);
        let (channel, _life) = third.start().await;
        router.switch(channel);
        let status = call.await.expect("a task").expect_err("no third time");
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(RouteError::behind(&status), None, "its own end is told");
        assert_eq!(third.asked("slow"), 0);
    }
}

#[tokio::test]
async fn a_safe_call_that_is_cut_off_is_made_once_more() {
    let (old, new) = (Plugin::new(1), Plugin::new(2));
    let router = Router::new();
    let (channel, _old) = old.start().await;
    router.switch(channel);
    let call = begin(&router, safe("slow"), || old.asked("slow") == 1).await;
    let (channel, _new) = new.start().await;
    let draining = router.switch(channel).expect("a generation before");
    new.released.send_replace(true);
    draining.end();
    assert_eq!(call.await.expect("a task").expect("an answer"), 2);
}

#[tokio::test]
async fn a_call_that_is_not_marked_is_not_made_again() {
    let (old, new) = (Plugin::new(1), Plugin::new(2));
    let router = Router::new();
    let (channel, life) = old.start().await;
    router.switch(channel);
    let call = begin(&router, request("slow"), || old.asked("slow") == 1).await;
    drop(life);
    let (channel, _new) = new.start().await;
    router.switch(channel);
    let status = call.await.expect("a task").expect_err("it died");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(new.asked("slow"), 0);
}

#[tokio::test]
async fn a_call_of_which_nothing_was_sent_goes_to_the_next_plugin_unmarked() {
    let (old, new) = (Plugin::new(1), Plugin::new(2));
    let router = Router::new();
    let (channel, life) = old.start().await;
    router.switch(channel.clone());
    drop(life);
    channel.closed().await;
    let mut client = HealthClient::new(router.channel());
    let call = client.check(request("early"));
    let mut call = std::pin::pin!(call);
    // Its end is explained for a moment, then it waits for the next plugin.
    let waited = tokio::time::timeout(Duration::from_millis(400), call.as_mut());
    assert!(waited.await.is_err(), "it waits");
    let (channel, _new) = new.start().await;
    router.switch(channel);
    let answer = tokio::time::timeout(LIMIT, call).await.expect("in time");
    assert_eq!(answer.expect("an answer").into_inner().status, 2);
}

#[tokio::test]
async fn a_call_is_not_made_again_after_its_deadline() {
    let (old, new) = (Plugin::new(1), Plugin::new(2));
    let router = Router::new();
    let (channel, life) = old.start().await;
    router.switch(channel);
    let mut hurried = safe("slow");
    hurried.set_timeout(Duration::from_millis(700));
    let call = begin(&router, hurried, || old.asked("slow") == 1).await;
    drop(life);
    let status = call.await.expect("a task").expect_err("it died");
    // What happened first is what is told.
    assert_eq!(status.code(), Code::Unavailable);
    let (channel, _new) = new.start().await;
    router.switch(channel);
    assert_eq!(ask(&router, request("now")).await.expect("an answer"), 2);
    assert_eq!(new.asked("slow"), 0);
}

#[tokio::test]
async fn a_routed_channel_is_over_when_its_router_is() {
    let plugin = Plugin::new(1);
    let router = Router::for_plugin("greeter");
    let channel = router.channel();
    let (connection, _plugin) = plugin.start().await;
    router.switch(connection.clone());
    let slow = begin(&router, request("slow"), || plugin.asked("slow") == 1).await;
    assert!(!channel.is_closed());
    assert_eq!(channel.end(), None);
    // The task that calls has a router of its own.
    plugin.released.send_replace(true);
    assert_eq!(slow.await.expect("a task").expect("an answer"), 1);
    drop(router);
    tokio::time::timeout(LIMIT, channel.closed())
        .await
        .expect("over");
    assert_eq!(channel.end(), Some("its router is gone"));
    let mut client = HealthClient::new(channel);
    let status = client.check(request("")).await.expect_err("over");
    assert_code(&status, "plugin-stopped");
    assert!(!connection.is_closed());
}

#[tokio::test]
async fn closing_a_routed_channel_ends_its_calls_and_not_its_connection() {
    let plugin = Plugin::new(1);
    let router = Router::new();
    let (connection, _plugin) = plugin.start().await;
    router.switch(connection.clone());
    let slow = begin(&router, request("slow"), || plugin.asked("slow") == 1).await;
    router.channel().close();
    assert!(slow.await.expect("a task").is_err());
    assert!(router.channel().is_closed());
    // What is over stays so.
    assert!(router.switch(connection.clone()).is_none());
    let status = ask(&router, request("")).await.expect_err("over");
    assert_code(&status, "plugin-stopped");
    let mut direct = HealthClient::new(connection);
    direct
        .check(request(""))
        .await
        .expect("the connection lives");
}

#[test]
fn methods_whose_proto_says_so_are_safe_to_repeat() {
    let proto = r#"
        syntax = "proto3";
        package kv.v1;
        message Key {}
        service Kv {
          rpc Get(Key) returns (Key) { option idempotency_level = NO_SIDE_EFFECTS; }
          rpc Put(Key) returns (Key) { option idempotency_level = IDEMPOTENT; }
          rpc Add(Key) returns (Key);
        }
    "#;
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("kv.proto"), proto).expect("written");
    let files: FileDescriptorSet =
        protox::compile(["kv.proto"], [dir.path()]).expect("a description");
    let safe = SafeMethods::declared_in(&files);
    let both: SafeMethods = ["/kv.v1.Kv/Get", "/kv.v1.Kv/Put"].into_iter().collect();
    assert_eq!(safe, both);
}

/// Keeps account of the calls that have ended.
#[derive(Debug, Default)]
struct Ledger {
    begun: std::sync::atomic::AtomicUsize,
    ended: Mutex<Vec<(String, bool, Code)>>,
}

impl CallObserver for Ledger {
    fn begun(&self) {
        self.begun
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn ended(&self, call: &EndedCall<'_>) {
        let method = call.method.rsplit_once('/').expect("a method").1.to_owned();
        let mut ended = self.ended.lock().expect("lock");
        ended.push((method, call.is_known, call.code));
    }
}

impl Ledger {
    fn begun(&self) -> usize {
        self.begun.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn take(&self) -> Vec<(String, bool, Code)> {
        std::mem::take(&mut *self.ended.lock().expect("lock"))
    }
}

#[tokio::test]
async fn each_call_is_accounted_for_once_whatever_becomes_of_it() {
    let (router, ledger) = (Router::new(), Arc::<Ledger>::default());
    router.observe(ledger.clone());
    let mut client = HealthClient::new(router.channel());
    let plugin = Plugin::new(1);
    let (channel, serving) = plugin.start().await;
    router.switch(channel);
    let ask = |service: &str| HealthCheckRequest {
        service: service.into(),
    };
    let row = |method: &str, code| (method.to_owned(), true, code);

    client.check(ask("any")).await.expect("an answer");
    assert_eq!(ledger.take(), [row("Check", Code::Ok)]);

    let mut late = Request::new(ask("slow"));
    late.set_timeout(Duration::from_millis(20));
    client.check(late).await.expect_err("too late");
    assert_eq!(ledger.take(), [row("Check", Code::DeadlineExceeded)]);

    let given_up = client.check(ask("slow"));
    assert!(given_up.now_or_never().is_none());
    assert_eq!(ledger.take(), [row("Check", Code::Cancelled)]);

    // A stream has not ended before its trailers were read, or it is dropped.
    let mut read = client.watch(ask("")).await.expect("a stream").into_inner();
    let dropped = client.watch(ask("")).await.expect("a stream");
    read.message().await.expect("no error").expect("a message");
    assert_eq!(ledger.take(), []);
    drop(dropped);
    assert_eq!(ledger.take(), [row("Watch", Code::Cancelled)]);
    plugin.released.send_replace(true);
    assert!(read.message().await.expect("no error").is_none());
    assert_eq!(ledger.take(), [row("Watch", Code::Ok)]);

    // What nobody generated may be made up.
    let mut grpc = tonic::client::Grpc::new(router.channel());
    for (path, code) in [
        ("/grpc.health.v1.Health/Nothing", Code::Unimplemented),
        ("/grpc.health.v1.Health/Check", Code::Ok),
    ] {
        grpc.ready().await.expect("ready");
        let path = http::uri::PathAndQuery::from_static(path);
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let _ = grpc.unary(Request::new(ask("")), path, codec).await;
        let [(_, is_known, ended)] = ledger.take()[..] else {
            panic!("not one call")
        };
        assert_eq!((is_known, ended), (code == Code::Ok, code));
    }

    drop(serving);
    client.check(ask("any")).await.expect_err("it died");
    router.refuse("it is no more", "plugin-failed");
    client.check(ask("any")).await.expect_err("refused");
    let unavailable = row("Check", Code::Unavailable);
    assert_eq!(ledger.take(), [unavailable.clone(), unavailable]);
    assert_eq!(ledger.begun(), 9);
}

#[tokio::test]
async fn a_server_accounts_for_each_call_and_knows_which_methods_are_made_up() {
    let ledger = Arc::<Ledger>::default();
    let (near, far) = tokio::io::duplex(1 << 16);
    let plugin = Plugin::new(1);
    let services = ServiceSet::new()
        .with(HealthServer::new(plugin.clone()))
        .observed(ledger.clone());
    let _serving = OwnedTask::spawn(serve_connection(
        Box::new(far),
        services,
        ServeLimits::default(),
        CancellationToken::new(),
    ));
    let channel = Channel::connect(Box::new(near), ChannelOptions::default()).await;
    let mut grpc = tonic::client::Grpc::new(channel.expect("connected"));
    for (path, is_known, code) in [
        ("/grpc.health.v1.Health/Check", true, Code::Ok),
        ("/grpc.health.v1.Health/Nothing", false, Code::Unimplemented),
        ("/nothing.v1.Nothing/Check", false, Code::Unimplemented),
    ] {
        grpc.ready().await.expect("ready");
        let method = path.rsplit_once('/').expect("a method").1;
        let path = http::uri::PathAndQuery::from_static(path);
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let request = Request::new(HealthCheckRequest::default());
        let _ = grpc.unary(request, path, codec).await;
        assert_eq!(ledger.take(), [(method.to_owned(), is_known, code)]);
    }
    let mut given_up = HealthClient::new(grpc_channel(&plugin, ledger.clone()).await);
    let slow = HealthCheckRequest {
        service: "slow".into(),
    };
    let call = tokio::spawn(async move { given_up.check(slow).await });
    while plugin.asked("slow") == 0 {
        tokio::task::yield_now().await;
    }
    call.abort();
    let deadline = tokio::time::Instant::now() + LIMIT;
    let ended = loop {
        let ended = ledger.take();
        if !ended.is_empty() {
            break ended;
        }
        assert!(tokio::time::Instant::now() < deadline, "not accounted for");
        tokio::task::yield_now().await;
    };
    assert_eq!(ended, [("Check".to_owned(), true, Code::Cancelled)]);
}

/// A connection to `plugin`, whose end is observed; it lasts as long as the test.
async fn grpc_channel(plugin: &Plugin, ledger: Arc<Ledger>) -> Channel {
    let (near, far) = tokio::io::duplex(1 << 16);
    let services = ServiceSet::new()
        .with(HealthServer::new(plugin.clone()))
        .observed(ledger);
    tokio::spawn(serve_connection(
        Box::new(far),
        services,
        ServeLimits::default(),
        CancellationToken::new(),
    ));
    let channel = Channel::connect(Box::new(near), ChannelOptions::default()).await;
    channel.expect("connected")
}
