//! The built command against plugins that are made here, and against the Rust
//! and Go examples where those are built.
#![allow(clippy::disallowed_methods)] // The command is no plugin.
#![allow(clippy::print_stderr)] // What is left out must be said.

#[path = "command/approval.rs"]
mod approval;
#[path = "command/config.rs"]
mod config;
#[path = "command/endings.rs"]
mod endings;
#[path = "command/establish.rs"]
mod establish;
#[path = "command/explain.rs"]
mod explain;
#[path = "command/foreign.rs"]
mod foreign;
#[path = "command/grants.rs"]
mod grants;
#[path = "command/interfaces.rs"]
mod interfaces;
#[path = "command/machine.rs"]
mod machine;
#[path = "command/netrpc.rs"]
mod netrpc;
#[path = "command/serving.rs"]
mod serving;
#[path = "command/session.rs"]
mod session;

use std::convert::Infallible;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use outrigger_transport::proto::plugin::grpc_controller_server::{
    GrpcController, GrpcControllerServer,
};
use outrigger_transport::{
    GO_PLUGIN_DESCRIPTORS, ServeLimits, ServiceSet, health, serve_connection,
};
use outrigger_wire::proto::plugin::Empty;
use prost::Message;
use prost_types::{
    DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

/// What a run of the command left behind.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} in {self:?}");
        self
    }
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "status {}\n--- stdout\n{}\n--- stderr\n{}",
            self.code, self.stdout, self.stderr
        )
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(args: &[&str]) -> Ran {
    command(args).output().expect("the command runs").into()
}

fn run_with_input(args: &[&str], input: &str) -> Ran {
    let mut child = command(args)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("written");
    drop(stdin);
    child.wait_with_output().expect("it ends").into()
}

/// A program that announces a server of this process, and ends when that is asked to stop.
struct Fake {
    dir: TempDir,
    stop: CancellationToken,
    server: Option<JoinHandle<()>>,
}

impl Fake {
    /// A plugin with the services every plugin has, `more`, and reflection over `described`.
    fn new(more: impl FnOnce(ServiceSet) -> ServiceSet, reflection: bool) -> Self {
        Self::of_version(1, more, reflection)
    }

    /// [`new`](Self::new) with another version of the app protocol.
    fn of_version(
        version: u32,
        more: impl FnOnce(ServiceSet) -> ServiceSet,
        reflection: bool,
    ) -> Self {
        Self::announced(version, "grpc", |fifo, listener, stop| {
            let controller = GrpcControllerServer::new(Stopper { fifo });
            let services = ServiceSet::new()
                .with(health::service())
                .with(controller)
                .describe(GO_PLUGIN_DESCRIPTORS);
            let services = more(services);
            let services = if reflection {
                services.with_reflection()
            } else {
                services
            };
            move || serve(listener, services, stop)
        })
    }

    /// A program that announces what `server` makes: of the pipe that ends the
    /// program, the listener, and what stops the server.
    fn announced<S: FnOnce() + Send + 'static>(
        version: u32,
        protocol: &str,
        server: impl FnOnce(PathBuf, std::os::unix::net::UnixListener, CancellationToken) -> S,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("s");
        let fifo = dir.path().join("stop");
        let made = Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .expect("mkfifo runs");
        assert!(made.success());
        // It first reads what it can of its stdin: requests for a call must not stand there.
        let script = format!(
            "#!/bin/sh\ncat > /dev/null\necho '1|{version}|unix|{}|{protocol}|'\nread line < '{}'\n",
            socket.display(),
            fifo.display()
        );
        write_program(&dir.path().join("fake"), &script);
        let stop = CancellationToken::new();
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        let server = std::thread::spawn(server(fifo, listener, stop.clone()));
        Self {
            dir,
            stop,
            server: Some(server),
        }
    }

    fn program(&self) -> String {
        self.dir.path().join("fake").display().to_string()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn serve(
    listener: std::os::unix::net::UnixListener,
    services: ServiceSet,
    stop: CancellationToken,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("set");
        let listener = tokio::net::UnixListener::from_std(listener).expect("a listener");
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted.expect("a connection");
                    let (services, stop) = (services.clone(), stop.clone());
                    let limits = ServeLimits::default();
                    connections.spawn(serve_connection(Box::new(stream), services, limits, stop));
                }
                () = stop.cancelled() => return,
            }
        }
    });
}

fn write_program(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("set");
}

