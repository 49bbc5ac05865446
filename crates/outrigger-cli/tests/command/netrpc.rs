//! `inspect` and `call` on plugins that speak net/rpc.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use outrigger_gob::{Gob, Interface, Value as GobValue};
use outrigger_transport::ServeLimits;
use outrigger_transport::netrpc::{self, Method, Methods, PluginSession};
use outrigger_transport::yamux;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{EXAMPLE_COOKIE, Fake, Ran, go_peer, run, run_with_input, rust_example};

const CAT_COOKIE: &str =
    "CAT_PLUGIN=lFLmoCE3ckw6erJxYxcRd6keedUodVMctD3XOGj9bLMYsFZi1Qh0vKEJftppo5ek";

/// What [`Fake::net_rpc`] plugins have under `types`.
#[derive(Clone, Debug, Default, PartialEq, Gob)]
struct Pair {
    a: i64,
    b: i64,
}

/// What the methods of a fake plugin can do to it.
#[derive(Clone)]
struct Program {
    fifo: PathBuf,
    stop: CancellationToken,
}

impl Program {
    /// Lets the program end; its connections stay.
    async fn end(&self) {
        let fifo = self.fifo.clone();
        let written = tokio::task::spawn_blocking(move || std::fs::write(fifo, "stop\n"));
        written.await.expect("no panic").expect("written");
    }

    /// What the fake plugin has under `name`.
    fn object(&self, name: &str) -> Result<Methods, String> {
        match name {
            "types" => Ok(self.types()),
            "grpc-only" => Err("net/rpc plugin protocol not supported".to_owned()),
            "odd" => Err("no \u{1b}[31mluck".to_owned()),
            _ => Err(format!("unknown plugin type: {name}")),
        }
    }

    fn types(&self) -> Methods {
        let program = self.clone();
        Methods::new()
            .method(
                "Echo",
                |value: GobValue| async move { Ok::<_, String>(value) },
            )
            .method(
                "Any",
                |value: Interface| async move { Ok::<_, String>(value) },
            )
            .method("Add", |pair: Pair| async move {
                pair.a.checked_add(pair.b).ok_or("too much")
            })
            .method("Fail", |text: String| async move { Err::<(), _>(text) })
            .method("Never", |_: GobValue| {
                std::future::pending::<Result<(), String>>()
            })
            .method("Many", |count: i64| async move {
                Ok::<_, String>(vec![(); usize::try_from(count).unwrap_or(0)])
            })
            .method("Die", move |_: GobValue| {
                let program = program.clone();
                async move {
                    program.end().await;
                    program.stop.cancel();
                    std::future::pending::<Result<(), String>>().await
                }
            })
    }
}

impl Fake {
    /// A net/rpc plugin with the names of [`Program::object`].
    pub(super) fn net_rpc() -> Self {
        Self::announced(1, "netrpc", |fifo, listener, stop| {
            let program = Program { fifo, stop };
            move || {
                serve(listener, program.stop.clone(), async move |stream| {
                    let limits = ServeLimits::default();
                    let (session, _output) = PluginSession::accept(Box::new(stream), limits)
                        .await
                        .expect("a session");
                    let quit = CancellationToken::new();
                    let own = program.clone();
                    let dispense = move |name: &str| own.object(name);
                    session
                        .serve(dispense, limits, quit, std::future::ready(()))
                        .await;
                    program.end().await;
                })
            }
        })
    }

    /// A net/rpc plugin that knows nothing of a ping, and ends when asked.
    fn deaf() -> Self {
        Self::announced(1, "netrpc", |fifo, listener, stop| {
            let program = Program { fifo, stop };
            move || {
                serve(listener, program.stop.clone(), async move |stream| {
                    let config = yamux::Config::default();
                    let session =
                        yamux::Session::new(Box::new(stream), yamux::Role::Server, config);
                    let control = session.accept().await.expect("a stream");
                    let quit = Method::new(move |_: bool| {
                        let program = program.clone();
                        async move {
                            program.end().await;
                            Ok::<(), String>(())
                        }
                    });
                    let methods = Methods::new().with("Control", "Quit", quit);
                    let stop = CancellationToken::new();
                    netrpc::serve(Box::new(control), methods, ServeLimits::default(), stop).await;
                })
            }
        })
    }
}

