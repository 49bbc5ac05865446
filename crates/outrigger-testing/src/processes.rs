//! What can be seen of other processes.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// Whether no process has this id, or only a dead one that another process has
/// yet to reap. A dead child of this process counts as left behind.
pub fn is_gone(pid: u32) -> bool {
    match stat_of(pid) {
        None => true,
        Some(stat) => stat.dead && stat.parent != std::process::id(),
    }
}

/// The processes whose environment contains `marker`, except this one.
///
/// A test sets a variable to a value that is its own, such as a directory;
/// whatever a plugin starts inherits it.
pub fn processes_with(marker: &str) -> Vec<u32> {
    let marked = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        *pid != std::process::id()
            && environment
                .windows(marker.len())
                .any(|bytes| bytes == marker.as_bytes())
    };
    all().filter(marked).filter(|pid| !is_gone(*pid)).collect()
}

/// The children of a process, dead ones included.
pub fn children_of(parent: u32) -> Vec<u32> {
    all()
        .filter(|pid| stat_of(*pid).is_some_and(|stat| stat.parent == parent))
        .collect()
}

fn all() -> impl Iterator<Item = u32> {
    let listing = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    listing.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

struct Stat {
    dead: bool,
    parent: u32,
}

fn stat_of(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let dead = matches!(fields.next()?, "Z" | "X");
    Some(Stat {
        dead,
        parent: fields.next()?.parse().ok()?,
    })
}

/// How much memory a process uses, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What is resident now.
    pub resident: u64,
    /// The most that was ever resident.
    pub peak: u64,
}

/// The memory of a process, while it runs.
pub fn memory_of(pid: u32) -> Option<Memory> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let bytes = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    Some(Memory {
        resident: bytes("VmRSS:")?,
        peak: bytes("VmHWM:")?,
    })
}

/// Waits until `state` holds; says whether it did within the given time.
/// Blocks the thread, so an async test calls it where nothing else must run.
pub fn holds_within(time: Duration, mut state: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    loop {
        if state() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Kills a process that a test knows to be its own; one that is gone is no error.
pub fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)] // The child is no plugin.
    fn a_child_is_seen_by_its_environment_and_gone_once_it_is_reaped() {
        let marker = format!("outrigger-testing-{}-", std::process::id());
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .env("MARKER", &marker)
            .spawn()
            .expect("started");
        let pid = child.id();
        // Until it executes `sleep`, it has our own environment.
        assert!(holds_within(Duration::from_secs(10), || processes_with(
            &marker
        ) == [pid]));
        assert!(children_of(std::process::id()).contains(&pid));
        assert!(memory_of(pid).is_some_and(|memory| memory.peak >= memory.resident));
        kill(pid);
        assert!(!is_gone(pid), "it is not reaped");
        child.wait().expect("reaped");
        assert!(is_gone(pid) && processes_with(&marker).is_empty());
    }
}
