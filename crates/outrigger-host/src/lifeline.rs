//! What ends with the host's process, however that ends.
//!
//! The kernel's parent-death signal follows the thread that started the child,
//! not the process, so it ends plugins whose starting thread goes. Instead one
//! small shell per host process reads a pipe that only the host holds. The host
//! writes down each plugin, and each directory that it made for one; when the
//! pipe ends, so has the host, and the shell kills every process still written
//! down, with its descendants, and then removes the directories.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use outrigger_transport::{Belonging, Lifeline as Keeps, Tie};
use outrigger_wire::ENV_UNIX_SOCKET_DIR;

use outrigger_transport::process::{spawn_once, start_time};

/// A process is the one that was written down only if it started at the same
/// time; pids are used again. Each entry is one line of words without any
/// character that means something to a shell; `%b` gives back what they stand for.
///
/// What is removed may have been shaped by a plugin: names begin with a dash or
/// hold line breaks, directories are read-only, links lead elsewhere, a link
/// stands in the place of the directory itself. Neither `rm` nor `find` follows a
/// link, and modes are changed of directories alone: a file may have another name
/// outside.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
started() {
    stat=$(cat "/proc/$1/stat") || return
    set -f
    set -- ${stat##*) }
    set +f
    shift 19
    echo "$1"
} 2>/dev/null
family() {
    for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do
        kill -STOP "$child"
        echo "$child"
        family "$child"
    done
} 2>/dev/null
end() {
    [ "$(started "$1")" = "$2" ] || return
    kill -STOP "$1"
    kill -KILL $(family "$1") "$1"
} 2>/dev/null
remove() {
    rm -rf -- "$1" && return
    [ -L "$1" ] && return
    find "$1" -type d ! -perm -700 -execdir chmod u+rwx {} \; ||
        find "$1" -type d ! -perm -700 -exec chmod u+rwx {} \;
    rm -rf -- "$1"
} 2>/dev/null
held=
while read -r what key entry; do
    if [ "$what" = + ]; then
        held="$held $key"
        eval "held_$key=\$entry"
        continue
    fi
    left=
    for other in $held; do
        [ "$other" = "$key" ] || left="$left $other"
    done
    held=$left
    unset "held_$key"
done
set --
for key in $held; do
    eval "entry=\$held_$key"
    kind=${entry%% *}
    entry=${entry#* }
    case $kind in
    process) end "${entry%% *}" "${entry#* }" ;;
    variable) set -- "$@" -e "$(printf %b "$entry")" ;;
    esac
