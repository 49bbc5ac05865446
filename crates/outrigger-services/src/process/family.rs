//! What a plugin's commands started and left behind.
//!
//! A command's process group ends with the command. What left that group is
//! known by a variable that it inherited, with a value that no other process
//! has.

use outrigger_transport::process::ProcessHandle;
use rustix::fs::CWD;
use rustix::process::Signal;
use uuid::Uuid;

/// The variable that every command of one plugin is started with.
const VARIABLE: &str = "OUTRIGGER_COMMAND_OF";
/// How often the processes are looked through; new ones may come meanwhile.
const PASSES: usize = 8;
/// How many of these are only because a process was about to become another
/// program, which shows no environment for a moment.
const DOUBTS: usize = 2;

/// The mark of the commands of one plugin connection.
#[derive(Clone, Debug)]
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) fn new() -> Self {
        Self(Uuid::new_v4().simple().to_string())
    }

    /// The variable that carries it.
    pub(crate) fn variable(&self) -> (&'static str, &str) {
        (VARIABLE, &self.0)
    }

    /// Kills every process that inherited the mark. Takes some milliseconds on
    /// a machine with hundreds of processes.
    pub(crate) fn end_all(&self) {
        let variable = format!("{VARIABLE}={}", self.0).into_bytes();
        let mut doubts = 0;
        for _ in 0..PASSES {
            let seen = look_through(&variable);
            if !seen.killed && (!seen.unsure || doubts == DOUBTS) {
                return;
            }
            doubts += usize::from(!seen.killed);
        }
        tracing::warn!("descendants of a plugin's commands may be left");
    }
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
    let mut entries = environment.split(|byte| *byte == 0);
    if entries.any(|entry| entry == variable) {
        return Has::Yes;
    }
    // A dead process and a thread of the kernel have no program either.
    let has_program =
        || rustix::fs::readlinkat(CWD, format!("/proc/{pid}/exe"), Vec::new()).is_ok();
    match environment.is_empty() && has_program() {
        true => Has::NotNow,
        false => Has::No,
    }
}
