//! `outrigger.host.v1.Process`: what runs, what does not, and what is left.

mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::Stream;
use outrigger_services::{Limits, Verdict};
use outrigger_wire::proto::host::*;
use support::plugin::{Plugin, all, ended, failure, gone, is_running};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

/// A shell that may run anything: the tests' own tool, not an example.
const SHELL: &str = "
capabilities:
  process:
    exec:
      - {command: /bin/sh, args: [-c, \"*\"]}
      - {command: /bin/cat, args: []}
    kill: [children]
    list: [children]
    signal: [children]
";

fn command(program: &str, args: &[&str]) -> Command {
    Command {
        command: program.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        ..Command::default()
    }
}

fn shell(script: &str) -> Command {
    command("/bin/sh", &["-c", script])
}

async fn run(plugin: &Plugin, command: Command) -> Result<RunResponse, Status> {
    let request = RunRequest {
        command: Some(command),
        ..RunRequest::default()
    };
    plugin.call("Process/Run", request).await
}

async fn start(plugin: &Plugin, command: Command) -> Result<StartResponse, Status> {
    let command = Some(command);
    plugin.call("Process/Start", StartRequest { command }).await
}

async fn wait(plugin: &Plugin, process: &str) -> Result<exit_status::End, Status> {
    let process = process.to_owned();
    let reply: WaitResponse = plugin.call("Process/Wait", WaitRequest { process }).await?;
    Ok(reply.status.and_then(|status| status.end).expect("an end"))
}

async fn kill(plugin: &Plugin, process: &str) -> Result<KillResponse, Status> {
    let process = process.to_owned();
    plugin.call("Process/Kill", KillRequest { process }).await
}

async fn signal(plugin: &Plugin, process: &str, signal: i32) -> Result<SignalResponse, Status> {
    let process = process.to_owned();
    let request = SignalRequest { process, signal };
    plugin.call("Process/Signal", request).await
}

async fn list(plugin: &Plugin) -> Result<Vec<ProcessInfo>, Status> {
    let reply: ListProcessesResponse = plugin.call("Process/List", ListProcessesRequest {}).await?;
    Ok(reply.processes)
}

async fn output(plugin: &Plugin, process: &str) -> Result<Streaming<OutputResponse>, Status> {
    let process = process.to_owned();
    plugin
        .download("Process/Output", OutputRequest { process })
        .await
}

/// The first line of a process's stdout, and the rest of the stream.
async fn first_line(stream: &mut Streaming<OutputResponse>) -> String {
    let mut text = Vec::new();
    while !text.contains(&b'\n') {
        let reply = stream.message().await.expect("output").expect("a part");
        match reply.part {
            Some(output_response::Part::Output(bytes)) => text.extend_from_slice(&bytes),
            other => panic!("no output: {other:?}"),
        }
    }
    String::from_utf8(text)
        .expect("UTF-8")
        .trim_end()
        .to_owned()
}

fn code(code: i32) -> Option<ExitStatus> {
    let end = Some(exit_status::End::Code(code));
    Some(ExitStatus { end })
}

#[tokio::test]
async fn run_collects_output_status_and_a_record() {
    let plugin = Plugin::new(SHELL).await;
    let request = RunRequest {
        command: Some(shell("cat; echo oops >&2; exit 3")),
        input: "in\n".into(),
        timeout_ms: 0,
    };
    let reply: RunResponse = plugin.call("Process/Run", request).await.expect("it ran");
    assert_eq!(reply.output, "in\n".as_bytes());
    assert_eq!(reply.error_output, "oops\n".as_bytes());
    assert_eq!((reply.status, reply.dropped), (code(3), 0));
    let records = plugin.records_of("run").await;
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!((record.code, record.bytes), ("ok", 8));
    assert!(record.argument.contains("command=\"/bin/sh\""), "{record}");
    assert!(record.rule.contains("process.exec[0]"), "{record}");
    assert!(list(&plugin).await.expect("a list").is_empty());
    plugin.close().await;
}

#[tokio::test]
async fn exec_args_injection() {
    let sections = "
capabilities:
  process:
    exec:
      - {command: /bin/echo, args: [-n, \"*\"]}
      - {command: /bin/echo, args: [fixed]}
  environment: {read: [LD_PRELOAD, PATH], set: {GRANTED: x, BASH_ENV: x}}
";
    let plugin = Plugin::new(sections).await;
    let args = |args: &[&str]| command("/bin/echo", args);
    let ran = run(&plugin, args(&["-n", "a b", "$HOME `id` ; *", "é"])).await;
    // No shell has a hand in it: what is given arrives as it is.
    assert_eq!(
        ran.expect("it ran").output,
        "a b $HOME `id` ; * é".as_bytes()
    );
    assert!(run(&plugin, args(&["fixed"])).await.is_ok());
    let refused: [&[&str]; 8] = [
        &["-n", "--version"],
        &["-n", "--"],
        &["-n", "a\nb"],
        &["fixed", "more"],
        &["-n x"],
        &[],
        &["-e", "x"],
        &["fixe*"],
    ];
    for given in refused {
        let outcome = run(&plugin, args(given)).await;
        let expected = (Code::PermissionDenied, "not-granted".to_owned());
        assert_eq!(failure(outcome), expected, "{given:?}");
    }
    let outcome = run(&plugin, args(&["-n", "a\0b"])).await;
    assert_eq!(failure(outcome).0, Code::InvalidArgument);
    for program in [
        "echo",
        "/bin/ls",
        "/bin/../bin/echo",
        "",
        "/bin/echo\0",
        "/proc/self/exe",
    ] {
        let outcome = run(&plugin, command(program, &["fixed"])).await;
        assert_eq!(failure(outcome).0, Code::PermissionDenied, "{program:?}");
    }
    let with = |name: &str| Command {
        environment: HashMap::from([(name.to_owned(), "x".to_owned())]),
        ..args(&["fixed"])
    };
    assert!(run(&plugin, with("GRANTED")).await.is_ok());
    // Three are granted; that makes them no safer to give.
    for (name, expected) in [
        ("LD_PRELOAD", Code::PermissionDenied),
        ("BASH_ENV", Code::PermissionDenied),
        ("PATH", Code::PermissionDenied),
        ("OTHER", Code::PermissionDenied),
        ("A=B", Code::InvalidArgument),
        ("", Code::InvalidArgument),
    ] {
        assert_eq!(
            failure(run(&plugin, with(name)).await).0,
            expected,
            "{name:?}"
        );
    }
    let many = vec!["x"; 5000];
    assert_eq!(
        failure(run(&plugin, args(&many)).await).1,
        "arguments-too-long"
    );
    let records = plugin.records_of("run").await;
    let refusals = records
        .iter()
        .filter(|record| record.verdict == Verdict::Refused);
    assert_eq!(refusals.count(), 8 + 1 + 6 + 6 + 1);
    plugin.close().await;
}

#[tokio::test]
async fn a_command_sees_a_fixed_environment_and_the_granted_values_it_was_given() {
    // Cargo sets these for tests.
    let sections = "
capabilities:
  process: {exec: [{command: /usr/bin/env, args: []}]}
  environment: {read: [CARGO_PKG_NAME, CARGO_MANIFEST_DIR, RSYNC_RSH], set: {TZ: a b}}
";
    let plugin = Plugin::new(sections).await;
    let with = |variables: &[(&str, &str)]| {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Command {
            environment: variables.iter().map(own).collect(),
            ..command("/usr/bin/env", &[])
        }
    };
    // What a variable may be is not the plugin's to say.
    for (name, value) in [
        ("CARGO_PKG_NAME", "other"),
        ("CARGO_PKG_NAME", ""),
        ("TZ", "UTC"),
        ("RSYNC_RSH", "/tmp/plugin/program"),
    ] {
        let outcome = run(&plugin, with(&[(name, value)])).await;
        let status = outcome.as_ref().expect_err(name);
        assert!(status.message().contains(name), "{status}");
        let expected = (Code::PermissionDenied, "value-not-granted".to_owned());
        assert_eq!(failure(outcome), expected, "{name}={value}");
    }
    for record in plugin.records_of("run").await {
        assert_eq!(record.verdict, Verdict::Refused);
        assert!(record.missing.contains("environment.set"), "{record}");
        assert!(!record.to_json().contains("/tmp/plugin"), "{record}");
    }
    let granted = [("CARGO_PKG_NAME", "outrigger-services"), ("TZ", "a b")];
    let reply = run(&plugin, with(&granted)).await.expect("it ran");
    let record = plugin.records_of("run").await.remove(0);
    assert!(record.rule.contains("environment.read[0]"), "{record}");
    let text = String::from_utf8(reply.output.to_vec()).expect("UTF-8");
    let mut names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    names.sort_unstable();
    let expected = [
        "CARGO_PKG_NAME",
        "HOME",
        "LANG",
        "OUTRIGGER_COMMAND_OF",
        "PATH",
        "TMPDIR",
        "TZ",
    ];
    assert_eq!(names, expected);
    assert!(text.contains("TZ=a b\n"));
    assert!(text.contains("CARGO_PKG_NAME=outrigger-services\n"));
    plugin.close().await;
}

#[tokio::test]
async fn the_home_of_commands_is_out_of_the_plugins_reach_and_goes_with_it() {
    let sections = "
capabilities:
  process: {exec: [{command: /bin/sh, args: [-c, \"*\"]}]}
services: [process, filesystem, environment]
";
    let plugin = Plugin::new(sections).await;
    let script = "touch \"$HOME/.profile\"; printf %s \"$HOME:$TMPDIR\"";
    let reply = run(&plugin, shell(script)).await.expect("it ran");
    assert_eq!(reply.error_output, "".as_bytes());
    let text = String::from_utf8(reply.output.to_vec()).expect("UTF-8");
    let (home, temp) = text.split_once(':').expect("two");
    assert_eq!(home, temp);
    let profile = format!("{home}/.profile");
    let dirs: DirsResponse = plugin
        .call("Environment/Dirs", DirsRequest {})
        .await
        .expect("dirs");
    assert_ne!(dirs.temp, home);
    let stat = async |path: &str| {
        let request = StatRequest { path: path.into() };
        plugin
            .call::<_, StatResponse>("Filesystem/Stat", request)
            .await
    };
    stat(&dirs.temp).await.expect("its own");
    let name = profile.rsplit('/').nth(1).expect("a name");
    for path in [home, &profile, &format!("{}/../{name}/.profile", dirs.temp)] {
        assert_eq!(
            failure(stat(path).await).0,
            Code::PermissionDenied,
            "{path}"
        );
    }
    assert!(std::path::Path::new(&profile).exists());
    // A command starts there, and not where the plugin can put something.
    let reply = run(&plugin, shell("pwd")).await.expect("it ran");
    assert_eq!(reply.output, format!("{home}\n").as_bytes());
    for directory in [dirs.temp.clone(), format!("{}/.", dirs.temp)] {
        let in_temp = Command {
            directory,
            ..shell("pwd")
        };
        let denied = (Code::PermissionDenied, "not-granted".to_owned());
        assert_eq!(failure(run(&plugin, in_temp).await), denied);
    }
    plugin.close().await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::path::Path::new(home).exists() {
        assert!(Instant::now() < deadline, "{home} remains");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_program_that_is_swapped_does_not_run() {
    let dir = tempfile::tempdir().expect("a directory");
    let tool = dir.path().join("tool");
    std::fs::copy("/bin/echo", &tool).expect("a copy");
    let path = tool.to_str().expect("UTF-8");
    let missing = dir.path().join("missing");
    let missing = missing.to_str().expect("UTF-8");
    let sections = format!(
        "capabilities: {{process: {{exec: [{{command: {path}, args: [\"*\"]}}, {{command: {missing}}}]}}}}"
    );
    let plugin = Plugin::new(&sections).await;
    std::fs::copy("/bin/true", dir.path().join("other")).expect("a copy");
    std::fs::rename(dir.path().join("other"), &tool).expect("swapped");
    let reply = run(&plugin, command(path, &["the first one"])).await;
    assert_eq!(reply.expect("it ran").output, "the first one\n".as_bytes());
    // What was not there when the grant was taken does not run later.
    std::fs::copy("/bin/true", missing).expect("a copy");
    let outcome = run(&plugin, command(missing, &[])).await;
    assert_eq!(
        failure(outcome),
        (Code::NotFound, "program-unusable".into())
    );
    plugin.close().await;
}

#[tokio::test]
async fn a_started_process_is_fed_read_and_waited_for() {
    let plugin = Plugin::new(SHELL).await;
    let started = start(&plugin, command("/bin/cat", &[]))
        .await
        .expect("started");
    let process = started.process.clone();
    let write = |data: &str, close: bool| WriteInputRequest {
        process: process.clone(),
        data: data.to_owned().into(),
        close,
    };
    let written = async |request| -> Result<WriteInputResponse, Status> {
        plugin.call("Process/WriteInput", request).await
    };
    written(write("one\n", false)).await.expect("written");
    let mut stream = output(&plugin, &process).await.expect("output");
    assert_eq!(first_line(&mut stream).await, "one");
    let second = output(&plugin, &process).await.expect_err("taken");
    assert_eq!(failure::<()>(Err(second)).1, "output-taken");
    let listed = list(&plugin).await.expect("a list");
    assert_eq!((listed.len(), listed[0].pid), (1, started.pid));
    assert_eq!(listed[0].status, None);
    assert!(listed[0].started.is_some());
    written(write("two", true)).await.expect("written");
    assert_eq!(failure(written(write("x", false)).await).1, "input-closed");
    assert_eq!(
        wait(&plugin, &process).await.expect("ended"),
        exit_status::End::Code(0)
    );
    let rest = all(stream).await.expect("the rest");
    let part = rest.into_iter().next().and_then(|reply| reply.part);
    assert_eq!(part, Some(output_response::Part::Output("two".into())));
    assert_eq!(list(&plugin).await.expect("a list")[0].status, code(0));
    plugin.close().await;
}

/// A conversation with a command.
async fn exec(
    plugin: &Plugin,
    command: Command,
) -> (mpsc::Sender<exec_request::Part>, Streaming<ExecResponse>) {
    let (sender, receiver) = mpsc::channel(4);
    sender
        .send(exec_request::Part::Command(command))
        .await
        .expect("room");
    let stream = plugin
        .converse("Process/Exec", requests(receiver))
        .await
        .expect("a stream");
    (sender, stream)
}

fn requests(
    receiver: mpsc::Receiver<exec_request::Part>,
) -> impl Stream<Item = ExecRequest> + Send + 'static {
    futures_util::stream::unfold(receiver, async |mut receiver| {
        let part = receiver.recv().await?;
        Some((ExecRequest { part: Some(part) }, receiver))
    })
}

async fn part(stream: &mut Streaming<ExecResponse>) -> exec_response::Part {
    let reply = stream.message().await.expect("a reply").expect("one more");
    reply.part.expect("a part")
}

#[tokio::test]
async fn exec_streams_input_output_signals_and_status() {
    let plugin = Plugin::new(SHELL).await;
    let script =
        "trap 'echo got; exit 5' TERM; echo ready; while :; do read x && echo \"<$x>\"; done";
    let (sender, mut stream) = exec(&plugin, shell(script)).await;
    let exec_response::Part::Process(process) = part(&mut stream).await else {
        panic!("the process comes first");
    };
    assert_eq!(list(&plugin).await.expect("a list")[0].process, process);
    let line = |text: &'static str| exec_response::Part::Output(text.into());
    assert_eq!(part(&mut stream).await, line("ready\n"));
    let input = exec_request::Part::Input("hello\n".into());
    sender.send(input).await.expect("room");
    assert_eq!(part(&mut stream).await, line("<hello>\n"));
    sender
        .send(exec_request::Part::Signal(15))
        .await
        .expect("room");
    // The shell looks at its trap once its read returns.
    let input = exec_request::Part::Input("\n".into());
    sender.send(input).await.expect("room");
    let mut parts = Vec::new();
    while let Some(reply) = stream.message().await.expect("a reply") {
        parts.push(reply.part.expect("a part"));
    }
    assert_eq!(
        parts.pop(),
        code(5).map(exec_response::Part::Status),
        "the status comes last"
    );
    assert!(parts.contains(&line("got\n")), "{parts:?}");
    let records = plugin.records_of("exec").await;
    assert_eq!((records.len(), records[0].code), (1, "ok"));
    assert!(records[0].rule.contains("process.signal"), "{}", records[0]);
    assert!(list(&plugin).await.expect("a list").is_empty());
    plugin.close().await;
}

#[tokio::test]
async fn a_stream_that_makes_no_sense_is_refused_and_ends_the_command() {
    let plugin = Plugin::new(SHELL).await;
    let first = exec_request::Part::Input("x".into());
    let request = ExecRequest { part: Some(first) };
    let outcome = plugin
        .converse::<_, ExecResponse>("Process/Exec", futures_util::stream::iter([request]))
        .await;
    assert_eq!(failure(outcome.map(|_| ())).0, Code::InvalidArgument);
    let (sender, mut stream) = exec(&plugin, command("/bin/cat", &[])).await;
    let exec_response::Part::Process(_) = part(&mut stream).await else {
        panic!("the process comes first");
    };
    let pid = list(&plugin).await.expect("a list")[0].pid;
    let again = exec_request::Part::Command(command("/bin/cat", &[]));
    sender.send(again).await.expect("room");
    let outcome = stream.message().await;
    assert_eq!(failure(outcome).0, Code::InvalidArgument);
    gone(pid).await;
    plugin.close().await;
}

#[tokio::test]
async fn a_stream_that_does_not_begin_says_so_and_leaves_its_record() {
    let limits = Limits {
        call_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let plugin = Plugin::with(SHELL, limits).await;
    let silent = futures_util::stream::pending::<ExecRequest>();
    let outcome = plugin.converse::<_, ExecResponse>("Process/Exec", silent);
    assert_eq!(
        failure(outcome.await.map(drop)),
        (Code::DeadlineExceeded, "call-timeout".into())
    );
    let empty = futures_util::stream::empty::<ExecRequest>();
    let outcome = plugin.converse::<_, ExecResponse>("Process/Exec", empty);
    assert_eq!(failure(outcome.await.map(drop)).0, Code::InvalidArgument);
    let records = plugin.records_of("exec").await;
    let codes: Vec<_> = records.iter().map(|record| record.code).collect();
    assert_eq!(codes, ["call-timeout", "malformed-request"]);
    plugin.close().await;
}

#[tokio::test]
async fn ten_thousand_lines_arrive_in_order() {
    let plugin = Plugin::new(SHELL).await;
    let script = "i=0; while [ $i -lt 10000 ]; do echo \"line $i\"; i=$((i+1)); done";
    let (_sender, mut stream) = exec(&plugin, shell(script)).await;
    let mut text = Vec::new();
    let mut end = None;
    while let Some(reply) = stream.message().await.expect("a reply") {
        match reply.part.expect("a part") {
            exec_response::Part::Output(bytes) => text.extend_from_slice(&bytes),
            exec_response::Part::Status(status) => end = Some(status),
            exec_response::Part::Process(_) => {}
            exec_response::Part::ErrorOutput(bytes) => panic!("{bytes:?}"),
        }
    }
    let expected: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
    assert!(text == expected.as_bytes());
    assert_eq!(end, code(0));
    plugin.close().await;
}

/// Memory of this process that is in use, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("its memory");
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("a number") * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_of_output_passes_through_flat_memory() {
    let plugin = Plugin::new(SHELL).await;
    let script = "head -c 1073741824 /dev/zero";
    let (_sender, mut stream) = exec(&plugin, shell(script)).await;
    let before = resident();
    let (mut count, mut most) = (0_u64, 0);
    while let Some(reply) = stream.message().await.expect("a reply") {
        if let Some(exec_response::Part::Output(bytes)) = reply.part {
            count += bytes.len() as u64;
            most = most.max(resident());
        }
    }
    assert_eq!(count, 1 << 30);
    let grown = most.saturating_sub(before);
    // Other tests of this file run at the same time.
    assert!(grown < 64 << 20, "{grown} bytes more");
    plugin.close().await;
}

#[tokio::test]
async fn a_flood_that_nobody_reads_waits_in_its_pipe() {
    let plugin = Plugin::new(SHELL).await;
    let (_sender, mut stream) = exec(&plugin, shell("echo $$; exec yes")).await;
    let exec_response::Part::Process(_) = part(&mut stream).await else {
        panic!("the process comes first");
    };
    let pid = list(&plugin).await.expect("a list")[0].pid;
    // It sleeps in write(2) once its pipe and the window of the call are full.
    let deadline = Instant::now() + Duration::from_secs(10);
    let written = || {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
        line.and_then(|count| count.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let blocked = || {
        let channel = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        channel.starts_with("1 ")
    };
    let mut seen = (0, 0);
    while seen.1 < 200 {
        assert!(Instant::now() < deadline, "it never waits");
        let now = written();
        seen = match now == seen.0 && blocked() {
            true => (now, seen.1 + 1),
            false => (now, 0),
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(seen.0 < 32 << 20, "{} bytes", seen.0);
    drop(stream);
    gone(pid).await;
    plugin.close().await;
}

#[tokio::test]
async fn run_keeps_what_fits_and_counts_the_rest() {
    let limits = Limits {
        message: 65_536 + 1024,
        ..Limits::default()
    };
    let plugin = Plugin::with(SHELL, limits).await;
    let reply = run(
        &plugin,
        shell("head -c 1000000 /dev/zero; head -c 20000 /dev/zero >&2"),
    )
    .await;
    let reply = reply.expect("it ran");
    assert_eq!(reply.output.len(), 49_152);
    assert_eq!(reply.error_output.len(), 16_384);
    assert_eq!(reply.dropped, 1_000_000 - 49_152 + 20_000 - 16_384);
    assert_eq!(reply.status, code(0));
    plugin.close().await;
}

#[tokio::test]
async fn a_run_that_takes_too_long_or_is_given_up_is_killed() {
    let plugin = Plugin::new(SHELL).await;
    let request = RunRequest {
        command: Some(shell("sleep 1000")),
        timeout_ms: 50,
        ..RunRequest::default()
    };
    let outcome = plugin.call::<_, RunResponse>("Process/Run", request).await;
    assert_eq!(failure(outcome).0, Code::DeadlineExceeded);
    assert!(list(&plugin).await.expect("a list").is_empty());
    assert_eq!(plugin.records_of("run").await[0].code, "call-timeout");
    // Given up: the call is dropped while the command runs.
    let pid = {
        let mut running = std::pin::pin!(run(&plugin, shell("sleep 1000")));
        loop {
            tokio::select! {
                biased;
                outcome = &mut running => panic!("it ended: {outcome:?}"),
                listed = list(&plugin) => {
                    if let Some(process) = listed.expect("a list").first() {
                        break process.pid;
                    }
                }
            }
        }
    };
    gone(pid).await;
    assert_eq!(plugin.records_of("run").await[0].code, "cancelled");
    plugin.close().await;
}

#[tokio::test]
async fn a_cancelled_exec_ends_its_command_with_all_of_its_group() {
    let plugin = Plugin::new(SHELL).await;
    let (sender, mut stream) = exec(&plugin, shell("sleep 1000 & echo $!; wait")).await;
    let exec_response::Part::Process(_) = part(&mut stream).await else {
        panic!("the process comes first");
    };
    let exec_response::Part::Output(grandchild) = part(&mut stream).await else {
        panic!("then its output");
    };
    let grandchild = String::from_utf8(grandchild.to_vec()).expect("UTF-8");
    let grandchild = grandchild.trim().parse().expect("a pid");
    let pid = list(&plugin).await.expect("a list")[0].pid;
    assert!(is_running(pid) && is_running(grandchild));
    drop((sender, stream));
    gone(pid).await;
    ended(grandchild).await;
    assert_eq!(plugin.records_of("exec").await[0].code, "cancelled");
    plugin.close().await;
}

#[tokio::test]
async fn disconnecting_ends_children_and_grandchildren() {
    let plugin = Plugin::new(SHELL).await;
    let script = "sleep 1000 & echo $!; setsid -f sh -c 'echo $$; exec sleep 1000'; sleep 1000";
    let started = start(&plugin, shell(script)).await.expect("started");
    let mut stream = output(&plugin, &started.process).await.expect("output");
    let mut text = String::new();
    while text.lines().count() < 2 {
        text.push_str(&first_line(&mut stream).await);
        text.push('\n');
    }
    let pids: Vec<i32> = text
        .lines()
        .map(|line| line.parse().expect("a pid"))
        .collect();
    assert!(is_running(started.pid) && pids.iter().all(|pid| is_running(*pid)));
    plugin.close().await;
    gone(started.pid).await;
    for pid in pids {
        ended(pid).await;
    }
}

#[tokio::test]
async fn kill_and_signal_reach_only_what_this_plugin_started() {
    let (plugin, other) = (Plugin::new(SHELL).await, Plugin::new(SHELL).await);
    let started = start(&plugin, command("/bin/cat", &[]))
        .await
        .expect("started");
    assert!(list(&other).await.expect("a list").is_empty());
    let unknown = (Code::NotFound, "unknown-lease".to_owned());
    let (pid, own) = (started.pid.to_string(), std::process::id().to_string());
    for process in [started.process.as_str(), &pid, &own, "1", "", "-1", "0"] {
        assert_eq!(failure(kill(&other, process).await), unknown);
        assert_eq!(failure(signal(&other, process, 15).await), unknown);
        assert_eq!(failure(wait(&other, process).await), unknown);
        let outcome = output(&other, process).await.map(|_| ());
        assert_eq!(failure(outcome), unknown);
        let request = WriteInputRequest {
            process: process.into(),
            ..WriteInputRequest::default()
        };
        let outcome = other
            .call::<_, WriteInputResponse>("Process/WriteInput", request)
            .await;
        assert_eq!(failure(outcome), unknown);
    }
    for process in [pid.as_str(), &own, "1", "-1"] {
        assert_eq!(failure(kill(&plugin, process).await), unknown);
    }
    assert!(is_running(started.pid));
    for number in [0, -1, 64, 1000, i32::MIN] {
        let outcome = signal(&plugin, &started.process, number).await;
        assert_eq!(failure(outcome).0, Code::InvalidArgument, "{number}");
    }
    signal(&plugin, &started.process, 15)
        .await
        .expect("signalled");
    let end = wait(&plugin, &started.process).await.expect("ended");
    assert_eq!(end, exit_status::End::Signal(15));
    let outcome = signal(&plugin, &started.process, 15).await;
    assert_eq!(failure(outcome).1, "process-ended");
    kill(&plugin, &started.process)
        .await
        .expect("it is gone already");
    plugin.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_process_id_that_is_used_again_is_never_signalled() {
    let plugin = Plugin::new(SHELL).await;
    let started = start(&plugin, shell("exit 0")).await.expect("started");
    wait(&plugin, &started.process).await.expect("ended");
    gone(started.pid).await;
    // Where the kernel lets us choose, another process gets the very number.
    let mut innocent = None;
    for _ in 0..100 {
        let last = (started.pid - 1).to_string();
        if std::fs::write("/proc/sys/kernel/ns_last_pid", last).is_err() {
            break;
        }
        #[allow(clippy::disallowed_methods, reason = "it is no plugin")]
        let mut child = tokio::process::Command::new("/bin/sleep");
        let child = child
            .arg("1000")
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        if child.id() == u32::try_from(started.pid).ok() {
            innocent = Some(child);
            break;
        }
    }
    let outcome = signal(&plugin, &started.process, 9).await;
    assert_eq!(failure(outcome).1, "process-ended");
    let outcome = signal(&plugin, &started.process, 15).await;
    assert_eq!(failure(outcome).1, "process-ended");
    kill(&plugin, &started.process)
        .await
        .expect("nothing is left");
    plugin.close().await;
    if let Some(mut child) = innocent {
        assert!(
            child.try_wait().expect("its state").is_none(),
            "it was killed"
        );
        child.kill().await.expect("killed");
    }
}

#[tokio::test]
async fn control_over_children_is_granted_by_itself() {
    let sections = "
capabilities:
  process:
    exec: [{command: /bin/cat, args: []}]
    signal: [children]
";
    let plugin = Plugin::new(sections).await;
    let started = start(&plugin, command("/bin/cat", &[]))
        .await
        .expect("started");
    let denied = (Code::PermissionDenied, "not-granted".to_owned());
    assert_eq!(failure(kill(&plugin, &started.process).await), denied);
    // SIGKILL is killing, by whatever name.
    assert_eq!(failure(signal(&plugin, &started.process, 9).await), denied);
    assert_eq!(failure(list(&plugin).await), denied);
    // A host under `nohup` hands down that hang-ups are ignored, so it is SIGTERM here.
    signal(&plugin, &started.process, 15)
        .await
        .expect("signalled");
    wait(&plugin, &started.process).await.expect("ended");
    plugin.close().await;

    let plugin = Plugin::new("services: [clock]").await;
    let outcome = start(&plugin, command("/bin/cat", &[])).await;
    assert_eq!(failure(outcome).0, Code::PermissionDenied);
    // It is not even waited for the command.
    let (_sender, receiver) = mpsc::channel(1);
    let outcome = plugin
        .converse::<_, ExecResponse>("Process/Exec", requests(receiver))
        .await;
    assert_eq!(failure(outcome.map(|_| ())).0, Code::PermissionDenied);
    plugin.close().await;
}

#[tokio::test]
async fn processes_are_counted_and_one_that_ended_gives_up_its_place() {
    let sections = format!("{SHELL}\nresources: {{pids: 2}}");
    let plugin = Plugin::new(&sections).await;
    let first = start(&plugin, command("/bin/cat", &[]))
        .await
        .expect("started");
    let second = start(&plugin, command("/bin/cat", &[]))
        .await
        .expect("started");
    let outcome = start(&plugin, command("/bin/cat", &[])).await;
    let full = (Code::ResourceExhausted, "too-many-processes".to_owned());
    assert_eq!(failure(outcome), full);
    kill(&plugin, &first.process).await.expect("killed");
    wait(&plugin, &first.process).await.expect("ended");
    let third = start(&plugin, command("/bin/cat", &[]))
        .await
        .expect("started");
    let listed = list(&plugin).await.expect("a list");
    let ids: Vec<&str> = listed.iter().map(|process| &*process.process).collect();
    assert_eq!(ids, [&*second.process, &third.process]);
    plugin.close().await;
}

async fn close(plugin: &Plugin, process: &str) -> Result<CloseProcessResponse, Status> {
    let process = process.to_owned();
    let request = CloseProcessRequest { process };
    plugin.call("Process/Close", request).await
}

/// Waits until the host knows how the process ended, and does not ask it how.
async fn over(plugin: &Plugin, process: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let listed = list(plugin).await.expect("a list");
        let known = listed.iter().find(|known| known.process == process);
        if known.expect("still there").status.is_some() {
            return;
        }
        assert!(Instant::now() < deadline, "it runs");
        tokio::task::yield_now().await;
    }
}

fn ids(listed: &[ProcessInfo]) -> Vec<&str> {
    listed.iter().map(|process| &*process.process).collect()
}

#[tokio::test]
async fn what_has_ended_makes_room_for_any_other_lease() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().canonicalize().expect("its path");
    let file = path.join("file");
    std::fs::write(&file, b"x").expect("a file");
    let sections = format!(
        "{SHELL}  filesystem: [{{path: {}, permissions: [read], recursive: true}}]",
        path.to_str().expect("UTF-8")
    );
    let limits = Limits {
        leases: 4,
        ..Limits::default()
    };
    let plugin = Plugin::with(&sections, limits).await;
    let open = async || {
        let request = OpenRequest {
            path: file.to_str().expect("UTF-8").to_owned(),
            ..OpenRequest::default()
        };
        plugin
            .call::<_, OpenResponse>("Filesystem/Open", request)
            .await
    };
    let running = start(&plugin, command("/bin/cat", &[]))
        .await
        .expect("started");
    let mut ended = Vec::new();
    for text in ["first", "second", "third"] {
        let script = format!("echo {text}");
        let started = start(&plugin, shell(&script)).await.expect("started");
        over(&plugin, &started.process).await;
        ended.push(started.process);
    }
    // The plugin knows how the second one ended; of the others it knows nothing.
    wait(&plugin, &ended[1]).await.expect("its end");
    let _first = open().await.expect("in place of the second");
    let listed = list(&plugin).await.expect("a list");
    assert_eq!(ids(&listed), [&*running.process, &ended[0], &ended[2]]);
    let _second = open().await.expect("in place of the first");
    let mut stream = output(&plugin, &ended[2]).await.expect("output");
    assert_eq!(first_line(&mut stream).await, "third");
    assert!(all(stream).await.expect("the rest").is_empty());
    let _third = open().await.expect("in place of the third");
    let full = (Code::ResourceExhausted, "too-many-leases".to_owned());
    assert_eq!(failure(open().await), full);
    assert!(is_running(running.pid));
    plugin.close().await;
}

#[tokio::test]
async fn a_process_that_runs_is_never_idle() {
    let limits = Limits {
        lease_idle: Duration::from_millis(50),
        ..Limits::default()
    };
    let plugin = Plugin::with(SHELL, limits).await;
    let running = start(&plugin, command("/bin/cat", &[]))
        .await
        .expect("started");
    let ended = start(&plugin, shell("exit 0")).await.expect("started");
    // Nobody uses either; the one that ended goes.
    let deadline = Instant::now() + Duration::from_secs(10);
    while ids(&list(&plugin).await.expect("a list")).contains(&&*ended.process) {
        assert!(Instant::now() < deadline, "it remains");
        tokio::task::yield_now().await;
    }
    assert!(is_running(running.pid));
    let write = WriteInputRequest {
        process: running.process.clone(),
        data: "still here\n".into(),
        close: true,
    };
    let written = plugin.call::<_, WriteInputResponse>("Process/WriteInput", write);
    written.await.expect("written");
    let mut stream = output(&plugin, &running.process).await.expect("output");
    assert_eq!(first_line(&mut stream).await, "still here");
    plugin.close().await;
}

#[tokio::test]
async fn giving_a_process_back_ends_it_without_a_grant_to_kill() {
    let sections = "
capabilities:
  process:
    exec: [{command: /bin/sh, args: [-c, \"*\"]}]
    list: [children]
";
    let plugin = Plugin::new(sections).await;
    let script = "sleep 1000 & echo $!; wait";
    let started = start(&plugin, shell(script)).await.expect("started");
    let mut stream = output(&plugin, &started.process).await.expect("output");
    let grandchild = first_line(&mut stream).await.parse().expect("a pid");
    close(&plugin, &started.process).await.expect("its own");
    gone(started.pid).await;
    ended(grandchild).await;
    assert!(list(&plugin).await.expect("a list").is_empty());
    let unknown = (Code::NotFound, "unknown-lease".to_owned());
    assert_eq!(failure(close(&plugin, &started.process).await), unknown);
    // One that has ended is given back the same way.
    let started = start(&plugin, shell("exit 0")).await.expect("started");
    wait(&plugin, &started.process).await.expect("ended");
    close(&plugin, &started.process).await.expect("its own");
    assert!(list(&plugin).await.expect("a list").is_empty());
    let codes: Vec<_> = plugin
        .records_of("close")
        .await
        .iter()
        .map(|record| (record.code, record.rule.clone()))
        .collect();
    let done = || ("ok", "a command ends with its lease".to_owned());
    assert_eq!((&codes[0], &codes[2]), (&done(), &done()));
    assert_eq!(codes[1].0, "unknown-lease");
    plugin.close().await;
}

#[tokio::test]
async fn a_directory_must_be_granted_for_reading() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().canonicalize().expect("its path");
    std::fs::create_dir(path.join("below")).expect("a directory");
    let granted = path.to_str().expect("UTF-8");
    let sections = format!(
        "capabilities:\n  process: {{exec: [{{command: /bin/pwd, args: []}}]}}\n  \
         filesystem: [{{path: {granted}, permissions: [read, list], recursive: true}}]"
    );
    let plugin = Plugin::new(&sections).await;
    let at = |directory: &str| Command {
        directory: directory.into(),
        ..command("/bin/pwd", &[])
    };
    let below = format!("{granted}/below");
    let reply = run(&plugin, at(&below)).await.expect("it ran");
    assert_eq!(reply.output, format!("{below}\n").as_bytes());
    assert_eq!(
        failure(run(&plugin, at("/etc")).await).0,
        Code::PermissionDenied
    );
    plugin.close().await;
}

#[test]
#[allow(clippy::disallowed_methods)] // Hosts are no plugins.
fn commands_run_and_end_where_newer_system_calls_are_refused() {
    let calls = outrigger_testing::NEWER_CALLS.iter().map(|(call, _)| *call);
    for call in calls.chain(["all"]) {
        for answer in ["ENOSYS", "EPERM"] {
            let mut host = std::process::Command::new(outrigger_testing::program("refusing"));
            host.args([call, answer]);
            host.arg(std::env::current_exe().expect("its own path"));
            host.arg("--exact").args([
                "run_collects_output_status_and_a_record",
                "a_program_that_is_swapped_does_not_run",
                "disconnecting_ends_children_and_grandchildren",
                "kill_and_signal_reach_only_what_this_plugin_started",
            ]);
            let output = host.output().expect("run");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && text.contains("4 passed"),
                "{call}: {answer}: {text}"
            );
        }
    }
}
