//! Measures a bench plugin through our host, and what the kernel alone costs.
//! It speaks as its Go twin does: one JSON object a line, in and out.
//!
//! ```text
//! bench-host PLUGIN            commands on stdin: {"measure":"grpc.unary.p50","calls":5000,…}
//! ```
#![allow(clippy::print_stdout)]

use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::FutureExt;
use outrigger::{
    DigestCache, Files, Manifest, Metrics, Permissions, Policy, Registry, Settings, Supervision,
    Transport,
};
use outrigger_host::gob::Gob;
use outrigger_host::netrpc::{CallError, Client};
use outrigger_host::{
    Broker, Channel, Interface, Launch, PluginSet, Router, RunningPlugin, UnsupportedTransport,
};
use outrigger_interop::proto::bench::bench_client::BenchClient;
use outrigger_interop::proto::bench::{CallbackRequest, Payload, StreamRequest};
use outrigger_interop::{Bench, bench_cookie};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tonic::Status;

/// How much work a measurement is.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
struct Work {
    measure: String,
    calls: usize,
    warmup: usize,
    payload: usize,
    callers: usize,
    bytes: u64,
    chunk: u32,
    starts: usize,
    reads: u32,
    file_size: u64,
    plugins: usize,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            measure: String::new(),
            calls: 5000,
            warmup: 1000,
            payload: 128,
            callers: 64,
            bytes: 1 << 30,
            chunk: 64 << 10,
            starts: 20,
            reads: 5000,
            file_size: 64 << 20,
            plugins: 10,
        }
    }
}

#[derive(Debug, Serialize)]
struct Answer {
    measure: String,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match arguments.as_slice() {
        ["floor-echo", path] => floor::echo(Path::new(path)),
        ["rss-child", plugin, count] => {
            let value = runtime.block_on(rss_per_plugin(Path::new(plugin), count.parse()?))?;
            println!("{value}");
            Ok(())
        }
        [plugin] => runtime.block_on(serve(Path::new(plugin))),
        _ => bail!("usage: bench-host PLUGIN"),
    }
}

async fn serve(program: &Path) -> Result<()> {
    let mut session = Session {
        program: program.to_owned(),
        plain: None,
        mtls: None,
        netrpc: None,
        direct: None,
        uncounted: None,
        granted: Vec::new(),
        installed: None,
    };
    // Waiting for a command must not stop the runtime: a plugin whose pings are
    // not answered gives its host up.
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if line.trim().is_empty() {
            continue;
        }
        let work: Work = serde_json::from_str(&line).context("a command is a JSON object")?;
        let measured = session.measure(&work).await;
        let measure = work.measure;
        let answer = match measured {
            Ok((value, unit)) => Answer {
                measure,
                value,
                unit,
                error: None,
            },
            Err(error) => Answer {
                measure,
                value: 0.0,
                unit: "",
                error: Some(format!("{error:#}")),
            },
        };
        println!("{}", serde_json::to_string(&answer)?);
        std::io::stdout().flush()?;
    }
    session.end().await;
    Ok(())
}

/// Plugins that stay up between measures that are not about starting.
struct Session {
    program: PathBuf,
    plain: Option<RunningPlugin>,
    mtls: Option<RunningPlugin>,
    netrpc: Option<RunningPlugin>,
    /// What direct calls took that were made between the routed ones, in microseconds.
    direct: Option<f64>,
    /// What calls took that were not counted, between those that were.
    uncounted: Option<f64>,
    /// Directories with one file each, removed at the end.
    granted: Vec<PathBuf>,
    /// A folder of many plugins.
    installed: Option<PathBuf>,
}

/// How many plugins are listed.
const LISTED: usize = 1000;

/// Scans a folder of plugins, and asks for the digest of each.
fn list(folder: &Path, known: &DigestCache) -> Result<()> {
    let registry = Registry::scan(folder)?;
    for entry in &registry {
        entry.digest(known)?;
    }
    if registry.entries().len() != LISTED {
        bail!("{} plugins were found", registry.entries().len());
    }
    Ok(known.save()?)
}

fn launch(program: &Path, mtls: bool) -> Launch {
    let launch =
        Launch::new(program, bench_cookie()).offer(1, PluginSet::new().with::<Bench>("bench"));
    if mtls { launch.auto_mtls() } else { launch }
}