/// Serves one connection until `stop`.
fn serve<F: Future<Output = ()>>(
    listener: UnixListener,
    stop: CancellationToken,
    connection: impl FnOnce(tokio::net::UnixStream) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("set");
        let listener = tokio::net::UnixListener::from_std(listener).expect("a listener");
        let serving = async {
            let (stream, _) = listener.accept().await.expect("a connection");
            connection(stream).await;
        };
        tokio::select! {
            () = serving => {}
            () = stop.cancelled() => {}
        }
    });
}

/// Calls a method of the fake plugin's `types`.
fn call(method: &str, more: &[&str]) -> Ran {
    call_of(&Fake::net_rpc(), method, more)
}

fn call_of(fake: &Fake, method: &str, more: &[&str]) -> Ran {
    let program = fake.program();
    let mut args = vec!["call", "--plugin", "types", "--method", method];
    args.extend(more);
    args.extend(["--", &program]);
    run(&args)
}

#[test]
fn a_net_rpc_plugin_is_pinged_and_asked_for_names() {
    let fake = Fake::net_rpc();
    let program = fake.program();
    let ran = run(&["inspect", "--json", "--plugin", "types", "--", &program]);
    let found = ran.expect(0).json();
    assert_eq!(found["protocol"], "netrpc");
    assert_eq!(found["broker"], "net/rpc");
    assert_eq!(found["ping"]["error"], json!(null));
    assert_eq!(
        (&found["health"], &found["reflection"], &found["services"]),
        (&json!(null), &json!(null), &json!([]))
    );
    assert_eq!(found["plugins"][0]["name"], "types");
    assert_eq!(found["plugins"][0]["error"], json!(null));
    for step in ["spawn_ms", "handshake_ms", "connect_ms", "ready_ms"] {
        assert!(found["start"][step].is_number(), "{found}");
    }
    assert!(found["memory"]["resident_kib"].as_u64().expect("a number") > 0);
    assert_eq!(
        (&found["end"]["how"], &found["end"]["status"]),
        (&json!("asked"), &json!(0))
    );
    let note = found["notes"][0].as_str().expect("a note");
    assert!(note.contains("no reflection"), "{note}");
}

#[test]
fn names_that_are_not_dispensed_are_told_with_their_reasons() {
    let fake = Fake::net_rpc();
    let mut args = vec!["inspect"];
    for name in ["types", "tpyes", "grpc-only", "odd"] {
        args.extend(["--plugin", name]);
    }
    let program = fake.program();
    args.extend(["--", &program]);
    let ran = run(&args)
        .expect(1)
        .says("error[dispense-failed]")
        .says("`tpyes`, `grpc-only`, `odd`");
    assert!(!ran.stdout.contains('\u{1b}'));
    for text in [
        "ping          answered after",
        "types: dispensed after",
        "tpyes: not dispensed: the plugin has no such name",
        "grpc-only: not dispensed: the plugin refused",
        "no reflection",
    ] {
        assert!(ran.stdout.contains(text), "no {text:?} in {ran:?}");
    }
}

#[test]
fn a_net_rpc_plugin_that_does_not_answer_a_ping_is_not_well() {
    let fake = Fake::deaf();
    let program = fake.program();
    let ran = run(&["inspect", "--json", "--plugin", "types", "--", &program]).expect(1);
    let object = ran.says("error[ping-failed]").json();
    let error = object["ping"]["error"].as_str().expect("a reason");
    assert!(error.contains("Control.Ping"), "{error}");
    assert_eq!(object["plugins"], json!([]));
}

