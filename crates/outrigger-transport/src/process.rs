//! Other processes, as hosts start and hold them.
//!
//! [`spawn`] starts a program that inherits no descriptor but its standard
//! streams; a [`ProcessHandle`] signals and awaits exactly one process, with or
//! without the kernel's descriptors of processes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::Once;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;

/// How often a process without a descriptor is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Starts a program, which inherits no descriptor above its standard streams.
///
/// Every descriptor of this process above 2 is marked close-on-exec first.
/// Rust opens all of its own like that; others come from C libraries, or were
/// open when this process was started. Nothing can be done about a descriptor
/// that another thread opens without the mark between this moment and the start.
///
/// A program that somebody has open for writing is tried again for a quarter of
/// a second: another thread that starts a program at the same time gives its
/// child a copy of every descriptor, for the moment until that child becomes
/// its program.
///
/// # Errors
/// What the system said; [`io::ErrorKind::ExecutableFileBusy`] only when that
/// quarter of a second has passed.
///
/// # Cancel safety
/// When the future is dropped, nothing was started.
pub async fn spawn(command: &mut Command) -> io::Result<Child> {
    for pause in busy_pauses() {
        match spawn_once(command) {
            Err(error) if is_busy(&error) => tokio::time::sleep(pause).await,
            outcome => return outcome,
        }
    }
    spawn_once(command)
}

/// [`spawn`] on a thread that may wait.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_blocking(command: &mut Command) -> io::Result<Child> {
    for pause in busy_pauses() {
        match spawn_once(command) {
            Err(error) if is_busy(&error) => std::thread::sleep(pause),
            outcome => return outcome,
        }
    }
    spawn_once(command)
}

/// The pauses before a program is tried again that somebody has open for
/// writing: 1 to 128 ms, a quarter of a second in all.
fn busy_pauses() -> impl Iterator<Item = Duration> {
    (0..8).map(|doublings| Duration::from_millis(1 << doublings))
}

fn is_busy(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ExecutableFileBusy
}

/// [`spawn`] without trying again: for programs that nobody writes.
///
/// # Errors
/// What the system said.
pub fn spawn_once(command: &mut Command) -> io::Result<Child> {
    warn_of_ignored_signal();
    close_fds::set_fds_cloexec_threadsafe(3, &[]);
    command.spawn()
}

/// An open program, which is started by its descriptor: what runs is this very
/// file, whatever is put in its place.
#[derive(Debug)]
pub struct OpenProgram {
    file: OwnedFd,
    script: bool,
}

impl OpenProgram {
    /// Takes a program that is open, for reading where the system allows that.
    ///
    /// # Errors
    /// When this process has no descriptor left.
    pub fn new(file: OwnedFd) -> Result<Self, Errno> {
        // The child's own standard streams take these numbers.
        let file = match file.as_raw_fd() {
            0..=2 => rustix::io::fcntl_dupfd_cloexec(&file, 3)?,
            _ => file,
        };
        let mut magic = [0; 2];
        let read = rustix::io::pread(&file, &mut magic, 0);
        let script = matches!((read, &magic), (Ok(2), b"#!"));
        Ok(Self { file, script })
    }

    /// A name that leads to this file for children of this process, for as long
    /// as `self` lives.
    pub fn path(&self) -> PathBuf {
        let number = self.file.as_raw_fd();
        match self.script {
            // The child has a copy of the descriptor until it becomes the program.
            false => format!("/proc/self/fd/{number}").into(),
            // The kernel hands this name to the interpreter, which opens it
            // later: our own descriptor is still there then, so that the child
            // needs none, and none of ours has to be left open for children.
            true => format!("/proc/{}/fd/{number}", std::process::id()).into(),
        }
    }
}

/// Whether this process ignores SIGCHLD, as it may have inherited from its
/// parent. The kernel then forgets how children ended before anybody can ask.
pub fn ignores_child_signals() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return false;
    };
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = line.and_then(|digits| u128::from_str_radix(digits.trim(), 16).ok());
    ignored.is_some_and(|ignored| ignored >> (Signal::CHILD.as_raw() - 1) & 1 == 1)
}

