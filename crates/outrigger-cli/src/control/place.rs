//! Where the control socket of a folder is, and that only one run serves the folder.
//!
//! It is a private directory of the user: `outrigger` in `$XDG_RUNTIME_DIR`, or
//! `outrigger-UID` where temporary files go. The name of the socket comes from the
//! folder. What says whether a run lives is a lock that the kernel gives back with
//! the process: a file that a killed run left says nothing.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use outrigger_transport::temp_dir;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use crate::failure::{Exit, Failure, printable};

/// The longest path of a unix socket, in bytes, without what is appended for the
/// sockets of plugins.
const LONGEST: usize = 107 - ".1000000".len();
/// How much of a lock file is read.
const LARGEST: u64 = 8 << 10;
/// The folder that is meant when none is named.
pub(crate) const USUAL_FOLDER: &str = "plugins";

/// The control socket of one folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    socket: PathBuf,
}

impl Place {
    /// The place of the run that serves `folder`, which is absolute and without
    /// links. Nothing is made.
    pub(crate) fn of(folder: &Path) -> Self {
        let name = HEXLOWER.encode(&Sha256::digest(folder.as_os_str().as_encoded_bytes())[..8]);
        Self {
            socket: directory().join(format!("{name}.sock")),
        }
    }

    /// The socket that somebody named.
    pub(crate) fn at(socket: &Path) -> Self {
        Self {
            socket: std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned()),
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    fn lock_file(&self) -> PathBuf {
        let mut path = self.socket.clone().into_os_string();
        path.push(".lock");
        path.into()
    }

    /// Takes the place for this process, which serves `folder`, and removes what a
    /// run that was killed left there.
    ///
    /// # Errors
    /// `already-served`, with the process that has it; `control-unsafe` if others
    /// may write where the socket would be; `control-failed`.
    pub(crate) fn take(&self, folder: &Path) -> Result<Taken, Failure> {
        let parent = self.socket.parent().unwrap_or(Path::new("/"));
        if self.socket.as_os_str().len() > LONGEST {
            let message = "the path of the control socket is too long for a socket";
            return Err(Failure::usage("control-failed", message)
                .note(format!("`{}`", shown(&self.socket)))
                .help("choose a shorter one with `--socket`"));
        }
        private(parent)?;
        let lock = self.lock(folder)?;
        // Whatever socket a run has, it is the only one of this user in the folder.
        let usual = Self::of(folder);
        let usual = match usual == *self {
            true => None,
            false => {
                private(usual.socket.parent().unwrap_or(Path::new("/")))?;
                let lock = usual.lock(folder)?;
                Some((usual, lock))
            }
        };
        for left in self.left_behind(parent) {
            // What cannot be removed is in the way of nobody but a socket of that name.
            let _ = std::fs::remove_file(left);
        }
        Ok(Taken {
            place: self.clone(),
            _lock: lock,
            usual,
        })
    }

    fn lock(&self, folder: &Path) -> Result<Lock, Failure> {
        let path = self.lock_file();
        loop {
            let open = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(NO_FOLLOW)
                .open(&path);
            let mut file = open.map_err(|error| failed(&path, &error))?;
            let Some(held) = Lock::take(&file).map_err(|error| failed(&path, &error))? else {
                let holder = Holder::read(&mut file);
                return Err(served(folder, holder.map(|holder| holder.pid)));
            };
            // The run before may have removed the file between the two steps.
            let found = std::fs::symlink_metadata(&path);
            let same = file.metadata().is_ok_and(|ours| {
                found.is_ok_and(|found| (found.dev(), found.ino()) == (ours.dev(), ours.ino()))
            });
            if !same {
                continue;
            }
            let text = format!("{}\n{}\n", std::process::id(), folder.display());
            file.set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| file.write_all(text.as_bytes()))
                .map_err(|error| failed(&path, &error))?;
            return Ok(held);
        }
    }

    /// The control socket and those of plugins.
    fn left_behind(&self, parent: &Path) -> Vec<PathBuf> {
        let own = self.socket.file_name().unwrap_or_default().to_owned();
        let entries = parent.read_dir().into_iter().flatten().flatten();
        let of_ours = entries.filter(|entry| {
            let name = entry.file_name();
            let rest = name.as_encoded_bytes().strip_prefix(own.as_encoded_bytes());
            rest.is_some_and(|rest| {
                rest.is_empty()
                    || (rest.len() > 1
                        && rest[0] == b'.'
                        && rest[1..].iter().all(u8::is_ascii_digit))
            })
        });
        of_ours.map(|entry| entry.path()).collect()
    }

    /// Who serves at this place, if anybody does.
    pub(crate) fn holder(&self) -> Option<Holder> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(NO_FOLLOW)
            .open(self.lock_file())
            .ok()?;
        match Lock::take(&file) {
            Ok(None) => Holder::read(&mut file),
            _ => None,
        }
    }

    /// The places of this user at which somebody serves, with the folders.
    pub(crate) fn all() -> Vec<(Self, Holder)> {
        let entries = directory().read_dir().into_iter().flatten().flatten();
        let mut found: Vec<(Self, Holder)> = entries
            .filter(|entry| {
                let name = entry.file_name();
                name.as_encoded_bytes().ends_with(b".sock")
            })
            .filter_map(|entry| {
                let place = Self::at(&entry.path());
                let holder = place.holder()?;
                Some((place, holder))
            })
            .collect();
        found.sort_by(|(_, a), (_, b)| a.folder.cmp(&b.folder));
        found
    }
}

const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// A place that is this process's as long as this is.
#[derive(Debug)]
pub(crate) struct Taken {
    place: Place,
    _lock: Lock,
    /// The usual place of the folder, where that is another one.
    usual: Option<(Place, Lock)>,
}

