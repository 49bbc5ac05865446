//! What is left when the command is ended, however it is.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{command, rust_example};

/// How long a busy machine may take for what takes milliseconds.
const SOON: Duration = Duration::from_secs(20);
/// Files in a temporary directory: far more than are removed in a moment.
const MANY: usize = 10_000;

const MANIFEST: &str = "\
plugin: {name: waiting, format: grpc, entrypoint: waiting}
handshake: {protocol_version: 1, magic_cookie_key: TEST_KEY, magic_cookie_value: TEST_VALUE}
sandbox: off
services: [filesystem, process]
capabilities: {process: {exec: [{command: /bin/sleep, args: [\"300\"]}]}}
";

/// The command, at work on a plugin that has a secret in a temporary file and
/// waits.
struct Waiting {
    command: Child,
    temporary: PathBuf,
    secrets: PathBuf,
    _folder: TempDir,
}

impl Waiting {
    fn start(program: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("manifest.yaml"), MANIFEST).expect("written");
        std::os::unix::fs::symlink(program, path("waiting")).expect("linked");
        std::fs::create_dir(path("tmp")).expect("made");
        let mut command = command(&[
            "call",
            "--manifest",
            ".",
            "--method",
            "filelister.v1.FileLister/List",
            "--data",
            "{}",
            "--timeout",
            "0",
        ]);
        command
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .env("TMPDIR", path("tmp"));
        prepare(&mut command);
        let command = command.spawn().expect("it runs");
        let temporary = path("tmp");
        let mut waiting = Self {
            command,
            temporary,
            secrets: PathBuf::new(),
            _folder: folder,
        };
        let until = Instant::now() + SOON;
        while waiting.secrets.as_os_str().is_empty() {
            let over = waiting.command.try_wait().expect("waited for").is_some();
            if over || Instant::now() >= until {
                let _ = waiting.command.kill();
                let mut said = String::new();
                let stderr = waiting.command.stderr.as_mut().expect("a pipe");
                std::io::Read::read_to_string(stderr, &mut said).expect("text");
                panic!("no secret was written: {said}");
            }
            std::thread::sleep(Duration::from_millis(5));
            waiting.secrets = secrets(&waiting.temporary).unwrap_or_default();
        }
        waiting
    }

    fn send(&self, name: &str) {
        let pid = self.command.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    fn end(&mut self) -> std::process::ExitStatus {
        let until = Instant::now() + 3 * SOON;
        loop {
            if let Some(status) = self.command.try_wait().expect("waited for") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn left(&self) -> Vec<PathBuf> {
        entries(&self.temporary)
    }

    /// Processes whose environment names the directory for temporary files.
    fn running(&self) -> usize {
        let text = self.temporary.as_os_str().as_bytes();
        let has = |path: PathBuf| {
            let environment = std::fs::read(path.join("environ")).unwrap_or_default();
            environment.windows(text.len()).any(|part| part == text)
        };
        entries(Path::new("/proc"))
            .into_iter()
            .filter(|path| has(path.clone()))
            .count()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.command.kill();
        let _ = self.command.wait();
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(dir).into_iter().flatten().flatten();
    listed.map(|entry| entry.path()).collect()
}

/// The directory in which the plugin has its secret.
fn secrets(temporary: &Path) -> Option<PathBuf> {
    let beneath = entries(temporary).into_iter().flat_map(|dir| entries(&dir));
    let written =
        |dir: &PathBuf| std::fs::read(dir.join("secret")).is_ok_and(|text| text == b"hush");
    beneath.into_iter().find(written)
}

/// Names and modes that a plugin may think of, and a place that links lead to.
fn shape(dir: &Path, outside: &Path) {
    use std::os::unix::fs::{PermissionsExt, symlink};

    std::fs::create_dir_all(outside).expect("made");
    std::fs::write(outside.join("kept"), "text").expect("written");
    std::fs::hard_link(outside.join("kept"), dir.join("hard")).expect("linked");
    let mode = |path: &Path, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("set");
    };
    mode(&outside.join("kept"), 0o400);
    symlink(outside, dir.join("soft")).expect("linked");
    for name in [
        "-rf",
        "--",
        "a\nb",
        " ",
        "$(touch x)",
        "*",
        "\\0101",
        "\u{1b}[2J",
    ] {
        let inner = dir.join(name);
        std::fs::create_dir(&inner).expect("made");
        std::fs::write(inner.join("-f"), "text").expect("written");
        std::fs::create_dir(inner.join("inner")).expect("made");
        symlink("/", inner.join("inner/root")).expect("linked");
        mode(&inner.join("inner"), 0o000);
        mode(&inner, 0o500);
    }
}

fn plant(dir: &Path, many: usize) {
    let many_files = dir.join("many");
    std::fs::create_dir(&many_files).expect("made");
    for number in 0..many {
        std::fs::write(many_files.join(number.to_string()), "").expect("written");
    }
}

#[test]
fn nothing_of_a_plugin_is_left_when_the_command_is_ended_by_a_signal() {
    let Some(program) = rust_example("waiting") else {
        return;
    };
    for (signal, code) in [("TERM", 143), ("HUP", 129), ("INT", 130)] {
        let mut waiting = Waiting::start(&program, |_| ());
        let outside = waiting.temporary.with_file_name("outside");
        shape(&waiting.secrets, &outside);
        plant(&waiting.secrets, MANY);
        assert!(waiting.running() >= 2, "a plugin and its command");
        waiting.send(signal);
        assert_eq!(waiting.end().code(), Some(code), "{signal}");
        // At once: nothing is waited for here.
        assert_eq!(waiting.left(), Vec::<PathBuf>::new(), "{signal}");
        assert_eq!(waiting.running(), 0, "{signal}");
        assert!(outside.join("kept").exists());
    }
}

#[test]
fn nothing_of_a_plugin_is_left_soon_after_the_command_was_killed() {
    use std::os::unix::fs::MetadataExt;

    let Some(program) = rust_example("waiting") else {
        return;
    };
    let mut waiting = Waiting::start(&program, |_| ());
    let outside = waiting.temporary.with_file_name("outside");
    shape(&waiting.secrets, &outside);
    plant(&waiting.secrets, MANY);
    // In the place of the socket directory, a link: what it leads to is not ours.
    let sockets = entries(&waiting.temporary)
        .into_iter()
        .find(|path| path.to_string_lossy().contains("plugin-dir"))
        .expect("a socket directory");
    std::fs::rename(&sockets, outside.join("moved")).expect("moved");
    std::os::unix::fs::symlink(&outside, &sockets).expect("linked");
    waiting.send("KILL");
    assert_eq!(waiting.end().signal(), Some(9));
    let until = Instant::now() + SOON;
    while !waiting.left().is_empty() || waiting.running() > 0 {
        assert!(
            Instant::now() < until,
            "{:?}, {} run",
            waiting.left(),
            waiting.running()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let kept = std::fs::metadata(outside.join("kept")).expect("it is there");
    assert_eq!(kept.mode() & 0o777, 0o400, "not even its mode was changed");
    assert!(outside.join("moved").is_dir());
}

#[test]
fn a_command_that_ignores_hang_ups_goes_on() {
    let Some(program) = rust_example("waiting") else {
        return;
    };
    let Some(nohup) = super::found(Path::new("/usr/bin/nohup"), "install coreutils") else {
        return;
    };
    let mut waiting = Waiting::start(&program, |command| {
        let own = std::mem::replace(command, Command::new(nohup));
        command.arg(own.get_program()).args(own.get_args());
        command.current_dir(own.get_current_dir().expect("it has one"));
        let set = own
            .get_envs()
            .filter_map(|(key, value)| Some((key, value?)));
        command.envs(set).process_group(0);
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped());
    });
    waiting.send("HUP");
    waiting.send("TERM");
    assert_eq!(waiting.end().code(), Some(143), "the first was ignored");
    assert_eq!(waiting.left(), Vec::<PathBuf>::new());
}
