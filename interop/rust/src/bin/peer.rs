//! The test service of go-plugin's own tests, for the interop matrix.
//!
//! `--tcp` listens on TCP, `--tls` uses the certificates in `OUTRIGGER_TLS_DIR`,
//! `--print BYTES` prints that much before the host connects, `--cleanup FILE`
//! writes the file once serving is over, and `--test-mode` serves in go-plugin's
//! test mode, says where as a line of JSON and ends with stdin. `--no-cookie`
//! is the mistake of a plugin without a cookie of its own. Under the name
//! `several` the program holds two plugins and its only argument names one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use outrigger_interop::proto::DESCRIPTORS;
use outrigger_interop::proto::grpctest::ping_pong_client::PingPongClient;
use outrigger_interop::proto::grpctest::print_kv_request::Value;
use outrigger_interop::proto::grpctest::test_server::{Test, TestServer};
use outrigger_interop::proto::grpctest::{
    BidirectionalRequest, BidirectionalResponse, PanicRequest, PingRequest, PrintKvRequest,
    PrintKvResponse, PrintStdioRequest, TestRequest, TestResponse,
};
use outrigger_interop::test_mode::serve_until_stdin_ends;
use outrigger_interop::tls::{TLS_DIR, static_tls};
use outrigger_interop::{peer_cookie, ping_pong};
use outrigger_plugin::{
    BrokerId, MagicCookie, PluginContext, PluginSet, SendGzip, Serve, ServiceSet,
};
use prost::Message;
use prost_types::Any;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

struct Peer(PluginContext);

#[tonic::async_trait]
impl Test for Peer {
    async fn double(
        &self,
        request: Request<TestRequest>,
    ) -> Result<Response<TestResponse>, Status> {
        let output = request.get_ref().input.wrapping_mul(2);
        answer_as_asked(request.metadata(), TestResponse { output })
    }

    async fn print_kv(
        &self,
        request: Request<PrintKvRequest>,
    ) -> Result<Response<PrintKvResponse>, Status> {
        let PrintKvRequest { key, value } = request.into_inner();
        // The names of fields are fixed at compile time; this is the one that the hosts send.
        match (key.as_str(), value) {
            ("foo", Some(Value::ValueString(text))) => tracing::info!(foo = text, "PrintKV called"),
            ("foo", Some(Value::ValueInt(number))) => {
                tracing::info!(foo = number, "PrintKV called");
            }
            ("log", Some(Value::ValueString(text))) => {
                log::warn!(target: "a_library", count = 3, by = "log"; "{text}");
            }
            (key, value) => tracing::info!(key, ?value, "PrintKV called"),
        }
        Ok(Response::new(PrintKvResponse {}))
    }

    async fn bidirectional(
        &self,
        request: Request<BidirectionalRequest>,
    ) -> Result<Response<BidirectionalResponse>, Status> {
        let broker = self.0.broker();
        let host = broker.connect(BrokerId(request.get_ref().id)).await?;
        let pong = PingPongClient::new(host)
            .ping(PingRequest {})
            .await?
            .into_inner()
            .msg;
        if pong != "pong" {
            return Err(Status::internal(format!("the host answered {pong:?}")));
        }
        let id = broker.next_id();
        broker.serve(id, ping_pong()).await?.detach();
        Ok(Response::new(BidirectionalResponse { id: id.0 }))
    }

    type StreamStream = BoxStream<'static, Result<TestResponse, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<TestRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let echo = |received: Result<TestRequest, Status>| {
            received.map(|request| TestResponse {
                output: request.input,
            })
        };
        let asked = request.metadata().clone();
        answer_as_asked(&asked, request.into_inner().map(echo).boxed())
    }

    async fn print_stdio(
        &self,
        request: Request<PrintStdioRequest>,
    ) -> Result<Response<()>, Status> {
        let PrintStdioRequest { stdout, stderr } = request.into_inner();
        let printed = print(&stdout).and_then(|()| std::io::stderr().write_all(&stderr));
        printed.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(()))
    }

    async fn panic(&self, request: Request<PanicRequest>) -> Result<Response<()>, Status> {
        panic!("{}", request.into_inner().message)
    }
}

