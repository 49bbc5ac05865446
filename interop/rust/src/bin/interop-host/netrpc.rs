//! The scenarios that only net/rpc knows.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use outrigger_examples::netrpc::{Animal, AnyAnimal, sound};
use outrigger_host::netrpc::{CallError, CallErrorKind, Client, SessionError};
use outrigger_host::{BrokerId, DispenseError, RunningPlugin, Stream};
use outrigger_interop::netrpc::{
    Callbacks, CallbacksClient, Greeter, GreeterClient, Pair, Stdio, Streams, StreamsClient, Types,
    TypesClient, Words, adder, http, pattern,
};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;

use super::{Args, Session, later, millis, values};

/// In every host's set and in no plugin's.
pub(crate) const ABSENT: &str = "no-such-plugin";

/// What the host serves over HTTP.
const SERVED: &str = "hello from the host\n";

/// A client on which one quick call shows that it works.
enum Checked {
    Greeter(GreeterClient),
    Animal(AnyAnimal, String),
    Callbacks(CallbacksClient),
    Streams(StreamsClient),
    Types(TypesClient),
    Nothing,
}

impl Checked {
    async fn dispense(args: &Args, plugin: &RunningPlugin) -> Result<Self> {
        if let Some(name) = args.animal() {
            let animal = plugin.dispense::<Animal>(name).await?;
            return Ok(Self::Animal(animal, sound(name, true)));
        }
        Ok(match args.service.as_str() {
            name @ "greeter" => Self::Greeter(plugin.dispense::<Greeter>(name).await?),
            name @ "callbacks" => Self::Callbacks(plugin.dispense::<Callbacks>(name).await?),
            name @ "streams" => Self::Streams(plugin.dispense::<Streams>(name).await?),
            name @ "types" => Self::Types(plugin.dispense::<Types>(name).await?),
            _ => Self::Nothing,
        })
    }

    async fn check(&self) -> Result<()> {
        match self {
            Self::Greeter(client) => equal(client.greet().await?, "Hello!".to_owned()),
            Self::Animal(animal, loud) => equal(animal.speak(true).await?, loud.clone()),
            Self::Callbacks(client) => call_host(client).await,
            Self::Streams(client) => echo(client, 1000).await,
            Self::Types(client) => equal(client.sleep(1).await?, 1),
            Self::Nothing => Ok(()),
        }
    }
}

/// One call of the service, if it has one for that.
pub(crate) async fn check(args: &Args, plugin: &RunningPlugin) -> Result<()> {
    Checked::dispense(args, plugin).await?.check().await
}

fn equal<T: PartialEq + std::fmt::Debug>(got: T, expected: T) -> Result<()> {
    ensure!(got == expected, "got {got:?}, not {expected:?}");
    Ok(())
}

/// The text of the plugin's own error.
fn answered<T>(result: Result<T, CallError>) -> Result<String> {
    match result {
        Ok(_) => bail!("the call succeeded"),
        Err(error) => match error.kind() {
            CallErrorKind::Failed(text) => Ok(text.clone()),
            _ => Err(error).context("not an answer of the plugin"),
        },
    }
}

/// Has the plugin call an adder that this side serves.
async fn call_host(client: &CallbacksClient) -> Result<()> {
    let broker = &client.0.broker;
    let serving = broker.serve_netrpc(broker.next_id(), adder()).await?;
    equal(client.call_host(serving.id()).await?, "42".to_owned())
}

async fn call_helper(client: &CallbacksClient) -> Result<()> {
    let helper = client
        .0
        .broker
        .connect_netrpc(client.offer_helper().await?)
        .await?;
    let pair = Pair {
        a: i64::from(i32::MAX),
        b: -5,
    };
    let sum: i64 = helper.call("Plugin.Add", &pair).await?;
    equal(sum, pair.a + pair.b)
}

/// Runs `work` on the stream that comes in under a new id while `call` is under way.
async fn accepted<T, W, C>(
    client: &StreamsClient,
    work: impl FnOnce(Stream) -> W,
    call: impl FnOnce(BrokerId) -> C,
) -> Result<T>
where
    W: Future<Output = Result<()>>,
    C: Future<Output = Result<T, CallError>>,
{
    let broker = &client.0.broker;
    let mut listener = broker.accept(broker.next_id()).await?;
    let id = listener.id();
    let working = async {
        let stream = listener.accept().await?;
        work(stream).await
    };
    let calling = async { Ok(call(id).await?) };
    let ((), reply) = futures_util::future::try_join(working, calling).await?;
    Ok(reply)
}

