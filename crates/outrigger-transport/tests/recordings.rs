//! Sessions that Go's host and Go's plugin held over net/rpc, played to our end
//! in place of the other one. Every frame that we send has the recorded bytes.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use outrigger_gob::{Gob, Interface};
use outrigger_transport::netrpc::{
    BROKER_WAIT, Budget, HostSession, Methods, MuxBroker, PluginSession,
};
use outrigger_transport::{Broker, BrokerId, Fate, ServeLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_util::sync::CancellationToken;

/// How long a session may take.
const SOON: Duration = Duration::from_secs(10);
const HEADER: usize = 12;

/// Which side of the recording is played.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Host,
    Plugin,
}

#[derive(Clone, PartialEq)]
enum Line {
    Frame(Side, Vec<u8>),
    Quit,
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(pair, 16).expect("digits")
    };
    digits.chunks(2).map(byte).collect()
}

fn recording(name: &str) -> VecDeque<Line> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../interop/recordings");
    let text = std::fs::read_to_string(dir.join(name)).expect("a recording");
    let line = |line: &str| match line.split_at_checked(4)? {
        ("H>P ", frame) => Some(Line::Frame(Side::Host, hex(frame))),
        ("P>H ", frame) => Some(Line::Frame(Side::Plugin, hex(frame))),
        _ => (line == "# quit").then_some(Line::Quit),
    };
    text.lines().filter_map(line).collect()
}

fn stream_of(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[4..8].try_into().expect("a header"))
}

fn is_data(frame: &[u8]) -> bool {
    frame[1] == 0
}

/// The next frame that our end sends; nothing once it has closed.
async fn next_frame(from: &mut DuplexStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    from.read_exact(&mut frame).await.ok()?;
    let length = u32::from_be_bytes(frame[8..].try_into().expect("a header"));
    if is_data(&frame) {
        frame.resize(HEADER + length as usize, 0);
        from.read_exact(&mut frame[HEADER..]).await.ok()?;
    }
    Some(frame)
}

/// Plays `side` of the recording up to the wish to end, in its order: what the
/// other side sent is awaited and compared.
async fn play(lines: &mut VecDeque<Line>, side: Side, socket: &mut DuplexStream) {
    let mut number = 0;
    while let Some(line) = lines.pop_front() {
        number += 1;
        match line {
            Line::Quit => return,
            Line::Frame(from, frame) if from == side => {
                socket.write_all(&frame).await.expect("our end listens");
            }
            Line::Frame(_, frame) => {
                let got = next_frame(socket).await;
                let got = got.unwrap_or_else(|| panic!("frame {number} did not come"));
                assert_eq!(got, frame, "frame {number} differs");
            }
        }
    }
}

/// What the recording has of the end: the host's call and the plugin's reply.
fn end(lines: VecDeque<Line>, side: Side) -> Option<Vec<u8>> {
    lines.into_iter().find_map(|line| match line {
        Line::Frame(from, frame) if from == side && is_data(&frame) => Some(frame),
        _ => None,
    })
}

#[derive(Debug, PartialEq, Gob)]
struct Wanted {
    #[gob(rename = "ID")]
    id: u32,
    bytes: u64,
}

#[derive(Debug, Default, PartialEq, Gob)]
struct Digest {
    bytes: u64,
    sum: u64,
}

type Arguments = std::collections::BTreeMap<String, Interface>;

fn pattern() -> Vec<u8> {
    (0..16).collect()
}

