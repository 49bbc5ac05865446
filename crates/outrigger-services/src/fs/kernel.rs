//! What lies where the kernel shows itself rather than keeps contents.
//!
//! A file of procfs or sysfs means what it means to whoever opens it, or is
//! authority by itself: `/proc/self/environ` is the host's environment when the
//! host opens it, and a write to `/proc/sysrq-trigger` stops the machine. So what
//! was opened decides, by its file system and its place in there, and no grant
//! and no spelling does.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, Stat, StatFs};
use rustix::io::Errno;

use super::io::{RAMFS, TMPFS};
use crate::fault::Fault;

/// What is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// Files that someone keeps there.
    Storage,
    /// The same, and perhaps devices: to open one may do something by itself.
    Devices,
    /// What the kernel tells of the machine. It is read, and never changed.
    Facts,
    /// Nothing that is served; why.
    Closed(&'static str),
}

/// What an operation wants of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To know or read what is there.
    Look,
    /// To change it, or what is in it.
    Change,
}

const PROC: u64 = 0x9fa0;
const SYSFS: u64 = 0x6265_6572;
/// The flag of a mount on which devices are only names.
const NODEV: u64 = 4;

/// What is said of a file system of which nothing is served.
const CLOSED: &str = "what lies there is a power over the machine, not contents";
const PROCESS: &str = "what belongs to a process is never served";
const UNKNOWN: &str = "where the kernel shows it cannot be told";
const NOT_PUBLIC: &str = "the kernel shows it only to some, and the host may be one of them";
const READ_ONLY: &str = "what the kernel tells is never changed";

/// How the kernel calls a file system, in numbers and in the table of mounts, and
/// what is there. What is not named here is storage.
const FILE_SYSTEMS: &[(u64, &str, Nature)] = &[
    (PROC, "proc", Nature::Facts),
    (SYSFS, "sysfs", Nature::Facts),
    (0x0027_e0eb, "cgroup", Nature::Facts),
    (0x6367_7270, "cgroup2", Nature::Facts),
    (0x1cd1, "devpts", Nature::Devices),
    (0x6462_6720, "debugfs", Nature::Closed(CLOSED)),
    (0x7472_6163, "tracefs", Nature::Closed(CLOSED)),
    (0x7363_6673, "securityfs", Nature::Closed(CLOSED)),
    (0xf97c_ff8c, "selinuxfs", Nature::Closed(CLOSED)),
    (0x4341_5d53, "smackfs", Nature::Closed(CLOSED)),
    (0xcafe_4a11, "bpf", Nature::Closed(CLOSED)),
    (0xde5e_81e4, "efivarfs", Nature::Closed(CLOSED)),
    (0x6265_6570, "configfs", Nature::Closed(CLOSED)),
    (0x6165_676c, "pstore", Nature::Closed(CLOSED)),
    (0x4249_4e4d, "binfmt_misc", Nature::Closed(CLOSED)),
    (0x6573_5543, "fusectl", Nature::Closed(CLOSED)),
    (0x1980_0202, "mqueue", Nature::Closed(CLOSED)),
    (0x6e73_6673, "nsfs", Nature::Closed(CLOSED)),
    (0x5049_4446, "pidfs", Nature::Closed(CLOSED)),
    (0x6759_6969, "rpc_pipefs", Nature::Closed(CLOSED)),
    (0x6e66_7364, "nfsd", Nature::Closed(CLOSED)),
    (0x0765_5821, "resctrl", Nature::Closed(CLOSED)),
    (0x6c6f_6f70, "binder", Nature::Closed(CLOSED)),
    (0xabba_1974, "xenfs", Nature::Closed(CLOSED)),
    (0x9fa2, "usbdevfs", Nature::Closed(CLOSED)),
    (0x9fa1, "openpromfs", Nature::Closed(CLOSED)),
    // Reached through magic links only.
    (0x0904_1934, "anon_inodefs", Nature::Closed(CLOSED)),
    (0x5049_5045, "pipefs", Nature::Closed(CLOSED)),
    (0x534f_434b, "sockfs", Nature::Closed(CLOSED)),
    (0x444d_4142, "dmabuf", Nature::Closed(CLOSED)),
    (0x5345_434d, "secretmem", Nature::Closed(CLOSED)),
    (0x6264_6576, "bdev", Nature::Closed(CLOSED)),
];

/// What procfs has beside processes and yet tells each reader something else, or
/// lets it do something.
const NOT_FACTS: &[&str] = &[
    "bus/pci",
    "iomem",
    "ioports",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "modules",
    "sysrq-trigger",
    "vmcore",
];

impl Nature {
    /// What `found` is, wherever it lies and whatever led there.
    pub(crate) fn of(found: impl AsFd) -> Result<Self, Errno> {
        let file_system = rustix::fs::fstatfs(&found)?;
        match Self::of_file_system(&file_system) {
            Self::Facts if number(&file_system) == PROC => Ok(in_proc(found)),
            Self::Facts if number(&file_system) == SYSFS => Ok(in_sys(found)),
            nature => Ok(nature),
        }
    }