async fn sum(client: &StreamsClient, bytes: u64) -> Result<()> {
    let write = |mut stream: Stream| async move {
        pattern::write(&mut stream, bytes).await?;
        Ok(stream.shutdown().await?)
    };
    let digest = accepted(client, write, |id| client.sum(id)).await?;
    equal(digest, pattern::digest_of(bytes))
}

async fn produce(client: &StreamsClient, bytes: u64) -> Result<()> {
    let read = |mut stream: Stream| async move { pattern::check(&mut stream, bytes).await };
    let written = accepted(client, read, |id| client.produce(id, bytes)).await?;
    equal(written, bytes)
}

/// Writes and reads at once, and closes its own direction while bytes are still to come.
async fn echo(client: &StreamsClient, bytes: u64) -> Result<()> {
    let stream = client.0.broker.dial(client.echo().await?).await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        pattern::write(&mut writer, bytes).await?;
        Ok(writer.shutdown().await?)
    };
    let read = pattern::check(&mut reader, bytes);
    futures_util::future::try_join(write, read).await?;
    Ok(())
}

impl Session {
    pub(crate) async fn netrpc(&self, scenario: &str) -> Result<()> {
        match scenario {
            "greeter" => {
                self.step("greet", self.nothing(check(&self.args, &self.plugin)))
                    .await?;
                self.dispense_again().await?;
                self.ping().await
            }
            "dispense-again" => self.dispense_again().await,
            "animal" => self.animal().await,
            "callbacks" | "callbacks-many" | "callbacks-callers" => {
                self.callbacks(scenario).await?;
                self.ping().await
            }
            "streams" => self.streams().await,
            "streams-parallel" => self.streams_parallel().await,
            "types" => self.types().await,
            "calls64" => self.calls64().await,
            "stdio" => {
                self.print().await?;
                self.stdin().await?;
                self.ping().await
            }
            "print" => self.print().await,
            "stdin" => self.stdin().await,
            "unknown-plugin" => self.unknown_plugin().await,
            "unclaimed" => self.unclaimed().await,
            "crash-pending" => self.crash_pending().await,
            other => bail!("unknown scenario `{other}`"),
        }
    }

    /// A step's work that has nothing to say.
    async fn nothing(&self, work: impl Future<Output = Result<()>>) -> Result<String> {
        work.await.map(|()| String::new())
    }

    /// A second object beside the first.
    async fn dispense_again(&self) -> Result<()> {
        self.step("dispense-again", async {
            let first = Checked::dispense(&self.args, &self.plugin).await?;
            first.check().await?;
            let second = Checked::dispense(&self.args, &self.plugin).await?;
            second.check().await?;
            drop(second);
            self.nothing(first.check()).await
        })
        .await
    }

    async fn animal(&self) -> Result<()> {
        let name = self.args.animal().context("the service is no animal")?;
        let animal = self.dispense::<Animal>(name).await?;
        for (step, loud) in [("speak", false), ("speak-loud", true)] {
            let speak = async { equal(animal.speak(loud).await?, sound(name, loud)) };
            self.step(step, self.nothing(speak)).await?;
        }
        self.ping().await
    }

    async fn callbacks(&self, scenario: &str) -> Result<()> {
        let client = self.dispense::<Callbacks>("callbacks").await?;
        let rounds = async |count: usize| {
            for round in 0..count {
                let both = async {
                    call_host(&client).await?;
                    call_helper(&client).await
                };
                both.await.with_context(|| format!("round {round}"))?;
            }
            Ok(())
        };
        match scenario {
            "callbacks-many" => self.step("callbacks-50", self.nothing(rounds(50))).await,
            "callbacks-callers" => {
                self.step("16-callers", async {
                    try_join_all((0..16).map(|_| rounds(8))).await?;
                    Ok("16 callers, 8 rounds each".into())
                })
                .await
            }
            _ => {
                self.step("call-host", self.nothing(call_host(&client)))
                    .await?;
                self.step("offer-helper", self.nothing(call_helper(&client)))
                    .await
            }
        }
    }

    fn stream_bytes(&self) -> u64 {
        self.args.bytes.unwrap_or(10 << 20) as u64
    }

    /// Bytes of one body among many.
    fn body_bytes(&self) -> usize {
        self.args.bytes.unwrap_or(8 << 20).min(8 << 20)
    }

    async fn streams(&self) -> Result<()> {
        let client = self.dispense::<Streams>("streams").await?;
        let bytes = self.stream_bytes();
        let moved = async |work: Result<()>| work.map(|()| format!("{bytes} bytes"));
        self.step("sum", async { moved(sum(&client, bytes).await).await })
            .await?;
        self.step("produce", async {
            moved(produce(&client, bytes).await).await
        })
        .await?;
        self.step("echo", async { moved(echo(&client, bytes).await).await })
            .await?;
        self.step("empty", async {
            sum(&client, 0).await?;
            produce(&client, 0).await?;
            self.nothing(echo(&client, 0)).await
        })
        .await?;
        let text = SERVED.repeat(15_000);
        self.step("fetch-from-host", fetch_from_host(&client, &text))
            .await?;
        let hello = b"hello from the plugin\n";
        self.step("get-from-plugin", over_http(&client, "GET", &[], hello))
            .await?;
        let body = b"0123456789abcdef".repeat(1 << 16);
        self.step("post-to-plugin", over_http(&client, "POST", &body, &body))
            .await?;
        self.ping().await
    }