/// What each recorded host does after it has dispensed.
async fn act(name: &str, host: &HostSession) {
    let object = host.dispense(name, BROKER_WAIT).await.expect("an object");
    match name {
        "greeter" => {
            let said: String = object
                .call("Plugin.Greet", &Interface::nil())
                .await
                .expect("a reply");
            assert_eq!(said, "Hello!");
        }
        "streams" => {
            let broker = host.broker();
            let (mut came, wanted) = (Vec::new(), broker.next_id());
            let mut listener = broker.accept(wanted).await.expect("a listener");
            let read = async {
                let mut stream = listener.accept().await.expect("a stream");
                stream.read_to_end(&mut came).await.expect("the end");
            };
            let wanted = Wanted {
                id: wanted.0,
                bytes: 16,
            };
            let call = object.call::<_, u64>("Plugin.Produce", &wanted);
            let ((), written) = tokio::join!(read, call);
            assert_eq!((written.expect("a reply"), came), (16, pattern()));
            drop(listener);

            let id = broker.next_id();
            let mut listener = broker.accept(id).await.expect("a listener");
            let write = async {
                let mut stream = listener.accept().await.expect("a stream");
                stream.write_all(&pattern()).await.expect("written");
                stream.shutdown().await.expect("closed");
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.expect("the end");
            };
            let call = object.call::<_, Digest>("Plugin.Sum", &id.0);
            let ((), digest) = tokio::join!(write, call);
            let sum = Digest {
                bytes: 16,
                sum: 120,
            };
            assert_eq!(digest.expect("a reply"), sum);
        }
        _ => {
            let value: Vec<u8> = object.call("Plugin.Get", "a").await.expect("a reply");
            assert_eq!(value, b"hello");
        }
    }
}

async fn put(host: &HostSession) {
    let object = host.dispense("kv", BROKER_WAIT).await.expect("an object");
    let arguments = Arguments::from([
        ("key".to_owned(), Interface::from("a")),
        ("value".to_owned(), Interface::from(&b"hello"[..])),
    ]);
    let reply: Interface = object
        .call("Plugin.Put", &arguments)
        .await
        .expect("a reply");
    assert!(reply.is_nil());
}

/// Our host against the recorded plugin. What our host sends is compared with
/// `own`, which differs from `lines` only where Go numbers its types otherwise.
async fn as_host(lines: VecDeque<Line>, own: VecDeque<Line>, work: impl AsyncFnOnce(&HostSession)) {
    let (ours, mut theirs) = duplex(1 << 16);
    let from = |lines: &VecDeque<Line>, side: Side| {
        let of = |line: &Line| matches!(line, Line::Frame(from, _) if *from == side);
        lines.iter().filter(|line| of(line)).cloned().collect()
    };
    let mut own: VecDeque<Line> = from(&own, Side::Host);
    let mut mixed: VecDeque<Line> = lines
        .iter()
        .map(|line| match line {
            Line::Frame(Side::Host, _) => own.pop_front().expect("as many frames"),
            line => line.clone(),
        })
        .collect();
    let playing = async {
        play(&mut mixed, Side::Plugin, &mut theirs).await;
        let quit = next_frame(&mut theirs).await.expect("a wish to end");
        assert_eq!(Some(quit), end(mixed.clone(), Side::Host));
        if let Some(reply) = end(mixed, Side::Plugin) {
            theirs.write_all(&reply).await.expect("our end listens");
        }
        theirs.shutdown().await.expect("closed");
        while next_frame(&mut theirs).await.is_some() {}
    };
    let hosting = async {
        let started =
            HostSession::start(Box::new(ours), Fate::new(), Budget::default(), SOON).await;
        let (host, _mirror) = started.expect("a session");
        work(&host).await;
        host.quit().await.expect("asked");
        host.closed().await;
    };
    let both = async { tokio::join!(playing, hosting) };
    tokio::time::timeout(SOON, both).await.expect("in time");
}

/// The objects that the recorded plugin had.
fn object(name: &str, broker: &std::sync::Arc<MuxBroker>) -> Result<Methods, String> {
    let methods = Methods::new();
    match name {
        "greeter" => {
            Ok(methods.method("Greet", |_: Interface| async { Ok::<_, String>("Hello!") }))
        }
        "kv" => Ok(methods
            .method("Get", |key: String| async move {
                assert_eq!(key, "a");
                Ok::<_, String>(b"hello".to_vec())
            })
            .method("Put", |arguments: Arguments| async move {
                let value: Option<Vec<u8>> = arguments["value"].get().expect("bytes");
                assert_eq!(value.as_deref(), Some(&b"hello"[..]));
                Ok::<_, String>(Interface::nil())
            })),
        "streams" => {
            let (producing, summing) = (broker.clone(), broker.clone());
            Ok(methods
                .method("Produce", move |wanted: Wanted| {
                    let broker = producing.clone();
                    async move {
                        let mut stream = broker.dial(BrokerId(wanted.id)).await?;
                        stream.write_all(&pattern()).await.expect("written");
                        stream.shutdown().await.expect("closed");
                        let mut rest = Vec::new();
                        stream.read_to_end(&mut rest).await.expect("the end");
                        Ok::<_, outrigger_transport::BrokerError>(wanted.bytes)
                    }
                })
                .method("Sum", move |id: u32| {
                    let broker = summing.clone();
                    async move {
                        let mut stream = broker.dial(BrokerId(id)).await?;
                        let mut bytes = Vec::new();
                        stream.read_to_end(&mut bytes).await.expect("the end");
                        stream.shutdown().await.expect("closed");
                        Ok::<_, outrigger_transport::BrokerError>(Digest {
                            bytes: bytes.len() as u64,
                            sum: bytes.into_iter().map(u64::from).sum(),
                        })
                    }
                }))
        }
        other => Err(format!("unknown plugin type: {other}")),
    }
}

