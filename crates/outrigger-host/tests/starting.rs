//! Which file is started, what it inherits, and where that has to work.

mod support;

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use outrigger_host::{
    Attach, ExitStatus, ExpectedDigest, Launch, LaunchError, MagicCookie, PluginSet,
};
use outrigger_testing::{Fault, NEWER_CALLS, TestDir, copy_program, program, write_script};
use support::{chain, digest_of, kv, misbehaving, nothing_left, shell};

fn launch(program: impl AsRef<Path>, dir: &TestDir) -> Launch {
    Launch::new(program.as_ref(), MagicCookie::new("BASIC_PLUGIN", "hello"))
        .temp_dir(dir.path())
        .offer(1, PluginSet::new())
}

/// How a start of something that is no plugin fails.
async fn failed(launch: Launch) -> LaunchError {
    launch.start().await.expect_err("no plugin")
}

/// Starts this test program again, with one test that is ignored otherwise: a
/// host whose environment the caller decides.
#[allow(clippy::disallowed_methods)] // The host is no plugin.
fn host(test: &str) -> Command {
    let mut host = Command::new(std::env::current_exe().expect("its own path"));
    host.args(["--exact", test, "--ignored", "--nocapture"]);
    host
}

#[track_caller]
fn succeeded(case: impl std::fmt::Debug, output: &Output) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success() && out.contains("1 passed"),
        "{case:?}: {out}{err}"
    );
}

// ---- by name --------------------------------------------------------------