    /// Streams share the connection with each other and with calls.
    async fn streams_parallel(&self) -> Result<()> {
        let client = self.dispense::<Streams>("streams").await?;
        let bytes = self.stream_bytes() / 4;
        self.step("8-streams", async {
            let each = (0..8).map(|_| async {
                echo(&client, bytes).await?;
                sum(&client, bytes).await?;
                produce(&client, bytes).await
            });
            try_join_all(each).await?;
            Ok(format!("24 streams of {bytes} bytes"))
        })
        .await?;
        self.step("32-http", async {
            let body = vec![b'x'; self.body_bytes()];
            let text = String::from_utf8(body.clone())?;
            let each = (0..32).map(|_| async {
                let post = over_http(&client, "POST", &body, &body);
                futures_util::future::try_join(post, fetch_from_host(&client, &text)).await
            });
            try_join_all(each).await?;
            Ok(format!("32 bodies of {} bytes each way", body.len()))
        })
        .await?;
        self.ping().await
    }

    async fn types(&self) -> Result<()> {
        let client = self.dispense::<Types>("types").await?;
        self.step("describe", async {
            let described = values::described()?;
            for (value, text) in &described {
                let got = client.describe(value).await.context(*text)?;
                equal(got.as_str(), *text)?;
            }
            Ok(format!("{} values", described.len()))
        })
        .await?;
        self.step("echo", async {
            let echoed = values::echoed()?;
            for (number, value) in echoed.iter().enumerate() {
                let what = || format!("value {number}, a {:?}", value.name());
                let back = client.echo(value).await.with_context(what)?;
                let same = values::in_order(&back)? == values::in_order(value)?;
                ensure!(same, "{} came back as {back:.400?}", what());
            }
            Ok(format!("{} values", echoed.len()))
        })
        .await?;
        self.step("fail", async {
            let text = "deliberate \"failure\"\twith ☃ and\na second line";
            let failure = answered(client.fail(text).await)?;
            self.nothing(async { equal(failure.as_str(), text) }).await
        })
        .await?;
        let object = &client.0.client;
        self.step("wrong-argument", async {
            let error = answered(object.call::<_, i64>("Plugin.Sleep", "no number").await)?;
            equal(client.sleep(1).await?, 1)?;
            Ok(error)
        })
        .await?;
        self.step("unknown-names", self.nothing(unknown_names(object)))
            .await?;
        let sleep = async { equal(client.sleep(20).await?, 20) };
        self.step("sleep", self.nothing(sleep)).await?;
        self.calls64().await?;
        self.ping().await
    }

    /// Slow calls and quick ones outstanding at once on one connection.
    async fn calls64(&self) -> Result<()> {
        let client = self.dispense::<Types>("types").await?;
        self.step("calls64", async {
            let began = Instant::now();
            let callers = (0..64_i64).map(|caller| {
                let client = &client;
                async move {
                    // The later ones end first.
                    let millis = 300 - 4 * caller;
                    equal(client.sleep(millis).await?, millis)?;
                    for round in 0..20 {
                        let value = format!("caller {caller}, round {round}");
                        let back = client.echo(&value.as_str().into()).await?;
                        equal(back.get::<String>()?, Some(value))?;
                    }
                    Ok::<(), anyhow::Error>(())
                }
            });
            try_join_all(callers).await?;
            let took = began.elapsed();
            ensure!(took < Duration::from_secs(5), "took {took:?}");
            Ok("64 callers".into())
        })
        .await
    }

    async fn print(&self) -> Result<()> {
        let client = self.dispense::<Stdio>("stdio").await?;
        self.step("print", async {
            let words = Words {
                out: format!("printed \0☃ on stdout\n{}\n", "o".repeat(300 << 10)),
                err: format!("printed on stderr\n{}\n", "e".repeat(300 << 10)),
            };
            client.print(&words).await?;
            let came =
                |printed: &super::Printed, text: &str| printed.holds(text.as_bytes()).then_some(());
            later("stdout", || came(&self.stdout, &words.out)).await?;
            later("stderr", || came(&self.stderr, &words.err)).await?;
            Ok(format!("{} bytes", words.out.len() + words.err.len()))
        })
        .await
    }

