//! The places of one plugin: the directory of its sockets, and a socket that it
//! made elsewhere.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use outrigger_transport::tree::{self, Obstacles};
use outrigger_transport::{Belonging, Lifeline, Tie, socket_place, temp_dir};
use outrigger_wire::{Address, Network};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use uuid::Uuid;

use crate::lifeline::OfProcess;

/// How long removing a directory may take.
const REMOVAL: Duration = Duration::from_secs(10);
/// Where programs make temporary files that are not told where.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
/// The variables that tell them.
const TEMPORARY_BY: [&str; 3] = ["TMPDIR", "TEMP", "TMP"];

/// The places of one plugin, removed when dropped: once its process is gone.
#[derive(Debug)]
pub(crate) struct Places {
    announced: OnceLock<Elsewhere>,
    dir: SocketDir,
}

impl Places {
    pub(crate) fn new(dir: SocketDir) -> Self {
        Self {
            announced: OnceLock::new(),
            dir,
        }
    }

    /// The directory for its sockets.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Notes where the plugin listens. `variable` is what it knows of its own
    /// environment.
    pub(crate) fn announced<'a>(
        &self,
        address: &Address,
        variable: impl Fn(&str) -> Option<&'a OsStr>,
    ) {
        let by_variable = TEMPORARY_BY.iter().filter_map(|name| variable(name));
        let temporary = by_variable.chain(TEMPORARY.iter().map(OsStr::new));
        if address.network == Network::Unix
            && let Some(elsewhere) = Elsewhere::beneath(temporary, Path::new(&address.text))
        {
            let _ = self.announced.set(elsewhere);
        }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        if let Some(elsewhere) = self.announced.get() {
            // It may be gone, in use, or another user's.
            let _ = elsewhere.remove();
        }
    }
}

/// A socket in a place for temporary files, or in a directory there, which a
/// plugin made without asking its host where.
#[derive(Debug, PartialEq, Eq)]
struct Elsewhere {
    temporary: PathBuf,
    dir: Option<PathBuf>,
    socket: PathBuf,
}

