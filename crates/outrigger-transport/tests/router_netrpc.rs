//! A net/rpc client that goes on working while one plugin replaces another.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_transport::netrpc::{
    Budget, CallError, CallErrorKind, Client, HostSession, Methods, MirroredStreams, PluginSession,
};
use outrigger_transport::proto::health::health_client::HealthClient;
use outrigger_transport::{Fate, OwnedTask, RouteError, Router, ServeLimits};
use outrigger_wire::proto::health::HealthCheckRequest;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Code;

const LIMIT: Duration = Duration::from_secs(10);

/// A plugin whose object answers with a number, and that notes what is asked of it.
#[derive(Clone)]
struct Plugin {
    number: u64,
    asked: Arc<Mutex<Vec<String>>>,
    /// `Plugin.Slow` is answered when this is true.
    released: watch::Sender<bool>,
}

/// What keeps a plugin alive.
struct Life {
    _serving: OwnedTask,
    _output: MirroredStreams,
}

impl Plugin {
    fn new(number: u64) -> Self {
        Self {
            number,
            asked: Arc::default(),
            released: watch::Sender::new(false),
        }
    }

    fn note(&self, what: &str) {
        self.asked.lock().expect("lock").push(what.to_owned());
    }

    fn asked(&self, what: &str) -> usize {
        let asked = self.asked.lock().expect("lock");
        asked.iter().filter(|asked| *asked == what).count()
    }

    fn object(&self) -> Methods {
        let (now, slow) = (self.clone(), self.clone());
        Methods::new()
            .method("Now", move |_: u64| {
                now.note("now");
                let number = now.number;
                async move { Ok::<_, String>(number) }
            })
            .method("Slow", move |_: u64| {
                let slow = slow.clone();
                slow.note("slow");
                async move {
                    let mut released = slow.released.subscribe();
                    let _ = released.wait_for(|released| *released).await;
                    Ok::<_, String>(slow.number)
                }
            })
    }

    async fn start(&self) -> (HostSession, Life) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let host = HostSession::start(Box::new(near), Fate::new(), Budget::default(), LIMIT);
        let plugin = PluginSession::accept(Box::new(far), ServeLimits::default());
        let (host, plugin) = tokio::join!(host, plugin);
        let (session, output) = host.expect("a session");
        let (plugin, printed) = plugin.expect("a session");
        let own = self.clone();
        let serving = OwnedTask::spawn(async move {
            let dispense = move |name: &str| {
                own.note("dispense");
                match name {
                    "numbers" => Ok(own.object()),
                    other => Err(format!("unknown plugin type: {other}")),
                }
            };
            let stop = CancellationToken::new();
            let limits = ServeLimits::default();
            plugin.serve(dispense, limits, stop, async {}).await;
            drop(printed);
        });
        let life = Life {
            _serving: serving,
            _output: output,
        };
        (session, life)
    }
}

async fn now(client: &Client) -> Result<u64, CallError> {
    client.call_within(LIMIT, "Plugin.Now", &0_u64).await
}

/// Calls `Plugin.Slow` beside the test, which has begun when this returns.
async fn begin(
    client: &Client,
    plugin: &Plugin,
) -> tokio::task::JoinHandle<Result<u64, CallError>> {
    let before = plugin.asked("slow");
    let client = client.clone();
    let call = tokio::spawn(async move { client.call_within(LIMIT, "Plugin.Slow", &0_u64).await });
    holds(|| plugin.asked("slow") > before).await;
    call
}

async fn holds(state: impl Fn() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !state() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.expect("the state");
}

fn assert_code(error: &CallError, code: &str) {
    assert!(
        matches!(error.kind(), CallErrorKind::Unrouted(_)),
        "{error:?}"
    );
    assert_eq!(error.code(), code);
    assert_eq!(RouteError::behind(error).expect("the source").code(), code);
}

#[tokio::test]
async fn a_client_obtained_once_calls_an_object_of_each_plugin_in_turn() {
    let router = Router::for_plugin("numbers");
    let client = router.object("numbers", LIMIT);
    let plugins = [Plugin::new(1), Plugin::new(2), Plugin::new(3)];
    let mut lives = Vec::new();
    for plugin in &plugins {
        let (session, life) = plugin.start().await;
        router.switch(session);
        lives.push(life);
        let calls = (0..8).map(|_| now(&client));
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.expect("an answer"), plugin.number);
        }
        assert_eq!(plugin.asked("dispense"), 1);
    }
    // Two clients have an object each, as without a router.
    let other = router.object("numbers", LIMIT);
    assert_eq!(now(&other).await.expect("an answer"), 3);
    assert_eq!(plugins[2].asked("dispense"), 2);
    let unknown = router.object("letters", LIMIT);
    let error = now(&unknown).await.expect_err("no such object");
    assert!(
        matches!(error.kind(), CallErrorKind::Undispensed(_)),
        "{error:?}"
    );
    assert_eq!(
        error.to_string(),
        "Plugin.Now: the plugin did not give the object to call"
    );
    assert_eq!(error.code(), "netrpc-failed");
}

