//! What a process uses, as `/proc` says.

/// What one process uses now.
pub(super) struct Usage {
    /// In bytes.
    pub(super) resident: u64,
    /// In bytes.
    pub(super) address_space: u64,
    /// In seconds.
    pub(super) cpu: f64,
    pub(super) threads: u64,
    /// Nothing where this process may not count them.
    pub(super) descriptors: Option<u64>,
}

impl Usage {
    /// Nothing if there is no such process, or none any more.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok();
        Some(Self {
            descriptors: descriptors.map(|open| open.count() as u64),
            ..Self::parse(&String::from_utf8_lossy(&stat))?
        })
    }

    /// Reads `/proc/PID/stat`. Its second field is a name in parentheses, which the
    /// process chooses: it may hold anything.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        // The state is the third field of the file, and the first of these.
        let (user, system) = (number(11)?, number(12)?);
        Some(Self {
            cpu: (user + system) as f64 / rustix::param::clock_ticks_per_second() as f64,
            threads: number(17)?,
            address_space: number(20)?,
            resident: number(21)? * rustix::param::page_size() as u64,
            descriptors: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_it_calls_itself() {
        let own = Usage::of(std::process::id()).expect("this one runs");
        assert!(own.resident > 1 << 20 && own.address_space >= own.resident);
        assert!(own.threads >= 1 && own.descriptors > Some(2));
        let rest = "S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 7 0 99 4096 3";
        let odd = Usage::parse(&format!("4711 (a) R (b) c) {rest}")).expect("readable");
        assert_eq!((odd.threads, odd.address_space), (7, 4096));
        assert_eq!(odd.resident, 3 * rustix::param::page_size() as u64);
        for bad in ["", "1 (a", "1 (a) S 1 2"] {
            assert!(Usage::parse(bad).is_none(), "{bad}");
        }
    }
}