    fn of_file_system(file_system: &StatFs) -> Self {
        let number = number(file_system);
        match FILE_SYSTEMS.iter().find(|(known, ..)| *known == number) {
            Some((.., nature)) => *nature,
            // That of `/dev` goes by this number too.
            None if matches!(number, TMPFS | RAMFS) && flags(file_system) & NODEV == 0 => {
                Self::Devices
            }
            None => Self::Storage,
        }
    }

    /// Whether someone keeps contents there.
    pub(crate) fn keeps(self) -> bool {
        match self {
            Self::Storage | Self::Devices => true,
            Self::Facts | Self::Closed(_) => false,
        }
    }

    /// Refuses what is not served at such a place.
    pub(crate) fn admit(self, purpose: Purpose) -> Result<(), Fault> {
        match (self, purpose) {
            (Self::Storage | Self::Devices, _) | (Self::Facts, Purpose::Look) => Ok(()),
            (Self::Facts, Purpose::Change) => Err(Fault::refused(READ_ONLY)),
            (Self::Closed(why), _) => Err(Fault::refused(why)),
        }
    }

    /// Refuses to read what the kernel does not show to everybody.
    pub(crate) fn admit_reading(self, stat: &Stat) -> Result<(), Fault> {
        match self {
            Self::Facts if !Mode::from_raw_mode(stat.st_mode).contains(Mode::ROTH) => {
                Err(Fault::refused(NOT_PUBLIC))
            }
            Self::Storage | Self::Devices | Self::Facts | Self::Closed(_) => Ok(()),
        }
    }
}

#[allow(
    clippy::cast_sign_loss,
    clippy::unnecessary_cast,
    reason = "its type depends on the machine"
)]
fn number(file_system: &StatFs) -> u64 {
    // Some machines extend the sign of a number of 32 bits.
    file_system.f_type as u64 & 0xffff_ffff
}

#[allow(
    clippy::cast_sign_loss,
    clippy::unnecessary_cast,
    reason = "its type depends on the machine"
)]
fn flags(file_system: &StatFs) -> u64 {
    file_system.f_flags as u64
}

/// What something in procfs is, by its place there as the kernel tells it: names
/// of procfs are the kernel's alone, and mounts of parts of it do not hide where
/// those come from.
fn in_proc(found: impl AsFd) -> Nature {
    let Some(place) = place_in_its_file_system(found) else {
        return Nature::Closed(UNKNOWN);
    };
    let first = place.components().find_map(|step| match step {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    match first {
        Some(name) if name.as_bytes().iter().all(u8::is_ascii_digit) => Nature::Closed(PROCESS),
        _ if NOT_FACTS.iter().any(|closed| place.starts_with(closed)) => Nature::Closed(CLOSED),
        _ => Nature::Facts,
    }
}

/// What something in sysfs is. The registers of a device on the PCI bus are shown
/// whole to a privileged reader alone, and to read some does something.
fn in_sys(found: impl AsFd) -> Nature {
    let Some(place) = place_in_its_file_system(found) else {
        return Nature::Closed(UNKNOWN);
    };
    let on_bus = |step: &OsStr| step.as_bytes().starts_with(b"pci");
    let registers = place.file_name() == Some(OsStr::new("config"));
    match registers && place.starts_with("devices") && place.iter().any(on_bus) {
        true => Nature::Closed(CLOSED),
        false => Nature::Facts,
    }
}

/// The path of what was opened from the top of its file system, without the `/`.
/// Nothing where the kernel does not tell it.
fn place_in_its_file_system(found: impl AsFd) -> Option<PathBuf> {
    let number = found.as_fd().as_raw_fd();
    let seen = rustix::fs::readlink(format!("/proc/thread-self/fd/{number}"), Vec::new()).ok()?;
    let seen = PathBuf::from(std::ffi::OsString::from_vec(seen.into_bytes()));
    let info = std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{number}")).ok()?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    let id: u64 = id.trim().parse().ok()?;
    let mount = Mount::all()?.into_iter().find(|mount| mount.id == id)?;
    let place = mount.root.join(seen.strip_prefix(&mount.at).ok()?);
    place.strip_prefix("/").map(Path::to_owned).ok()
}

/// What of a granted place is not served, because the kernel shows itself there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Processes,
    ReadOnly,
    Closed,
}

impl Limit {
    pub(crate) const ALL: [Self; 3] = [Self::Processes, Self::ReadOnly, Self::Closed];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Processes => {
                "what belongs to processes is never served there, the rest is only read"
            }
            Self::ReadOnly => "what the kernel shows to everybody there is only read",
            Self::Closed => "nothing there is served",
        }
    }
}

/// Where in the tree at `top`, or in that directory alone, the kernel shows itself.
pub(crate) fn limits(top: &Path, recursive: bool) -> Vec<(PathBuf, Limit)> {
    let mounts = Mount::all().unwrap_or_default();
    let around = mounts.iter().filter(|mount| top.starts_with(&mount.at));
    let around = around.max_by_key(|mount| mount.at.components().count());
    let within = mounts.iter().filter(|mount| match recursive {
        true => mount.at != top && mount.at.starts_with(top),
        false => mount.at.parent() == Some(top),
    });
    let around = around.into_iter().map(|mount| (top, mount));
    let all = around.chain(within.map(|mount| (mount.at.as_path(), mount)));
    let limited = all.filter_map(|(at, mount)| Some((at.to_owned(), mount.limit()?)));
    limited.collect()
}