#[test]
fn a_net_rpc_reply_is_printed_as_json_in_the_order_of_its_fields() {
    let argument = "{\"B\":\"2\",\"A\":40}";
    let ty = ["--type", "struct{B, A int64}", "--data", argument];
    assert_eq!(call("Plugin.Add", &ty).expect(0).stdout, "42\n");
    let echoed = call("Plugin.Echo", &ty).expect(0).stdout;
    assert_eq!(echoed, "{\"B\":2,\"A\":40}\n");
    let shape =
        "main.Shape=struct{Name string; Inner *main.Shape; Raw []byte; N uint64; At time.Time}";
    let data = "{\"@type\":\"main.Shape\",\"value\":{\"Inner\":{\"Name\":\"x\"},\"Raw\":\"aGk=\",\
                \"N\":\"18446744073709551615\",\"At\":\"2026-01-31T12:00:00+02:00\"}}";
    let args = ["--type", "interface{}", "--type-def", shape, "--data", data];
    assert_eq!(
        call("Plugin.Any", &args).expect(0).stdout,
        "{\"@type\":\"main.Shape\",\"value\":{\"Name\":\"\",\"Inner\":{\"Name\":\"x\",\"Inner\":null,\
         \"Raw\":\"\",\"N\":0,\"At\":\"0001-01-01T00:00:00Z\"},\"Raw\":\"aGk=\",\
         \"N\":\"18446744073709551615\",\"At\":\"2026-01-31T12:00:00+02:00\"}}\n"
    );
}

#[test]
fn a_net_rpc_argument_comes_from_text_a_file_stdin_or_nowhere() {
    let fake = Fake::net_rpc();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "{\n \"a\": [1]\n}\n").expect("written");
    let data = format!("@{}", file.path().display());
    let ran = call_of(&fake, "Plugin.Echo", &["--data", &data]);
    assert_eq!(ran.expect(0).stdout, "{\"a\":[1]}\n");

    let fake = Fake::net_rpc();
    let program = fake.program();
    let method = [
        "call",
        "--plugin",
        "types",
        "--method",
        "Plugin.Echo",
        "-",
        "--",
        &program,
    ];
    assert_eq!(
        run_with_input(&method, "[true]\n").expect(0).stdout,
        "[true]\n"
    );

    assert_eq!(call("Plugin.Echo", &[]).expect(0).stdout, "null\n");
    let zero = call("Plugin.Echo", &["--type", "[2]string"]).expect(0);
    assert_eq!(zero.stdout, "[\"\",\"\"]\n");
}

#[test]
fn with_json_a_net_rpc_call_is_one_object() {
    let object = call("Plugin.Echo", &["--json", "--data", "[1]"])
        .expect(0)
        .json();
    assert_eq!(
        (&object["method"], &object["protocol"], &object["kind"]),
        (&json!("Plugin.Echo"), &json!("netrpc"), &json!("unary"))
    );
    assert_eq!(object["replies"], json!([[1]]));
    assert_eq!(object["reply_type"], "[]int");
    assert_eq!(object["failure"], json!(null));
    assert!(object.get("error").is_none());

    let object = call(
        "Plugin.Fail",
        &["--json", "--data", "\"no \\u001b[31mkey\""],
    );
    let object = object.expect(1).json();
    assert_eq!(object["failure"], "no \u{1b}[31mkey");
    assert_eq!(object["error"]["code"], "rpc-failed");
    assert_eq!(object["replies"], json!([]));
}

#[test]
fn the_error_of_a_net_rpc_method_is_quoted() {
    let ran = call("Plugin.Fail", &["--data", "\"no \\u001b[31mkey\""]).expect(1);
    assert!(!ran.stderr.contains('\u{1b}'));
    ran.says("error[rpc-failed]: `Plugin.Fail` failed: \"no ");
}

#[test]
fn a_net_rpc_plugin_is_called_by_name() {
    let fake = Fake::net_rpc();
    let program = fake.program();
    run(&["call", "--method", "Plugin.Echo", "--", &program])
        .expect(2)
        .says("error[plugin-name-missing]")
        .says("`PluginSet`");
    for (name, exit, code, says) in [
        ("tpyes", 2, "unknown-plugin-name", "`tpyes`"),
        ("grpc-only", 1, "dispense-failed", "for gRPC"),
        ("odd", 1, "dispense-failed", "no \\u{1b}[31mluck"),
    ] {
        let fake = Fake::net_rpc();
        let program = fake.program();
        let ran = run(&[
            "call",
            "--plugin",
            name,
            "--method",
            "Plugin.Echo",
            "--",
            &program,
        ]);
        ran.expect(exit).says(&format!("error[{code}]")).says(says);
    }
}

