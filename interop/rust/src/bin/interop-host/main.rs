//! Drives any plugin through `outrigger-host` and reports what happened as one
//! JSON object on stdout: the counterpart of the Go peer `host`, with the same
//! flags, scenarios and report.
//!
//! The exit status is 0 when every step succeeded, 1 when one failed and 2 for
//! wrong usage.

mod netrpc;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;
use futures_util::StreamExt;
use outrigger::{Files, Manifest, Permissions, Policy, Settings};
use outrigger_examples::netrpc::{Animal, KvStore, KvStoreClient, sound};
use outrigger_examples::proto::counter::add_helper_server::{AddHelper, AddHelperServer};
use outrigger_examples::proto::counter::{self, SumRequest, SumResponse};
use outrigger_examples::proto::filelister::{FileListRequest, HostServiceRequest};
use outrigger_examples::proto::streaming;
use outrigger_examples::{Counter, FileLister, Streamer, basic_cookie, host_services_cookie};
use outrigger_host::{
    Address, AllowedTransports, AppProtocolVersion, Attach, BrokerId, Deadlines, ExpectedDigest,
    Interface, Launch, MagicCookie, PingError, PluginSet, ProcessRunner, Reattach, RunningPlugin,
    ServiceSet, Transport,
};
use outrigger_interop::netrpc::{Callbacks, Greeter, Stdio, Streams, Types};
use outrigger_interop::proto::grpctest::ping_pong_client::PingPongClient;
use outrigger_interop::proto::grpctest::print_kv_request::Value;
use outrigger_interop::proto::grpctest::{
    BidirectionalRequest, PanicRequest, PingRequest, PrintKvRequest, PrintStdioRequest, TestRequest,
};
use outrigger_interop::{Test, peer_cookie, ping_pong, tls};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tonic::{Code, Request, Response, Status};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::SubscriberExt;

/// How long one step may take.
const STEP: Duration = Duration::from_secs(20);
/// How long a log line or printed bytes may take after the call that caused them.
const LATER: Duration = Duration::from_secs(5);
/// Log lines that are kept.
const MAX_LINES: usize = 20_000;

#[derive(Parser)]
struct Args {
    /// kv, counter, streamer, grpctest, filelister, greeter, animal:NAME, callbacks, streams,
    /// types, stdio or none
    #[arg(long, default_value = "none")]
    service: String,
    /// Comma-separated scenarios; by service otherwise
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Magic cookie KEY=VALUE; by service otherwise
    #[arg(long)]
    cookie: Option<String>,
    /// Allowed protocols
    #[arg(long, value_delimiter = ',', default_value = "grpc,netrpc")]
    allowed: Vec<Transport>,
    /// Use AutoMTLS
    #[arg(long)]
    auto_mtls: bool,
    /// Ask for broker multiplexing
    #[arg(long)]
    mux: bool,
    /// Offered versions of the app protocol
    #[arg(long, value_delimiter = ',', default_value = "1")]
    versions: Vec<u32>,
    /// Fail unless this version was negotiated
    #[arg(long)]
    expect_version: Option<u32>,
    /// Folder with the files of static TLS
    #[arg(long)]
    tls_dir: Option<PathBuf>,
    /// Do not pass the host's environment on
    #[arg(long)]
    skip_host_env: bool,
    /// Fail when temporary files are left behind
    #[arg(long)]
    forbid_leftovers: bool,
    /// Fail when the plugin had to be killed, which this host always does
    #[arg(long)]
    forbid_forced: bool,
    /// Size of a stream's data in bytes; 1 MiB for streamer and 10 MiB for streams otherwise
    #[arg(long)]
    bytes: Option<usize>,
    /// What the plugin finds on its stdin; nothing for stdio and the host's own otherwise
    #[arg(long)]
    stdin: Option<String>,
    /// Start through a runner
    #[arg(long)]
    runner: bool,
    /// Instead of starting a program, join the plugin that this JSON describes
    #[arg(long = "attach")]
    join: Option<String>,
    /// The plugin and its arguments
    #[arg(last = true, required_unless_present = "join")]
    program: Vec<String>,
}