#[tokio::test]
async fn calls_in_flight_end_in_the_old_plugin_and_are_cut_off_at_the_end_of_the_drain() {
    let (old, new) = (Plugin::new(1), Plugin::new(2));
    let router = Router::for_plugin("numbers");
    let client = router.object("numbers", LIMIT);
    let (session, _old) = old.start().await;
    router.switch(session);
    let slow = begin(&client, &old).await;
    let (session, _new) = new.start().await;
    let draining = router.switch(session).expect("a generation before");
    assert_eq!(draining.in_flight(), 1);
    assert_eq!(now(&client).await.expect("an answer"), 2);
    old.released.send_replace(true);
    assert_eq!(slow.await.expect("a task").expect("an answer"), 1);
    tokio::time::timeout(LIMIT, draining.drained())
        .await
        .expect("drained");

    let slow = begin(&client, &new).await;
    router.hold().expect("a generation before").end();
    let error = slow.await.expect("a task").expect_err("it was cut off");
    assert_code(&error, "plugin-replaced");
    assert_eq!(error.to_string(), "Plugin.Slow: the plugin did not answer");
}

#[tokio::test]
async fn calls_wait_are_refused_and_end_with_the_router() {
    let router = Router::for_plugin("numbers");
    let client = router.object("numbers", LIMIT);
    let short = Duration::from_millis(20);
    let late = client.call_within::<_, u64>(short, "Plugin.Now", &0_u64);
    assert_code(&late.await.expect_err("no plugin"), "plugin-starting");
    router.refuse(
        "plugin `numbers` ended six times in a minute",
        "plugin-failed",
    );
    assert_code(&now(&client).await.expect_err("refused"), "plugin-failed");
    assert!(!client.is_closed());
    drop(router);
    client.closed().await;
    assert!(client.is_closed());
    assert_code(&now(&client).await.expect_err("over"), "plugin-stopped");
}

#[tokio::test]
async fn only_a_safe_method_is_called_once_more_when_its_plugin_dies() {
    for is_safe in [false, true] {
        let (old, new) = (Plugin::new(1), Plugin::new(2));
        let router = Router::new();
        if is_safe {
            router.mark_safe(["Plugin.Slow"].into_iter().collect());
        }
        let client = router.object("numbers", LIMIT);
        let (session, life) = old.start().await;
        router.switch(session);
        let slow = begin(&client, &old).await;
        drop(life);
        let (session, _new) = new.start().await;
        new.released.send_replace(true);
        router.switch(session);
        let answer = slow.await.expect("a task");
        match is_safe {
            true => assert_eq!(answer.expect("an answer"), 2),
            false => {
                let error = answer.expect_err("it died");
                assert!(matches!(error.kind(), CallErrorKind::Lost(_)), "{error:?}");
            }
        }
        assert_eq!(new.asked("slow"), usize::from(is_safe));
    }
}

#[tokio::test]
async fn a_call_of_which_nothing_was_sent_goes_to_the_next_plugin() {
    let (old, new) = (Plugin::new(1), Plugin::new(2));
    let router = Router::new();
    let client = router.object("numbers", LIMIT);
    let before = router.object("numbers", LIMIT);
    let (session, life) = old.start().await;
    router.switch(session.clone());
    assert_eq!(now(&before).await.expect("an answer"), 1);
    drop(life);
    session.closed().await;
    // One has an object there still, the other would ask for one.
    let calls = [before, client].map(|client| tokio::spawn(async move { now(&client).await }));
    let (session, _new) = new.start().await;
    router.switch(session);
    for call in calls {
        assert_eq!(call.await.expect("a task").expect("an answer"), 2);
    }
}

#[tokio::test]
async fn a_client_of_the_other_protocol_is_told_that_the_plugin_changed_it() {
    let plugin = Plugin::new(1);
    let router = Router::for_plugin("numbers");
    let (session, _life) = plugin.start().await;
    router.switch(session);
    let request = HealthCheckRequest::default();
    let status = HealthClient::new(router.channel()).check(request).await;
    let status = status.expect_err("no gRPC");
    assert_eq!(status.code(), Code::Unavailable);
    let error = RouteError::behind(&status).expect("the source");
    assert_eq!(error.code(), "plugin-protocol-changed");
    assert_eq!(
        status.message(),
        "plugin `numbers` speaks net/rpc now; this client was made for another protocol"
    );
}