/// One line of the table of mounts.
struct Mount {
    id: u64,
    /// What of its file system is mounted.
    root: PathBuf,
    /// Where.
    at: PathBuf,
    kind: String,
}

impl Mount {
    /// The mounts that this thread sees.
    fn all() -> Option<Vec<Self>> {
        let table = std::fs::read("/proc/thread-self/mountinfo").ok()?;
        let lines = table.split(|byte| *byte == b'\n');
        Some(lines.filter_map(Self::parse).collect())
    }

    /// What of it is not served, if it is no storage.
    fn limit(&self) -> Option<Limit> {
        let known = FILE_SYSTEMS
            .iter()
            .find(|(_, kind, _)| *kind == self.kind)?;
        match known {
            (.., Nature::Storage | Nature::Devices) => None,
            (PROC, ..) => Some(Limit::Processes),
            (.., Nature::Facts) => Some(Limit::ReadOnly),
            (.., Nature::Closed(_)) => Some(Limit::Closed),
        }
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let root = unescaped(fields.nth(2)?);
        let at = unescaped(fields.next()?);
        fields.find(|field| *field == b"-")?;
        let kind = String::from_utf8_lossy(fields.next()?).into_owned();
        Some(Self { id, root, at, kind })
    }
}

/// A path as the table of mounts writes it: blanks and backslashes as three octal
/// digits.
fn unescaped(mut text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        text = rest;
        let octal = (rest.first_chunk::<3>()).filter(|_| *first == b'\\');
        let octal =
            octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(*first));
        if octal.is_some() {
            text = rest.get(3..).unwrap_or_default();
        }
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nature(path: &str) -> Nature {
        let opened = std::fs::File::open(path).expect(path);
        Nature::of(opened).expect("known")
    }

    #[test]
    fn what_is_opened_is_known_for_what_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        std::fs::write(&file, b"x").expect("a file");
        assert!(nature(file.to_str().expect("text")).keeps());
        for facts in ["/proc", "/proc/cpuinfo", "/proc/sys/kernel/osrelease"] {
            assert_eq!(nature(facts), Nature::Facts, "{facts}");
        }
        let pid = std::process::id();
        for own in [
            "/proc/self",
            "/proc/thread-self/environ",
            &format!("/proc/{pid}/net/dev"),
        ] {
            assert_eq!(nature(own), Nature::Closed(PROCESS), "{own}");
        }
        assert_eq!(nature("/proc/self/ns/net"), Nature::Closed(CLOSED));
        for other in ["/proc/modules", "/proc/kallsyms", "/proc/keys"] {
            if Path::new(other).exists() {
                assert_eq!(nature(other), Nature::Closed(CLOSED), "{other}");
            }
        }
        assert_eq!(nature("/dev"), Nature::Devices);
    }

    #[test]
    fn no_process_is_reached_with_and_without_openat2() {
        use crate::testing::file_call;

        let all = "read, write, list, create, delete";
        let pid = std::process::id();
        for stepwise in [false, true] {
            let call = file_call(&[(Path::new("/"), all, true)], stepwise);
            let wanted = |path: &str| call.path(path).expect("a path");
            for own in ["/proc/self/environ", &format!("/proc/{pid}/environ")] {
                let read = call.read_file(&wanted(own), "");
                assert!(matches!(read, Err(Fault::Refused(_))), "{own}: {read:?}");
                let changed = call.chmod(&wanted(own), Mode::RUSR);
                assert!(matches!(changed, Err(Fault::Refused(_))), "{own}");
            }
            call.read_file(&wanted("/proc/version"), "")
                .expect("public");
            let changed = call.remove(&wanted("/proc/version"));
            assert!(matches!(changed, Err(Fault::Refused(_))));
            let dir = tempfile::tempdir().expect("a directory");
            let file = dir.path().join("file");
            std::fs::write(&file, b"x").expect("a file");
            let file = wanted(file.to_str().expect("text"));
            assert_eq!(call.read_file(&file, "").expect("ordinary"), b"x");
            call.remove(&file).expect("ordinary");
        }
    }

    #[test]
    fn a_line_of_the_table_of_mounts_is_read_with_its_escapes() {
        let line = br"36 35 0:5 /1\134x /a\040b/c rw,nosuid shared:1 master:2 - proc none rw";
        let mount = Mount::parse(line).expect("a mount");
        assert_eq!(mount.id, 36);
        assert_eq!(mount.root, Path::new(r"/1\x"));
        assert_eq!(mount.at, Path::new("/a b/c"));
        assert_eq!(mount.kind, "proc");
        assert!(Mount::parse(b"").is_none() && Mount::parse(b"1 2 3 4 5 6").is_none());
        assert_eq!(unescaped(br"/a\040\134\04"), Path::new(r"/a \\04"));
    }
}