const IGNORED: &str = "this process ignores SIGCHLD, so that the system forgets how its \
     children ended; give the signal a handler or its default before plugins are started";

fn warn_of_ignored_signal() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if ignores_child_signals() {
            tracing::warn!("{IGNORED}");
        }
    });
}

/// Reaps a child that has ended. Its status is lost when this process
/// [ignores SIGCHLD](ignores_child_signals) or something else in it reaped the
/// child; the log says so.
pub fn reap(child: &mut Child) -> Option<ExitStatus> {
    match child.try_wait() {
        Ok(status) => status,
        Err(error) => {
            let pid = child.id();
            match ignores_child_signals() {
                true => tracing::warn!(pid, "the status of a child is lost: {IGNORED}"),
                false => tracing::warn!(pid, %error, "the status of a child is lost"),
            }
            None
        }
    }
}

/// A hold on one process, which no later process of the same number can be
/// mistaken for.
///
/// It is a descriptor of the process (Linux 5.3). Where the kernel is older or
/// a container's filter refuses that, it is the number and the time of the
/// start, which are looked at 100 times a second.
#[derive(Debug)]
pub struct ProcessHandle {
    pid: Pid,
    /// In clock ticks since boot.
    started: Option<u64>,
    descriptor: Option<OwnedFd>,
}

impl ProcessHandle {
    /// Takes hold of the process `pid`.
    ///
    /// # Errors
    /// `ESRCH` if there is none; what else the system said.
    pub fn open(pid: u32) -> io::Result<Self> {
        let number = pid;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(Errno::SRCH)?;
        let descriptor = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => Some(descriptor),
            Err(Errno::NOSYS | Errno::PERM) => None,
            Err(errno) => return Err(errno.into()),
        };
        // After taking the descriptor: from now on the number cannot change hands unnoticed.
        let started = start_time(number);
        if descriptor.is_none() && started.is_none() {
            return Err(Errno::SRCH.into());
        }
        Ok(Self {
            pid,
            started,
            descriptor,
        })
    }

    /// Takes hold of a child that was just started.
    ///
    /// # Errors
    /// What the system said. The child is killed then.
    pub fn of_child(child: &mut Child) -> io::Result<Self> {
        Self::open(child.id()).map_err(|error| {
            let gone = error.raw_os_error() == Some(Errno::SRCH.raw_os_error());
            if gone && ignores_child_signals() {
                // Its number may be somebody else's by now.
                return io::Error::other(IGNORED);
            }
            let _ = child.kill();
            let _ = child.wait();
            error
        })
    }

    /// The number of the process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// When the process started, in clock ticks since boot, where that could be read.
    pub fn started(&self) -> Option<u64> {
        self.started
    }

    /// Signals exactly this process. A child that has ended and was not reaped
    /// yet is still there.
    ///
    /// # Errors
    /// [`Errno::SRCH`] once it is gone; what else the system said.
    pub fn signal(&self, signal: Signal) -> Result<(), Errno> {
        let sent = self.descriptor.as_ref().map(|descriptor| {
            // Refused calls look like refused signals; asking again by number tells.
            rustix::process::pidfd_send_signal(descriptor, signal)
        });
        match sent {
            None | Some(Err(Errno::NOSYS | Errno::PERM)) => {}
            Some(outcome) => return outcome,
        }
        if self.started.is_none() || start_time(self.number()) != self.started {
            return Err(Errno::SRCH);
        }
        rustix::process::kill_process(self.pid, signal)
    }

    /// Waits until the process has ended. A child is still to be reaped then.
    /// Needs a tokio runtime with I/O and time.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ended(&self) {
        // Each wait registers a descriptor of its own: one cannot be registered twice.
        let copy = self.descriptor.as_ref().map(OwnedFd::try_clone);
        if let Some(Ok(descriptor)) = copy
            && let Ok(watched) = watched(descriptor)
            && watched.readable().await.is_ok()
        {
            return;
        }
        while !self.has_ended() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether the process ends within the given time. Blocks.
    pub fn ended_within(&self, time: Duration) -> bool {
        if let Some(descriptor) = &self.descriptor {
            return readable_within(descriptor, time);
        }
        let deadline = Instant::now() + time;
        while !self.has_ended() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    fn number(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    fn has_ended(&self) -> bool {
        match &self.descriptor {
            Some(descriptor) => readable_within(descriptor, Duration::ZERO),
            None => match Stat::read(self.number()) {
                Ok(Some(stat)) => Some(stat.started) != self.started || stat.ended,
                // What cannot be looked at now, such as for want of descriptors,
                // has not ended for that.
                Ok(None) => false,
                Err(error) => is_gone(&error),
            },
        }
    }
}

/// Registers a descriptor with the runtime.
#[allow(deprecated)] // Deprecated for types that lie about their descriptor; an `OwnedFd` does not.
fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, tokio::io::Interest::READABLE)
}