#[test]
fn unknown_methods_and_services_of_net_rpc_are_usage_errors_with_advice() {
    for (method, code, says) in [
        ("Plugin.echo", "unknown-method", "`--method Plugin.Echo`"),
        ("Plugin.Nothing", "unknown-method", "`Server` returns"),
        ("types.Echo", "unknown-service", "`--method Plugin.Echo`"),
    ] {
        call(method, &["--data", "1"])
            .expect(2)
            .says(&format!("error[{code}]"))
            .says(says);
    }
}

#[test]
fn an_argument_of_another_type_is_explained() {
    call("Plugin.Fail", &["--data", "5"])
        .expect(2)
        .says("error[argument-mismatch]")
        .says("sent as `int`, as the data implies")
        .says("`--type 'string'`");
    call("Plugin.Any", &["--type", "bool", "--data", "true"])
        .expect(2)
        .says("error[argument-mismatch]")
        .says("sent as `bool`, as `--type` says")
        .says("`--type 'interface{}'`");
}

#[test]
fn data_that_does_not_fit_its_go_type_is_pointed_at() {
    call(
        "Plugin.Add",
        &[
            "--type",
            "struct{A, B int8}",
            "--data",
            "{\"A\":1,\"B\":200}",
        ],
    )
    .expect(2)
    .says(
        "error[data-invalid]: the data does not fit at `$.B`: expected an integer in range (int8)",
    )
    .says("`struct { A int8; B int8 }`");
    call("Plugin.Echo", &["--data", "1 2"])
        .expect(2)
        .says("error[data-too-much]");
    call("Plugin.Echo", &["--data", "{"])
        .expect(2)
        .says("error[data-invalid]")
        .says("is not JSON");
}

#[test]
fn data_that_gob_cannot_carry_is_a_usage_error() {
    let name = "a".repeat(1100);
    let (def, data) = (format!("{name}=int"), format!("{{\"@type\":\"{name}\"}}"));
    let args = ["--type", "any", "--type-def", &def, "--data", &data];
    call("Plugin.Any", &args)
        .expect(2)
        .says("error[data-invalid]: the data cannot be sent as gob");
}

#[test]
fn a_wrong_go_type_is_told_before_the_plugin_starts() {
    for (flags, says) in [
        (
            ["--type", "map[string]"],
            "expected a type, found nothing more",
        ),
        (["--type", "strnig"], "did you mean `string`?"),
        (["--type-def", "main.A=main.A"], "defined only by itself"),
    ] {
        let mut args = vec!["call", "--method", "Plugin.Echo"];
        args.extend(flags);
        args.extend(["--", "/nonexistent/plugin"]);
        run(&args).expect(2).says("error[type-invalid]").says(says);
    }
}

#[test]
fn options_of_the_other_protocol_are_refused() {
    call("Plugin.Echo", &["--metadata", "a=b"])
        .expect(2)
        .says("error[option-unsupported]")
        .says("`--metadata`");
    for flags in [
        ["--plugin", "a"],
        ["--type", "int"],
        ["--type-def", "A=int"],
    ] {
        let fake = Fake::new(|services| services, true);
        let program = fake.program();
        let mut args = vec!["call", "--method", "grpc.health.v1.Health/Check"];
        args.extend(flags);
        args.extend(["--", &program]);
        run(&args)
            .expect(2)
            .says("error[option-unsupported]")
            .says(flags[0]);
    }
    let fake = Fake::new(|services| services, true);
    let program = fake.program();
    run(&["inspect", "--plugin", "a", "--", &program])
        .expect(2)
        .says("error[option-unsupported]");
}

#[test]
fn a_plugin_must_speak_the_protocol_that_is_asked_for() {
    let fake = Fake::net_rpc();
    let program = fake.program();
    run(&["inspect", "--protocol", "grpc", "--", &program])
        .expect(3)
        .says("error[transport-not-allowed]")
        .says("speaks \"netrpc\", and `--protocol grpc` asks for the other")
        .says("--app-version");
    run(&["inspect", "--protocol", "netrpc", "--", &program]).expect(0);
    run(&["inspect", "--protocol", "http", "--", &program]).expect(2);
}

