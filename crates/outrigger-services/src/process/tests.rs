//! The engine by itself: what is started, what it inherits, and what is left
//! of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::FdFlags;
use rustix::process::Signal;

use super::child::End;
use super::output::Part;
use super::processes::{Process, Processes};
use super::program::Program;
use super::spawn::Order;
use super::variables;

const SH: &str = "/bin/sh";

struct Engine {
    programs: BTreeMap<String, Arc<Program>>,
    processes: Arc<Processes>,
}

fn engine(commands: &[&str]) -> Engine {
    let program = |command: &&str| {
        let path = std::fs::canonicalize(command).expect("its name");
        let program = Program::open(&path).expect("a program");
        ((*command).to_owned(), Arc::new(program))
    };
    Engine {
        programs: commands.iter().map(program).collect(),
        processes: Arc::new(Processes::new(4)),
    }
}

fn directory() -> OwnedFd {
    File::open("/").expect("a directory").into()
}

async fn start(engine: &Engine, command: &str, arguments: &[&str]) -> Process {
    let processes = engine.processes.clone();
    let order = Order {
        program: program(engine, command),
        name: command.into(),
        arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
        environment: variables::compose("/nowhere", processes.variable(), []),
        directory: directory(),
        open_files: None,
    };
    let room = processes.room().expect("room");
    tokio::task::spawn_blocking(move || processes.start(room, order).expect("a process"))
        .await
        .expect("no panic")
}

fn program(engine: &Engine, command: &str) -> Arc<Program> {
    engine.programs[command].clone()
}

/// What it prints until it has ended: stdout, and stderr after it.
async fn output(held: &Process) -> (String, String) {
    let mut outputs = held.outputs.lock().await;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(part) = outputs.next(&held.child).await.expect("output") {
        match part {
            Part::Output(bytes) => out.extend_from_slice(&bytes),
            Part::Error(bytes) => err.extend_from_slice(&bytes),
        }
    }
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (text(out), text(err))
}

async fn close_input(held: &Process) {
    held.input.lock().await.take();
}

/// Waits until the process `pid` is gone, or only waits to be reaped.
fn gone(pid: i32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        match stat.rsplit_once(") ") {
            None => return,
            Some((_, rest)) if rest.starts_with(['Z', 'X']) => return,
            Some(_) => assert!(Instant::now() < deadline, "process {pid} remains: {stat}"),
        }
        std::thread::yield_now();
    }
}

fn pid_of(held: &Process) -> i32 {
    held.child.pid().as_raw_nonzero().get()
}

#[tokio::test]
async fn a_command_has_three_descriptors_whatever_the_host_leaks() {
    let leaked = File::open("/dev/null").expect("a file");
    rustix::io::fcntl_setfd(leaked.as_fd(), FdFlags::empty()).expect("no flag");
    let engine = engine(&["/bin/ls"]);
    let held = start(&engine, "/bin/ls", &["/proc/self/fd"]).await;
    // The last one is the directory that is being listed.
    assert_eq!(output(&held).await.0, "0\n1\n2\n3\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_program_is_being_written_starts_when_that_is_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let copy = dir.path().join("true");
    std::fs::copy("/bin/true", &copy).expect("copied");
    let name = copy.to_str().expect("UTF-8");
    let engine = engine(&[name]);
    let writer = File::options().append(true).open(&copy).expect("opened");
    let (held, ()) = tokio::join!(start(&engine, name, &[]), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(writer);
    });
    assert_eq!(held.child.ended().await, End::Code(0));
}

#[tokio::test]
async fn a_command_starts_in_its_directory_with_nothing_of_the_hosts_environment() {
    let engine = engine(&["/usr/bin/env", "/bin/pwd"]);
    let held = start(&engine, "/usr/bin/env", &[]).await;
    let (text, _) = output(&held).await;
    let mut names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["HOME", "LANG", "OUTRIGGER_COMMAND_OF", "PATH", "TMPDIR"]
    );
    let held = start(&engine, "/bin/pwd", &[]).await;
    assert_eq!(output(&held).await.0, "/\n");
}

#[tokio::test]
async fn what_runs_is_the_program_that_was_there_when_the_grant_was_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let (tool, script) = (dir.path().join("tool"), dir.path().join("script"));
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    std::fs::copy("/bin/echo", &tool).expect("a copy");
    write_script(&script, "#!/bin/sh\necho \"first $*\"\n");
    let granted = [text(&tool), text(&script)];
    let engine = engine(&[&granted[0], &granted[1]]);
    for path in [&tool, &script] {
        let other = dir.path().join("other");
        write_script(&other, "#!/bin/sh\necho swapped\n");
        std::fs::rename(&other, path).expect("swapped");
    }
    let held = start(&engine, &granted[0], &["first", "a b"]).await;
    assert_eq!(output(&held).await.0, "first a b\n");
    let held = start(&engine, &granted[1], &["a b"]).await;
    assert_eq!(output(&held).await, ("first a b\n".into(), String::new()));
}