impl Elsewhere {
    fn beneath<'a>(temporary: impl Iterator<Item = &'a OsStr>, path: &Path) -> Option<Self> {
        let temporary = temporary.map(Path::new).filter(|place| place.is_absolute());
        temporary.into_iter().find_map(|place| {
            let rest = path.strip_prefix(place).ok()?;
            let mut names = rest.components().map(|part| match part {
                Component::Normal(name) => Some(PathBuf::from(name)),
                _ => None,
            });
            let first = names.next()??;
            let second = names.next();
            let (dir, socket) = match second {
                Some(second) => (Some(first), second?),
                None => (None, first),
            };
            let elsewhere = Self {
                temporary: place.to_owned(),
                dir,
                socket,
            };
            names.next().is_none().then_some(elsewhere)
        })
    }

    /// Removes the socket if it is ours and nobody listens there any more, and its
    /// directory if nothing else is in it. By descriptor and without following a
    /// link: names may change under our hands.
    fn remove(&self) -> rustix::io::Result<()> {
        let temporary = directory(CWD, &self.temporary, OFlags::empty())?;
        let dir = match &self.dir {
            Some(dir) => Some(directory(temporary.as_fd(), dir, OFlags::NOFOLLOW)?),
            None => None,
        };
        let place = dir.as_ref().unwrap_or(&temporary);
        let stat = rustix::fs::statat(place, &self.socket, AtFlags::SYMLINK_NOFOLLOW)?;
        let own = rustix::process::geteuid().as_raw();
        let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
        if !is_socket || stat.st_uid != own || !is_deserted(place, &self.socket)? {
            return Ok(());
        }
        rustix::fs::unlinkat(place, &self.socket, AtFlags::empty())?;
        if let (Some(dir), Some(name)) = (&dir, &self.dir)
            && rustix::fs::fstat(dir)?.st_uid == own
        {
            // Only if nothing else is in it.
            rustix::fs::unlinkat(&temporary, name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }
}

fn directory(at: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

/// Whether nobody listens at a socket.
fn is_deserted(dir: &OwnedFd, socket: &Path) -> rustix::io::Result<bool> {
    let path = Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(socket);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let client = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let connected = rustix::net::connect(&client, &SocketAddrUnix::new(path)?);
    Ok(connected == Err(Errno::CONNREFUSED))
}

/// A directory of one plugin alone, removed with everything in it when dropped,
/// and with the host's process in any case.
#[derive(Debug)]
pub(crate) struct SocketDir {
    path: PathBuf,
    tie: Option<Box<dyn Tie>>,
}

impl SocketDir {
    /// Makes the directory beneath `parent`, or the system's temporary one, with
    /// mode 0700; for a group, with mode 0770 and that group.
    pub(crate) fn create(parent: Option<&Path>, group: Option<u32>) -> io::Result<Self> {
        let name = format!("plugin-dir{}", Uuid::new_v4().as_u128() % 10_000_000_000);
        let parent = parent.map_or_else(temp_dir, Path::to_owned);
        let path = socket_place(&parent, &name)?;
        DirBuilder::new().mode(0o700).create(&path)?;
        let tie = Some(OfProcess.tie(Belonging::Directory(&path)));
        let dir = Self { path, tie };
        if let Some(group) = group {
            std::os::unix::fs::chown(&dir.path, None, Some(group))?;
            std::fs::set_permissions(&dir.path, std::fs::Permissions::from_mode(0o770))?;
        }
        Ok(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        let until = Instant::now() + REMOVAL;
        // Its plugin may have made more than sockets there.
        let removed = tree::remove(CWD, &self.path, Obstacles::Clear, until, &|| true);
        match (removed, self.tie.take()) {
            (Ok(()), Some(tie)) => tie.untie(),
            (Ok(()), None) => {}
            (Err(error), _) => {
                // The lifeline does the rest.
                tracing::warn!(dir = %self.path.display(), %error, "could not remove a socket directory");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn address(path: &Path) -> Address {
        Address::unix(path).expect("an address")
    }

    /// Places with a socket announced, where `TMPDIR` is `temporary`.
    fn places(temporary: &Path, socket: &Path) -> Places {
        let dir = SocketDir::create(Some(temporary), None).expect("made");
        let places = Places::new(dir);
        places.announced(&address(socket), |name| {
            (name == "TMPDIR").then_some(temporary.as_os_str())
        });
        places
    }

    #[test]
    fn a_deserted_socket_and_its_directory_go_with_the_places() {
        let temporary = tempfile::tempdir().expect("a directory");
        let (plain, dir) = (temporary.path().join("s"), temporary.path().join("d"));
        std::fs::create_dir(&dir).expect("made");
        for socket in [&plain, &dir.join("s")] {
            drop(UnixListener::bind(socket).expect("bound"));
            assert!(socket.exists());
            drop(places(temporary.path(), socket));
        }
        let left = std::fs::read_dir(temporary.path()).expect("listed").count();
        assert_eq!(left, 0);
    }

    #[test]
    fn a_socket_directory_goes_whatever_its_plugin_made_of_it() {
        let temporary = tempfile::tempdir().expect("a directory");
        let outside = temporary.path().join("outside");
        std::fs::create_dir(&outside).expect("made");
        std::fs::write(outside.join("kept"), "text").expect("written");
        let mode = |path: &Path, mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path, mode).expect("set");
        };
        for linked in [false, true] {
            let dir = SocketDir::create(Some(temporary.path()), None).expect("made");
            let path = dir.path().to_owned();
            if linked {
                std::fs::remove_dir(&path).expect("removed");
                std::os::unix::fs::symlink(&outside, &path).expect("linked");
            } else {
                let inner = path.join("-rf\n");
                std::fs::create_dir_all(inner.join("inner")).expect("made");
                std::fs::write(inner.join("inner/file"), "text").expect("written");
                std::os::unix::fs::symlink(&outside, inner.join("link")).expect("linked");
                mode(&inner.join("inner"), 0o500);
                mode(&inner, 0);
                mode(&path, 0o500);
            }
            drop(dir);
            assert!(std::fs::symlink_metadata(&path).is_err(), "{linked}");
            assert!(outside.join("kept").exists());
        }
    }

    #[test]
    fn what_is_no_deserted_socket_of_a_temporary_place_stays() {
        let temporary = tempfile::tempdir().expect("a directory");
        let path = |name: &str| temporary.path().join(name);
        for dir in ["full", "deep", "deep/er", "other"] {
            std::fs::create_dir(path(dir)).expect("made");
        }
        let _listening = UnixListener::bind(path("listening")).expect("bound");
        std::fs::write(path("file"), "text").expect("written");
        std::fs::write(path("full/file"), "text").expect("written");
        for socket in ["full/s", "deep/er/s", "other/s"] {
            drop(UnixListener::bind(path(socket)).expect("bound"));
        }
        std::os::unix::fs::symlink(path("other/s"), path("link")).expect("linked");
        std::os::unix::fs::symlink(path("other"), path("linked")).expect("linked");
        for (announced, stays) in [
            ("listening", "listening"),
            ("file", "file"),
            ("full/s", "full/file"),
            ("deep/er/s", "deep/er/s"),
            ("link", "other/s"),
            ("linked/s", "other/s"),
            ("linked/../other/s", "other/s"),
            ("missing", "other"),
        ] {
            drop(places(temporary.path(), &path(announced)));
            assert!(path(stays).exists(), "{announced}");
        }
        // Somewhere else than for temporary files.
        let dir = SocketDir::create(Some(temporary.path()), None).expect("made");
        let elsewhere = Places::new(dir);
        let none = |_: &str| None;
        elsewhere.announced(&address(Path::new("/run/other/s")), none);
        assert_eq!(elsewhere.announced.get(), None);
    }
}