/// A launch of the plugin that speaks net/rpc.
fn launch_netrpc(program: &Path) -> Launch {
    Launch::new(program, bench_cookie())
        .env("OUTRIGGER_BENCH_PROTOCOL", "netrpc")
        .offer(1, PluginSet::new().with::<NetRpcBench>("bench"))
}

/// The bench plugin over net/rpc.
struct NetRpcBench;

impl Interface for NetRpcBench {
    type Client = Client;

    fn netrpc(object: Client, _broker: Arc<dyn Broker>) -> Result<Client, UnsupportedTransport> {
        Ok(object)
    }
}

/// How many bytes the host wants on which broker id.
#[derive(Default, Gob)]
struct Wanted {
    #[gob(rename = "ID")]
    id: u32,
    bytes: u64,
}

impl Session {
    async fn netrpc(&mut self) -> Result<&RunningPlugin> {
        if self.netrpc.is_none() {
            self.netrpc = Some(launch_netrpc(&self.program).start().await?);
        }
        self.netrpc.as_ref().context("just started")
    }

    async fn object(&mut self) -> Result<Client> {
        let plugin = self.netrpc().await?;
        Ok(plugin.dispense::<NetRpcBench>("bench").await?)
    }

    async fn plugin(&mut self, mtls: bool) -> Result<&RunningPlugin> {
        let slot = if mtls {
            &mut self.mtls
        } else {
            &mut self.plain
        };
        if slot.is_none() {
            *slot = Some(launch(&self.program, mtls).start().await?);
        }
        slot.as_ref().context("just started")
    }

    async fn client(&mut self, mtls: bool) -> Result<BenchClient<Channel>> {
        Ok(self.plugin(mtls).await?.dispense::<Bench>("bench").await?)
    }

    async fn end(self) {
        let plugins = [self.plain, self.mtls, self.netrpc];
        for plugin in plugins.into_iter().flatten() {
            plugin.stop().await;
        }
        for dir in self.granted {
            let _ = std::fs::remove_dir_all(dir);
        }
    }

    async fn measure(&mut self, work: &Work) -> Result<(f64, &'static str)> {
        Ok(match work.measure.as_str() {
            "grpc.unary.p50" => (unary(self.client(false).await?, work, 0.5).await?, "us"),
            "grpc.unary.p99" => (unary(self.client(false).await?, work, 0.99).await?, "us"),
            "grpc.mtls.unary.p50" => (unary(self.client(true).await?, work, 0.5).await?, "us"),
            "grpc.calls64" => (
                concurrent(self.client(false).await?, work).await?,
                "calls/s",
            ),
            "grpc.stream.down" => (down(self.client(false).await?, work).await?, "GB/s"),
            "grpc.stream.up" => (up(self.client(false).await?, work).await?, "GB/s"),
            "routed.unary.p50" => (self.routed(work).await?, "us"),
            "direct.unary.p50" => (self.direct.context("routed.unary.p50 comes first")?, "us"),
            "metrics.overhead" => (self.counted(work).await?, "us"),
            "uncounted.unary.p50" => (
                self.uncounted.context("metrics.overhead comes first")?,
                "us",
            ),
            "reload.gap" => (self.gap(work, true).await?, "ms"),
            "floor.reload.gap" => (self.gap(work, false).await?, "ms"),
            "grpc.start" => (self.start(false, work).await?, "ms"),
            "grpc.mtls.start" => (self.start(true, work).await?, "ms"),
            "netrpc.unary.p50" => (netrpc_unary(self.object().await?, work, 0.5).await?, "us"),
            "netrpc.unary.p99" => (netrpc_unary(self.object().await?, work, 0.99).await?, "us"),
            "netrpc.calls64" => (
                netrpc_concurrent(self.object().await?, work).await?,
                "calls/s",
            ),
            "netrpc.stream" => (self.netrpc_stream(work).await?, "GB/s"),
            "netrpc.start" => (self.netrpc_start(work).await?, "ms"),
            "netrpc.rss.plugin" => (self.netrpc_rss(work).await?, "MiB"),
            "callback.read4k" => (self.each("read4k", work).await?, "us"),
            "callback.stream" => (self.whole("stream", work).await?, "GB/s"),
            "fd.open" => (self.each("open", work).await?, "us"),
            "fd.read4k" => (self.each("fd.read4k", work).await?, "us"),
            "fd.cat" => (self.whole("fd.cat", work).await?, "GB/s"),
            "floor.fd.open" => (floor::ping_pong(work, 0.5)?, "us"),
            "floor.fd.read4k" => (floor::pread(work)?, "us"),
            "floor.fd.cat" => {
                let dir = self.granted_dir(work.bytes)?;
                (floor::cat(&dir.join("file"), work.bytes)?, "GB/s")
            }
            "list.1000" => (self.list(work)?, "ms"),
            "floor.list.1000" => (floor::read_each(&self.installed()?, work)?, "ms"),
            "rss.plugin" => (self.rss(work).await?, "MiB"),
            "rss.host.per_plugin" => {
                let count = work.plugins.to_string();
                let program = self.program.to_str().context("a text path")?;
                let text = floor::run_self(&["rss-child", program, &count])?;
                (text.trim().parse()?, "KiB")
            }
            "floor.unary.p50" => (floor::ping_pong(work, 0.5)?, "us"),
            "floor.unary.p99" => (floor::ping_pong(work, 0.99)?, "us"),
            "floor.stream" => (floor::copy(work)?, "GB/s"),
            "floor.start" => (floor::start(&self.program, work)?, "ms"),
            "floor.read4k" => (floor::pread(work)?, "us"),
            other => bail!("unknown measure `{other}`"),
        })
    }