/// A descriptor of a process becomes readable when the process ends.
fn readable_within(descriptor: &OwnedFd, time: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN)];
    let limit = Timespec::try_from(time).ok();
    matches!(rustix::event::poll(&mut fds, limit.as_ref()), Ok(ready) if ready > 0)
}

/// When a process started, in clock ticks since boot: with its number, its identity.
pub fn start_time(pid: u32) -> Option<u64> {
    Stat::of(pid).map(|stat| stat.started)
}

/// Whether a process was stopped by a signal, or is held by a debugger.
pub fn is_paused(pid: u32) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.paused)
}

/// Whether `length` bytes are the whole environment that a process was started
/// with. Who reads it while the process becomes another program gets less.
pub(crate) fn is_whole_environment(pid: u32, length: usize) -> bool {
    let Some(stat) = Stat::of(pid) else {
        // It is gone.
        return true;
    };
    match stat.environment {
        // A program is being loaded. A dead process and a thread of the kernel
        // have none.
        (_, 0) => stat.ended || std::fs::read_link(format!("/proc/{pid}/exe")).is_err(),
        (start, end) => end.checked_sub(start) == u64::try_from(length).ok(),
    }
}

struct Stat {
    /// All of its threads have, and it waits to be reaped.
    ended: bool,
    /// It was stopped by a signal, or is held by a debugger.
    paused: bool,
    started: u64,
    /// Where its environment begins and ends in its memory: zeros until there is
    /// one, and for those who may not read it.
    environment: (u64, u64),
}

