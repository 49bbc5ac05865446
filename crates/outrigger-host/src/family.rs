//! What a plugin started, and what it started in turn.
//!
//! Parents cannot be followed once one of them has ended, so descendants are
//! known by what they inherited: the variable that names the plugin's own
//! socket directory, which no other process has.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use outrigger_transport::process::ProcessHandle;
use outrigger_wire::ENV_UNIX_SOCKET_DIR;
use rustix::process::Signal;

/// How often the processes are looked through; new ones may come meanwhile.
const PASSES: usize = 8;
/// How many of these are only because a process was about to become another
/// program, which shows no environment for a moment.
const DOUBTS: usize = 2;

/// Kills every process that has the variable for `socket_dir`. Takes a few
/// milliseconds on a machine with hundreds of processes.
pub(crate) fn end(socket_dir: &Path) {
    let variable = [
        ENV_UNIX_SOCKET_DIR.as_bytes(),
        b"=",
        socket_dir.as_os_str().as_bytes(),
    ]
    .concat();
    let mut doubts = 0;
    for _ in 0..PASSES {
        let seen = look_through(&variable);
        if !seen.killed && (!seen.unsure || doubts == DOUBTS) {
            return;
        }
        doubts += usize::from(!seen.killed);
    }
    tracing::warn!(dir = %socket_dir.display(), "descendants of a plugin may be left");
}

#[derive(Default)]
struct Seen {
    killed: bool,
    unsure: bool,
}

fn look_through(variable: &[u8]) -> Seen {
    let own = std::process::id();
    let mut seen = Seen::default();
    let listing = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = listing.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids.filter(|pid| *pid != own) {
        match has(pid, variable) {
            Has::Yes => match kill(pid, variable) {
                true => seen.killed = true,
                false => seen.unsure = true,
            },
            Has::No => {}
            Has::NotNow => seen.unsure = true,
        }
    }
    seen
}

fn kill(pid: u32, variable: &[u8]) -> bool {
    // The hold first, then another look: the process that is looked at is the
    // one that is killed, even if the id changed hands.
    let Ok(process) = ProcessHandle::open(pid) else {
        return false;
    };
    has(pid, variable) == Has::Yes && process.signal(Signal::KILL).is_ok()
}

#[derive(PartialEq)]
enum Has {
    Yes,
    No,
    NotNow,
}

fn has(pid: u32, variable: &[u8]) -> Has {
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else {
        // It is gone, or another user's.
        return Has::No;
    };
    if environment
        .split(|byte| *byte == 0)
        .any(|entry| entry == variable)
    {
        return Has::Yes;
    }
    // A dead process and a thread of the kernel have no program either.
    let has_program = || std::fs::read_link(format!("/proc/{pid}/exe")).is_ok();
    match environment.is_empty() && has_program() {
        true => Has::NotNow,
        false => Has::No,
    }
}
