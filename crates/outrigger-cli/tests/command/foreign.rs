//! Programs that are no plugins, and plugins that do not say what they are.

use super::{EXAMPLE_COOKIE, Fake, found, run, run_with_pipe, rust_example, script};

/// The Python that has grpcio, if the environment names it.
fn python() -> Option<String> {
    let named = std::env::var_os("OUTRIGGER_PYTHON");
    let Some(named) = named else {
        super::left_out("OUTRIGGER_PYTHON does not name a Python with grpcio");
        return None;
    };
    found(
        named.as_ref(),
        "make the virtual environment of the interop tests",
    )
}

#[test]
fn an_ordinary_program_is_said_to_be_perhaps_no_plugin_at_all() {
    run(&["inspect", "--start-timeout", "500ms", "--", "sleep", "60"])
        .expect(3)
        .says("error[handshake-timeout]")
        .says("it may be no go-plugin program at all")
        .says("`--start-timeout`");
    let args = [
        "inspect",
        "--start-timeout",
        "1s",
        "--cookie",
        EXAMPLE_COOKIE,
        "--",
        "cat",
    ];
    let ran = run_with_pipe(&args)
        .expect(3)
        .says("error[handshake-timeout]");
    // Not every kernel tells in which system call a process is.
    if std::fs::read_to_string("/proc/self/syscall").is_ok() {
        ran.says("it waits for input on its stdin")
            .says("it may be a filter");
    }
    run(&["inspect", "--", "true"])
        .expect(3)
        .says("a plugin goes on until its host ends it");
    let (_dir, program) = script("echo 'Usage: greeter [--serve]'; exit 2");
    run(&["inspect", "--", &program])
        .expect(3)
        .says("looks like a help text");
    let (_dir, program) = script("echo 'usage: greeter' >&2; exit 2");
    run(&["inspect", "--", &program])
        .expect(3)
        .says("looks like a help text");
    let (_dir, program) = script("echo listening on 80; read x");
    run_with_pipe(&["inspect", "--", &program])
        .expect(3)
        .says("the first line of one is a handshake");
    let (_dir, program) = script("printf 'starting \\033[2J'; sleep 60");
    run(&["inspect", "--start-timeout", "500ms", "--", &program])
        .expect(3)
        .says("it printed \"starting \\u{1b}[2J\" and did not end the line");
}

const SERVER: &str = "\
import grpc
from concurrent import futures
server = grpc.server(futures.ThreadPoolExecutor())
server.add_insecure_port(ADDRESS)
server.start()
server.wait_for_termination()
";

#[test]
fn a_plain_grpc_server_is_recognised_where_it_listens_and_can_be_called_there() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("s");
    for (address, shown) in [
        (
            "127.0.0.1:0".to_owned(),
            "it listens on 127.0.0.1:".to_owned(),
        ),
        (
            format!("unix:{}", socket.display()),
            format!("it listens on the socket `{}`", socket.display()),
        ),
    ] {
        let file = dir.path().join("server.py");
        std::fs::write(&file, SERVER.replace("ADDRESS", &format!("'{address}'"))).expect("written");
        let program = file.display().to_string();
        run(&["inspect", "--start-timeout", "8s", "--", &python, &program])
            .expect(3)
            .says(&shown)
            .says("and speaks HTTP/2 there")
            .says("it may be a plain gRPC server and no go-plugin program")
            .says("|grpc'` instead of a program");
    }
}

#[test]
fn a_crash_without_a_cookie_is_not_blamed_on_the_cookie() {
    let (_dir, program) =
        script("echo 'Traceback (most recent call last):' >&2; echo 'ImportError: x' >&2; exit 1");
    run(&["inspect", "--", &program])
        .expect(3)
        .says("error[exited-early]")
        .says("note: stderr: ImportError: x");
}

#[test]
fn a_cookie_is_offered_only_where_the_program_speaks_of_it() {
    let (_dir, program) = script("exit 1");
    let ran = run(&["inspect", "--cookie", "BASIC_PLUGIN=hallo", "--", &program])
        .expect(3)
        .says("error[magic-cookie-wrong]")
        .says("the program does not contain `BASIC_PLUGIN`");
    assert!(!ran.stderr.contains("published"), "{ran:?}");
    let ran = run(&["inspect", "--cookie", "BASIC_PLUGINS=hello", "--", &program]).expect(3);
    assert!(!ran.stderr.contains("did you mean"), "{ran:?}");
    let (_dir, program) = script("exit 1 # MATTERMOST_PLUGIN ARGO_ROLLOUTS_RPC_PLUGIN");
    run(&["inspect", "--", &program])
        .expect(3)
        .says("try `--cookie 'MATTERMOST_PLUGIN=Securely message teams, anywhere.'` (Mattermost plugins)")
        .says("try `--cookie ARGO_ROLLOUTS_RPC_PLUGIN=step`");
    if let Some(kv) = rust_example("kv") {
        run(&["inspect", "--cookie", "BASIC_PLUGINS=hello", "--", &kv])
            .expect(3)
            .says("the program does not contain `BASIC_PLUGINS`")
            .says("the program contains `BASIC_PLUGIN`; try `--cookie BASIC_PLUGIN=hello`");
    }
}

#[test]
fn a_python_plugin_without_reflection_is_inspected_by_the_contracts_that_are_known() {
    let Some(python) = python() else { return };
    let lister = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/python/lister.py"
    );
    let cookie = "TEST_KEY=TEST_VALUE";
    let args = [
        "inspect", "--json", "--cookie", cookie, "--", &python, lister,
    ];
    let found = run(&args).expect(0).json();
    let services = found["services"].as_array().expect("a list");
    let names: Vec<_> = services.iter().map(|service| &service["name"]).collect();
    assert_eq!(names, ["filelister.v1.FileLister"], "{found}");
    assert_eq!(services[0]["methods"][1]["name"], "List");
    let note = found["notes"][0].as_str().expect("a note");
    assert!(note.contains("`--descriptors FILE`"), "{note}");

    let call = ["call", "--cookie", cookie, "--method"];
    let with = |method: &'static str| -> Vec<&str> {
        let tail = ["--", &python, lister];
        call.iter().copied().chain([method]).chain(tail).collect()
    };
    run(&with("other.v1.Other/Do"))
        .expect(1)
        .says("error[reflection-not-served]")
        .says("`--descriptors FILE`");
    // It is called before its host was introduced, and its service says how that is done.
    run(&with("filelister.v1.FileLister/List"))
        .expect(1)
        .says("which was not called")
        .says("try `--establish filelister.v1.FileLister/EstablishHostServices`");
}

#[test]
fn descriptors_of_a_file_are_looked_for_in_a_plugin_without_reflection() {
    let fake = Fake::new(|services| services.with(super::Odd), false);
    let file = fake.dir.path().join("odd.bin");
    std::fs::write(&file, super::odd_file("proto3")).expect("written");
    let file = file.display().to_string();
    let program = fake.program();
    let args = ["inspect", "--json", "--descriptors", &file, "--", &program];
    let found = run(&args).expect(0).json();
    assert_eq!(found["services"][0]["name"], "odd.Odd", "{found}");
}