/// Does to a call what its metadata asks for. The numbers are lengths: of an
/// error's text and details, of metadata in the reply. The reply always tells how
/// much came as `much`.
fn answer_as_asked<T>(asked: &MetadataMap, reply: T) -> Result<Response<T>, Status> {
    let number = |name| {
        let value = asked.get(name).and_then(|value| value.to_str().ok());
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    let filler = |name| "m".repeat(number(name));
    let (text, details) = (number("fail-text"), number("fail-details"));
    if text + details > 0 {
        // A `google.rpc.Status` with a `google.protobuf.StringValue` among its details.
        let string = Any::from_msg(&filler("fail-details"));
        let string = string.map_err(|error| Status::internal(error.to_string()))?;
        let status = RichStatus {
            code: 9,
            details: vec![string],
        };
        let rich = if details > 0 {
            status.encode_to_vec()
        } else {
            Vec::new()
        };
        return Err(Status::with_details(
            Code::FailedPrecondition,
            "x".repeat(text),
            rich.into(),
        ));
    }
    let mut reply = Response::new(reply);
    if number("reply-gzip") > 0 {
        reply.extensions_mut().insert(SendGzip);
    }
    let heard = asked.get("much").map_or(0, |much| much.len());
    let head = reply.metadata_mut();
    head.insert("heard", heard.into());
    if number("reply-head") > 0 {
        let large = filler("reply-head").parse();
        head.insert("large", large.map_err(|_| Status::internal("no value"))?);
    }
    Ok(reply)
}

/// `google.rpc.Status`, as far as it is needed here.
#[derive(Clone, PartialEq, prost::Message)]
struct RichStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

fn print(bytes: &[u8]) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

#[derive(Default)]
struct Arguments {
    tcp: bool,
    tls: bool,
    test_mode: bool,
    no_cookie: bool,
    print: usize,
    cleanup: Option<PathBuf>,
}

impl Arguments {
    fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut parsed = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--tcp" => parsed.tcp = true,
                "--tls" => parsed.tls = true,
                "--test-mode" => parsed.test_mode = true,
                "--no-cookie" => parsed.no_cookie = true,
                "--print" => parsed.print = value()?.parse()?,
                "--cleanup" => parsed.cleanup = Some(value()?.into()),
                unknown => bail!("unknown argument `{unknown}`"),
            }
        }
        Ok(parsed)
    }

    fn plugin(&self) -> Result<Serve> {
        let early = self.print;
        let set = PluginSet::new().grpc("test", move |context| {
            if let Err(error) = print(&vec![b'.'; early]) {
                tracing::error!(%error, "could not print");
            }
            ServiceSet::new()
                .with(TestServer::new(Peer(context.clone())))
                .describe(DESCRIPTORS)
        });
        let cookie = match self.no_cookie {
            true => MagicCookie::new("", ""),
            false => peer_cookie(),
        };
        let mut plugin = Serve::new(cookie).offer(1, set.clone()).offer(2, set);
        if self.tcp {
            plugin = plugin.tcp();
        }
        if self.tls {
            let dir = std::env::var_os(TLS_DIR).with_context(|| format!("{TLS_DIR} is not set"))?;
            plugin = plugin.tls(static_tls(Path::new(&dir))?);
        }
        Ok(plugin)
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let plugin = arguments.plugin()?;
    if arguments.test_mode {
        return serve_until_stdin_ends(plugin).map(|()| ExitCode::SUCCESS);
    }
    let code = outrigger_plugin::serve(plugin);
    if let Some(file) = &arguments.cleanup {
        std::fs::write(file, "cleaned up\n")?;
    }
    Ok(code)
}

/// The plugins that a program called `several` holds.
fn several() -> Result<ExitCode> {
    let plugin = || Arguments::default().plugin();
    Ok(outrigger_plugin::serve_by_argument([
        ("first", plugin()?),
        ("second", plugin()?),
    ]))
}

fn main() -> ExitCode {
    let name = std::env::args_os().next().map(PathBuf::from);
    let done = if name.is_some_and(|name| name.ends_with("several")) {
        several()
    } else {
        Arguments::parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments))
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            // Nobody listens to a plugin that could not even read its arguments, except here.
            let _ = writeln!(std::io::stderr(), "peer: {error:#}");
            ExitCode::from(2)
        }
    }
}