#[test]
fn a_net_rpc_call_ends_at_its_timeout() {
    call("Plugin.Never", &["--timeout", "200ms"])
        .expect(1)
        .says("error[netrpc-timed-out]")
        .says("`--timeout`")
        .says("cannot cancel it")
        .says("the argument was nil");
}

#[test]
fn a_net_rpc_plugin_that_ends_during_a_call_is_told_by_its_end() {
    call("Plugin.Die", &["--data", "1"])
        .expect(1)
        .says("error[netrpc-connection-lost]")
        .says("the plugin exited with status 0");
}

#[test]
fn a_reply_that_takes_too_much_memory_is_refused() {
    call("Plugin.Many", &["--data", "6000000"])
        .expect(1)
        .says("error[reply-invalid]")
        .says("`memory`");
}

const SHAPE: &str = "main.Shape=struct{Name string; Sides int; Tags []string; Inner *main.Shape; \
                     At time.Time; Extra map[string]any}";

/// What the peers of the interop matrix have under `types`, `kv` and `greeter`.
fn interop_plugin(program: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let call = |flags: &[&str], name: &str, method: &str, more: &[&str]| -> Ran {
        let mut args = vec!["call", "--cookie", EXAMPLE_COOKIE, "--protocol", "netrpc"];
        args.extend(["--plugin", name, "--method", method]);
        args.extend(flags.iter().chain(more).chain(&["--", program]));
        let mut command = super::command(&args);
        command
            .current_dir(&dir)
            .output()
            .expect("the command runs")
            .into()
    };
    for flags in [&[][..], &["--auto-mtls"]] {
        let put = "{\"key\":\"k\",\"value\":{\"@type\":\"[]byte\",\"value\":\"aGVsbG8=\"}}";
        call(flags, "kv", "Plugin.Put", &["--data", put]).expect(0);
        let got = call(flags, "kv", "Plugin.Get", &["--data", "\"k\""]).expect(0);
        assert_eq!(got.stdout, "\"aGVsbG8=\"\n");
    }
    call(&[], "kv", "Plugin.Get", &["--data", "\"absent\""])
        .expect(1)
        .says("error[rpc-failed]");
    let greeted = call(&[], "greeter", "Plugin.Greet", &[]).expect(0);
    assert_eq!(greeted.stdout, "\"Hello!\"\n");

    let any = |method: &str, data: &str| -> String {
        let more = ["--type", "any", "--type-def", SHAPE, "--data", data];
        call(&[], "types", method, &more).expect(0).stdout
    };
    for (data, said) in [
        ("5", "int 5"),
        ("2.5", "float64 2.5"),
        ("[1,\"a\",null]", "[]interface {} [1 a <nil>]"),
        ("{\"@type\":\"uint8\",\"value\":7}", "uint8 7"),
        (
            "{\"@type\":\"[]string\",\"value\":[\"a\",\"b\"]}",
            "[]string [a b]",
        ),
        (
            "{\"@type\":\"time.Time\",\"value\":\"2026-01-31T12:00:00+01:30\"}",
            "time.Time 2026-01-31T10:30:00Z",
        ),
        (
            "{\"@type\":\"main.Shape\",\"value\":{\"Name\":\"s\",\"Inner\":{\"Inner\":{\"Sides\":3}}}}",
            "main.Shape {s 0 [] &{ 0 [] &{ 3 [] <nil> 0001-01-01T00:00:00Z map[]} 0001-01-01T00:00:00Z map[]} 0001-01-01T00:00:00Z map[]}",
        ),
    ] {
        assert_eq!(any("Plugin.Describe", data), format!("{}\n", json!(said)));
    }
    for echoed in [
        "null",
        "true",
        "{\"a\":[1,{\"b\":2.5}],\"t\":\"x\"}",
        "{\"@type\":\"uint64\",\"value\":\"18446744073709551615\"}",
        "{\"@type\":\"time.Time\",\"value\":\"2026-01-31T12:00:00.25Z\"}",
        "{\"@type\":\"main.Shape\",\"value\":{\"Name\":\"\",\"Sides\":3,\"Tags\":[\"a\"],\"Inner\":null,\
         \"At\":\"2026-01-31T12:00:00-07:00\",\"Extra\":{\"k\":{\"@type\":\"int8\",\"value\":-1}}}}",
    ] {
        assert_eq!(any("Plugin.Echo", echoed), format!("{echoed}\n"));
    }
    call(&[], "types", "Plugin.Describe", &["--data", "5"])
        .expect(2)
        .says("error[argument-mismatch]")
        .says("`--type 'interface{}'`");
    call(&[], "types", "Plugin.Sleep", &["--data", "\"x\""])
        .expect(2)
        .says("error[argument-mismatch]")
        .says("`--type 'int64'`");
    call(&[], "types", "Plugin.Nope", &["--data", "5"])
        .expect(2)
        .says("error[unknown-method]");
    call(&[], "tpyes", "Plugin.Nope", &["--data", "5"])
        .expect(2)
        .says("error[unknown-plugin-name]");
    let late = ["--data", "60000", "--timeout", "200ms"];
    call(&[], "types", "Plugin.Sleep", &late)
        .expect(1)
        .says("error[netrpc-timed-out]");
}