impl Args {
    fn cookie(&self) -> Result<MagicCookie> {
        Ok(match (&self.cookie, self.service.as_str()) {
            (Some(cookie), _) => {
                let (key, value) = cookie.split_once('=').context("no KEY=VALUE")?;
                MagicCookie::new(key, value)
            }
            (None, "grpctest") => peer_cookie(),
            (None, "filelister") => host_services_cookie(),
            (None, _) => basic_cookie(),
        })
    }

    /// The name of an animal, if the service is one.
    fn animal(&self) -> Option<&str> {
        self.service.strip_prefix("animal:")
    }

    fn set(&self) -> Result<PluginSet> {
        let set = PluginSet::new().with::<Greeter>(netrpc::ABSENT);
        if let Some(name) = self.animal() {
            ensure!(!sound(name, false).is_empty(), "unknown animal `{name}`");
            return Ok(set.with::<Animal>(name));
        }
        Ok(match self.service.as_str() {
            "kv" => set.with::<KvStore>("kv"),
            "greeter" => set.with::<Greeter>("greeter"),
            "callbacks" => set.with::<Callbacks>("callbacks"),
            "streams" => set.with::<Streams>("streams"),
            "types" => set.with::<Types>("types"),
            "stdio" => set.with::<Stdio>("stdio"),
            "counter" => set.with::<Counter>("counter"),
            "streamer" => set.with::<Streamer>("streamer"),
            "grpctest" => set.with::<Test>("test"),
            "filelister" => set.with::<FileLister>("file-lister"),
            "none" => set,
            other => bail!("unknown service `{other}`"),
        })
    }

    /// Lays the chosen text in the place that plugins inherit.
    fn give_stdin(&self, dir: &Path) -> Result<()> {
        let text = match (&self.stdin, self.service.as_str()) {
            (Some(text), _) => text.as_str(),
            (None, "stdio") => "",
            (None, _) => return Ok(()),
        };
        let path = dir.join("stdin");
        std::fs::write(&path, text)?;
        Ok(rustix::stdio::dup2_stdin(std::fs::File::open(path)?)?)
    }

    fn allowed(&self) -> Result<AllowedTransports> {
        let allows = |transport| self.allowed.contains(&transport);
        match (allows(Transport::NetRpc), allows(Transport::Grpc)) {
            (true, true) => Ok(AllowedTransports::ALL),
            (true, false) => Ok(AllowedTransports::NETRPC),
            (false, true) => Ok(AllowedTransports::GRPC),
            (false, false) => bail!("no protocol is allowed"),
        }
    }

    fn scenarios(&self) -> Vec<String> {
        if !self.scenario.is_empty() {
            return self.scenario.clone();
        }
        let usual = match self.service.as_str() {
            "streamer" => "streaming",
            "filelister" => "list",
            "none" => "ping",
            _ if self.animal().is_some() => "animal",
            service => service,
        };
        vec![usual.to_owned()]
    }

    fn launch(&self, dir: &Path) -> Result<Launch> {
        let [program, arguments @ ..] = self.program.as_slice() else {
            bail!("no program");
        };
        let mut launch = Launch::new(std::path::absolute(program)?, self.cookie()?)
            .args(arguments)
            .current_dir(dir);
        launch = launch.allow(self.allowed()?).deadlines(Deadlines {
            start: STEP,
            ..Deadlines::default()
        });
        for version in &self.versions {
            launch = launch.offer(*version, self.set()?);
        }
        if self.auto_mtls {
            launch = launch.auto_mtls();
        }
        if self.mux {
            launch = launch.mux_broker();
        }
        if self.runner {
            launch = launch.runner(ProcessRunner);
        }
        if self.skip_host_env {
            launch = launch.skip_host_env();
        }
        if let Some(dir) = &self.tls_dir {
            launch = launch
                .tls(tls::static_tls(dir)?)
                .env(tls::TLS_DIR, std::path::absolute(dir)?);
        }
        Ok(launch)
    }

    fn attach(&self, reattach: Reattach, versions: &[u32]) -> Result<Attach> {
        let mut attach = Attach::new(reattach);
        for version in versions {
            attach = attach.offer(*version, self.set()?);
        }
        if let Some(dir) = &self.tls_dir {
            attach = attach.tls(tls::static_tls(dir)?);
        }
        Ok(attach)
    }
}

