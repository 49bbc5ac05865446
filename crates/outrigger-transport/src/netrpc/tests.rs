use std::sync::Arc;
use std::time::Duration;

use outrigger_gob::Gob;
use outrigger_wire::BrokerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::broker::{Broker, BrokerErrorKind};
use crate::fate::Fate;
use crate::server::ServeLimits;

const LIMITS: ServeLimits = ServeLimits {
    concurrent_calls: 128,
    handshake: Duration::from_secs(5),
    drain: Duration::from_secs(5),
    max_value: MAX_VALUE,
};

#[derive(Clone, Debug, Default, PartialEq, Gob)]
struct Pair {
    a: i64,
    b: i64,
}

fn methods() -> Methods {
    Methods::new()
        .method("Add", |pair: Pair| async move {
            pair.a.checked_add(pair.b).ok_or("the sum is out of range")
        })
        .method("Panic", |_: i64| async {
            if true {
                panic!("on purpose");
            }
            Ok::<i64, String>(0)
        })
        .method("Silent", |_: i64| async { Err::<i64, _>("") })
        .method("Never", |_: i64| {
            std::future::pending::<Result<i64, String>>()
        })
}

/// A client and the server that answers it.
fn connected() -> (Client, CancellationToken) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let stop = CancellationToken::new();
    tokio::spawn(serve(Box::new(far), methods(), LIMITS, stop.clone()));
    (Client::new(Box::new(near), Fate::new()), stop)
}

async fn sessions() -> (HostSession, Arc<MuxBroker>, MirroredStreams) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (host, _output) =
        HostSession::start(Box::new(near), Fate::new(), Budget::default(), BROKER_WAIT)
            .await
            .expect("a session");
    let (plugin, output) = PluginSession::accept(Box::new(far), LIMITS)
        .await
        .expect("a session");
    let broker = plugin.broker();
    let dispense = |name: &str| match name {
        "math" => Ok(methods()),
        other => Err(format!("unknown plugin type: {other}")),
    };
    tokio::spawn(plugin.serve(dispense, LIMITS, CancellationToken::new(), async {}));
    (host, broker, output)
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let text = |pair: &[u8]| String::from_utf8(pair.to_vec()).expect("ascii");
    let byte = |pair: &[u8]| u8::from_str_radix(&text(pair), 16).expect("hex");
    digits.chunks(2).map(byte).collect()
}

/// An error and all that is behind it, as it is printed.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

async fn read_some(stream: &mut DuplexStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.expect("bytes");
    bytes
}

const DISPENSE: &str = "2fff810301010752657175657374 01ff820001 02 010d 536572766963654d6574686f64 \
     010c00 0103 536571 01060000 00 17ff820112 44697370656e7365722e44697370656e7365 00 \
     050c00026b76";
const DISPENSED: &str = "3aff810301010852 6573706f6e7365 01ff820001 03 010d 536572766963654d6574686f64 \
     010c00 0103 536571 010600 0105 4572726f72 010c0000 00 \
     17ff820112 44697370656e7365722e44697370656e7365 00 03060001";
const QUIT: &str = "13ff82010c 436f6e74726f6c2e51756974 010100 03020001";
const QUITTED: &str = "13ff82010c 436f6e74726f6c2e51756974 010100 0aff83030102ff84000000 03ff8400";

#[tokio::test]
async fn a_client_sends_the_bytes_that_a_go_client_sends() {
    let (near, mut far) = tokio::io::duplex(4096);
    let client = Client::new(Box::new(near), Fate::new());
    let kv = "kv".to_owned();
    let talk = async {
        let expected = bytes_of(DISPENSE);
        assert_eq!(read_some(&mut far, expected.len()).await, expected);
        far.write_all(&bytes_of(DISPENSED)).await.expect("written");
        let expected = bytes_of(QUIT);
        assert_eq!(read_some(&mut far, expected.len()).await, expected);
        far.write_all(&bytes_of(QUITTED)).await.expect("written");
    };
    let calls = async {
        let id: u32 = client.call("Dispenser.Dispense", &kv).await.expect("an id");
        assert_eq!(id, 1);
        let () = client.call("Control.Quit", &true).await.expect("a reply");
    };
    tokio::join!(talk, calls);
}