fn write_script(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a script");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, mode).expect("its mode");
}

#[tokio::test]
async fn a_text_without_an_interpreter_is_not_given_to_a_shell() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("text");
    write_script(&path, "echo run by a shell\n");
    let path = path.to_str().expect("UTF-8");
    let engine = engine(&[path]);
    let order = Order {
        program: program(&engine, path),
        name: path.into(),
        arguments: Vec::new(),
        environment: Vec::new(),
        directory: directory(),
        open_files: None,
    };
    let room = engine.processes.room().expect("room");
    let error = engine.processes.start(room, order).expect_err("no program");
    assert_eq!(
        error.raw_os_error(),
        Some(rustix::io::Errno::NOEXEC.raw_os_error())
    );
}

#[tokio::test]
async fn the_end_of_a_process_is_told_and_its_group_ends_with_it() {
    let engine = engine(&[SH]);
    let held = start(&engine, SH, &["-c", "sleep 1000 & echo $!; exit 7"]).await;
    // The background process holds stdout, and still the output ends.
    let (text, _) = output(&held).await;
    gone(text.trim().parse().expect("a pid"));
    assert_eq!(held.child.ended().await, End::Code(7));
    let held = start(&engine, SH, &["-c", "kill -USR1 $$"]).await;
    assert_eq!(held.child.ended().await, End::Signal(Signal::USR1.as_raw()));
    assert_eq!(
        held.child.signal(Signal::TERM),
        Err(rustix::io::Errno::SRCH)
    );
}

#[tokio::test]
async fn dropping_a_process_ends_it_and_frees_its_room() {
    let engine = engine(&["/bin/cat"]);
    let mut kept = Vec::new();
    for _ in 0..4 {
        kept.push(start(&engine, "/bin/cat", &[]).await);
    }
    assert!(engine.processes.room().is_none());
    let pid = pid_of(&kept[0]);
    kept.remove(0);
    gone(pid);
    let held = start(&engine, "/bin/cat", &[]).await;
    assert!(engine.processes.room().is_none());
    close_input(&held).await;
    assert_eq!(held.child.ended().await, End::Code(0));
}

#[tokio::test]
async fn nothing_that_a_plugin_started_outlives_its_connection() {
    let engine = engine(&[SH]);
    let script = "sleep 1000 & echo $!; setsid -f sh -c 'echo $$; exec sleep 1000'; sleep 1000";
    let held = start(&engine, SH, &["-c", script]).await;
    let pid = pid_of(&held);
    let mut text = Vec::new();
    {
        let mut outputs = held.outputs.lock().await;
        while text.iter().filter(|byte| **byte == b'\n').count() < 2 {
            match outputs.next(&held.child).await.expect("output") {
                Some(Part::Output(bytes)) => text.extend_from_slice(&bytes),
                other => panic!("no output: {other:?}"),
            }
        }
    }
    drop(held);
    drop(engine);
    gone(pid);
    for line in String::from_utf8(text).expect("UTF-8").lines() {
        gone(line.parse().expect("a pid"));
    }
}

#[tokio::test]
async fn a_process_that_escaped_does_not_keep_the_output_open() {
    let engine = engine(&[SH]);
    let script = "setsid -f sh -c 'exec yes'; echo started; exit 0";
    let held = start(&engine, SH, &["-c", script]).await;
    let (text, _) = tokio::time::timeout(Duration::from_secs(10), output(&held))
        .await
        .expect("the output ends");
    assert!(text.contains("started"));
}

#[tokio::test]
async fn limits_of_a_command_are_set() {
    let engine = engine(&["/bin/cat"]);
    let held = start(&engine, "/bin/cat", &[]).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", pid_of(&held)));
    let limits = limits.expect("its limits");
    let line = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name));
        line.expect("a limit")[name.len()..]
            .split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(line("Max core file size"), "0 0");
    assert_eq!(line("Max open files"), "1024 1024");
}

#[tokio::test]
async fn pipes_can_be_handed_over() {
    use std::io::{Read, Write};

    let engine = engine(&["/bin/cat"]);
    let held = start(&engine, "/bin/cat", &[]).await;
    let [input, output, error_output] = held.take_pipes().await.expect("pipes");
    let mut input = File::from(input);
    input.write_all(b"by itself").expect("written");
    drop(input);
    let mut text = String::new();
    File::from(output).read_to_string(&mut text).expect("read");
    assert_eq!(text, "by itself");
    assert_eq!(held.child.ended().await, End::Code(0));
    drop(error_output);
    assert!(held.take_pipes().await.is_err());
    let mut outputs = held.outputs.lock().await;
    assert_eq!(outputs.next(&held.child).await.expect("no failure"), None);
}