done
for pass in 1 2 3 4 5 6 7 8; do
    [ $# = 0 ] && break
    found=$(grep -lzFx "$@" /proc/[0-9]*/environ 2>/dev/null)
    [ -n "$found" ] || break
    for process in $found; do
        process=${process#/proc/}
        kill -KILL "${process%/environ}" 2>/dev/null
    done
done
for key in $held; do
    eval "entry=\$held_$key"
    [ "${entry%% *}" = directory ] && remove "$(printf %b "${entry#* }")"
done
"#;

static LIFELINE: Mutex<Lifeline> = Mutex::new(Lifeline {
    shell: None,
    next: 0,
    entries: BTreeMap::new(),
    plugins: BTreeMap::new(),
});
/// Told when something is gone.
static GONE: Condvar = Condvar::new();

struct Lifeline {
    shell: Option<Child>,
    next: u64,
    entries: BTreeMap<u64, Entry>,
    /// What is written down for each plugin's process.
    plugins: BTreeMap<u32, [u64; 2]>,
}

struct Entry {
    words: String,
    /// This process sees to its end; otherwise it is left to the shell.
    awaited: bool,
}

fn lifeline() -> MutexGuard<'static, Lifeline> {
    LIFELINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ties process `pid`, and its descendants, which have the variable for `dir`,
/// to the life of this process.
///
/// Where that fails, the plugin still runs; only the tie is missing, which is
/// said in the log.
pub(crate) fn tie(pid: u32, dir: &Path) {
    let started = start_time(pid).unwrap_or_else(|| {
        tracing::warn!(
            pid,
            "when a plugin started cannot be read; if this host is killed, it is found by its environment alone"
        );
        // No process started before all others.
        0
    });
    let mut lifeline = lifeline();
    let process = lifeline.add(format!("process {pid} {started}"));
    let variable = variable(ENV_UNIX_SOCKET_DIR, dir.as_os_str().as_bytes());
    let variable = lifeline.add(variable);
    lifeline.plugins.insert(pid, [process, variable]);
}

/// Unties `pid`, of which nothing is left.
pub(crate) fn untie(pid: u32) {
    let mut lifeline = lifeline();
    for key in lifeline.plugins.remove(&pid).into_iter().flatten() {
        lifeline.remove(key);
    }
}

/// Starts the shell ahead of the first plugin.
pub(crate) fn warm_up() {
    let mut lifeline = lifeline();
    if lifeline.shell.is_none()
        && let Err(error) = lifeline.restart()
    {
        cannot(&error);
    }
}

/// Waits until nothing is left of the plugins of this process, for at most
/// `limit`, and says whether it is so: no process, and no directory that the host
/// or its services made for one and can remove. For the end of a program, when
/// every plugin and its services have been dropped: what is left then is removed
/// all the same, a little after the program has ended. Blocks.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// // No plugin was started.
/// assert!(outrigger_host::nothing_left(Duration::from_secs(10)));
/// ```
pub fn nothing_left(limit: Duration) -> bool {
    let until = Instant::now() + limit;
    let mut lifeline = lifeline();
    while lifeline.entries.values().any(|entry| entry.awaited) {
        let Some(left) = until.checked_duration_since(Instant::now()) else {
            return false;
        };
        let waited = GONE.wait_timeout(lifeline, left);
        lifeline = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    true
}

/// Ties what host and services have for a plugin.
#[derive(Debug)]
pub(crate) struct OfProcess;

impl Keeps for OfProcess {
    fn tie(&self, what: Belonging<'_>) -> Box<dyn Tie> {
        let words = match what {
            Belonging::Directory(path) => {
                format!("directory {}", word(path.as_os_str().as_bytes()))
            }
            Belonging::Processes {
                variable: name,
                value,
            } => variable(name, value.as_bytes()),
        };
        Box::new(Tied(Some(lifeline().add(words))))
    }
}

/// One entry.
#[derive(Debug)]
struct Tied(Option<u64>);

impl Tie for Tied {
    fn untie(mut self: Box<Self>) {
        if let Some(key) = self.0.take() {
            lifeline().remove(key);
        }
    }
}

impl Drop for Tied {
    fn drop(&mut self) {
        let mut lifeline = lifeline();
        if let Some(entry) = self.0.and_then(|key| lifeline.entries.get_mut(&key)) {
            entry.awaited = false;
            GONE.notify_all();
        }
    }
}

/// What knows the processes that have a variable with this value.
fn variable(name: &str, value: &[u8]) -> String {
    // `grep` would take a line break for the end of one text and the start of another.
    match value.contains(&b'\n') {
        true => "nothing".to_owned(),
        false => format!(
            "variable {}",
            word(&[name.as_bytes(), b"=", value].concat())
        ),
    }
}

/// Bytes as a word that no shell and no `printf` takes for anything else.
fn word(bytes: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._=-".contains(byte);
    let escaped = bytes.iter().map(|byte| match plain(byte) {
        true => char::from(*byte).to_string(),
        false => format!("\\0{byte:03o}"),
    });
    escaped.collect()
}

fn cannot(error: &io::Error) {
    tracing::warn!(%error, "plugins and their files will outlive this process if it is killed");
}

impl Lifeline {
    fn add(&mut self, words: String) -> u64 {
        self.next += 1;
        let key = self.next;
        let line = format!("+ {key} {words}\n");
        let awaited = true;
        self.entries.insert(key, Entry { words, awaited });
        if let Err(error) = self.write(&line) {
            cannot(&error);
        }
        key
    }

    fn remove(&mut self, key: u64) {
        if self.entries.remove(&key).is_some() {
            // Without its shell there is nothing to untie from.
            let _ = self.write(&format!("- {key}\n"));
            GONE.notify_all();
        }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let sent = match self.shell.as_mut().and_then(|shell| shell.stdin.as_mut()) {
            Some(pipe) => pipe.write_all(line.as_bytes()),
            None => return self.restart(),
        };
        // Somebody ended the shell: start another one and write everything down again.
        sent.or_else(|_| self.restart())
    }

    fn restart(&mut self) -> io::Result<()> {
        if let Some(mut old) = self.shell.take() {
            drop(old.stdin.take());
            let _ = old.wait();
        }
        let mut shell = start_shell()?;
        if let Some(pipe) = &mut shell.stdin {
            for (key, Entry { words, .. }) in &self.entries {
                pipe.write_all(format!("+ {key} {words}\n").as_bytes())?;
            }
        }
        self.shell = Some(shell);
        Ok(())
    }
}

#[allow(clippy::disallowed_methods)] // The shell is no plugin.
fn start_shell() -> io::Result<Child> {
    use std::os::unix::process::CommandExt;

    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", SCRIPT, "outrigger-lifeline"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    spawn_once(&mut shell)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // The shell is no plugin.
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A plugin's idea of a directory: every name starts with a dash, holds a line
    /// break or means something to a shell; nothing may be changed where it is,
    /// and some of it is deeper than a path is long.
    const SHAPED: &str = r#"
        mkdir "$1" && cd "$1" || exit 1
        line=$(printf 'a\nb')
        for name in ./-rf ./-- "$line" ' ' '*' '$(touch x)' '\0101'; do
            mkdir -p "$name/inner" && echo text > "$name/inner/-f" || exit 1
            ln -s "$2" "$name/inner/link" && ln "$2/kept" "$name/hard" || exit 1
            chmod 000 "$name/inner" && chmod 500 "$name" || exit 1
        done
        deep=$(printf 'sixteen-letters-/%.0s' $(seq 150))
        for half in 1 2; do
            mkdir -p "$deep" && cd -P "$deep" || exit 1
        done
        echo text > file && chmod 500 . && chmod 500 "$1"
    "#;

    /// A program run by a user whom modes hold back.
    fn as_nobody(program: &str) -> Command {
        let setpriv = Path::new("/usr/bin/setpriv");
        if !rustix::process::geteuid().is_root() || !setpriv.exists() {
            return Command::new(program);
        }
        let mut command = Command::new(setpriv);
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]);
        command
    }

    #[test]
    fn the_shell_removes_what_a_plugin_shaped_and_nothing_else() {
        let base = tempfile::tempdir().expect("a directory");
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(base.path(), open).expect("set");
        let path = |name: &str| base.path().join(name);
        let outside = path("outside");
        let make = |script: &str, dir: &Path| {
            let status = as_nobody("/bin/sh")
                .args(["-c", script, "sh"])
                .args([dir, &outside])
                .status();
            assert!(status.expect("it runs").success());
        };
        make(
            "mkdir \"$1\" && echo > \"$1/kept\" && chmod 400 \"$1/kept\"",
            &outside,
        );
        for name in ["shaped", "gone", "untied"] {
            make(SHAPED, &path(name));
        }
        // What stands in the place of a directory is itself removed.
        make("ln -s \"$2\" \"$1\"", &path("link"));
        let mut shell = as_nobody("/bin/sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut pipe = shell.stdin.take().expect("a pipe");
        let names = ["shaped", "link", "untied", "missing", "gone"];
        for (key, name) in names.iter().enumerate() {
            let word = word(path(name).as_os_str().as_bytes());
            writeln!(pipe, "+ {key} directory {word}").expect("written");
        }
        writeln!(pipe, "- 2").expect("written");
        drop(pipe);
        assert!(shell.wait().expect("waited for").success());
        let left = |name: &str| std::fs::symlink_metadata(path(name)).is_ok();
        assert_eq!(names.map(left), [false, false, true, false, false]);
        let kept = std::fs::metadata(outside.join("kept")).expect("it is there");
        assert_eq!(kept.permissions().mode() & 0o777, 0o400);
        let mut again = as_nobody("/bin/sh");
        again.args(["-c", "chmod -R u+rwx \"$1\"; rm -rf \"$1\"", "sh"]);
        let removed = again.arg(path("untied")).status().expect("it runs");
        assert!(removed.success());
    }

    #[test]
    fn any_name_is_written_down_as_one_plain_word() {
        let name = b"/tmp/a b\n-\xff*$(x)\\0101";
        let word = word(name);
        assert_eq!(
            word,
            "/tmp/a\\0040b\\0012-\\0377\\0052\\0044\\0050x\\0051\\01340101"
        );
        let printed = Command::new("/bin/sh")
            .args(["-c", "printf %b \"$1\"", "sh", &word])
            .output()
            .expect("it runs");
        assert_eq!(printed.stdout, name);
        assert_eq!(variable("NAME", b"a\nb"), "nothing");
    }

    #[test]
    fn what_is_left_to_the_shell_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let tie = || OfProcess.tie(Belonging::Directory(&dir.path().join("missing")));
        let first = tie();
        assert!(!nothing_left(Duration::from_millis(1)));
        first.untie();
        drop(tie());
        // Other tests of this process may have something for a moment.
        assert!(nothing_left(Duration::from_secs(10)));
    }
}