#[tokio::test]
async fn a_server_answers_with_the_bytes_that_a_go_server_sends() {
    let (mut near, far) = tokio::io::duplex(4096);
    let methods = Methods::new()
        .with(
            "Dispenser",
            "Dispense",
            Method::new(|_: String| async { Ok::<u32, String>(1) }),
        )
        .with(
            "Control",
            "Quit",
            Method::new(|_: bool| async { Ok::<(), String>(()) }),
        );
    tokio::spawn(serve(
        Box::new(far),
        methods,
        LIMITS,
        CancellationToken::new(),
    ));
    for (asked, answered) in [(DISPENSE, DISPENSED), (QUIT, QUITTED)] {
        near.write_all(&bytes_of(asked)).await.expect("written");
        let expected = bytes_of(answered);
        assert_eq!(read_some(&mut near, expected.len()).await, expected);
    }
}

#[tokio::test]
async fn an_error_reply_has_the_bytes_of_go() {
    let (mut near, far) = tokio::io::duplex(4096);
    let methods = Methods::new().method("X", |_: bool| async { Err::<(), _>("boom") });
    tokio::spawn(serve(
        Box::new(far),
        methods,
        LIMITS,
        CancellationToken::new(),
    ));
    // The definition of `Request`, then `Plugin.X` with number 2 and the argument true.
    let definition = &bytes_of(DISPENSE)[..48];
    near.write_all(definition).await.expect("written");
    let request = bytes_of("0fff820108506c7567696e2e58 010200 03020001");
    near.write_all(&request).await.expect("written");
    let mut expected = bytes_of(DISPENSED)[..59].to_vec();
    expected.extend(bytes_of(
        "15ff820108506c7567696e2e58 01020104626f6f6d00 0aff83030102ff84000000 03ff8400",
    ));
    assert_eq!(read_some(&mut near, expected.len()).await, expected);
}

#[tokio::test]
async fn many_calls_at_the_same_time_get_their_own_replies() {
    let (client, _stop) = connected();
    let calls = (0..1000_i64).map(|n| {
        let client = client.clone();
        async move {
            let pair = Pair { a: n, b: 1 };
            client.call::<_, i64>("Plugin.Add", &pair).await
        }
    });
    let sums = futures_util::future::join_all(calls).await;
    for (n, sum) in (0..).zip(sums) {
        assert_eq!(sum.expect("a sum"), n + 1_i64);
    }
}

