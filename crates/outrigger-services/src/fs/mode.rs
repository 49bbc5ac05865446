//! Go's file mode bits, which travel in `FileInfo.mode`.

use rustix::fs::{FileType, Mode, RawMode};

const DIR: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const NAMED_PIPE: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHAR_DEVICE: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;
const IRREGULAR: u32 = 1 << 19;
const PERM: u32 = 0o777;

/// The bits that lend a program someone else's authority, in Go's places.
pub(crate) const SPECIAL: u32 = SETUID | SETGID | STICKY;

/// What Go's `FileInfo.Mode` says for a Unix `st_mode`.
pub(crate) fn from_unix(st_mode: RawMode) -> u32 {
    let kind = match FileType::from_raw_mode(st_mode) {
        FileType::RegularFile => 0,
        FileType::Directory => DIR,
        FileType::Symlink => SYMLINK,
        FileType::Fifo => NAMED_PIPE,
        FileType::Socket => SOCKET,
        FileType::CharacterDevice => DEVICE | CHAR_DEVICE,
        FileType::BlockDevice => DEVICE,
        FileType::Unknown => IRREGULAR,
    };
    let mode = Mode::from_raw_mode(st_mode);
    let flag = |unix, go| if mode.contains(unix) { go } else { 0 };
    kind | flag(Mode::SUID, SETUID)
        | flag(Mode::SGID, SETGID)
        | flag(Mode::SVTX, STICKY)
        | (st_mode & PERM)
}

/// The permission bits of a mode that a plugin names; the others are dropped.
pub(crate) fn permissions(go: u32) -> Mode {
    Mode::from_raw_mode(go & PERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_modes_become_gos() {
        assert_eq!(from_unix(0o100_644), 0o644);
        assert_eq!(from_unix(0o040_755), 1 << 31 | 0o755);
        assert_eq!(from_unix(0o041_777), 1 << 31 | 1 << 20 | 0o777);
        assert_eq!(from_unix(0o120_777), 1 << 27 | 0o777);
        assert_eq!(from_unix(0o010_600), 1 << 25 | 0o600);
        assert_eq!(from_unix(0o140_600), 1 << 24 | 0o600);
        assert_eq!(from_unix(0o020_666), 1 << 26 | 1 << 21 | 0o666);
        assert_eq!(from_unix(0o060_660), 1 << 26 | 0o660);
        assert_eq!(from_unix(0o106_755), 1 << 23 | 1 << 22 | 0o755);
    }

    #[test]
    fn a_plugins_mode_keeps_its_permission_bits_only() {
        assert_eq!(permissions(1 << 31 | 0o7751).as_raw_mode(), 0o751);
    }
}