impl Taken {
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let parent = self.place.socket.parent().unwrap_or(Path::new("/"));
        for left in self.place.left_behind(parent) {
            let _ = std::fs::remove_file(left);
        }
        // While the locks are held: whoever waits for one looks whether it is still this file.
        let places = std::iter::once(&self.place);
        for place in places.chain(self.usual.iter().map(|(usual, _)| usual)) {
            let _ = std::fs::remove_file(place.lock_file());
        }
        // Nothing happens where another run has its socket.
        let _ = std::fs::remove_dir(directory());
    }
}

/// Whoever holds a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    pub(crate) folder: String,
}

impl Holder {
    fn read(file: &mut File) -> Option<Self> {
        let mut text = String::new();
        file.take(LARGEST).read_to_string(&mut text).ok()?;
        let (pid, folder) = text.split_once('\n')?;
        Some(Self {
            pid: pid.parse().ok()?,
            folder: folder.trim_end_matches('\n').to_owned(),
        })
    }
}

/// A lock on a file or directory, which the kernel gives back with the process.
#[derive(Debug)]
struct Lock {
    _file: File,
}

impl Lock {
    /// Nothing, if another process has it.
    fn take(file: &File) -> io::Result<Option<Self>> {
        let file = file.try_clone()?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn served(folder: &Path, pid: Option<u32>) -> Failure {
    let who = match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    };
    let message = format!("`{}` is served already, by {who}", shown(folder));
    Failure::new(Exit::NotStarted, "already-served", message)
        .help("`outrigger list` shows what runs there; end it before you start another one")
}

/// The directory of this user's control sockets. Nothing is made.
fn directory() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let own = runtime.filter(|dir| {
        dir.is_absolute() && std::fs::metadata(dir).is_ok_and(|found| found.uid() == user)
    });
    let fits = |dir: &PathBuf| dir.as_os_str().len() + "/0123456789abcdef.sock".len() <= LONGEST;
    if let Some(dir) = own.map(|dir| dir.join("outrigger")).filter(fits) {
        return dir;
    }
    let name = format!("outrigger-{user}");
    let temporary = temp_dir().join(&name);
    match temporary.is_absolute() && fits(&temporary) {
        true => temporary,
        false => Path::new("/tmp").join(name),
    }
}

/// Makes a directory that is the user's alone, or sees that it is.
fn private(dir: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().mode(0o700).create(dir);
    if let Err(error) = made
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(failed(dir, &error));
    }
    let found = std::fs::symlink_metadata(dir).map_err(|error| failed(dir, &error))?;
    let user = rustix::process::geteuid().as_raw();
    let wrong = match found {
        found if !found.is_dir() => "it is no directory".to_owned(),
        found if found.uid() != user => format!("it belongs to user {}", found.uid()),
        found if found.mode() & 0o022 != 0 => {
            format!("others may write there (mode {:o})", found.mode() & 0o7777)
        }
        _ => return Ok(()),
    };
    let message = format!("`{}` is no safe place for the control socket", shown(dir));
    Err(Failure::new(Exit::NotStarted, "control-unsafe", message)
        .note(wrong)
        .help("remove it, or choose another place with `--socket`"))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    let message = format!("`{}` cannot be used for the control socket", shown(path));
    Failure::new(Exit::NotStarted, "control-failed", message).note(error.to_string())
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(place: &Place, folder: &Path) -> Result<Taken, Failure> {
        place.take(folder)
    }

    #[test]
    fn a_place_is_taken_once_and_free_again_when_it_is_dropped() {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::at(&dir.path().join("s"));
        let taken = take(&place, folder.path()).expect("free");
        let holder = place.holder().expect("taken");
        assert_eq!(holder.pid, std::process::id());
        assert_eq!(Path::new(&holder.folder), folder.path());
        let refused = take(&place, folder.path()).expect_err("taken");
        assert_eq!(refused.code, "already-served");
        assert!(refused.message.contains(&std::process::id().to_string()));
        drop(taken);
        assert_eq!(place.holder(), None);
        assert_eq!(dir.path().read_dir().expect("listed").count(), 0);
        take(&place, folder.path()).expect("free again");
    }

    #[test]
    fn one_folder_is_served_once_whatever_the_socket_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = tempfile::tempdir().expect("a folder");
        let one = Place::at(&dir.path().join("one"));
        let _taken = take(&one, folder.path()).expect("free");
        let other = Place::at(&dir.path().join("two"));
        let refused = take(&other, folder.path()).expect_err("served");
        assert_eq!(refused.code, "already-served");
        assert!(refused.message.contains(&std::process::id().to_string()));
    }

    #[test]
    fn what_a_killed_run_left_is_replaced_and_what_is_not_its_own_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["s", "s.1", "s.22", "s.lock", "s.txt", "s.", "other"] {
            std::fs::write(dir.path().join(name), "1\n/gone\n").expect("written");
        }
        let place = Place::at(&dir.path().join("s"));
        assert_eq!(place.holder(), None, "nobody holds the lock");
        drop(take(&place, folder.path()).expect("free"));
        let mut left: Vec<_> = dir
            .path()
            .read_dir()
            .expect("listed")
            .map(|entry| entry.expect("read").file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["other", "s.", "s.txt"]);
    }

    #[test]
    fn a_directory_in_which_others_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().expect("a directory");
        let folder = tempfile::tempdir().expect("a folder");
        let open = dir.path().join("open");
        std::fs::create_dir(&open).expect("made");
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).expect("set");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).expect("linked");
        for parent in [&open, &link] {
            let refused = take(&Place::at(&parent.join("s")), folder.path()).expect_err("unsafe");
            assert_eq!(refused.code, "control-unsafe", "{parent:?}");
        }
    }
}