/// Where a plugin runs that this host is to join.
fn reattach(json: &str) -> Result<Reattach> {
    #[derive(serde::Deserialize)]
    struct At {
        protocol: Option<String>,
        version: u32,
        network: String,
        address: String,
        pid: Option<u32>,
        #[serde(default)]
        test: bool,
    }
    let at: At = serde_json::from_str(json)?;
    let protocol = at.protocol.unwrap_or_default();
    Ok(Reattach {
        transport: match protocol.as_str() {
            "" => Transport::NetRpc,
            protocol => protocol.parse()?,
        },
        version: AppProtocolVersion(at.version),
        address: Address {
            network: at.network.parse()?,
            text: at.address,
        },
        pid: at.pid,
        started: None,
        test: at.test,
    })
}

/// Bytes that a plugin printed.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    fn holds(&self, expected: &[u8]) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) == expected
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One event of the host's log.
#[derive(Clone, Default)]
struct Line {
    level: String,
    target: String,
    fields: BTreeMap<&'static str, String>,
}

impl Line {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// What a plugin said, not this program.
    fn is_from_plugin(&self) -> bool {
        self.target == "outrigger::plugin"
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Line>>>);

impl Log {
    fn find(&self, matches: impl Fn(&Line) -> bool) -> Vec<Line> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| matches(line)).cloned().collect()
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line {
            level: metadata.level().to_string(),
            target: metadata.target().to_owned(),
            ..Line::default()
        };
        event.record(&mut line);
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < MAX_LINES {
            lines.push(line);
        }
    }
}