/// The frame in which a plugin answers `Quit` when the only type before it on
/// the stream was that of responses. Go counts for the whole process.
fn quit_reply() -> Vec<u8> {
    let reply = end(after_quit("netrpc-kv-get.txt"), Side::Plugin);
    reply.expect("this session has the reply")
}

fn after_quit(name: &str) -> VecDeque<Line> {
    let mut lines = recording(name);
    while lines.pop_front().expect("a wish to end") != Line::Quit {}
    lines
}

/// Our plugin against the recorded host.
async fn as_plugin(mut lines: VecDeque<Line>) {
    let (ours, mut theirs) = duplex(1 << 16);
    let playing = async {
        play(&mut lines, Side::Host, &mut theirs).await;
        let quit = end(lines, Side::Host).expect("a wish to end");
        theirs.write_all(&quit).await.expect("our end listens");
        let mut came = Vec::new();
        while let Some(frame) = next_frame(&mut theirs).await {
            if is_data(&frame) {
                assert_eq!(stream_of(&frame), 1);
                came.push(frame);
            }
        }
        assert_eq!(came, [quit_reply()]);
    };
    let serving = async {
        let accepted = PluginSession::accept(Box::new(ours), ServeLimits::default()).await;
        let (session, _mirror) = accepted.expect("a session");
        let broker = session.broker();
        let stop = CancellationToken::new();
        let dispense = move |name: &str| object(name, &broker);
        let served = session.serve(dispense, ServeLimits::default(), stop.clone(), async {});
        served.await;
        assert!(stop.is_cancelled());
    };
    let both = async { tokio::join!(playing, serving) };
    tokio::time::timeout(SOON, both).await.expect("in time");
}

#[tokio::test]
async fn our_host_sends_a_recorded_go_plugin_what_a_go_host_sent() {
    for (file, name) in [
        ("netrpc-greeter.txt", "greeter"),
        ("netrpc-kv-get.txt", "kv"),
        ("netrpc-stream.txt", "streams"),
    ] {
        let lines = recording(file);
        as_host(lines.clone(), lines, async |host| act(name, host).await).await;
    }
    let lines = recording("netrpc-kv-put.txt");
    as_host(lines.clone(), lines, put).await;
}

/// Current Go begins to count types with 64, which our replies are read with as well.
#[tokio::test]
async fn our_host_understands_a_recorded_go_plugin_that_counts_types_from_64() {
    let lines = recording("netrpc-kv-get-ids-from-64.txt");
    let own = recording("netrpc-kv-get.txt");
    as_host(lines, own, async |host| act("kv", host).await).await;
}

#[tokio::test]
async fn our_plugin_answers_a_recorded_go_host_with_what_a_go_plugin_answered() {
    for file in [
        "netrpc-greeter.txt",
        "netrpc-kv-get.txt",
        "netrpc-kv-put.txt",
        "netrpc-stream.txt",
    ] {
        as_plugin(recording(file)).await;
    }
}

#[tokio::test]
async fn our_plugin_understands_a_recorded_go_host_that_counts_types_from_64() {
    let lines = recording("netrpc-kv-get-ids-from-64.txt");
    let mut own = recording("netrpc-kv-get.txt");
    own.retain(|line| matches!(line, Line::Frame(Side::Plugin, _)));
    let mixed = lines.into_iter().map(|line| match line {
        Line::Frame(Side::Plugin, _) => own.pop_front().expect("as many frames"),
        line => line,
    });
    as_plugin(mixed.collect()).await;
}