    async fn stdin(&self) -> Result<()> {
        let client = self.dispense::<Stdio>("stdio").await?;
        self.step("stdin", async {
            let text = client.read_stdin().await?;
            let expected = self.args.stdin.clone().unwrap_or_default();
            equal(&text, &expected)?;
            Ok(format!("{} bytes", text.len()))
        })
        .await
    }

    async fn still_works(&self) -> Result<()> {
        self.step("still-works", async {
            check(&self.args, &self.plugin).await?;
            self.plugin.ping().await?;
            Ok(String::new())
        })
        .await
    }

    async fn unknown_plugin(&self) -> Result<()> {
        self.step("unknown-plugin", async {
            let error = match self.plugin.dispense::<Greeter>(ABSENT).await {
                Ok(_) => bail!("dispensing it succeeded"),
                Err(error) => error,
            };
            let DispenseError::Plugin {
                source: SessionError::Call(call),
                ..
            } = &error
            else {
                bail!("not an answer of the plugin: {error}");
            };
            let expected = format!("unknown plugin type: {ABSENT}");
            equal(call.failure(), Some(expected.as_str()))?;
            Ok(error.to_string())
        })
        .await?;
        self.still_works().await
    }

    /// Dials an id that nobody accepts, which the plugin gives up after 5 s.
    async fn unclaimed(&self) -> Result<()> {
        self.step("unclaimed", async {
            let began = Instant::now();
            let error = match self.plugin.broker().dial(BrokerId(u32::MAX)).await {
                Ok(_) => bail!("the stream was accepted"),
                Err(error) => error,
            };
            let took = began.elapsed();
            let expected = Duration::from_secs(4)..Duration::from_secs(9);
            ensure!(expected.contains(&took), "given up after {took:?}");
            Ok(format!("{error}: {}", error.kind()))
        })
        .await?;
        self.still_works().await
    }

    /// Kills the plugin under calls that it has not answered.
    async fn crash_pending(&self) -> Result<()> {
        const CALLS: usize = 8;
        let client = self.dispense::<Types>("types").await?;
        self.step("crash-pending", async {
            let calls: Vec<_> = (0..CALLS)
                .map(|_| {
                    let client = client.clone();
                    tokio::spawn(async move { client.sleep(30_000).await })
                })
                .collect();
            // Its answer shows that the calls before it have reached the plugin or are about to.
            equal(client.sleep(50).await?, 50)?;
            self.signal(Signal::KILL)?;
            let began = Instant::now();
            let failed = tokio::time::timeout(Duration::from_secs(2), try_join_all(calls)).await;
            let failed = failed.context("a call was still pending 2 s after the kill")??;
            let after = millis(began);
            let mut last = String::new();
            for outcome in failed {
                match outcome {
                    Err(error) if matches!(error.kind(), CallErrorKind::Lost(_)) => {
                        last = error.to_string();
                    }
                    other => bail!("a call of the dead plugin gave {other:?}"),
                }
            }
            self.exit_seen().await?;
            Ok(format!("{CALLS} calls: {last}, after {after:.1} ms"))
        })
        .await
    }
}

async fn fetch_from_host(client: &StreamsClient, body: &str) -> Result<String> {
    let serve = |stream| async {
        let mut asked = String::new();
        http::answer_one(stream, |request| {
            asked = format!("{} {}", request.method, request.path);
            body.as_bytes().to_vec()
        })
        .await?;
        equal(asked.as_str(), "GET /")
    };
    let got = accepted(client, serve, |id| client.fetch_from_host(id)).await?;
    ensure!(got == body, "the plugin got {} other bytes", got.len());
    Ok(format!("{} bytes", got.len()))
}

async fn over_http(
    client: &StreamsClient,
    method: &str,
    body: &[u8],
    expected: &[u8],
) -> Result<String> {
    let id = client.offer_http().await?;
    let stream = client.0.broker.dial(id).await?;
    let got = http::fetch(stream, method, "plugin", body).await?;
    ensure!(got == expected, "{} other bytes came", got.len());
    Ok(format!("{} bytes", got.len()))
}

/// Go cannot skip a nil interface value: with one as the argument it would wait for more.
async fn unknown_names(object: &Client) -> Result<()> {
    for (name, expected) in [
        (
            "Plugin.NoSuchMethod",
            "rpc: can't find method Plugin.NoSuchMethod",
        ),
        (
            "NoSuchService.Echo",
            "rpc: can't find service NoSuchService.Echo",
        ),
        (
            "without a dot",
            "rpc: service/method request ill-formed: without a dot",
        ),
    ] {
        let error = answered(object.call::<_, String>(name, "skipped").await)?;
        equal(error.as_str(), expected)?;
    }
    Ok(())
}