/// Whether an error of looking at a process says that there is none.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOENT | Errno::SRCH)
    )
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::read(pid).ok()?
    }

    fn read(pid: u32) -> io::Result<Option<Self>> {
        let bytes = std::fs::read(format!("/proc/{pid}/stat"))?;
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// The second field is the program's name in parentheses, which the process
    /// chooses: it may hold anything, also what is no text.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        let threads: u32 = fields.nth(16)?.parse().ok()?;
        Some(Self {
            ended: matches!(state, "Z" | "X") && threads <= 1,
            paused: matches!(state, "T" | "t"),
            started: fields.nth(1)?.parse().ok()?,
            environment: (fields.nth(27)?.parse().ok()?, fields.next()?.parse().ok()?),
        })
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // The children are no plugins.
mod tests {
    use std::fs::File;
    use std::process::Stdio;

    use super::*;

    fn child(script: &str) -> Child {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).stdin(Stdio::piped());
        spawn_once(&mut shell).expect("started")
    }

    /// Both kinds of hold on a child.
    fn handles(child: &mut Child) -> [ProcessHandle; 2] {
        let with = ProcessHandle::of_child(child).expect("held");
        assert!(with.descriptor.is_some(), "this kernel has pidfd_open");
        let without = ProcessHandle {
            pid: with.pid,
            started: with.started,
            descriptor: None,
        };
        [with, without]
    }

    #[tokio::test]
    async fn a_process_is_held_from_its_start_until_it_is_reaped() {
        let mut child = child("read -r line; exit 7");
        let handles = handles(&mut child);
        for handle in &handles {
            let ended = tokio::time::timeout(Duration::from_millis(30), handle.ended()).await;
            assert!(ended.is_err() && !handle.ended_within(Duration::ZERO));
            // Nothing happens to it: only that it can be reached.
            handle.signal(Signal::CONT).expect("it is there");
        }
        drop(child.stdin.take());
        for handle in &handles {
            handle.ended().await;
            // Awaited again, and by several at once.
            tokio::join!(handle.ended(), handle.ended());
            assert!(handle.ended_within(Duration::ZERO));
            handle.signal(Signal::KILL).expect("it was not reaped");
        }
        assert_eq!(reap(&mut child).and_then(|status| status.code()), Some(7));
        for handle in &handles {
            assert_eq!(handle.signal(Signal::KILL), Err(Errno::SRCH));
            handle.ended().await;
        }
        let error = ProcessHandle::open(child.id()).expect_err("gone");
        assert_eq!(error.raw_os_error(), Some(Errno::SRCH.raw_os_error()));
        assert!(ProcessHandle::open(0).is_err() && ProcessHandle::open(u32::MAX).is_err());
    }

    #[test]
    fn a_process_that_a_signal_stopped_is_paused_until_it_goes_on() {
        let mut child = child("read -r line");
        let [held, _] = handles(&mut child);
        let is = |paused| {
            let deadline = Instant::now() + Duration::from_secs(10);
            while is_paused(child.id()) != paused {
                assert!(Instant::now() < deadline, "never paused: {paused}");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        is(false);
        held.signal(Signal::STOP).expect("it is there");
        is(true);
        held.signal(Signal::CONT).expect("it is there");
        is(false);
        drop(child.stdin.take());
        child.wait().expect("reaped");
        assert!(!is_paused(child.id()));
    }

    #[tokio::test]
    async fn another_process_with_the_same_number_is_left_alone() {
        let mut child = child("read -r line");
        let [held, _] = handles(&mut child);
        let earlier = ProcessHandle {
            started: held.started.map(|started| started - 1),
            descriptor: None,
            pid: held.pid,
        };
        assert_eq!(earlier.signal(Signal::KILL), Err(Errno::SRCH));
        earlier.ended().await;
        assert!(!held.ended_within(Duration::ZERO));
        held.signal(Signal::KILL).expect("it is there");
        assert!(held.ended_within(Duration::from_secs(10)));
        child.wait().expect("reaped");
    }

    #[tokio::test]
    async fn a_program_that_is_being_written_is_started_when_that_is_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let copy = dir.path().join("copy");
        std::fs::copy("/bin/true", &copy).expect("copied");
        let open = || File::options().append(true).open(&copy).expect("opened");
        let writer = open();
        let mut command = Command::new(&copy);
        let (started, ()) = tokio::join!(spawn(&mut command), async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(writer);
        });
        assert!(started.expect("started").wait().expect("reaped").success());
        let writer = open();
        let began = Instant::now();
        let error = spawn(&mut command).await.expect_err("busy");
        assert_eq!(error.kind(), io::ErrorKind::ExecutableFileBusy);
        let pauses: Duration = busy_pauses().sum();
        assert_eq!(pauses, Duration::from_millis(255));
        assert!(began.elapsed() >= pauses);
        let error = spawn_blocking(&mut command).expect_err("still busy");
        assert_eq!(error.kind(), io::ErrorKind::ExecutableFileBusy);
        assert!(began.elapsed() >= 2 * pauses);
        drop(writer);
    }

    #[test]
    fn a_signal_that_is_not_ignored_is_not_seen_as_ignored() {
        // Tests of the host see the other case, in a process of its own.
        assert!(!ignores_child_signals());
    }
}