    /// Calls over a router and direct ones by turns, so that both see the same machine.
    async fn routed(&mut self, work: &Work) -> Result<f64> {
        let router = Router::new();
        router.switch(self.plugin(false).await?.connection().clone());
        let clients = [
            BenchClient::new(router.channel()),
            self.client(false).await?,
        ];
        let [routed, direct] = by_turns(clients, work).await?;
        self.direct = Some(direct);
        Ok(routed)
    }

    /// Calls that are counted, and such that are not, by turns.
    async fn counted(&mut self, work: &Work) -> Result<f64> {
        let connection = self.plugin(false).await?.connection().clone();
        let routers = [Router::new(), Router::new()];
        for router in &routers {
            router.switch(connection.clone());
        }
        routers[0].observe(Metrics::new().calls_to("bench"));
        let clients = routers
            .each_ref()
            .map(|router| BenchClient::new(router.channel()));
        let [counted, uncounted] = by_turns(clients, work).await?;
        self.uncounted = Some(uncounted);
        Ok(counted)
    }

    /// A folder with a thousand plugins, whose digests are known by now.
    fn installed(&mut self) -> Result<PathBuf> {
        if let Some(folder) = &self.installed {
            return Ok(folder.clone());
        }
        let folder = std::env::temp_dir().join(format!("bench-list-{}", std::process::id()));
        for number in 0..LISTED {
            let name = format!("plugin-{number}");
            let own = folder.join(&name);
            std::fs::create_dir_all(&own)?;
            let manifest = format!(
                "plugin:\n  name: {name}\n  type: animal\n  format: grpc\n  entrypoint: {name}\n  \
                 language: go\n  version: 1.0.{number}\nabout:\n  description: one of many\n\
                 handshake:\n  protocol_version: 1\n  magic_cookie_key: BENCH\n  \
                 magic_cookie_value: hello\nsecurity:\n  auto_mtls: true\ncapabilities:\n  \
                 filesystem:\n    - path: /srv/data/\n      permissions: [read, list]\n      \
                 recursive: true\n"
            );
            std::fs::write(own.join("manifest.yaml"), manifest)?;
            let program = own.join(&name);
            std::fs::write(&program, format!("#!/bin/sh\nexit {number}\n"))?;
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        }
        self.granted.push(folder.clone());
        // What was written just now is not kept.
        std::thread::sleep(Duration::from_millis(2100));
        list(&folder, &DigestCache::in_file(folder.join("digests")))?;
        Ok(self.installed.insert(folder).clone())
    }

