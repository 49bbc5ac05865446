//! Plugins of a host that is killed end with it.
//!
//! The kernel's parent-death signal follows the thread that started the child,
//! not the process, so it ends plugins whose starting thread goes. Instead one
//! small shell per host process reads a pipe that only the host holds. The host
//! writes down each plugin; when the pipe ends, so has the host, and the shell
//! kills every plugin still written down, with its descendants, and removes its
//! directory.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use outrigger_transport::process::{spawn_once, start_time};

/// A process is the one that was written down only if it started at the same
/// time; pids are used again.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
started() {
    read -r stat < "/proc/$1/stat" || return
    set -- ${stat##*) }
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
plugins=
while read -r what pid start dir; do
    rest=
    for plugin in $plugins; do
        [ "$plugin" = "$pid" ] || rest="$rest $plugin"
    done
    plugins=$rest
    if [ "$what" = + ]; then
        plugins="$plugins $pid"
        eval "start_$pid=\$start; dir_$pid=\$dir"
    fi
done
for pid in $plugins; do
    eval "start=\$start_$pid; dir=\$dir_$pid"
    if [ "$(started "$pid")" = "$start" ]; then
        kill -STOP "$pid" 2>/dev/null
        kill -KILL $(family "$pid") "$pid" 2>/dev/null
    fi
    [ -n "$dir" ] || continue
    for process in $(grep -lzFx -e "PLUGIN_UNIX_SOCKET_DIR=$dir" /proc/[0-9]*/environ 2>/dev/null); do
        process=${process#/proc/}
        kill -KILL "${process%/environ}" 2>/dev/null
    done
    rm -rf -- "$dir"
done
"#;

static LIFELINE: Mutex<Lifeline> = Mutex::new(Lifeline {
    shell: None,
    plugins: BTreeMap::new(),
});

struct Lifeline {
    shell: Option<Child>,
    plugins: BTreeMap<u32, (u64, PathBuf)>,
}

/// Ties process `pid` and its directory to the life of this process.
///
/// Where that fails, the plugin still runs; only the tie is missing, which is
/// said once in the log.
pub(crate) fn tie(pid: u32, dir: &Path) {
    let Some(started) = start_time(pid) else {
        return;
    };
    let mut lifeline = LIFELINE.lock().unwrap_or_else(PoisonError::into_inner);
    lifeline.plugins.insert(pid, (started, dir.to_owned()));
    let line = line_of(pid, started, dir);
    if let Err(error) = lifeline.write(&line) {
        tracing::warn!(%error, "plugins will outlive this process if it is killed");
    }
}

/// Unties `pid`, of which nothing is left.
pub(crate) fn untie(pid: u32) {
    let mut lifeline = LIFELINE.lock().unwrap_or_else(PoisonError::into_inner);
    if lifeline.plugins.remove(&pid).is_some() {
        // Without its shell there is nothing to untie from.
        let _ = lifeline.write(&format!("- {pid}\n"));
    }
}

/// Starts the shell ahead of the first plugin.
pub(crate) fn warm_up() {
    let mut lifeline = LIFELINE.lock().unwrap_or_else(PoisonError::into_inner);
    if lifeline.shell.is_none()
        && let Err(error) = lifeline.restart()
    {
        tracing::warn!(%error, "plugins will outlive this process if it is killed");
    }
}

fn line_of(pid: u32, started: u64, dir: &Path) -> String {
    // A name with a line break cannot be written down; its directory is then left.
    let dir = dir
        .to_str()
        .filter(|dir| !dir.contains('\n'))
        .unwrap_or_default();
    format!("+ {pid} {started} {dir}\n")
}

impl Lifeline {
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
            for (pid, (started, dir)) in &self.plugins {
                pipe.write_all(line_of(*pid, *started, dir).as_bytes())?;
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
