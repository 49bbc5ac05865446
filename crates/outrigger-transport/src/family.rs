//! What a process started, and what that started in turn.
//!
//! Parents cannot be followed once one of them has ended, so descendants are
//! known by a variable that they inherited, with a value that no other process
//! has.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::process::{self, ProcessHandle};

/// For how long processes are looked for. A killed process needs time to end,
/// and one that becomes another program shows no environment until it has.
const LIMIT: Duration = Duration::from_secs(1);
/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// Kills every process that has `variable`, written `NAME=value`, in the
/// environment it was started with. Blocks: for a few milliseconds on a machine
/// with hundreds of processes, for a second when they go on starting others.
///
/// Returns whether none is left. A process that clears its environment, or
/// belongs to another user, is not seen.
pub fn end(variable: &[u8]) -> bool {
    let deadline = Instant::now() + LIMIT;
    let mut pause = Duration::from_millis(1);
    while is_any_left(variable) {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(pause);
        pause = LONGEST_PAUSE.min(pause * 2);
    }
    true
}

/// Kills those that can be seen now; says whether there is a reason to look again.
fn is_any_left(variable: &[u8]) -> bool {
    let own = std::process::id();
    let listing = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = listing.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut left = false;
    for pid in pids.filter(|pid| *pid != own) {
        match has(pid, variable) {
            Has::Yes => {
                kill(pid, variable);
                left = true;
            }
            Has::No => {}
            Has::NotNow => left = true,
        }
    }
    left
}

/// Takes the hold first and looks once more: the process that is looked at is the
/// one that is killed, even if the id changed hands.
fn kill(pid: u32, variable: &[u8]) {
    if let Ok(process) = ProcessHandle::open(pid)
        && has(pid, variable) == Has::Yes
    {
        // One that cannot be killed is still there at the next look.
        let _ = process.signal(Signal::KILL);
    }
}

#[derive(PartialEq)]
enum Has {
    Yes,
    No,
    /// It is about to become another program.
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
    if process::is_whole_environment(pid, environment.len()) {
        return Has::No;
    }
    Has::NotNow
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // The children are no plugins.
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn child(script: &str, value: &str) -> Child {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).env("FAMILY", value);
        process::spawn_once(&mut shell).expect("started")
    }

    #[test]
    fn processes_that_become_other_programs_meanwhile_are_ended() {
        let script = "exec sh -c 'exec sh -c \"exec sleep 300\"'";
        for round in 0..60 {
            let value = format!("{}-{round}", std::process::id());
            let mut children: Vec<_> = (0..4).map(|_| child(script, &value)).collect();
            assert!(end(format!("FAMILY={value}").as_bytes()));
            for child in &mut children {
                let handle = ProcessHandle::of_child(child).expect("not reaped yet");
                let ended = handle.ended_within(Duration::from_secs(10));
                let _ = child.kill();
                child.wait().expect("reaped");
                assert!(ended, "round {round}");
            }
        }
    }

    #[test]
    fn a_process_with_an_empty_environment_is_not_waited_for() {
        let mut empty = Command::new("/bin/sleep");
        let mut empty = process::spawn_once(empty.arg("300").env_clear()).expect("started");
        while !process::is_whole_environment(empty.id(), 0) {
            std::thread::yield_now();
        }
        let none = format!("FAMILY={}-nobody", std::process::id());
        let none_left = end(none.as_bytes());
        empty.kill().expect("it runs");
        empty.wait().expect("reaped");
        assert!(none_left);
    }
}