    /// What each of a thousand plugins is and hashes to, by a process that begins with
    /// the cache file.
    fn list(&mut self, work: &Work) -> Result<f64> {
        let folder = self.installed()?;
        let mut times = Vec::new();
        for _ in 0..work.starts {
            let begun = Instant::now();
            list(&folder, &DigestCache::in_file(folder.join("digests")))?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        Ok(percentile(times, 0.5))
    }

    /// The longest of the calls that one caller makes, one after another, while its
    /// plugin is reloaded; or while nothing happens for as long as that takes.
    async fn gap(&mut self, work: &Work, reloads: bool) -> Result<f64> {
        let folder = self.folder_of_one()?;
        let supervision = Supervision {
            rollback_within: Duration::ZERO,
            ..Supervision::default()
        };
        let settings = Settings::new().policy(Policy::allow_requested());
        let host = settings.supervision(supervision).host(&folder).await?;
        let mut client = host.client::<Bench>("bench").await?;
        let payload = payload(work);
        let mut longest = Vec::new();
        for _ in 0..work.starts {
            let mut done = std::pin::pin!(async {
                match reloads {
                    true => host.reload("bench").await.map(drop),
                    false => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        Ok(())
                    }
                }
            });
            let mut most = 0.0_f64;
            loop {
                let begun = Instant::now();
                client.echo(payload.clone()).await?;
                most = most.max(begun.elapsed().as_secs_f64() * 1e3);
                if let Some(done) = done.as_mut().now_or_never() {
                    done?;
                    break;
                }
            }
            longest.push(most);
        }
        host.shutdown(Duration::from_secs(10)).await;
        Ok(percentile(longest, 0.5))
    }

    /// A folder in which the bench plugin is the only one; made once.
    fn folder_of_one(&mut self) -> Result<PathBuf> {
        let folder = std::env::temp_dir().join(format!("bench-one-{}", std::process::id()));
        let own = folder.join("bench");
        if !own.exists() {
            std::fs::create_dir_all(&own)?;
            self.granted.push(folder.clone());
            let manifest = "plugin: {name: bench, format: grpc, entrypoint: run, version: 1.0.0}\n\
                handshake: {protocol_version: 1, magic_cookie_key: OUTRIGGER_BENCH, \
                magic_cookie_value: bench}\n";
            std::fs::write(own.join("manifest.yaml"), manifest)?;
            std::fs::copy(&self.program, own.join("run"))?;
        }
        Ok(folder)
    }

    async fn start(&self, mtls: bool, work: &Work) -> Result<f64> {
        let mut times = Vec::new();
        for _ in 0..work.starts {
            let begun = Instant::now();
            let plugin = launch(&self.program, mtls).start().await?;
            let mut client = plugin.dispense::<Bench>("bench").await?;
            client.echo(Payload::default()).await?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            plugin.stop().await;
        }
        Ok(percentile(times, 0.5))
    }

    async fn netrpc_start(&self, work: &Work) -> Result<f64> {
        let payload = vec![7_u8; work.payload];
        let mut times = Vec::new();
        for _ in 0..work.starts {
            let begun = Instant::now();
            let plugin = launch_netrpc(&self.program).start().await?;
            let client = plugin.dispense::<NetRpcBench>("bench").await?;
            let _: Bytes = client.call("Plugin.Echo", &payload).await?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            plugin.stop().await;
        }
        Ok(percentile(times, 0.5))
    }

    /// Bytes per second over a brokered stream, from the plugin to its host.
    async fn netrpc_stream(&mut self, work: &Work) -> Result<f64> {
        let client = self.object().await?;
        let broker = self.netrpc().await?.broker();
        let run = async |bytes: u64| -> Result<f64> {
            let begun = Instant::now();
            let id = broker.next_id();
            let mut listener = broker.accept(id).await?;
            let wanted = Wanted { id: id.0, bytes };
            let mut part = vec![0; work.chunk as usize];
            let taken = async {
                let mut stream = listener.accept().await?;
                let mut taken = 0;
                loop {
                    match stream.read(&mut part).await? {
                        0 => return Ok::<u64, anyhow::Error>(taken),
                        read => taken += read as u64,
                    }
                }
            };
            let (taken, written) =
                tokio::join!(taken, client.call::<_, u64>("Plugin.Produce", &wanted));
            written?;
            rate(taken?, bytes, begun.elapsed())
        };
        run(work.bytes.min(16 << 20)).await?;
        run(work.bytes).await
    }

    /// Of a plugin that has only answered small calls.
    async fn netrpc_rss(&self, work: &Work) -> Result<f64> {
        let plugin = launch_netrpc(&self.program).start().await?;
        let client = plugin.dispense::<NetRpcBench>("bench").await?;
        let payload = vec![7_u8; work.payload];
        for _ in 0..work.warmup {
            let _: Bytes = client.call("Plugin.Echo", &payload).await?;
        }
        let resident = resident(&plugin.pid().context("a pid")?.to_string());
        plugin.stop().await;
        Ok(resident? / 1024.0)
    }

