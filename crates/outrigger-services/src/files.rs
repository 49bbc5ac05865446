//! The operations on paths.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Component, Path, PathBuf};

use outrigger_wire::proto::hostserve::*;
use prost_types::Timestamp;
use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use crate::area::{self, INLINE, Opening, Place};
use crate::fault::Fault;
use crate::handles::{info, mode_to_set, size};
use crate::mode;
use crate::session::Session;
use crate::temp;
use crate::tree;

/// What an entry of a listing takes beside its name, in bytes, at most.
const ENTRY_OVERHEAD: usize = 12;

pub(crate) fn read_dir(
    session: &Session,
    request: &ReadDirRequest,
) -> Result<ReadDirResponse, Fault> {
    let dir = session
        .place(&request.root_dir, &request.path)?
        .directory()?;
    let (most, mut room) = (session.limits().list_entries, session.limits().payload());
    let mut entries = Vec::new();
    for entry in rustix::fs::Dir::new(dir)? {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        // The contract has no other way to write a name that is not UTF-8.
        let name = entry.file_name().to_string_lossy().into_owned();
        room = match room.checked_sub(name.len() + ENTRY_OVERHEAD) {
            Some(room) if entries.len() < most => room,
            _ => {
                let text = format!("the directory has more than {} entries", entries.len());
                return Err(Fault::Exhausted(format!(
                    "{text} (`list_entries`, `message`)"
                )));
            }
        };
        entries.push(DirEntry {
            name,
            is_dir: entry.file_type() == FileType::Directory,
        });
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(ReadDirResponse {
        entries,
        error: None,
    })
}

/// Reads a small file whose path and contents the kernel has at hand.
pub(crate) fn read_file_now(
    session: &Session,
    request: &ReadFileRequest,
) -> Option<Result<ReadFileResponse, Fault>> {
    let place = match session.place(&request.root_dir, &request.path) {
        Ok(place) => place,
        Err(fault) => return Some(Err(fault)),
    };
    let (file, stat) = place.open_cached()?;
    let size = usize::try_from(size(&stat)).ok()?;
    if size > INLINE.min(session.limits().whole_file) {
        return None;
    }
    let mut contents = vec![0; size];
    let read = area::read_inline(&file, &mut contents, 0, place.area.inline_for(&stat))?;
    contents.truncate(read);
    Some(Ok(ReadFileResponse {
        contents: contents.into(),
        error: None,
    }))
}

pub(crate) fn read_file(
    session: &Session,
    request: &ReadFileRequest,
) -> Result<ReadFileResponse, Fault> {
    let place = session.place(&request.root_dir, &request.path)?;
    let (file, stat) = place.open(Opening::READ)?;
    let limit = session.limits().whole_file.min(session.limits().payload());
    let too_large = || {
        let text = format!("the file is larger than {limit} bytes; open it and use FileReader");
        Err(Fault::Failed(text.into()))
    };
    let size = usize::try_from(size(&stat)).unwrap_or(usize::MAX);
    if size > limit {
        return too_large();
    }
    let mut contents = Vec::with_capacity(size + 1);
    // The size is a hint only: a file may grow, and some have none.
    file.take(limit as u64 + 1).read_to_end(&mut contents)?;
    if contents.len() > limit {
        return too_large();
    }
    Ok(ReadFileResponse {
        contents: contents.into(),
        error: None,
    })
}

pub(crate) fn write_file(
    session: &Session,
    request: &WriteFileRequest,
) -> Result<WriteFileResponse, Fault> {
    let how = Opening {
        write: true,
        create: true,
        truncate: true,
        mode: mode::permissions(request.perm).as_raw_mode(),
        ..Opening::default()
    };
    let (file, _) = session.place(&request.root_dir, &request.path)?.open(how)?;
    area::write_full(&file, &request.data, 0)?;
    Ok(WriteFileResponse { error: None })
}

pub(crate) fn stat_now(
    session: &Session,
    request: &StatRequest,
) -> Option<Result<StatResponse, Fault>> {
    match session.place(&request.root_dir, &request.path) {
        Ok(place) => {
            let info = info(place.file_name(), &place.stat_cached()?);
            Some(Ok(StatResponse {
                info: Some(info),
                error: None,
            }))
        }
        Err(fault) => Some(Err(fault)),
    }
}

pub(crate) fn stat(session: &Session, request: &StatRequest) -> Result<StatResponse, Fault> {
    let place = session.place(&request.root_dir, &request.path)?;
    let stat = rustix::fs::fstat(place.inode()?)?;
    Ok(StatResponse {
        info: Some(info(place.file_name(), &stat)),
        error: None,
    })
}

pub(crate) fn lstat(session: &Session, request: &LstatRequest) -> Result<LstatResponse, Fault> {
    let place = session.place(&request.root_dir, &request.path)?;
    let stat = match place.entry()? {
        None => rustix::fs::fstat(place.inode()?)?,
        Some(entry) => rustix::fs::statat(&entry.parent, &entry.name, AtFlags::SYMLINK_NOFOLLOW)?,
    };
    Ok(LstatResponse {
        info: Some(info(place.file_name(), &stat)),
        error: None,
    })
}

/// Both ends must be where changes are granted: a rename out of a read-only
/// directory into the temporary one would gain a right.
pub(crate) fn rename(session: &Session, request: &RenameRequest) -> Result<RenameResponse, Fault> {
    let from = session
        .place(&request.root_dir, &request.old_name)?
        .entry_to_change()?;
    let to = session
        .place(&request.root_dir, &request.new_name)?
        .entry_to_change()?;
    rustix::fs::renameat(&from.parent, &from.name, &to.parent, &to.name).map_err(Fault::System)?;
    Ok(RenameResponse { error: None })
}

pub(crate) fn remove(session: &Session, request: &RemoveRequest) -> Result<RemoveResponse, Fault> {
    let entry = session
        .place(&request.root_dir, &request.path)?
        .entry_to_change()?;
    match rustix::fs::unlinkat(&entry.parent, &entry.name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {
            rustix::fs::unlinkat(&entry.parent, &entry.name, AtFlags::REMOVEDIR)?;
        }
        outcome => outcome?,
    }
    Ok(RemoveResponse { error: None })
}

pub(crate) fn remove_all(
    session: &Session,
    request: &RemoveAllRequest,
) -> Result<RemoveAllResponse, Fault> {
    let until = std::time::Instant::now() + session.limits().call_timeout;
    match session
        .place(&request.root_dir, &request.path)?
        .entry_to_change()
    {
        Ok(entry) => {
            tree::remove(entry.parent.as_fd(), &entry.name, until)?;
        }
        Err(Fault::System(Errno::NOENT)) => {}
        Err(fault) => return Err(fault),
    }
    Ok(RemoveAllResponse { error: None })
}

pub(crate) fn mkdir(session: &Session, request: &MkdirRequest) -> Result<MkdirResponse, Fault> {
    let entry = session
        .place(&request.root_dir, &request.name)?
        .entry_to_change()?;
    rustix::fs::mkdirat(&entry.parent, &entry.name, mode::permissions(request.perm))?;
    Ok(MkdirResponse { error: None })
}

pub(crate) fn mkdir_all(
    session: &Session,
    request: &MkdirAllRequest,
) -> Result<MkdirAllResponse, Fault> {
    let place = session.place(&request.root_dir, &request.path)?;
    place.writable()?;
    let perm = mode::permissions(request.perm);
    let mut prefix = Place {
        path: PathBuf::new(),
        ..place
    };
    for step in place.path.components() {
        prefix.path.push(step);
        if !matches!(step, Component::Normal(_)) {
            continue;
        }
        if let Some(entry) = prefix.entry()? {
            match rustix::fs::mkdirat(&entry.parent, &entry.name, perm) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    // What was there already must be a directory.
    place.directory()?;
    Ok(MkdirAllResponse { error: None })
}

/// Always in the plugin's own temporary directory, whatever `root_dir` says.
pub(crate) fn mkdir_temp(
    session: &Session,
    request: &MkdirTempRequest,
) -> Result<MkdirTempResponse, Fault> {
    let (before, after) = temp::split_pattern(&request.pattern)?;
    let dir = session.temp()?.area().name().to_owned();
    let name = temp::free_name(before, after, |name| match made_private(session, name) {
        Err(Fault::System(errno)) => Err(errno),
        Err(_) => Err(Errno::IO),
        Ok(()) => Ok(()),
    })?;
    let path = dir.join(name).into_os_string().into_string();
    let path = path.map_err(|_| Fault::Failed("the temporary directory is not UTF-8".into()))?;
    Ok(MkdirTempResponse { path, error: None })
}

fn made_private(session: &Session, name: &str) -> Result<(), Fault> {
    let entry = session.in_temp(name)?.entry_to_change()?;
    Ok(rustix::fs::mkdirat(&entry.parent, &entry.name, Mode::RWXU)?)
}

pub(crate) fn chmod(session: &Session, request: &ChmodRequest) -> Result<ChmodResponse, Fault> {
    let place = session.place(&request.root_dir, &request.path)?;
    place.writable()?;
    let mode = mode_to_set(request.mode)?;
    let inode = place.inode()?;
    // A handle for the inode alone takes no chmod; its name under /proc does,
    // and means this inode whatever happens to the path.
    let name = format!("/proc/self/fd/{}", inode.as_raw_fd());
    rustix::fs::chmod(name, mode)?;
    Ok(ChmodResponse { error: None })
}

pub(crate) fn chown(session: &Session, request: &ChownRequest) -> Result<ChownResponse, Fault> {
    let place = session.place(&request.root_dir, &request.path)?;
    place.writable()?;
    let (uid, gid) = session.owners(request.uid, request.gid)?;
    rustix::fs::chownat(place.inode()?, "", uid, gid, AtFlags::EMPTY_PATH)?;
    Ok(ChownResponse { error: None })
}

pub(crate) fn lchown(session: &Session, request: &LchownRequest) -> Result<LchownResponse, Fault> {
    let place = session.place(&request.root_dir, &request.path)?;
    let entry = place.entry_to_change()?;
    let (uid, gid) = session.owners(request.uid, request.gid)?;
    rustix::fs::chownat(
        &entry.parent,
        &entry.name,
        uid,
        gid,
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    Ok(LchownResponse { error: None })
}

pub(crate) fn chtimes(
    session: &Session,
    request: &ChtimesRequest,
) -> Result<ChtimesResponse, Fault> {
    let place = session.place(&request.root_dir, &request.path)?;
    place.writable()?;
    let times = Timestamps {
        last_access: timespec(request.atime.as_ref())?,
        last_modification: timespec(request.mtime.as_ref())?,
    };
    rustix::fs::utimensat(place.inode()?, "", &times, AtFlags::EMPTY_PATH)?;
    Ok(ChtimesResponse { error: None })
}

/// A time that is not given stays, as with Go's zero time.
fn timespec(time: Option<&Timestamp>) -> Result<Timespec, Fault> {
    let Some(time) = time else {
        return Ok(Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        });
    };
    match time.nanos {
        nanos @ 0..1_000_000_000 => Ok(Timespec {
            tv_sec: time.seconds,
            tv_nsec: nanos.into(),
        }),
        _ => Err(Fault::Abuse("`nanos` is not within a second")),
    }
}

pub(crate) fn readlink(
    session: &Session,
    request: &ReadlinkRequest,
) -> Result<ReadlinkResponse, Fault> {
    let place = session.place(&request.root_dir, &request.path)?;
    let entry = place.entry()?.ok_or(Fault::System(Errno::INVAL))?;
    let target = rustix::fs::readlinkat(&entry.parent, &entry.name, Vec::new())?;
    let destination = target.into_string();
    let destination =
        destination.map_err(|_| Fault::Failed("the link's text is not UTF-8".into()))?;
    Ok(ReadlinkResponse {
        destination,
        error: None,
    })
}

/// Both ends must be where changes are granted: a second name gives the rights
/// of the directory that it is in.
pub(crate) fn link(session: &Session, request: &LinkRequest) -> Result<LinkResponse, Fault> {
    let old = session
        .place(&request.root_dir, &request.old_path)?
        .entry_to_change()?;
    let new = session
        .place(&request.root_dir, &request.new_path)?
        .entry_to_change()?;
    let flags = AtFlags::empty();
    rustix::fs::linkat(&old.parent, &old.name, &new.parent, &new.name, flags)
        .map_err(Fault::System)?;
    Ok(LinkResponse { error: None })
}

/// The link's text may only lead down from the directory that the link is in.
/// Nothing leads our own resolution out, but other programs follow links too.
pub(crate) fn symlink(
    session: &Session,
    request: &SymlinkRequest,
) -> Result<SymlinkResponse, Fault> {
    let place = session.place(&request.root_dir, &request.new_path)?;
    let target = link_text(&place, &request.old_path)?;
    let entry = place.entry_to_change()?;
    rustix::fs::symlinkat(&target, &entry.parent, &entry.name)?;
    Ok(SymlinkResponse { error: None })
}

/// The text to store: an absolute path into the link's own directory becomes
/// relative, since links are never followed through an absolute path here.
fn link_text(link: &Place<'_>, target: &str) -> Result<PathBuf, Fault> {
    area::check_path(target)?;
    let mut target = PathBuf::from(target);
    if target.is_absolute() {
        let inside = link.area.relative(&target).ok_or(Fault::Outside)?;
        let parent = area::clean(link.path.parent().unwrap_or(Path::new("")));
        let outside = Fault::Refused("an absolute link leads out of its own directory");
        target = inside.strip_prefix(parent).map_err(|_| outside)?.to_owned();
    }
    if target.components().any(|step| step == Component::ParentDir) {
        return Err(Fault::Refused(
            "a link with `..` may lead out of the granted directory",
        ));
    }
    if target.as_os_str().is_empty() {
        return Err(Fault::System(Errno::NOENT));
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use outrigger_transport::PluginIdentity;
    use rustix::fs::{CWD, RenameFlags};

    use super::*;
    use crate::HostServe;
    use crate::handles;

    /// A thread that exchanges pairs of names as fast as it can until dropped.
    struct Swapping {
        stop: Arc<AtomicBool>,
        thread: Option<std::thread::JoinHandle<()>>,
    }

    impl Swapping {
        fn start(pairs: Vec<[PathBuf; 2]>) -> Self {
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = stop.clone();
            let swap = move || {
                while !stopped.load(Ordering::Relaxed) {
                    for [a, b] in &pairs {
                        rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)
                            .expect("exchanged");
                    }
                }
            };
            Self {
                stop,
                thread: Some(std::thread::spawn(swap)),
            }
        }
    }

    impl Drop for Swapping {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::Relaxed);
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
    }

    /// Opens and reads in each of the ways that a plugin can.
    fn read(session: &Session, path: &str, way: usize) -> Option<Result<Vec<u8>, Fault>> {
        let (root_dir, path) = (String::new(), path.to_owned());
        let whole = |reply: ReadFileResponse| reply.contents.to_vec();
        match way {
            0 => read_file_now(session, &ReadFileRequest { root_dir, path })
                .map(|reply| reply.map(whole)),
            1 => Some(read_file(session, &ReadFileRequest { root_dir, path }).map(whole)),
            _ => {
                let flags = if way == 2 {
                    OpenFileFlags::ReadOnly
                } else {
                    OpenFileFlags::ReadWrite
                };
                let request = FileOpenRequest {
                    root_dir,
                    path,
                    flags: flags.into(),
                    perm: 0,
                };
                let opened = match handles::open_now(session, &request) {
                    Some(opened) => opened,
                    None => handles::open(session, &request),
                };
                Some(opened.and_then(|reply| {
                    let handle = reply.handle;
                    let request = FileReadSectionRequest {
                        handle: handle.clone(),
                        offset: 0,
                        length: 100,
                    };
                    let text = handles::read_section(session, &request)?.contents.to_vec();
                    handles::close(session, &FileCloseRequest { handle })?;
                    Ok(text)
                }))
            }
        }
    }

    #[test]
    fn links_swapped_in_during_40_000_opens_leak_nothing() {
        let base = tempfile::tempdir().expect("a directory");
        let at = |path: &str| base.path().join(path);
        for (dir, text) in [("granted", "inside"), ("outside", "SECRET")] {
            std::fs::create_dir_all(at(dir).join("dir")).expect("a directory");
            std::fs::create_dir_all(at(dir).join("last")).expect("a directory");
            std::fs::write(at(dir).join("dir/file"), text).expect("a file");
            std::fs::write(at(dir).join("last/file"), text).expect("a file");
        }
        std::os::unix::fs::symlink(at("outside/dir"), at("granted/link")).expect("a link");
        std::os::unix::fs::symlink("../../outside/last/file", at("granted/last/link"))
            .expect("a link");
        let services = HostServe::open(at("granted")).expect("a root");
        let session = Session::new(
            services.granted(),
            PluginIdentity::new("racer", "racer-1", None),
        );
        let pairs = [["dir", "link"], ["last/file", "last/link"]];
        let _swapping = Swapping::start(
            pairs
                .map(|pair| pair.map(|name| at("granted").join(name)))
                .to_vec(),
        );
        let (mut inside, mut refused, mut turn) = (0, 0, 0);
        let until = Instant::now() + Duration::from_secs(60);
        // A busy machine may need more turns before the race has happened.
        while turn < 40_000 || inside.min(refused) < 1000 {
            assert!(
                Instant::now() < until,
                "no race: {inside} inside, {refused} refused"
            );
            let path = ["dir/file", "last/file", "dir/../dir/file"][turn % 3];
            match read(&session, path, turn / 3 % 4) {
                Some(Ok(text)) => {
                    assert_eq!(text, b"inside", "leaked on turn {turn}");
                    inside += 1;
                }
                Some(Err(_)) => refused += 1,
                // The quick way left it to the other one.
                None => {}
            }
            turn += 1;
        }
    }
}