/// Ends the program that announced the server.
struct Stopper {
    fifo: PathBuf,
}

#[tonic::async_trait]
impl GrpcController for Stopper {
    async fn shutdown(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        let fifo = self.fifo.clone();
        let written = tokio::task::spawn_blocking(move || std::fs::write(fifo, "stop\n")).await;
        written
            .expect("no panic")
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(Empty {}))
    }
}

/// `odd.Odd`: every call fails, with details.
#[derive(Clone)]
struct Odd;

impl tonic::server::NamedService for Odd {
    const NAME: &'static str = "odd.Odd";
}

impl<B> tower_service::Service<http::Request<B>> for Odd {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<B>) -> Self::Future {
        // google.rpc.Status { code: 9, details: [ErrorInfo { reason: "R" }, my.Own {}] }
        let any = |url: &str, value: &[u8]| prost_types::Any {
            type_url: url.into(),
            value: value.to_vec(),
        };
        let mut details = vec![0x08, 9];
        for any in [
            any("type.googleapis.com/google.rpc.ErrorInfo", b"\x0a\x01R"),
            any("type.googleapis.com/my.Own", b"\x08\x01"),
        ] {
            details.push(0x1a);
            details.extend(any.encode_length_delimited_to_vec());
        }
        let message = "not \u{1b}[31mnow";
        let status = Status::with_details(Code::FailedPrecondition, message, details.into());
        std::future::ready(Ok(status.into_http()))
    }
}

fn odd_file(syntax: &str) -> &'static [u8] {
    let method = MethodDescriptorProto {
        name: Some("Do".into()),
        input_type: Some(".odd.M".into()),
        output_type: Some(".odd.M".into()),
        ..Default::default()
    };
    let file = FileDescriptorProto {
        name: Some("odd.proto".into()),
        package: Some("odd".into()),
        syntax: Some(syntax.into()),
        message_type: vec![DescriptorProto {
            name: Some("M".into()),
            ..Default::default()
        }],
        service: vec![ServiceDescriptorProto {
            name: Some("Odd".into()),
            method: vec![method],
            ..Default::default()
        }],
        ..Default::default()
    };
    FileDescriptorSet { file: vec![file] }
        .encode_to_vec()
        .leak()
}

fn script(text: &str) -> (TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("plugin");
    write_program(&path, &format!("#!/bin/sh\n{text}\n"));
    let program = path.display().to_string();
    (dir, program)
}

#[test]
fn a_parent_that_ignores_sigchld_does_not_hide_how_the_plugin_ended() {
    let fake = Fake::new(|services| services, true);
    let mut command = Command::new("env");
    command.arg("--ignore-signal=CHLD");
    command.arg(env!("CARGO_BIN_EXE_outrigger"));
    command.args(["inspect", "--json", "--", &fake.program()]);
    let ran: Ran = command.output().expect("the command runs").into();
    let found = ran.expect(0).json();
    assert_eq!(
        (&found["end"]["how"], &found["end"]["status"]),
        (&json!("asked"), &json!(0))
    );
}