    /// Lets the plugin use granted services, with a file of `size` bytes.
    async fn call_back(&mut self, kind: &str, size: u64, work: &Work) -> Result<(Vec<u64>, u64)> {
        let dir = self.granted_dir(size)?;
        let readable = Files::new(&dir, Permissions::READ | Permissions::LIST).recursive(true);
        let manifest = Manifest::builder("guest", Transport::Grpc, "guest")
            .handshake(1, "TEST_KEY", "TEST_VALUE")
            .files(readable)
            .build()?;
        let settings = Settings::new().policy(Policy::allow_requested());
        let services = settings.plugin(manifest, &dir)?.services();
        let serving = self.plugin(false).await?.serve(&services).await?;
        let request = CallbackRequest {
            broker_id: serving.id().0,
            kind: format!("host.{kind}"),
            count: work.reads,
            bytes: work.bytes,
        };
        let mut client = self.client(false).await?;
        let reply = client.call_back(request).await?.into_inner();
        drop(serving);
        Ok((reply.nanos, reply.bytes))
    }

    /// A directory with `file` in it, of at least `size` bytes; made once.
    fn granted_dir(&mut self, size: u64) -> Result<PathBuf> {
        let made =
            |dir: &PathBuf| std::fs::metadata(dir.join("file")).is_ok_and(|m| m.len() == size);
        if let Some(dir) = self.granted.iter().find(|dir| made(dir)) {
            return Ok(dir.clone());
        }
        let name = format!("bench-granted-{}-{size}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir)?;
        self.granted.push(dir.clone());
        let mut file = File::create(dir.join("file"))?;
        let chunk = vec![7; 1 << 20];
        for _ in 0..size >> 20 {
            file.write_all(&chunk)?;
        }
        Ok(dir)
    }

    async fn each(&mut self, kind: &str, work: &Work) -> Result<f64> {
        let (nanos, _) = self.call_back(kind, work.file_size, work).await?;
        Ok(percentile(
            nanos.iter().map(|n| *n as f64 / 1e3).collect(),
            0.5,
        ))
    }

    async fn whole(&mut self, kind: &str, work: &Work) -> Result<f64> {
        let (nanos, bytes) = self.call_back(kind, work.bytes, work).await?;
        Ok(bytes as f64 / nanos.iter().sum::<u64>() as f64)
    }

    /// Of a plugin that has only answered small calls.
    async fn rss(&self, work: &Work) -> Result<f64> {
        let plugin = launch(&self.program, false).start().await?;
        let mut client = plugin.dispense::<Bench>("bench").await?;
        for _ in 0..work.warmup {
            client.echo(payload(work)).await?;
        }
        let resident = resident(&plugin.pid().context("a pid")?.to_string());
        plugin.stop().await;
        Ok(resident? / 1024.0)
    }
}

fn payload(work: &Work) -> Payload {
    Payload {
        data: Bytes::from(vec![7_u8; work.payload]),
    }
}

fn percentile(mut values: Vec<f64>, rank: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values
        .get((last as f64 * rank).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

/// How long calls took in the middle over each of two clients, which take turns, so
/// that both see the same machine; in microseconds.
async fn by_turns(mut clients: [BenchClient<Channel>; 2], work: &Work) -> Result<[f64; 2]> {
    let payload = payload(work);
    let mut times = [const { Vec::new() }; 2];
    for call in 0..work.warmup + work.calls * 4 {
        // Neither always comes first.
        for turn in [call % 2, 1 - call % 2] {
            let begun = Instant::now();
            clients[turn].echo(payload.clone()).await?;
            if call >= work.warmup {
                times[turn].push(begun.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    Ok(times.map(|times| percentile(times, 0.5)))
}

async fn unary(mut client: BenchClient<Channel>, work: &Work, rank: f64) -> Result<f64> {
    let payload = payload(work);
    for _ in 0..work.warmup {
        client.echo(payload.clone()).await?;
    }
    let mut times = Vec::with_capacity(work.calls);
    for _ in 0..work.calls {
        let begun = Instant::now();
        client.echo(payload.clone()).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(percentile(times, rank))
}

async fn concurrent(client: BenchClient<Channel>, work: &Work) -> Result<f64> {
    let each = work.calls * 4 / work.callers;
    let run = async |count: usize| -> Result<()> {
        let callers = (0..work.callers).map(|_| {
            let (mut client, payload) = (client.clone(), payload(work));
            tokio::spawn(async move {
                for _ in 0..count {
                    client.echo(payload.clone()).await?;
                }
                Ok::<_, Status>(())
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await??;
        }
        Ok(())
    };
    run(work.warmup / work.callers).await?;
    let begun = Instant::now();
    run(each).await?;
    Ok((each * work.callers) as f64 / begun.elapsed().as_secs_f64())
}

async fn netrpc_unary(client: Client, work: &Work, rank: f64) -> Result<f64> {
    let payload = vec![7_u8; work.payload];
    let mut times = Vec::with_capacity(work.calls);
    for call in 0..work.warmup + work.calls {
        let begun = Instant::now();
        let _: Bytes = client.call("Plugin.Echo", &payload).await?;
        if call >= work.warmup {
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(percentile(times, rank))
}

async fn netrpc_concurrent(client: Client, work: &Work) -> Result<f64> {
    let each = work.calls * 4 / work.callers;
    let run = async |count: usize| -> Result<()> {
        let callers = (0..work.callers).map(|_| {
            let (client, payload) = (client.clone(), vec![7_u8; work.payload]);
            tokio::spawn(async move {
                for _ in 0..count {
                    let _: Bytes = client.call("Plugin.Echo", &payload).await?;
                }
                Ok::<_, CallError>(())
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await??;
        }
        Ok(())
    };
    run(work.warmup / work.callers).await?;
    let begun = Instant::now();
    run(each).await?;
    Ok((each * work.callers) as f64 / begun.elapsed().as_secs_f64())
}

async fn down(mut client: BenchClient<Channel>, work: &Work) -> Result<f64> {
    let begun = Instant::now();
    let request = StreamRequest {
        bytes: work.bytes,
        chunk: work.chunk,
    };
    let mut parts = client.down(request).await?.into_inner();
    let mut bytes = 0;
    while let Some(part) = parts.message().await? {
        bytes += part.data.len() as u64;
    }
    rate(bytes, work.bytes, begun.elapsed())
}

async fn up(mut client: BenchClient<Channel>, work: &Work) -> Result<f64> {
    let data = Bytes::from(vec![0; work.chunk as usize]);
    let parts = work.bytes / u64::from(work.chunk);
    let begun = Instant::now();
    let stream =
        futures_util::stream::iter((0..parts).map(move |_| Payload { data: data.clone() }));
    let reply = client.up(stream).await?.into_inner();
    rate(reply.bytes, parts * u64::from(work.chunk), begun.elapsed())
}

fn rate(bytes: u64, expected: u64, time: Duration) -> Result<f64> {
    if bytes != expected {
        bail!("{bytes} bytes arrived, expected {expected}");
    }
    Ok(bytes as f64 / 1e9 / time.as_secs_f64())
}

async fn rss_per_plugin(program: &Path, count: usize) -> Result<f64> {
    let mut plugins = Vec::new();
    let mut add = async || -> Result<()> {
        let plugin = launch(program, false).start().await?;
        plugin
            .dispense::<Bench>("bench")
            .await?
            .echo(Payload::default())
            .await?;
        plugins.push(plugin);
        Ok(())
    };
    // The first ones pay for what all share.
    for _ in 0..3 {
        add().await?;
    }
    let before = resident("self")?;
    for _ in 0..count {
        add().await?;
    }
    let after = resident("self")?;
    for plugin in plugins {
        plugin.stop().await;
    }
    Ok((after - before) / count as f64)
}

/// `VmRSS` of a process, in KiB.
fn resident(pid: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

fn scratch_file(size: u64) -> Result<File> {
    let path = std::env::temp_dir().join(format!("bench-file-{}", std::process::id()));
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    let chunk = vec![7; 1 << 20];
    for _ in 0..size >> 20 {
        file.write_all(&chunk)?;
    }
    Ok(file)
}

/// What the kernel alone costs.
mod floor {
    use super::*;

    #[allow(clippy::disallowed_methods)] // These are no plugins.
    fn command(program: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    pub(super) fn run_self(arguments: &[&str]) -> Result<String> {
        let output = command(&std::env::current_exe()?)
            .args(arguments)
            .output()?;
        if !output.status.success() {
            bail!("the measuring process failed: {}", output.status);
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Answers each message of 128 bytes with itself, until the peer goes.
    pub(super) fn echo(path: &Path) -> Result<()> {
        let mut socket = UnixStream::connect(path)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match socket.read(&mut buffer)? {
                0 => return Ok(()),
                // Bulk data is only counted.
                read if read > 1024 => {}
                read => socket.write_all(&buffer[..read])?,
            }
        }
    }

    fn with_echo<T>(work: impl FnOnce(&mut UnixStream) -> Result<T>) -> Result<T> {
        let path = std::env::temp_dir().join(format!("bench-floor-{}", std::process::id()));
        let listener = UnixListener::bind(&path)?;
        let mut child = command(&std::env::current_exe()?)
            .arg("floor-echo")
            .arg(&path)
            .spawn()?;
        let (mut socket, _) = listener.accept()?;
        std::fs::remove_file(&path)?;
        let result = work(&mut socket);
        drop(socket);
        child.wait()?;
        result
    }

    /// Reads each plugin's manifest, and looks at its program, by the names of the folders.
    pub(super) fn read_each(folder: &Path, work: &Work) -> Result<f64> {
        let mut times = Vec::new();
        for _ in 0..work.starts {
            let begun = Instant::now();
            let mut read = 0;
            for entry in folder.read_dir()? {
                let entry = entry?;
                let own = entry.path();
                if own.is_dir() {
                    read += std::fs::read(own.join("manifest.yaml"))?.len();
                    own.join(entry.file_name()).metadata()?;
                }
            }
            std::hint::black_box(read);
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        Ok(percentile(times, 0.5))
    }

    pub(super) fn ping_pong(work: &Work, rank: f64) -> Result<f64> {
        with_echo(|socket| {
            let mut message = vec![7; 128];
            let mut times = Vec::with_capacity(work.calls);
            for call in 0..work.warmup + work.calls {
                let begun = Instant::now();
                socket.write_all(&message)?;
                socket.read_exact(&mut message)?;
                if call >= work.warmup {
                    times.push(begun.elapsed().as_secs_f64() * 1e6);
                }
            }
            Ok(percentile(times, rank))
        })
    }

    pub(super) fn copy(work: &Work) -> Result<f64> {
        with_echo(|socket| {
            let chunk = vec![7; work.chunk as usize];
            let begun = Instant::now();
            for _ in 0..work.bytes / u64::from(work.chunk) {
                socket.write_all(&chunk)?;
            }
            Ok(work.bytes as f64 / 1e9 / begun.elapsed().as_secs_f64())
        })
    }

    pub(super) fn start(plugin: &Path, work: &Work) -> Result<f64> {
        let own = std::env::current_exe()?;
        let empty = own.with_file_name("bench-empty");
        if !empty.exists() {
            bail!(
                "{} is missing (the plugin is {})",
                empty.display(),
                plugin.display()
            );
        }
        let mut times = Vec::new();
        for _ in 0..work.starts {
            let begun = Instant::now();
            let mut child = command(&empty).spawn()?;
            let mut path = String::new();
            std::io::BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut path)?;
            let mut socket = UnixStream::connect(path.trim())?;
            socket.write_all(&[7])?;
            socket.read_exact(&mut [0])?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            child.wait()?;
        }
        Ok(percentile(times, 0.5))
    }

    /// The system's own `cat`, to where nothing is kept.
    pub(super) fn cat(file: &Path, bytes: u64) -> Result<f64> {
        let begun = Instant::now();
        let mut cat = command(Path::new("cat"));
        let null = File::options().write(true).open("/dev/null")?;
        let status = cat.arg(file).stdout(null).status()?;
        if !status.success() {
            bail!("cat failed: {status}");
        }
        Ok(bytes as f64 / 1e9 / begun.elapsed().as_secs_f64())
    }

    pub(super) fn pread(work: &Work) -> Result<f64> {
        let file = scratch_file(work.file_size.min(16 << 20))?;
        let mut data = vec![0; 4096];
        let mut times = Vec::new();
        for read in 0..u64::from(work.reads) {
            let begun = Instant::now();
            file.read_exact_at(&mut data, read * 4096 % (16 << 20))?;
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Ok(percentile(times, 0.5))
    }
}
