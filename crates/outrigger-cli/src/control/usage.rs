//! What a process uses, as `/proc` tells.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::control::proto;
use crate::memory::Memory;

/// The most descendants that are counted.
const MOST_CHILDREN: usize = 1000;

/// What a process uses now; nothing when it is gone.
pub(crate) fn of(pid: u32) -> Option<proto::Usage> {
    let memory = Memory::of(pid)?;
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let (ticks, threads) = numbers(&stat)?;
    let per_second = rustix::param::clock_ticks_per_second();
    let cpu = Duration::from_secs_f64(ticks as f64 / per_second.max(1) as f64);
    Some(proto::Usage {
        resident_bytes: memory.resident_kib * 1024,
        peak_bytes: memory.peak_kib * 1024,
        cpu: cpu.try_into().ok(),
        threads,
        descriptors: count(&format!("/proc/{pid}/fd")),
        children: descendants(pid),
    })
}

/// Clock ticks on a processor, and threads: fields 14 and 15, and 20, of `stat`.
/// The program's name in front of them may hold anything.
fn numbers(stat: &[u8]) -> Option<(u64, u32)> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = number(14)?.checked_add(number(15)?)?;
    Some((ticks, number(20)?.try_into().ok()?))
}

fn count(dir: &str) -> u32 {
    let entries = std::fs::read_dir(dir).map_or(0, Iterator::count);
    entries.try_into().unwrap_or(u32::MAX)
}

/// How many processes come from this one.
fn descendants(pid: u32) -> u32 {
    let mut found = BTreeSet::new();
    let mut to_ask = vec![pid];
    while let Some(pid) = to_ask.pop() {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            for child in children.unwrap_or_default().split_whitespace() {
                let Ok(child) = child.parse() else { continue };
                if found.len() < MOST_CHILDREN && found.insert(child) {
                    to_ask.push(child);
                }
            }
        }
    }
    found.len() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_read_behind_a_name_that_holds_anything() {
        let stat = b"7 (a) b) c) S 1 7 7 0 -1 4194560 100 0 0 0 11 31 0 0 20 0 5 0 123 0\n";
        assert_eq!(numbers(stat), Some((42, 5)));
        assert_eq!(numbers(b"7 (x) S 1"), None);
        assert_eq!(numbers(b""), None);
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // The child is no plugin.
    fn what_a_process_uses_is_told_while_it_runs() {
        let before = of(std::process::id()).expect("we run").children;
        let child = std::process::Command::new("sleep").arg("60").spawn();
        let mut child = child.expect("sleep runs");
        let used = of(std::process::id()).expect("we run");
        assert!(used.children > before, "{used:?}");
        assert!(used.threads > 0 && used.descriptors > 0 && used.resident_bytes > 0);
        child.kill().expect("killed");
        let gone = child.id();
        child.wait().expect("ended");
        assert_eq!(of(gone), None);
    }
}