fn cat(program: &str) {
    for flags in [&[][..], &["--auto-mtls"]] {
        let mut args = vec!["call", "--cookie", CAT_COOKIE, "--protocol", "netrpc"];
        args.extend(["--plugin", "cat", "--method", "Plugin.Speak"]);
        args.extend(["--data", "{\"isLoud\":true}"]);
        args.extend(flags.iter().chain(&["--", program]));
        assert_eq!(run(&args).expect(0).stdout, "\"MEOW!\"\n");

        let mut args = vec![
            "inspect", "--json", "--cookie", CAT_COOKIE, "--plugin", "cat",
        ];
        args.extend(flags.iter().chain(&["--", program]));
        let found = run(&args).expect(0).json();
        assert_eq!(found["plugins"][0]["error"], json!(null));
        let mode = if flags.is_empty() {
            "none"
        } else {
            "auto-mtls"
        };
        assert_eq!(found["tls"]["mode"], mode);
        assert_eq!(found["end"]["how"], "asked");
    }
}

#[test]
fn the_go_peers_are_inspected_and_called_over_net_rpc() {
    if let Some(peer) = go_peer("netrpc") {
        interop_plugin(&peer);
    }
    if let Some(animal) = go_peer("cat") {
        cat(&animal);
    }
    if let Some(kv) = go_peer("kv") {
        for args in [&[][..], &["--app-version", "2"]] {
            let mut all = vec!["inspect", "--json", "--cookie", EXAMPLE_COOKIE];
            all.extend(["--protocol", "netrpc"]);
            all.extend(args.iter().chain(&["--", &kv, "negotiated"]));
            let ran = run(&all);
            match args.is_empty() {
                // It prefers its version 3, which speaks gRPC.
                true => drop(ran.expect(3).says("error[transport-not-allowed]")),
                false => assert_eq!(ran.expect(0).json()["app_version"], 2),
            }
        }
    }
}

#[test]
fn the_rust_examples_are_inspected_and_called_over_net_rpc() {
    if let Some(peer) = rust_example("netrpc-peer") {
        interop_plugin(&peer);
    }
    if let Some(animal) = rust_example("cat") {
        cat(&animal);
    }
}

#[test]
fn the_host_is_introduced_to_the_object_that_is_called() {
    let establish = |name: &str| {
        let more = ["--establish", name, "--json"];
        call("Plugin.Echo", &more)
    };
    // It takes any number, so also a broker id.
    let object = establish("Plugin.Echo").expect(0).json();
    assert_eq!(
        object["host"],
        json!({"client_id": null, "operations": {"done": 0, "failed": 0, "refused": 0, "undecided": 0}})
    );
    let object = establish("Plugin.Absent").expect(0).json();
    let note = object["notes"][0].as_str().expect("a note");
    assert!(note.contains("does not implement"), "{note}");
    establish("Plugin.Add")
        .expect(1)
        .says("error[establish-failed]")
        .says("the plugin says");
}