#[test]
fn inspect_tells_handshake_health_services_times_memory_and_end() {
    let fake = Fake::new(|services| services, true);
    let found = run(&["inspect", "--json", "--", &fake.program()])
        .expect(0)
        .json();
    assert_eq!(found["protocol"], "grpc");
    assert_eq!(found["network"], "unix");
    assert_eq!(
        (&found["core_version"], &found["app_version"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(found["offered"], "0-99");
    assert_eq!(
        found["tls"],
        json!({"mode": "none", "certificate_sha256": null})
    );
    assert_eq!(found["broker"], "plain");
    assert_eq!(found["health"]["plugin"], "SERVING");
    assert_eq!(found["reflection"]["version"], "v1");
    assert!(found["memory"]["resident_kib"].as_u64().expect("a number") > 0);
    assert!(found["start"]["ready_ms"].as_f64().expect("a number") > 0.0);
    assert_eq!(
        (&found["end"]["how"], &found["end"]["status"]),
        (&json!("asked"), &json!(0))
    );
    let names: Vec<_> = found["services"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|s| &s["name"])
        .collect();
    assert_eq!(
        names,
        [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "plugin.GRPCController"
        ]
    );
    assert_eq!(
        found["services"][0]["methods"][0],
        json!({"name": "Check", "kind": "unary",
            "request": "grpc.health.v1.HealthCheckRequest",
            "reply": "grpc.health.v1.HealthCheckResponse"})
    );
}

#[test]
fn inspect_prints_text_without_terminal_codes_when_not_on_a_terminal() {
    let fake = Fake::new(|services| services, true);
    let ran = run(&["inspect", "--", &fake.program()]).expect(0);
    for text in [
        "protocol      grpc",
        "health        SERVING",
        "reflection    grpc.reflection.v1",
        "resident",
        "when asked; it exited with status 0",
        "Watch(grpc.health.v1.HealthCheckRequest) -> stream grpc.health.v1.HealthCheckResponse",
    ] {
        assert!(ran.stdout.contains(text), "no {text:?} in {ran:?}");
    }
    assert!(!ran.stdout.contains('\u{1b}'));
}

#[test]
fn a_plugin_without_reflection_is_inspected_and_called_as_far_as_it_is_known() {
    let fake = Fake::new(|services| services.with(Odd), false);
    let found = run(&["inspect", "--json", "--", &fake.program()])
        .expect(0)
        .json();
    assert_eq!(found["health"]["plugin"], "SERVING");
    assert_eq!(
        found["reflection"]["error"],
        "the peer does not serve reflection"
    );
    assert_eq!(found["services"], json!([]));

    let fake = Fake::new(|services| services.with(Odd), false);
    let ran = run(&["call", "--method", "odd.Odd/Do", "--", &fake.program()]).expect(1);
    ran.says("error[reflection-not-served]")
        .says("`--descriptors FILE`")
        .says("have the plugin register");

    let fake = Fake::new(|services| services, false);
    let ran = run(&[
        "call",
        "--method",
        "grpc.health.v1.Health/Check",
        "--",
        &fake.program(),
    ]);
    assert_eq!(ran.expect(0).stdout, "{\"status\":\"SERVING\"}\n");
}

#[test]
fn a_unary_call_prints_its_reply_on_one_line() {
    let fake = Fake::new(|services| services, true);
    let ran = run(&[
        "call",
        "--method",
        "grpc.health.v1.Health/Check",
        "--data",
        "{\"service\":\"plugin\"}",
        "--",
        &fake.program(),
    ]);
    assert_eq!(ran.expect(0).stdout, "{\"status\":\"SERVING\"}\n");
}

#[test]
fn data_comes_from_a_file_too() {
    let fake = Fake::new(|services| services, true);
    let file = fake.dir.path().join("data.json");
    std::fs::write(&file, "{\n  \"service\": \"\"\n}\n").expect("written");
    let data = format!("@{}", file.display());
    let method = "grpc.health.v1.Health/Check";
    let program = fake.program();
    let ran = run(&[
        "call", "--json", "--method", method, "--data", &data, "--", &program,
    ])
    .expect(0);
    let object = ran.json();
    assert_eq!(object["replies"], json!([{"status": "SERVING"}]));
    assert_eq!(
        object["status"],
        json!({"code": 0, "name": "OK", "message": "", "details": []})
    );
    assert_eq!(object["kind"], "unary");
}

#[test]
fn a_bidirectional_call_answers_each_line_before_the_next_is_written() {
    let fake = Fake::new(|services| services, true);
    let method = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let mut child = command(&["call", "--method", method, "-", "--", &fake.program()])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(
        child.stdout.take().expect("a pipe"),
    ));
    for name in ["one", "two"] {
        writeln!(stdin, "{{\"fileByFilename\":\"{name}\"}}").expect("written");
        let line = lines.next().expect("a line").expect("text");
        let reply: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(reply["originalRequest"]["fileByFilename"], name);
        assert_eq!(reply["errorResponse"]["errorCode"], 5);
    }
    drop(stdin);
    assert!(lines.next().is_none());
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn a_stream_of_replies_ends_at_the_timeout_with_what_came_before() {
    let fake = Fake::new(|services| services, true);
    let ran = run(&[
        "call",
        "--json",
        "--method",
        "grpc.health.v1.Health/Watch",
        "--data",
        "{\"service\":\"plugin\"}",
        "--timeout",
        "300ms",
        "--",
        &fake.program(),
    ]);
    let ran = ran.expect(1).says("`--timeout`");
    let object = ran.json();
    assert_eq!(object["replies"], json!([{"status": "SERVING"}]));
    assert_eq!(object["status"]["name"], "DEADLINE_EXCEEDED");
    assert_eq!(object["error"]["code"], "rpc-failed");
}

#[test]
fn a_failed_call_shows_status_message_and_details_escaped() {
    let fake = Fake::new(
        |services| services.with(Odd).describe(odd_file("proto3")),
        true,
    );
    let ran = run(&[
        "call",
        "--json",
        "--method",
        "odd.Odd/Do",
        "--",
        &fake.program(),
    ])
    .expect(1);
    assert!(!ran.stderr.contains('\u{1b}'));
    let ran = ran.says("error[rpc-failed]: `odd.Odd/Do` failed with FAILED_PRECONDITION (9)");
    assert_eq!(
        ran.json()["status"],
        json!({"code": 9, "name": "FAILED_PRECONDITION", "message": "not \u{1b}[31mnow", "details": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "R", "domain": "", "metadata": {}},
            {"@type": "type.googleapis.com/my.Own", "@base64": "CAE="},
        ]})
    );
}

#[test]
fn a_file_in_an_edition_is_listed_and_refused_for_calls() {
    let fake = Fake::new(
        |services| services.with(Odd).describe(odd_file("editions")),
        true,
    );
    let found = run(&["inspect", "--json", "--", &fake.program()])
        .expect(0)
        .json();
    let services = found["services"].as_array().expect("a list");
    assert!(
        services
            .iter()
            .any(|s| s["name"] == "odd.Odd" && s["methods"][0]["name"] == "Do")
    );
    let fake = Fake::new(
        |services| services.with(Odd).describe(odd_file("editions")),
        true,
    );
    run(&["call", "--method", "odd.Odd/Do", "--", &fake.program()])
        .expect(1)
        .says("error[descriptors-unsupported]");
}

#[test]
fn unknown_names_are_usage_errors_that_list_near_ones() {
    for (method, code, near) in [
        (
            "grpc.health.v1.Health/Chek",
            "unknown-method",
            "`grpc.health.v1.Health/Check`",
        ),
        (
            "grpc.health.v2.Health/Check",
            "unknown-service",
            "`grpc.health.v1.Health/Check`",
        ),
        ("nothing.Alike/X", "unknown-service", "outrigger inspect"),
    ] {
        let fake = Fake::new(|services| services, true);
        run(&["call", "--method", method, "--", &fake.program()])
            .expect(2)
            .says(&format!("error[{code}]"))
            .says(near);
    }
}

#[test]
fn data_that_does_not_fit_is_a_usage_error_that_names_the_fields() {
    let fake = Fake::new(|services| services, true);
    run(&[
        "call",
        "--method",
        "grpc.health.v1.Health/Check",
        "--data",
        "{\"srevice\":1}",
        "--",
        &fake.program(),
    ])
    .expect(2)
    .says("error[data-invalid]")
    .says("`service: string`");
    let fake = Fake::new(|services| services, true);
    let method = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let program = fake.program();
    run_with_input(
        &["call", "--method", method, "-", "--", &program],
        "{}\nnonsense\n",
    )
    .expect(2)
    .says("request message 2 is not JSON");
}

#[test]
fn a_plugin_that_says_it_is_one_was_not_given_its_cookie() {
    let (_dir, program) = script("echo 'This program is a plugin.' >&2; exit 1 # BASIC_PLUGIN");
    run(&["inspect", "--", &program])
        .expect(3)
        .says("error[magic-cookie-missing]")
        .says("because it was given no magic cookie")
        .says("--cookie BASIC_PLUGIN=hello")
        .says("MagicCookieKey");
    run(&[
        "call",
        "--method",
        "a.B/C",
        "--cookie",
        "BASIC_PLUGIN=other",
        "--",
        &program,
    ])
    .expect(3)
    .says("error[magic-cookie-wrong]")
    .says("published with another value");
}

#[test]
fn a_silent_exit_with_status_1_most_likely_means_the_cookie() {
    let (_dir, program) = script("exit 1");
    let object = run(&["inspect", "--json", "--", &program])
        .expect(3)
        .says("most likely")
        .json();
    assert_eq!(object["error"]["code"], "magic-cookie-missing");
    assert_eq!(object["program"], program.as_str());
}

#[test]
fn a_plugin_that_has_a_cookie_and_complains_of_something_else_is_believed() {
    let (_dir, program) = script("echo 'no licence' >&2; exit 1");
    run(&["inspect", "--cookie", "K=V", "--", &program])
        .expect(3)
        .says("error[exited-early]")
        .says("no licence");
    run(&["inspect", "--", &program])
        .expect(3)
        .says("error[magic-cookie-missing]");
}

#[test]
fn the_cookie_of_a_script_is_looked_for_in_the_script() {
    let (_dir, program) = script("exit 1 # os.environ['TEST_KEY']");
    run(&["inspect", "--", "/bin/sh", &program])
        .expect(3)
        .says("--cookie TEST_KEY=TEST_VALUE");
}

#[test]
fn other_early_ends_are_not_blamed_on_the_cookie() {
    let (_dir, program) =
        script("echo '{\"@level\":\"error\",\"@message\":\"no \\u001bdisk\"}' >&2; exit 7");
    run(&["inspect", "--", &program])
        .expect(3)
        .says("error[exited-early]")
        .says("exited with status 7")
        .says("[ERROR] no \\u{1b}disk");
    run(&["inspect", "--", "/nonexistent/plugin"])
        .expect(3)
        .says("error[program-not-found]");
}

#[test]
fn the_cookie_and_the_flags_reach_the_plugin() {
    let (_dir, program) = script(
        "test \"$K\" = v=w && test \"$PLUGIN_PROTOCOL_VERSIONS\" = 3,5 \
         && test \"$PLUGIN_MULTIPLEX_GRPC\" = true && test -n \"$PLUGIN_CLIENT_CERT\" && exit 42",
    );
    run(&[
        "inspect",
        "--cookie",
        "K=v=w",
        "--app-version",
        "5",
        "--app-version",
        "3",
        "--mux",
        "--auto-mtls",
        "--",
        &program,
    ])
    .expect(3)
    .says("exited with status 42");
}

#[test]
fn a_version_that_was_not_offered_is_offered_on_a_second_start_unless_versions_were_named() {
    let version = 20_220_201;
    let fake = Fake::of_version(version, |services| services, true);
    let found = run(&["inspect", "--json", "--", &fake.program()])
        .expect(0)
        .json();
    assert_eq!(found["app_version"], version);
    assert_eq!(found["offered"], "20220201");
    let (_dir, program) = script("echo '1|20220201|tcp|127.0.0.1:1|netrpc|'; read x");
    run_with_pipe(&["inspect", "--app-version", "1", "--", &program])
        .expect(3)
        .says("error[app-version-mismatch]")
        .says("--app-version");
}

/// Like [`run`], with a stdin that stays open, for programs that wait on it.
fn run_with_pipe(args: &[&str]) -> Ran {
    let mut child = command(args)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let stdin = child.stdin.take();
    let output = child.wait_with_output().expect("it ends");
    drop(stdin);
    output.into()
}

#[test]
fn wrong_flags_are_usage_errors() {
    run(&["inspect"]).expect(2);
    run(&["inspect", "--cookie", "nokey", "--", "x"]).expect(2);
    run(&["call", "--method", "x", "--", "x"]).expect(2);
    run(&[
        "call",
        "--method",
        "a.B/C",
        "--data",
        "@/nonexistent/file",
        "--",
        "x",
    ])
    .expect(2)
    .says("error[data-unreadable]");
    run(&[
        "call",
        "--method",
        "a.B/C",
        "--metadata",
        "A b=c",
        "--",
        "x",
    ])
    .expect(2)
    .says("error[metadata-invalid]");
}

/// A Rust example or peer built beside the command, if it is.
fn rust_example(name: &str) -> Option<String> {
    let built = Path::new(env!("CARGO_BIN_EXE_outrigger")).with_file_name(name);
    found(&built, "build it with `cargo build --workspace`")
}

/// A Go peer in the folder that the environment names, if there is one.
fn go_peer(name: &str) -> Option<String> {
    match std::env::var_os("OUTRIGGER_GO_PEERS") {
        Some(folder) => found(
            &Path::new(&folder).join(name),
            "build the peers of interop/go",
        ),
        None => {
            eprintln!("left out: OUTRIGGER_GO_PEERS does not name the folder of Go peers");
            None
        }
    }
}

fn left_out(reason: &str) {
    eprintln!("left out: {reason}");
}

fn found(program: &Path, advice: &str) -> Option<String> {
    if program.is_file() {
        return Some(program.display().to_string());
    }
    eprintln!("left out: {} does not exist; {advice}", program.display());
    None
}

const EXAMPLE_COOKIE: &str = "BASIC_PLUGIN=hello";
const VARIANTS: [&[&str]; 4] = [&[], &["--auto-mtls"], &["--mux"], &["--auto-mtls", "--mux"]];

/// Puts a value, gets it in a second process, and asks for one that is not there.
fn key_value_plugin(program: &str) {
    for flags in VARIANTS {
        let dir = tempfile::tempdir().expect("a directory");
        let call = |method: &str, data: &str| -> Ran {
            let mut args = vec![
                "call",
                "--cookie",
                EXAMPLE_COOKIE,
                "--method",
                method,
                "--data",
                data,
            ];
            args.extend(flags.iter().chain(&["--", program]));
            command(&args)
                .current_dir(&dir)
                .output()
                .expect("the command runs")
                .into()
        };
        let put = call("proto.KV/Put", "{\"key\":\"k\",\"value\":\"aGVsbG8=\"}").expect(0);
        assert_eq!(put.stdout, "{}\n", "{flags:?}");
        let got = call("proto.KV/Get", "{\"key\":\"k\"}").expect(0);
        assert_eq!(got.stdout, "{\"value\":\"aGVsbG8=\"}\n", "{flags:?}");
        call("proto.KV/Get", "{\"key\":\"absent\"}")
            .expect(1)
            .says("error[rpc-failed]");

        let mut args = vec!["inspect", "--json", "--cookie", EXAMPLE_COOKIE];
        args.extend(flags.iter().chain(&["--", program]));
        let found = run(&args).expect(0).json();
        let tls = if flags.contains(&"--auto-mtls") {
            "auto-mtls"
        } else {
            "none"
        };
        let broker = if flags.contains(&"--mux") {
            "multiplexed"
        } else {
            "plain"
        };
        assert_eq!(
            (&found["tls"]["mode"], &found["broker"]),
            (&json!(tls), &json!(broker))
        );
        assert_eq!(found["end"]["how"], "asked");
        let services = found["services"].as_array().expect("a list");
        assert!(
            services
                .iter()
                .any(|s| s["name"] == "proto.KV" && s["methods"][0]["name"] == "Get")
        );
    }
    run(&["inspect", "--", program])
        .expect(3)
        .says("error[magic-cookie-missing]");
}

fn counter_plugin(program: &str) {
    let method = "proto.Counter/Get";
    let data = "{\"key\":\"absent\"}";
    let ran = run(&[
        "call",
        "--cookie",
        EXAMPLE_COOKIE,
        "--method",
        method,
        "--data",
        data,
        "--",
        program,
    ]);
    assert_eq!(ran.expect(0).stdout, "{}\n");
}

#[test]
fn the_rust_examples_are_inspected_and_called() {
    if let Some(kv) = rust_example("kv") {
        key_value_plugin(&kv);
    }
    if let Some(counter) = rust_example("counter") {
        counter_plugin(&counter);
    }
}

#[test]
fn the_go_peers_are_inspected_and_called() {
    if let Some(kv) = go_peer("kv") {
        key_value_plugin(&kv);
        let found = run(&[
            "inspect",
            "--json",
            "--cookie",
            EXAMPLE_COOKIE,
            "--",
            &kv,
            "negotiated",
        ]);
        assert_eq!(found.expect(0).json()["app_version"], 3);
    }
    if let Some(counter) = go_peer("counter") {
        counter_plugin(&counter);
    }
    if let Some(helper) = go_peer("helper") {
        let cookie = "TEST_MAGIC_COOKIE=test";
        let stream = [
            "call",
            "--cookie",
            cookie,
            "--method",
            "grpctest.Test/Stream",
            "-",
            "--",
        ];
        let stream: Vec<&str> = stream
            .into_iter()
            .chain([helper.as_str(), "test-grpc"])
            .collect();
        let ran = run_with_input(&stream, "{\"Input\":1}\n{\"Input\":2}\n").expect(0);
        assert_eq!(ran.stdout, "{\"Output\":1}\n{\"Output\":2}\n");
        run(&[
            "call",
            "--cookie",
            cookie,
            "--method",
            "grpctest.Test/Panic",
            "--data",
            "{\"message\":\"boom\"}",
            "--",
            &helper,
            "test-grpc",
        ])
        .expect(1)
        .says("UNAVAILABLE")
        .says("the plugin exited with status 2")
        .says("panic: boom");
    }
}