/// Waits until `found` gives something: logs and prints come on ways of their own.
async fn later<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + LATER;
    loop {
        if let Some(found) = found() {
            return Ok(found);
        }
        ensure!(
            Instant::now() < deadline,
            "{what} did not come within {} s",
            LATER.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[derive(Serialize)]
struct Step {
    name: &'static str,
    ok: bool,
    ms: f64,
    detail: String,
}

#[derive(Default, Serialize)]
struct Report {
    ok: bool,
    steps: Vec<Step>,
    negotiated_version: u32,
    protocol: String,
    address_network: String,
    error: String,
    start_ms: f64,
    kill_ms: f64,
    exited: bool,
    forced: bool,
    /// As the Go host has it; this one's polite end has no error of its own.
    quit_error: String,
    leftovers: BTreeSet<String>,
    problems: Vec<String>,
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// One plugin process and what was found out.
struct Session {
    args: Args,
    dir: PathBuf,
    log: Log,
    stdout: Printed,
    stderr: Printed,
    plugin: RunningPlugin,
    steps: Mutex<Vec<Step>>,
}

impl Session {
    async fn step(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<String>>,
    ) -> Result<()> {
        let began = Instant::now();
        let done = tokio::time::timeout(STEP, work)
            .await
            .unwrap_or_else(|_| Err(anyhow!("not finished within {} s", STEP.as_secs())));
        let (ok, detail) = match &done {
            Ok(detail) => (true, detail.clone()),
            Err(error) => (false, format!("{error:#}")),
        };
        let step = Step {
            name,
            ok,
            ms: millis(began),
            detail,
        };
        self.steps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(step);
        done.map(|_| ()).context(name)
    }

    async fn dispense<I: Interface>(&self, name: &str) -> Result<I::Client> {
        Ok(self.plugin.dispense::<I>(name).await?)
    }

    async fn run(&self, scenario: &str) -> Result<()> {
        match scenario {
            "none" => Ok(()),
            "ping" => self.ping().await,
            "kv" | "negotiated" => self.kv().await,
            "kv-large" => self.kv_large().await,
            "counter" => self.counter().await,
            "counter-callers" => self.counter_callers().await,
            "streaming" => self.streaming().await,
            "grpctest" => self.grpctest().await,
            "bidirectional-many" => {
                self.step("bidirectional-50", async {
                    for round in 0..50 {
                        self.bidirectional()
                            .await
                            .with_context(|| format!("round {round}"))?;
                    }
                    Ok(String::new())
                })
                .await
            }
            "panic" => self.panic().await,
            "list" => self.list().await,
            "reattach" => self.reattach().await,
            "checksum-right" => self.ping().await,
            "kill" => self.kill_times().await,
            "crash" => self.crash().await,
            "sigint" => self.sigint().await,
            other => self.netrpc(other).await,
        }
    }

    async fn ping(&self) -> Result<()> {
        let ping = async { Ok(self.plugin.ping().await.map(|()| String::new())?) };
        self.step("ping", ping).await
    }

    async fn kv_store(&self) -> Result<KvStoreClient> {
        self.dispense::<KvStore>("kv").await
    }

    async fn kv_put(&self, key: &str, value: &[u8]) -> Result<String> {
        self.kv_store().await?.put(key, value).await?;
        Ok(String::new())
    }

    /// Accepts a suffix, because published plugins append who wrote the value.
    async fn kv_expect(&self, key: &str, expected: &[u8]) -> Result<String> {
        let value = self.kv_store().await?.get(key).await?;
        ensure!(
            value.starts_with(expected),
            "`{key}` holds {} other bytes",
            value.len()
        );
        Ok(format!("{} bytes", value.len()))
    }

    async fn kv(&self) -> Result<()> {
        self.step("put", self.kv_put("greeting", b"hello")).await?;
        self.step("get", self.kv_expect("greeting", b"hello"))
            .await?;
        self.step("replace", self.kv_put("greeting", &[0, 255, b'\n']))
            .await?;
        self.step("get-replaced", self.kv_expect("greeting", &[0, 255, b'\n']))
            .await?;
        self.step("get-absent", async {
            match self.kv_expect("absent", b"").await {
                Ok(value) => bail!("an absent key gave {value}"),
                Err(error) => Ok(format!("{error:#}")),
            }
        })
        .await?;
        self.ping().await
    }

    /// More than 4 MiB come back. The value is laid where plugins keep theirs,
    /// because a request of that size is refused by design.
    async fn kv_large(&self) -> Result<()> {
        let large: Vec<u8> = (0..5_u32 << 20).map(|n| n.to_le_bytes()[1]).collect();
        self.step("put-3-mib", self.kv_put("three", &large[..3 << 20]))
            .await?;
        self.step("get-3-mib", self.kv_expect("three", &large[..3 << 20]))
            .await?;
        self.step("get-5-mib", async {
            std::fs::write(self.dir.join("kv_large"), &large)?;
            self.kv_expect("large", &large).await
        })
        .await
    }

    async fn counter_expect(&self, key: &str, expected: i64) -> Result<String> {
        let mut client = self.dispense::<Counter>("counter").await?.client;
        match client.get(counter::GetRequest { key: key.into() }).await {
            Ok(reply) => {
                let value = reply.into_inner().value;
                ensure!(value == expected, "`{key}` is {value}, not {expected}");
                Ok(String::new())
            }
            // Some plugins report an absent counter as an error.
            Err(status) if expected == 0 => Ok(status.to_string()),
            Err(status) => Err(status.into()),
        }
    }

    /// Offers the adder on a new broker id for the time of one call.
    async fn counter_add(&self, key: &str, value: i64) -> Result<String> {
        let counter = self.dispense::<Counter>("counter").await?;
        let (mut client, broker) = (counter.client, counter.broker);
        let adder = ServiceSet::new().with(AddHelperServer::new(Adder));
        let serving = broker.serve(broker.next_id(), adder).await?;
        let add_server = serving.id().0;
        client
            .put(counter::PutRequest {
                add_server,
                key: key.into(),
                value,
            })
            .await?;
        Ok(String::new())
    }

    async fn counter(&self) -> Result<()> {
        self.step("get-absent", self.counter_expect("apples", 0))
            .await?;
        self.step("put", self.counter_add("apples", 3)).await?;
        self.step("get", self.counter_expect("apples", 3)).await?;
        self.step("put-again", self.counter_add("apples", -5))
            .await?;
        self.step("get-again", self.counter_expect("apples", -2))
            .await?;
        self.ping().await
    }

    /// 16 callers add 8 times each, every caller to a counter of its own.
    async fn counter_callers(&self) -> Result<()> {
        self.step("16-callers", async {
            // Go plugins establish multiplexed connections one at a time.
            let establishing = tokio::sync::Mutex::new(());
            let caller = async |number: i64| {
                let key = format!("caller-{number}");
                for _ in 0..8 {
                    let _one_at_a_time = match self.args.mux {
                        true => Some(establishing.lock().await),
                        false => None,
                    };
                    self.counter_add(&key, number)
                        .await
                        .with_context(|| key.clone())?;
                }
                self.counter_expect(&key, number * 8).await
            };
            futures_util::future::try_join_all((1..=16).map(caller)).await?;
            Ok("128 calls".into())
        })
        .await
    }

    async fn streaming(&self) -> Result<()> {
        let mut client = self.dispense::<Streamer>("streamer").await?;
        let data: Vec<u8> = (0..self.args.bytes.unwrap_or(1 << 20))
            .map(|n| ((n * 31) >> 3).to_le_bytes()[0])
            .collect();
        let path = self.dir.join("stream-data");
        self.step("configure", async {
            let path = path.display().to_string();
            client
                .configure(streaming::configure::Request {
                    path,
                    chunk_size: 512,
                })
                .await?;
            Ok(String::new())
        })
        .await?;
        self.step("write", async {
            let chunks: Vec<_> = data
                .chunks(512)
                .map(|part| streaming::write::RequestChunk {
                    bytes_to_write: part.to_vec().into(),
                })
                .collect();
            match client.write(futures_util::stream::iter(chunks)).await {
                Ok(_) => Ok(String::new()),
                // A published plugin ends this call with status OK and no message.
                Err(status) if status.message().contains("Missing response message") => {
                    Ok("no response message".into())
                }
                Err(status) => Err(status.into()),
            }
        })
        .await?;
        self.step("read", async {
            let mut chunks = client.read(streaming::read::Request {}).await?.into_inner();
            let (mut got, mut count) = (Vec::new(), 0);
            while let Some(chunk) = chunks.message().await? {
                got.extend_from_slice(&chunk.read_bytes);
                count += 1;
                ensure!(got.len() <= data.len(), "more than was written came back");
            }
            ensure!(got == data, "{} other bytes came back", got.len());
            Ok(format!("{} bytes in {count} chunks", got.len()))
        })
        .await?;
        self.ping().await
    }

    /// Everything the test service offers short of the panic.
    async fn grpctest(&self) -> Result<()> {
        let mut client = self.dispense::<Test>("test").await?;
        self.step("double", async {
            let output = client
                .double(TestRequest { input: 21 })
                .await?
                .into_inner()
                .output;
            ensure!(output == 42, "twice 21 is {output}");
            Ok(String::new())
        })
        .await?;
        self.step("printkv", self.print_kv()).await?;
        self.step("stream", async {
            let (sender, receiver) = tokio::sync::mpsc::channel(1);
            let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
            // A Go server sends its headers with its first message, so the first request goes ahead.
            sender.send(TestRequest { input: 21 }).await?;
            let mut echoes = client.stream(requests).await?.into_inner();
            for input in 21..=26 {
                if input > 21 {
                    sender.send(TestRequest { input }).await?;
                }
                let echo = echoes.message().await?.context("the stream ended early")?;
                ensure!(echo.output == input, "sent {input}, got {}", echo.output);
            }
            drop(sender);
            ensure!(echoes.next().await.is_none(), "the stream did not end");
            Ok(String::new())
        })
        .await?;
        self.step("bidirectional", async {
            self.bidirectional().await.map(|()| String::new())
        })
        .await?;
        self.step("stdio", self.stdio()).await?;
        self.ping().await
    }

    async fn print_kv(&self) -> Result<String> {
        let mut client = self.dispense::<Test>("test").await?;
        for value in [Value::ValueString("bar".into()), Value::ValueInt(12)] {
            client
                .print_kv(PrintKvRequest {
                    key: "foo".into(),
                    value: Some(value),
                })
                .await?;
        }
        for expected in ["foo=bar", "foo=12"] {
            let lines = || {
                let lines = self.log.find(|line| {
                    line.is_from_plugin()
                        && line.field("message") == "PrintKV called"
                        && line.field("fields").split(' ').any(|pair| pair == expected)
                });
                lines.into_iter().next()
            };
            let line = later(expected, lines).await?;
            ensure!(
                line.level == "INFO",
                "{expected} was logged at {}",
                line.level
            );
            ensure!(
                !line.field("time").is_empty(),
                "{expected} was logged without its time"
            );
        }
        Ok(String::new())
    }

    /// Has the plugin call the host, then calls the plugin's own brokered server.
    async fn bidirectional(&self) -> Result<()> {
        let broker = self.plugin.broker();
        let serving = broker.serve(broker.next_id(), ping_pong()).await?;
        let mut client = self.dispense::<Test>("test").await?;
        let request = BidirectionalRequest { id: serving.id().0 };
        let id = client
            .bidirectional(request)
            .await
            .context("the plugin calling the host")?;
        let id = id.into_inner().id;
        let plugin = broker.connect(BrokerId(id)).await?;
        let pong = PingPongClient::new(plugin)
            .ping(PingRequest {})
            .await?
            .into_inner()
            .msg;
        ensure!(pong == "pong", "the plugin answered {pong:?}");
        Ok(())
    }

    async fn stdio(&self) -> Result<String> {
        let mut stdout = b"printed \x00\xff on stdout\n".to_vec();
        stdout.extend([b'o'; 3000]);
        let mut stderr = b"printed on stderr\n".to_vec();
        stderr.extend([b'e'; 3000]);
        let request = PrintStdioRequest {
            stdout: stdout.clone().into(),
            stderr: stderr.clone().into(),
        };
        self.dispense::<Test>("test")
            .await?
            .print_stdio(request)
            .await?;
        later("the bytes on stdout", || {
            self.stdout.holds(&stdout).then_some(())
        })
        .await?;
        later("the bytes on stderr", || {
            self.stderr.holds(&stderr).then_some(())
        })
        .await?;
        Ok(String::new())
    }

    async fn panic(&self) -> Result<()> {
        const MESSAGE: &str = "interop panic message";
        self.step("panic", async {
            let request = PanicRequest {
                message: MESSAGE.into(),
            };
            let status = match self.dispense::<Test>("test").await?.panic(request).await {
                Ok(_) => bail!("the call succeeded"),
                Err(status) => status,
            };
            let errors = || {
                let lines = self
                    .log
                    .find(|line| line.is_from_plugin() && line.level == "ERROR");
                let begins = lines.iter().any(|line| {
                    let message = line.field("message");
                    message.starts_with("panic: ") && message.contains(MESSAGE)
                });
                (begins && lines.len() > 10).then_some(lines.len())
            };
            let count = later("the trace of the panic", errors).await?;
            Ok(format!(
                "{count} error lines; the call failed with {:?}",
                status.code()
            ))
        })
        .await
    }

    async fn list(&self) -> Result<()> {
        let dir = self.dir.join("listed");
        std::fs::create_dir_all(dir.join("folder"))?;
        std::fs::write(dir.join("file.txt"), "text")?;
        let readable = Files::new(&dir, Permissions::READ | Permissions::LIST).recursive(true);
        let manifest = Manifest::builder("guest", Transport::Grpc, "guest")
            .handshake(1, "TEST_KEY", "TEST_VALUE")
            .files(readable)
            .build()?;
        let settings = Settings::new().policy(Policy::allow_requested());
        let services = settings.plugin(manifest, &dir)?.services();
        let serving = self.plugin.serve(&services).await?;
        let mut client = self.dispense::<FileLister>("file-lister").await?;
        self.step("list", async {
            let host_service = serving.id().0;
            let reply = client
                .establish_host_services(HostServiceRequest { host_service })
                .await?;
            let established = reply.into_inner();
            ensure!(established.error.is_none(), "{:?}", established.error);
            let request = FileListRequest {
                root_dir: dir.display().to_string(),
                path: ".".into(),
                host_service,
            };
            let listed = client.list(request).await?.into_inner();
            ensure!(listed.error.is_none(), "{:?}", listed.error);
            for name in ["folder", "file.txt"] {
                let there = listed.entry.iter().any(|entry| entry.contains(name));
                ensure!(there, "no {name} in {:?}", listed.entry);
            }
            Ok(format!(
                "client {:?}; {:?}",
                established.client_id, listed.entry
            ))
        })
        .await?;
        self.step("list-absent", async {
            let request = FileListRequest {
                path: "no-such-folder".into(),
                ..Default::default()
            };
            let listed = client.list(request).await?.into_inner();
            listed.error.context("no error for an absent folder")
        })
        .await
    }

    /// A second host joins the running process, and then also ends it.
    async fn reattach(&self) -> Result<()> {
        let is_kv = self.args.service == "kv";
        if is_kv {
            self.step("put", self.kv_put("kept", b"value")).await?;
        }
        let version = self.plugin.negotiated_version().0;
        let attach = self.args.attach(self.plugin.reattach(), &[version])?;
        let second = attach.connect().await?;
        self.step("reattach", async {
            second.ping().await?;
            if is_kv {
                let value = second.dispense::<KvStore>("kv").await?.get("kept").await?;
                ensure!(value.starts_with(b"value"), "another value came back");
            }
            netrpc::check(&self.args, &second).await?;
            Ok(String::new())
        })
        .await?;
        self.step("first-still-works", async {
            netrpc::check(&self.args, &self.plugin).await?;
            self.plugin.ping().await?;
            Ok(String::new())
        })
        .await?;
        self.step("kill-reattached", async {
            let report = second.stop().await;
            ensure!(!report.forced, "it had to be killed");
            let first = self.plugin.wait().await;
            Ok(format!("the first host saw that it {}", first.status))
        })
        .await
    }
}

impl Session {
    /// Starts and ends the same program five more times.
    async fn kill_times(&self) -> Result<()> {
        for name in ["kill-1", "kill-2", "kill-3", "kill-4", "kill-5"] {
            self.step(name, async {
                let plugin = self.args.launch(&self.dir)?.start().await?;
                plugin.ping().await?;
                let began = Instant::now();
                let report = plugin.stop().await;
                ensure!(!report.forced, "it had to be killed");
                ensure!(report.status.is_success(), "it {}", report.status);
                Ok(format!("{:.1} ms, graceful", millis(began)))
            })
            .await?;
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.plugin.pid().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw).context("no pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until this host knows that the plugin is gone.
    async fn exit_seen(&self) -> Result<()> {
        let limit = Duration::from_secs(2);
        let seen = tokio::time::timeout(limit, self.plugin.wait()).await;
        seen.context("the exit was not noticed")?;
        ensure!(self.plugin.ping().await.is_err(), "a ping still works");
        Ok(())
    }

    async fn crash(&self) -> Result<()> {
        self.step("crash", async {
            self.signal(Signal::KILL)?;
            let began = Instant::now();
            self.exit_seen().await?;
            Ok(format!("noticed after {:.1} ms", millis(began)))
        })
        .await
    }

    async fn sigint(&self) -> Result<()> {
        self.step("sigint", async {
            // Go plugins swallow interrupts from when they serve.
            self.plugin.ping().await?;
            for _ in 0..3 {
                self.signal(Signal::INT)?;
                // Signals of one kind merge while pending; a ping in between lets each arrive.
                self.plugin.ping().await?;
            }
            Ok(String::new())
        })
        .await
    }
}

/// Adds for counters.
struct Adder;

#[tonic::async_trait]
impl AddHelper for Adder {
    async fn sum(&self, request: Request<SumRequest>) -> Result<Response<SumResponse>, Status> {
        let SumRequest { a, b } = request.into_inner();
        Ok(Response::new(SumResponse {
            r: a.wrapping_add(b),
        }))
    }
}

fn entries_of(dir: &Path) -> Result<BTreeSet<String>> {
    let names = std::fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    Ok(names.collect::<std::io::Result<_>>()?)
}

async fn drive(args: Args, log: &Log, report: &mut Report) -> Result<()> {
    let temp = std::env::temp_dir();
    let dir = temp.join(format!("interop-host-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let before = entries_of(&temp)?;
    let done = session(args, &dir, log, report).await;
    report.leftovers = entries_of(&temp)?.difference(&before).cloned().collect();
    std::fs::remove_dir_all(&dir)?;
    done
}

/// Starts the plugin; none if it was rightly refused.
async fn start(
    args: &Args,
    dir: &Path,
    scenarios: &[String],
    stdout: &Printed,
    stderr: &Printed,
) -> Result<Option<RunningPlugin>> {
    let mut launch = args
        .launch(dir)?
        .mirror_stdout(stdout.clone())
        .mirror_stderr(stderr.clone());
    let program = Path::new(args.program.first().map_or("", String::as_str));
    if scenarios
        .iter()
        .any(|scenario| scenario == "checksum-right")
    {
        launch = launch.expect_digest(ExpectedDigest::of(File::open(program)?)?);
    }
    if scenarios
        .iter()
        .any(|scenario| scenario == "checksum-wrong")
    {
        launch = launch.expect_digest(ExpectedDigest::sha256(&[0; 32])?);
        return match launch.start().await {
            Err(error) if error.code() == "digest-mismatch" => Ok(None),
            Err(error) => Err(error.into()),
            Ok(_) => bail!("a program with another content was started"),
        };
    }
    Ok(Some(launch.start().await?))
}

async fn session(args: Args, dir: &Path, log: &Log, report: &mut Report) -> Result<()> {
    let (stdout, stderr) = (Printed::default(), Printed::default());
    let scenarios = args.scenarios();
    args.give_stdin(dir)?;
    let began = Instant::now();
    let plugin = match &args.join {
        Some(json) => {
            args.attach(reattach(json)?, &args.versions)?
                .mirror_stdout(stdout.clone())
                .mirror_stderr(stderr.clone())
                .connect()
                .await?
        }
        None => match start(&args, dir, &scenarios, &stdout, &stderr).await? {
            Some(plugin) => plugin,
            None => return Ok(()),
        },
    };
    report.start_ms = millis(began);
    report.negotiated_version = plugin.negotiated_version().0;
    report.protocol = plugin.transport().to_string();
    report.address_network = plugin.address().network.to_string();
    let session = Session {
        args,
        dir: dir.to_owned(),
        log: log.clone(),
        stdout,
        stderr,
        plugin,
        steps: Mutex::default(),
    };
    let mut done = Ok(());
    if session
        .args
        .expect_version
        .is_some_and(|version| version != report.negotiated_version)
    {
        done = Err(anyhow!("negotiated version {}", report.negotiated_version));
    }
    for scenario in &scenarios {
        if done.is_ok() {
            done = session.run(scenario).await;
        }
    }
    let began = Instant::now();
    let ended = session.plugin.stop().await;
    report.kill_ms = millis(began);
    report.exited = session.plugin.exited().is_some();
    report.forced = ended.forced;
    report.steps = session
        .steps
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    done?;
    ensure!(report.exited, "the plugin did not exit");
    ensure!(!report.forced, "the plugin had to be killed");
    match session.plugin.ping().await {
        Err(PingError::Grpc(status)) if status.code() == Code::Unavailable => Ok(()),
        Err(PingError::NetRpc(_)) => Ok(()),
        after => bail!("a ping after the end gave {after:?}"),
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let args = Args::parse();
    let forbid_leftovers = args.forbid_leftovers;
    let log = Log::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    // Nothing else installs one.
    let _ = tracing::subscriber::set_global_default(subscriber);
    let mut report = Report::default();
    let done = drive(args, &log, &mut report).await;
    let done = match done {
        Ok(()) if forbid_leftovers && !report.leftovers.is_empty() => {
            Err(anyhow!("temporary files were left behind"))
        }
        done => done,
    };
    if let Err(error) = &done {
        report.error = format!("{error:#}");
    }
    report.ok = done.is_ok();
    let problems = log.find(|line| line.level == "WARN" || line.level == "ERROR");
    let text = |line: &Line| format!("{}: {}", line.level, line.field("message"));
    report.problems = problems.iter().take(20).map(text).collect();
    let printed = serde_json::to_string(&report)
        .map_err(std::io::Error::other)
        .and_then(|text| writeln!(std::io::stdout(), "{text}"));
    if done.is_ok() && printed.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