#[tokio::test]
async fn errors_come_with_the_text_of_the_server_and_leave_the_connection_usable() {
    let (client, _stop) = connected();
    let too_much = Pair { a: i64::MAX, b: 1 };
    let error = client.call::<_, i64>("Plugin.Add", &too_much).await;
    let error = error.expect_err("too much");
    assert_eq!(error.failure(), Some("the sum is out of range"));
    assert_eq!(error.code(), "netrpc-failed");
    assert_eq!(
        error.to_string(),
        "Plugin.Add: the peer answered with an error: \"the sum is out of range\""
    );
    for (method, text) in [
        ("Plugin.Nothing", "rpc: can't find method Plugin.Nothing"),
        ("Other.Add", "rpc: can't find service Other.Add"),
        ("Add", "rpc: service/method request ill-formed: Add"),
        ("Plugin.Panic", "the method panicked"),
        ("Plugin.Silent", "unknown error"),
    ] {
        let error = client.call::<_, i64>(method, &1_i64).await;
        assert_eq!(
            error.expect_err("an error").failure(),
            Some(text),
            "{method}"
        );
    }
    let wrong = client
        .call::<_, i64>("Plugin.Add", &"text".to_owned())
        .await;
    let wrong = wrong.expect_err("no pair");
    assert!(
        wrong
            .failure()
            .is_some_and(|text| text.starts_with("gob: ")),
        "{wrong}"
    );
    let unexpected = client
        .call::<_, String>("Plugin.Add", &Pair { a: 1, b: 2 })
        .await;
    let unexpected = unexpected.expect_err("no text");
    assert!(
        matches!(unexpected.kind(), CallErrorKind::Reply(_)),
        "{unexpected}"
    );
    let sum: i64 = client
        .call("Plugin.Add", &Pair { a: 1, b: 2 })
        .await
        .expect("a sum");
    assert_eq!(sum, 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_answered_costs_its_deadline_and_no_more() {
    let (client, _stop) = connected();
    let limit = Duration::from_secs(3);
    let late = client
        .call_within::<_, i64>(limit, "Plugin.Never", &1_i64)
        .await;
    let late = late.expect_err("late");
    assert_eq!(late.code(), "netrpc-timed-out");
    assert_eq!(
        late.to_string(),
        "Plugin.Never: no reply within 3 s; the method may still be running"
    );
    let sum: i64 = client
        .call("Plugin.Add", &Pair { a: 1, b: 2 })
        .await
        .expect("a sum");
    assert_eq!(sum, 3);
}

#[tokio::test]
async fn a_late_reply_is_dropped() {
    let (near, far) = tokio::io::duplex(4096);
    let gate = Arc::new(Notify::new());
    let methods = Methods::new()
        .method("Wait", {
            let gate = gate.clone();
            move |n: i64| {
                let gate = gate.clone();
                async move {
                    gate.notified().await;
                    Ok::<i64, String>(n)
                }
            }
        })
        .method("Echo", |n: i64| async move { Ok::<i64, String>(n) });
    tokio::spawn(serve(
        Box::new(far),
        methods,
        LIMITS,
        CancellationToken::new(),
    ));
    let client = Client::new(Box::new(near), Fate::new());
    {
        let abandoned = client.call::<_, i64>("Plugin.Wait", &1_i64);
        let answered = client.call::<_, i64>("Plugin.Echo", &2_i64);
        tokio::select! {
            biased;
            _ = abandoned => panic!("nobody opened the gate"),
            echo = answered => assert_eq!(echo.expect("an echo"), 2),
        }
    }
    gate.notify_one();
    for n in 3..10_i64 {
        let echo: i64 = client.call("Plugin.Echo", &n).await.expect("an echo");
        assert_eq!(echo, n);
    }
}

#[tokio::test]
async fn the_loss_of_the_connection_fails_every_call_at_once_and_later_ones() {
    let (near, far) = tokio::io::duplex(4096);
    let fate = Fate::new();
    let client = Client::new(Box::new(near), fate.clone());
    let calls = (0..64).map(|_| client.call::<_, i64>("Plugin.Never", &1_i64));
    let all = futures_util::future::join_all(calls);
    let lose = async {
        fate.set(Arc::new(std::io::Error::other("it was killed")));
        drop(far);
    };
    let (all, ()) = tokio::join!(all, lose);
    for outcome in all {
        let error = outcome.expect_err("lost");
        assert_eq!(error.code(), "netrpc-connection-lost");
        assert_eq!(
            chain(&error),
            "Plugin.Never: the connection ended before the reply: the peer closed it: it was killed"
        );
    }
    client.closed().await;
    assert!(client.is_closed());
    let after = client.call::<_, i64>("Plugin.Never", &1_i64).await;
    assert_eq!(after.expect_err("lost").code(), "netrpc-connection-lost");
}

#[tokio::test]
async fn a_peer_that_speaks_something_else_is_told_from_one_that_left() {
    let (near, mut far) = tokio::io::duplex(4096);
    let client = Client::new(Box::new(near), Fate::new());
    // The first letter reads as a length.
    let page = "HTTP/1.1 400 Bad Request\r\n".repeat(8);
    far.write_all(page.as_bytes()).await.expect("written");
    client.closed().await;
    let error = client
        .call::<_, i64>("Plugin.Add", &1_i64)
        .await
        .expect_err("lost");
    let text = chain(&error);
    assert!(
        text.contains("reply: the peer does not speak net/rpc: "),
        "{text}"
    );
}

#[tokio::test]
async fn objects_are_dispensed_under_their_names_and_each_time_anew() {
    let (host, _broker, _output) = sessions().await;
    host.ping(BROKER_WAIT).await.expect("a ping");
    let first = host.dispense("math", BROKER_WAIT).await.expect("an object");
    let second = host.dispense("math", BROKER_WAIT).await.expect("an object");
    for object in [&first, &second] {
        let sum: i64 = object
            .call("Plugin.Add", &Pair { a: 1, b: 2 })
            .await
            .expect("a sum");
        assert_eq!(sum, 3);
    }
    let error = host
        .dispense("other", BROKER_WAIT)
        .await
        .expect_err("unknown");
    assert!(
        error.to_string().contains("unknown plugin type: other"),
        "{error}"
    );
    drop(first);
    let sum: i64 = second
        .call("Plugin.Add", &Pair { a: 2, b: 2 })
        .await
        .expect("a sum");
    assert_eq!(sum, 4);
}

#[tokio::test]
async fn a_plugin_that_is_asked_to_quit_answers_first_and_then_ends() {
    let (host, _broker, _output) = sessions().await;
    host.quit().await.expect("a reply");
    host.closed().await;
    let error = host.ping(BROKER_WAIT).await.expect_err("gone");
    assert_eq!(error.code(), "netrpc-connection-lost");
}

#[tokio::test]
async fn either_side_dials_what_the_other_accepts_in_either_order() {
    let (host, plugin, _output) = sessions().await;
    let host: Arc<dyn Broker> = host.broker();
    let plugin: Arc<dyn Broker> = plugin;
    for (here, there) in [(&host, &plugin), (&plugin, &host)] {
        let id = here.next_id();
        let _serving = here.serve_netrpc(id, methods()).await.expect("accepted");
        for _ in 0..3 {
            let client = there.connect_netrpc(id).await.expect("dialled");
            let sum: i64 = client
                .call("Plugin.Add", &Pair { a: 1, b: 2 })
                .await
                .expect("a sum");
            assert_eq!(sum, 3);
        }
        // The dial comes first.
        let id = here.next_id();
        let dial = there.dial(id);
        let accept = async {
            tokio::task::yield_now().await;
            let mut listener = here.accept(id).await.expect("accepted");
            listener.accept().await.expect("a stream")
        };
        let (dialled, mut accepted) = tokio::join!(dial, accept);
        dialled
            .expect("a stream")
            .write_all(b"hello")
            .await
            .expect("written");
        let mut text = String::new();
        accepted.read_to_string(&mut text).await.expect("a text");
        assert_eq!(text, "hello");
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_that_nobody_accepts_is_given_up_after_five_seconds() {
    let (host, plugin, _output) = sessions().await;
    let began = tokio::time::Instant::now();
    let Err(error) = host.broker().dial(BrokerId(77)).await else {
        panic!("nobody accepts");
    };
    assert_eq!(error.code(), "broker-id-unacknowledged");
    assert!(began.elapsed() >= Duration::from_secs(5));
    let mut listener = plugin.accept(BrokerId(77)).await.expect("free again");
    let twice = plugin.accept(BrokerId(77)).await.expect_err("twice");
    assert!(matches!(twice.kind(), BrokerErrorKind::AlreadyAccepted));
    let broker = host.broker();
    let (dialled, accepted) = tokio::join!(broker.dial(BrokerId(77)), listener.accept());
    assert!(dialled.is_ok() && accepted.is_ok());
    drop(listener);
    assert!(
        plugin.accept(BrokerId(77)).await.is_ok(),
        "a dropped listener frees its id"
    );
}

/// A method that never ends, and how many of its calls run.
fn holding() -> (Methods, Arc<std::sync::atomic::AtomicUsize>) {
    let running = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = running.clone();
    let methods = Methods::new()
        .method("Hold", move |_: Vec<u8>| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            std::future::pending::<Result<(), String>>()
        })
        .method("Length", |bytes: Vec<u8>| async move {
            Ok::<i64, String>(bytes.len() as i64)
        });
    (methods, running)
}

#[tokio::test(start_paused = true)]
async fn arguments_beyond_the_sessions_budget_are_not_read_until_there_is_room() {
    let (near, far) = tokio::io::duplex(1 << 20);
    let budget = Budget::new(1 << 20);
    let (host, _output) =
        HostSession::start(Box::new(near), Fate::new(), budget.clone(), BROKER_WAIT)
            .await
            .expect("a session");
    let (plugin, _output) = PluginSession::accept(Box::new(far), LIMITS)
        .await
        .expect("a session");
    let (host, plugin): (Arc<dyn Broker>, Arc<dyn Broker>) = (host.broker(), plugin.broker());
    let (methods, running) = holding();
    let mut calls = tokio::task::JoinSet::new();
    let mut servings = Vec::new();
    // One id or many, one connection or many: they have the same room.
    for _ in 0..4 {
        let id = host.next_id();
        servings.push(
            host.serve_netrpc(id, methods.clone())
                .await
                .expect("served"),
        );
        for _ in 0..2 {
            let client = plugin.connect_netrpc(id).await.expect("dialled");
            calls.spawn(async move {
                let large = vec![1_u8; 1_000_000];
                let _: Result<(), _> = client.call("Plugin.Hold", &large).await;
            });
        }
    }
    // Everything stands still before this.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(running.load(std::sync::atomic::Ordering::Relaxed), 2);
    let id = host.next_id();
    servings.push(host.serve_netrpc(id, methods).await.expect("served"));
    let client = plugin.connect_netrpc(id).await.expect("dialled");
    let length: i64 = client
        .call("Plugin.Length", &vec![1_u8; 50_000])
        .await
        .expect("small ones go on");
    assert_eq!(length, 50_000);
    // A call that is gone gives its room back.
    drop(servings.remove(0));
    let large = vec![1_u8; 1_000_000];
    let waiting = client.call_within::<_, i64>(LIMITS.drain, "Plugin.Length", &large);
    calls.abort_all();
    assert_eq!(waiting.await.expect("room"), 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_announced_and_does_not_come_takes_room_from_its_own_session_only() {
    let budget = Budget::new(1 << 20);
    let serve_on = |budget: Budget| {
        let (near, far) = tokio::io::duplex(1 << 10);
        let stop = CancellationToken::new();
        let serving = serve_within(Box::new(far), holding().0, LIMITS, budget, stop);
        tokio::spawn(serving);
        near
    };
    let mut withheld = Vec::new();
    for _ in 0..2 {
        let mut near = serve_on(budget.clone());
        // A call of `Plugin.Hold` whose argument is all but a million bytes long.
        let mut bytes = bytes::BytesMut::new();
        let header = Request {
            service_method: "Plugin.Hold".into(),
            seq: 0,
        };
        let argument = vec![0_u8; 1_000_000];
        let mut encoder = outrigger_gob::Encoder::new();
        let encoded = encoder.encode_pair(&header, &argument, &mut bytes);
        encoded.expect("encoded");
        near.write_all(&bytes[..1000]).await.expect("written");
        withheld.push(near);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let length = |near: DuplexStream| async move {
        let client = Client::new(Box::new(near), Fate::new());
        let limit = Duration::from_secs(1);
        let large = vec![1_u8; 1_000_000];
        client
            .call_within::<_, i64>(limit, "Plugin.Length", &large)
            .await
    };
    let same = length(serve_on(budget.clone())).await.expect_err("no room");
    assert_eq!(same.code(), "netrpc-timed-out");
    let other = length(serve_on(Budget::new(1 << 20))).await;
    assert_eq!(other.expect("a length"), 1_000_000);
    withheld.clear();
    let again = length(serve_on(budget)).await;
    assert_eq!(again.expect("a length"), 1_000_000);
}

#[tokio::test]
async fn a_method_name_that_does_not_end_is_not_read() {
    let (mut near, far) = tokio::io::duplex(1 << 10);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(Box::new(far), methods(), LIMITS, stop));
    let mut bytes = bytes::BytesMut::new();
    let header = Request {
        service_method: "P".repeat(1 << 20),
        seq: 0,
    };
    let encoded = outrigger_gob::Encoder::new().encode(&header, &mut bytes);
    encoded.expect("encoded");
    let written = near.write_all(&bytes).await;
    assert!(written.is_err(), "a megabyte was taken");
    serving.await.expect("ended");
}

#[tokio::test]
async fn values_beyond_the_limit_are_refused_by_the_sender_and_named_by_the_receiver() {
    let (near, far) = tokio::io::duplex(64 << 10);
    let limits = ServeLimits {
        max_value: 4096,
        ..LIMITS
    };
    let methods = Methods::new()
        .method("Fill", |count: i64| async move {
            Ok::<_, String>(vec![7_u8; count as usize])
        })
        .method("Length", |bytes: Vec<u8>| async move {
            Ok::<i64, String>(bytes.len() as i64)
        });
    let stop = CancellationToken::new();
    tokio::spawn(serve(Box::new(far), methods.clone(), limits, stop));
    let client = Client::from(Connected::new(Box::new(near), Fate::new(), 4096));
    let argument = vec![1_u8; 4096];
    let error = client.call::<_, i64>("Plugin.Length", &argument).await;
    let error = error.expect_err("too large");
    assert_eq!(error.code(), "gob-limit");
    assert_eq!(
        chain(&error),
        "Plugin.Length: the argument cannot be sent as gob: 4101 bytes are more than the limit of 4096"
    );
    // The largest that fits, after the stream has forgotten the one that did not.
    let fits: i64 = client
        .call("Plugin.Length", &vec![1_u8; 4091])
        .await
        .expect("a length");
    assert_eq!(fits, 4091);
    let error = client.call::<_, Vec<u8>>("Plugin.Fill", &5000_i64).await;
    assert_eq!(
        error.expect_err("too large").failure(),
        Some("the reply cannot be sent as gob: 5005 bytes are more than the limit of 4096")
    );

    let (near, far) = tokio::io::duplex(64 << 10);
    tokio::spawn(serve(
        Box::new(far),
        methods,
        LIMITS,
        CancellationToken::new(),
    ));
    let client = Client::from(Connected::new(Box::new(near), Fate::new(), 4096));
    let error = client.call::<_, Vec<u8>>("Plugin.Fill", &5000_i64).await;
    let error = error.expect_err("too large");
    assert_eq!(error.code(), "netrpc-limit");
    let text = chain(&error);
    assert!(
        text.contains("reply: the peer sent more than is read: a message of 5005"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_never_sent_says_so() {
    let (near, _far) = tokio::io::duplex(1 << 10);
    let client = Client::new(Box::new(near), Fate::new());
    let limit = Duration::from_secs(1);
    let large = vec![1_u8; 2 << 20];
    let first = client.call_within::<_, i64>(limit, "Plugin.Length", &large);
    let first = first.await.expect_err("nobody answers");
    assert!(
        matches!(first.kind(), CallErrorKind::TimedOut(_)),
        "{first}"
    );
    let second = client.call_within::<_, i64>(limit, "Plugin.Length", &1_i64);
    let second = second.await.expect_err("nobody reads");
    assert_eq!(second.code(), "netrpc-timed-out");
    assert_eq!(
        second.to_string(),
        "Plugin.Length: not sent within 1 s, because the peer reads no more"
    );
}

#[tokio::test]
async fn a_host_that_hangs_up_right_after_quit_has_been_heard() {
    for _ in 0..50 {
        let (near, far) = tokio::io::duplex(1 << 20);
        let role = crate::yamux::Role::Client;
        let host = crate::yamux::Session::new(near, role, crate::yamux::Config::default());
        let mut control = host.open().await.expect("a stream");
        let _outputs = (
            host.open().await.expect("a stream"),
            host.open().await.expect("a stream"),
        );
        let (plugin, _output) = PluginSession::accept(Box::new(far), LIMITS)
            .await
            .expect("a session");
        let mut bytes = bytes::BytesMut::new();
        let header = Request {
            service_method: "Control.Quit".into(),
            seq: 0,
        };
        let encoded = outrigger_gob::Encoder::new().encode_pair(&header, &true, &mut bytes);
        encoded.expect("encoded");
        control.write_all(&bytes).await.expect("written");
        control.shutdown().await.expect("ended");
        let stop = CancellationToken::new();
        let dispense = |_: &str| Err("nothing".to_owned());
        plugin.serve(dispense, LIMITS, stop.clone(), async {}).await;
        assert!(stop.is_cancelled(), "the host's `Quit` was forgotten");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_call_waits_for_a_reason_only_where_the_whole_session_ended() {
    let (host, plugin, _output) = sessions().await;
    let host: Arc<dyn Broker> = host.broker();
    let plugin: Arc<dyn Broker> = plugin;
    for (here, there) in [(&host, &plugin), (&plugin, &host)] {
        let id = here.next_id();
        let mut listener = here.accept(id).await.expect("accepted");
        let (client, stream) = tokio::join!(there.connect_netrpc(id), listener.accept());
        let (client, stream) = (client.expect("dialled"), stream.expect("a stream"));
        let began = tokio::time::Instant::now();
        let lose = async { drop(stream) };
        let (lost, ()) = tokio::join!(client.call::<_, i64>("Plugin.Never", &1_i64), lose);
        assert_eq!(lost.expect_err("lost").code(), "netrpc-connection-lost");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
    // The plugin is gone, and its exit status is known a moment later.
    let (near, far) = tokio::io::duplex(1 << 20);
    let fate = Fate::new();
    let (host, _output) =
        HostSession::start(Box::new(near), fate.clone(), Budget::default(), BROKER_WAIT)
            .await
            .expect("a session");
    let lose = async {
        drop(far);
        tokio::time::sleep(Duration::from_millis(100)).await;
        fate.set(Arc::new(std::io::Error::other("it was killed")));
    };
    let (lost, ()) = tokio::join!(host.ping(BROKER_WAIT), lose);
    let text = chain(&lost.expect_err("lost"));
    assert!(text.ends_with("it was killed"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn streams_that_came_early_make_room_once_they_are_accepted() {
    let (host, plugin, _output) = sessions().await;
    let host: Arc<dyn Broker> = host.broker();
    let began = tokio::time::Instant::now();
    for _ in 0..300 {
        let id = host.next_id();
        let accept = async {
            // The stream has found nobody yet.
            while plugin.parked() == 0 {
                tokio::task::yield_now().await;
            }
            let mut listener = plugin.accept(id).await.expect("accepted");
            listener.accept().await.expect("a stream")
        };
        let (dialled, _accepted) = tokio::join!(host.dial(id), accept);
        dialled.expect("dialled");
    }
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_came_early_outlives_a_refusal_to_accept_it() {
    let (host, plugin, _output) = sessions().await;
    let host: Arc<dyn Broker> = host.broker();
    let mut listeners = Vec::new();
    for id in 1..=1024 {
        listeners.push(plugin.accept(BrokerId(id)).await.expect("accepted"));
    }
    let id = BrokerId(5000);
    let accept = async {
        while plugin.parked() == 0 {
            tokio::task::yield_now().await;
        }
        let refused = plugin.accept(id).await.expect_err("too many");
        assert!(matches!(
            refused.kind(),
            BrokerErrorKind::TooManyListeners(_)
        ));
        listeners.pop();
        let mut listener = plugin.accept(id).await.expect("accepted");
        listener.accept().await.expect("a stream")
    };
    let (dialled, _accepted) = tokio::join!(host.dial(id), accept);
    dialled.expect("dialled");
}