/// Runs in a process of its own, whose current directory has a decoy `kv2`.
#[tokio::test]
#[ignore = "part of the test below"]
async fn a_host_that_names_kv2() {
    let dir = TestDir::new();
    let expected = std::env::var("EXPECTED").expect("set below");
    let kv2 = || launch("kv2", &dir);
    if expected == "runs" {
        let plugin = kv2().start().await.expect("started");
        assert_eq!(plugin.stop().await.status, ExitStatus::Code(0));
        let wrong = ExpectedDigest::sha256(&[7; 32]).expect("32 bytes");
        let error = failed(kv2().expect_digest(wrong)).await;
        assert_eq!(error.code(), "digest-mismatch");
        return;
    }
    let digest = digest_of(&program("kv"));
    for launch in [kv2(), kv2().expect_digest(digest)] {
        let error = failed(launch).await;
        assert_eq!(error.code(), expected, "{}", chain(&error));
        let diagnosis = error.diagnosis().expect("what was seen").to_string();
        assert!(!diagnosis.starts_with("./"), "{diagnosis}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_bare_name_is_the_first_executable_file_in_path_and_never_in_the_current_directory() {
    let dir = TestDir::new();
    let here = dir.path().join("here");
    for name in ["here", "here/sub", "plain", "folder", "folder/kv2", "good"] {
        std::fs::create_dir(dir.path().join(name)).expect("made");
    }
    // What the host must not run would be taken for one that exits at once.
    for decoy in ["kv2", "sub/kv2"] {
        write_script(&here.join(decoy), "#!/bin/sh\nexit 3\n");
    }
    std::fs::write(dir.path().join("plain/kv2"), "#!/bin/sh\n").expect("written");
    std::os::unix::fs::symlink(program("kv"), dir.path().join("good/kv2")).expect("linked");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (plain, folder, good) = (at("plain"), at("folder"), at("good"));
    let (found, missing, plainly) = ("runs", "program-not-found", "program-not-executable");
    for (path, expected) in [
        (Some(format!("{plain}:{good}")), found),
        (Some(format!("{folder}:{good}")), found),
        (Some(format!("{}:{good}", at("none"))), found),
        (Some(format!(":{good}")), found),
        (Some(format!(".:./:sub:../here:{good}:")), found),
        (Some(plain.clone()), plainly),
        (Some(format!("{folder}:{plain}:.")), plainly),
        (Some(folder.clone()), missing),
        (Some(format!("{}:", at("none"))), missing),
        (Some(format!(":{}", at("none"))), missing),
        (Some(format!("{}::/nonexistent", at("none"))), missing),
        (Some(":".into()), missing),
        (Some("::".into()), missing),
        (Some(".".into()), missing),
        (Some("./".into()), missing),
        (Some("sub".into()), missing),
        (Some("./sub".into()), missing),
        (Some("../here".into()), missing),
        (Some(String::new()), missing),
        (None, missing),
    ] {
        let mut host = host("a_host_that_names_kv2");
        host.current_dir(&here).env("EXPECTED", expected);
        match &path {
            Some(path) => host.env("PATH", path),
            None => host.env_remove("PATH"),
        };
        let output = host.output().expect("run");
        succeeded((path, expected), &output);
    }
}

#[tokio::test]
async fn a_name_that_is_nowhere_in_path_says_what_can_be_done() {
    let dir = TestDir::new();
    let error = failed(launch("no-such-plugin", &dir)).await;
    assert_eq!(error.code(), "program-not-found");
    let text = chain(&error);
    let path = std::env::var("PATH").expect("it is set");
    let expected = format!(
        "plugin `no-such-plugin` could not be started\n\
         no absolute directory of PATH has `no-such-plugin`: {path}"
    );
    assert_eq!(text, expected);
    let hint = "install it in a directory of PATH, or give its path with a slash";
    assert_eq!(error.hint().as_deref(), Some(hint));
    let diagnosis = error.diagnosis().map(ToString::to_string);
    assert_eq!(
        diagnosis.as_deref(),
        Some("no-such-plugin: not found in PATH")
    );
    for odd in ["", ".", ".."] {
        assert_eq!(failed(launch(odd, &dir)).await.code(), "program-not-found");
    }
    dir.assert_empty();
}

/// Runs in a process of its own, in a directory with a script `./kv`.
#[tokio::test]
#[ignore = "part of the test below"]
async fn a_host_with_a_plugin_in_its_own_directory() {
    let dir = TestDir::new();
    let digest = digest_of(Path::new("kv"));
    for name in ["./kv", "../a/kv", "../a/./kv"] {
        for digest in [None, Some(digest.clone())] {
            let mut launch = launch(name, &dir).current_dir("../b");
            if let Some(digest) = digest {
                launch = launch.expect_digest(digest);
            }
            let error = failed(launch).await;
            let text = error.to_string();
            assert!(
                text.contains("exited with status 3"),
                "{name}: {}",
                chain(&error)
            );
            // It runs in the directory that it was given.
            assert!(text.contains("here is b"), "{name}: {}", chain(&error));
        }
    }
}

#[test]
fn a_relative_program_is_the_hosts_own_wherever_the_plugin_runs() {
    let dir = TestDir::new();
    for (name, status) in [("a", 3), ("b", 4)] {
        std::fs::create_dir(dir.path().join(name)).expect("made");
        let script = format!("#!/bin/sh\necho here is ${{PWD##*/}} >&2\nexit {status}\n");
        write_script(&dir.path().join(name).join("kv"), &script);
    }
    let mut host = host("a_host_with_a_plugin_in_its_own_directory");
    let output = host.current_dir(dir.path().join("a")).output();
    succeeded("./kv", &output.expect("run"));
}

// ---- beside others --------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[allow(clippy::disallowed_methods)] // Commands are no plugins.
async fn checked_scripts_start_while_other_programs_are_started() {
    let dir = Arc::new(TestDir::new());
    let script = dir.path().join("script");
    write_script(&script, "#!/bin/sh\nexit 3\n");
    let digest = digest_of(&script);
    let over = Arc::new(AtomicBool::new(false));
    let commands = std::thread::spawn({
        let over = over.clone();
        move || {
            while !over.load(Ordering::Relaxed) {
                let mut command = Command::new("/bin/true");
                let child = outrigger_transport::process::spawn_once(&mut command);
                child.expect("started").wait().expect("reaped");
            }
        }
    });
    let starting: Vec<_> = (0..2)
        .map(|_| {
            let (dir, script, digest) = (dir.clone(), script.clone(), digest.clone());
            tokio::spawn(async move {
                for _ in 0..150 {
                    let error = failed(launch(&script, &dir).expect_digest(digest.clone())).await;
                    let text = error.to_string();
                    assert!(text.contains("exited with status 3"), "{}", chain(&error));
                }
            })
        })
        .collect();
    for starts in starting {
        starts.await.expect("every start");
    }
    over.store(true, Ordering::Relaxed);
    commands.join().expect("no panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn programs_that_were_just_written_start_while_others_are_started() {
    let dir = Arc::new(TestDir::new());
    let starting: Vec<_> = (0..8)
        .map(|thread| {
            let dir = dir.clone();
            tokio::spawn(async move {
                for number in 0..30 {
                    let copy = dir.path().join(format!("{thread}-{number}"));
                    // By this very process, which gives its children a copy of
                    // the descriptor until they become their programs.
                    std::fs::copy("/bin/true", &copy).expect("copied");
                    let error = failed(launch(&copy, &dir)).await;
                    assert_eq!(error.code(), "exited-early", "{}", chain(&error));
                    std::fs::remove_file(&copy).expect("removed");
                }
            })
        })
        .collect();
    for starts in starting {
        starts.await.expect("every start");
    }
}

#[tokio::test]
async fn a_program_that_stays_open_for_writing_is_given_up() {
    let dir = TestDir::new();
    let copy = dir.path().join("copy");
    copy_program(Path::new("/bin/true"), &copy);
    let _writer = File::options().append(true).open(&copy).expect("opened");
    let error = failed(launch(&copy, &dir)).await;
    assert_eq!(error.code(), "program-busy", "{}", chain(&error));
    assert!(chain(&error).ends_with("Text file busy (os error 26)"));
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn a_plugin_inherits_no_descriptor_above_its_standard_streams() {
    let dir = TestDir::new();
    let open = dir.path().join("open");
    let file = File::create(&open).expect("made");
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).expect("no mark");
    assert!(file.as_raw_fd() > 2);
    for digest in [false, true] {
        let list = dir.path().join("list");
        let script = dir.path().join("script");
        write_script(&script, "#!/bin/sh\nls -l /proc/$$/fd >\"$1\"\n");
        let mut launch = launch(&script, &dir).arg(&list);
        if digest {
            launch = launch.expect_digest(digest_of(&script));
        }
        assert_eq!(failed(launch).await.code(), "exited-early");
        let text = std::fs::read_to_string(&list).expect("listed");
        assert!(text.contains(&script.display().to_string()), "{text}");
        assert!(!text.contains(&open.display().to_string()), "{text}");
        std::fs::remove_file(&list).expect("removed");
    }
}

// ---- in odd surroundings --------------------------------------------------

/// Runs in a process of its own, with a `TMPDIR` that the test below set.
#[tokio::test]
#[ignore = "part of the test below"]
async fn a_host_that_starts_kv_where_tmpdir_says() {
    let plugin = Launch::new(program("kv"), MagicCookie::new("BASIC_PLUGIN", "hello"))
        .offer(1, PluginSet::new())
        .start()
        .await
        .expect("started");
    plugin.ping().await.expect("an answer");
    let broker = plugin.broker();
    let services = outrigger_host::ServiceSet::new();
    drop(
        broker
            .serve(broker.next_id(), services)
            .await
            .expect("served"),
    );
    assert_eq!(plugin.stop().await.status, ExitStatus::Code(0));
}

#[test]
fn a_plugin_starts_whatever_tmpdir_says() {
    let dir = TestDir::new();
    let names: [&[u8]; 5] = [b"plain", b"a|b", b"a\nb", b"caf\xe9", &[b'x'; 120]];
    let mut values = vec![OsStr::new("").to_owned()];
    for name in names {
        let path = dir.path().join(OsStr::from_bytes(name));
        std::fs::create_dir(&path).expect("made");
        values.push(path.into());
    }
    for value in values {
        let mut host = host("a_host_that_starts_kv_where_tmpdir_says");
        succeeded(&value, &host.env("TMPDIR", &value).output().expect("run"));
        let is_empty = |path: &Path| std::fs::read_dir(path).expect("listed").next().is_none();
        assert!(
            value.is_empty() || is_empty(Path::new(&value)),
            "left behind"
        );
    }
}

/// Runs in a process of its own, which ignores SIGCHLD.
#[tokio::test]
#[ignore = "part of the test below"]
async fn a_host_that_ignores_the_ends_of_its_children() {
    assert!(outrigger_transport::process::ignores_child_signals());
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let dir = TestDir::new();
    let plugin = kv(&dir).start().await.expect("started");
    plugin.ping().await.expect("an answer");
    assert_eq!(plugin.stop().await.status, ExitStatus::Unknown);
    nothing_left(&dir).await;
    // The kernel may have forgotten it before anybody could take hold of it.
    for _ in 0..20 {
        let error = failed(launch("/bin/true", &dir)).await;
        let text = chain(&error);
        match error.code() {
            "start-failed" => assert!(text.contains("ignores SIGCHLD"), "{text}"),
            code => assert_eq!(code, "exited-early", "{text}"),
        }
    }
}

#[test]
#[allow(clippy::disallowed_methods)] // The host is no plugin.
fn a_host_that_ignores_sigchld_is_told_so() {
    // Not by a shell: some let nobody inherit that.
    let mut host = Command::new("env");
    host.arg("--ignore-signal=CHLD");
    host.arg(std::env::current_exe().expect("its own path"));
    let test = "a_host_that_ignores_the_ends_of_its_children";
    host.args(["--exact", test, "--ignored", "--nocapture"]);
    let output = host.output().expect("run");
    succeeded("SIGCHLD", &output);
    let log = String::from_utf8_lossy(&output.stderr);
    let said = "this process ignores SIGCHLD, so that the system forgets how its children ended";
    assert!(
        log.contains(&format!("WARN outrigger_transport::process: {said}")),
        "{log}"
    );
}

// ---- with fewer system calls ----------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_in_short() {
    let dir = TestDir::new();
    // It starts, answers, is visited, and stops when it is asked.
    let plugin = kv(&dir).auto_mtls().start().await.expect("started");
    plugin.ping().await.expect("an answer");
    assert_eq!(plugin.stop().await.status, ExitStatus::Code(0));
    let owner = kv(&dir).start().await.expect("started");
    let visitor = Attach::new(owner.reattach()).temp_dir(dir.path());
    let visitor = visitor
        .offer(1, PluginSet::new())
        .connect()
        .await
        .expect("joined");
    assert_eq!(visitor.kill().await.status, ExitStatus::Unknown);
    assert_eq!(owner.wait().await.status, ExitStatus::Signal(9));
    drop((visitor, owner));
    nothing_left(&dir).await;
    // One that stays is killed, with what it started.
    let plugin = misbehaving(Fault::IgnoresShutdown, &dir).start().await;
    let report = plugin.expect("started").stop().await;
    assert_eq!(
        (report.status, report.forced),
        (ExitStatus::Signal(9), true)
    );
    nothing_left(&dir).await;
    let error = failed(shell("setsid sleep 600 & exit 7", &dir)).await;
    assert!(
        error.to_string().contains("exited with status 7"),
        "{}",
        chain(&error)
    );
    nothing_left(&dir).await;
    // By its digest, by its name, and when it is no program.
    let script = dir.path().join("script");
    write_script(&script, "#!/bin/sh\nexit 3\n");
    let digest = digest_of(&script);
    let error = failed(launch(&script, &dir).expect_digest(digest)).await;
    assert!(
        error.to_string().contains("exited with status 3"),
        "{}",
        chain(&error)
    );
    assert_eq!(failed(launch("true", &dir)).await.code(), "exited-early");
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&script, mode).expect("set");
    assert_eq!(
        failed(launch(&script, &dir)).await.code(),
        "program-not-executable"
    );
}

#[test]
#[allow(clippy::disallowed_methods)] // Hosts are no plugins.
fn plugins_live_the_same_life_where_newer_system_calls_are_refused() {
    let calls = NEWER_CALLS.iter().map(|(call, _)| *call);
    for call in calls.chain(["all"]) {
        for answer in ["ENOSYS", "EPERM"] {
            if (call, answer) == ("getrandom", "EPERM") {
                continue; // AWS-LC ends the process, and names the call.
            }
            let mut host = Command::new(program("refusing"));
            host.args([call, answer]);
            host.arg(std::env::current_exe().expect("its own path"));
            host.args(["--exact", "a_life_in_short", "--nocapture"]);
            succeeded((call, answer), &host.output().expect("run"));
        }
    }
}
