//! The operations of `hostserve.v1` that are calls with one reply, and how a reply
//! says that one failed.

use outrigger_wire::proto::hostserve::*;
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::process;

use super::translate::*;
use crate::environment::{self, UserDir};
use crate::fault::Fault;
use crate::fs::attributes;
use crate::fs::contents::Replace;
use crate::fs::io::size;
use crate::fs::mode;
use crate::fs::open_file::OpenFile;
use crate::fs::operation::file_operations;
use crate::fs::operations::path_text;
use crate::fs::place::Opening;
use crate::fs::resolve::Follow;

/// What an entry of a listing takes beside its name, in bytes, at most.
const ENTRY_OVERHEAD: usize = 12;

/// A request, and what it is about.
pub(super) trait Subject {
    /// A name for the text of an error; empty when the request names nothing, or
    /// a handle: that is authority, which replies do not repeat.
    fn subject(&self) -> &str {
        ""
    }
}

/// A reply that can carry a failure.
pub(crate) trait Reply {
    fn failed(error: String) -> Self;
}

macro_rules! operations {
    ($($service:ident $name:literal on $thread:ident:
        $message:ident { $($field:ident),* } $(about $subject:ident)?
        -> $reply:ident = $run:expr;)*) => {
        file_operations! {
            $($service $name on $thread: $message { $($field),* } -> $reply = $run;)*
        }

        $(
            impl Subject for $message {
                $(fn subject(&self) -> &str {
                    &self.$subject
                })?
            }
        )*

        replies!($($reply),*);
    };
}

macro_rules! replies {
    ($($message:ident),*) => {$(
        impl Reply for $message {
            #[allow(clippy::needless_update, reason = "some replies have no other field")]
            fn failed(error: String) -> Self {
                Self { error: Some(error), ..Self::default() }
            }
        }
    )*};
}

operations! {
    Filesystem "ReadDir" on Waiting:
        ReadDirRequest { root_dir, path } about path -> ReadDirResponse = |call, request| {
            let mut listing = call.listing(&path(call, &request.root_dir, &request.path)?)?;
            let limits = call.session.limits();
            let (most, mut room) = (limits.list_entries, limits.payload());
            let mut entries = Vec::new();
            listing.each(|name, kind| {
                // The contract has no other way to write a name that is not UTF-8.
                let name = name.to_string_lossy().into_owned();
                room = match room.checked_sub(name.len() + ENTRY_OVERHEAD) {
                    Some(room) if entries.len() < most => room,
                    _ => {
                        let text = format!("the directory has more than {} entries", entries.len());
                        let text = format!("{text} (`list_entries`, `message`)");
                        return Err(Fault::exhausted("directory-too-large", text));
                    }
                };
                entries.push(DirEntry {
                    name,
                    is_dir: kind == FileType::Directory,
                });
                Ok(())
            })?;
            entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            Ok(ReadDirResponse { entries, error: None })
        };
    Filesystem "ReadFile" on ConnectionFirst:
        ReadFileRequest { root_dir, path } about path -> ReadFileResponse = |call, request| {
            let path = path(call, &request.root_dir, &request.path)?;
            call.read_file(&path, "open it and use FileReader").map(contents)
        };
    Filesystem "WriteFile" on Waiting:
        WriteFileRequest { root_dir, data, perm, path } about path
        -> WriteFileResponse = |call, request| {
            let how = Opening {
                write: true,
                create: true,
                truncate: true,
                mode: request.perm & 0o777,
                ..Opening::default()
            };
            let path = path(call, &request.root_dir, &request.path)?;
            call.write_file(&path, how, &request.data)?;
            Ok(WriteFileResponse::default())
        };
    Filesystem "Stat" on ConnectionFirst:
        StatRequest { root_dir, path } about path -> StatResponse = |call, request| {
            let path = path(call, &request.root_dir, &request.path)?;
            call.stat(&path).map(stated)
        };
    Filesystem "Lstat" on Waiting:
        LstatRequest { root_dir, path } about path -> LstatResponse = |call, request| {
            let known = call.lstat(&path(call, &request.root_dir, &request.path)?)?;
            Ok(LstatResponse { info: info(known.name, &known.stat), error: None })
        };
    Filesystem "Rename" on Waiting:
        RenameRequest { root_dir, new_name, old_name } about old_name
        -> RenameResponse = |call, request| {
            let from = path(call, &request.root_dir, &request.old_name)?;
            let to = path(call, &request.root_dir, &request.new_name)?;
            call.rename(&from, &to, Replace::Yes)?;
            Ok(RenameResponse::default())
        };
    Filesystem "Remove" on Waiting:
        RemoveRequest { root_dir, path } about path -> RemoveResponse = |call, request| {
            call.remove(&path(call, &request.root_dir, &request.path)?)?;
            Ok(RemoveResponse::default())
        };
    Filesystem "RemoveAll" on Waiting:
        RemoveAllRequest { root_dir, path } about path -> RemoveAllResponse = |call, request| {
            call.remove_all(&path(call, &request.root_dir, &request.path)?)?;
            Ok(RemoveAllResponse::default())
        };
    Filesystem "Mkdir" on Waiting:
        MkdirRequest { root_dir, perm, name } about name -> MkdirResponse = |call, request| {
            let path = path(call, &request.root_dir, &request.name)?;
            call.mkdir(&path, mode::permissions(request.perm))?;
            Ok(MkdirResponse::default())
        };
    Filesystem "MkdirAll" on Waiting:
        MkdirAllRequest { root_dir, perm, path } about path -> MkdirAllResponse = |call, request| {
            let path = path(call, &request.root_dir, &request.path)?;
            call.mkdir_all(&path, mode::permissions(request.perm))?;
            Ok(MkdirAllResponse::default())
        };
    // Always in the plugin's own temporary directory, whatever `root_dir` says.
    Filesystem "MkdirTemp" on Waiting:
        MkdirTempRequest { root_dir, pattern } about pattern
        -> MkdirTempResponse = |call, request| {
            let path = path_text(call.temp_dir(&request.pattern)?)?;
            Ok(MkdirTempResponse { path, error: None })
        };
    Filesystem "Chmod" on Waiting:
        ChmodRequest { root_dir, mode, path } about path -> ChmodResponse = |call, request| {
            let path = path(call, &request.root_dir, &request.path)?;
            call.chmod(&path, mode_to_set(request.mode)?)?;
            Ok(ChmodResponse::default())
        };
    Filesystem "Chown" on Waiting:
        ChownRequest { root_dir, uid, gid, path } about path -> ChownResponse = |call, request| {
            let path = path(call, &request.root_dir, &request.path)?;
            let owners = owners(call, request.uid, request.gid)?;
            call.chown(&path, owners, Follow::Yes)?;
            Ok(ChownResponse::default())
        };
    Filesystem "Lchown" on Waiting:
        LchownRequest { root_dir, uid, gid, path } about path -> LchownResponse = |call, request| {
            let path = path(call, &request.root_dir, &request.path)?;
            let owners = owners(call, request.uid, request.gid)?;
            call.chown(&path, owners, Follow::No)?;
            Ok(LchownResponse::default())
        };
    Filesystem "Chtimes" on Waiting:
        ChtimesRequest { root_dir, atime, mtime, path } about path
        -> ChtimesResponse = |call, request| {
            let path = path(call, &request.root_dir, &request.path)?;
            let times = attributes::times(request.atime.as_ref(), request.mtime.as_ref())?;
            call.chtimes(&path, &times)?;
            Ok(ChtimesResponse::default())
        };
    Filesystem "Readlink" on Waiting:
        ReadlinkRequest { root_dir, path } about path -> ReadlinkResponse = |call, request| {
            let destination = call.read_link(&path(call, &request.root_dir, &request.path)?)?;
            Ok(ReadlinkResponse { destination, error: None })
        };
    Filesystem "Link" on Waiting:
        LinkRequest { root_dir, old_path, new_path } about new_path
        -> LinkResponse = |call, request| {
            let old = path(call, &request.root_dir, &request.old_path)?;
            let new = path(call, &request.root_dir, &request.new_path)?;
            call.link(&old, &new)?;
            Ok(LinkResponse::default())
        };
    Filesystem "Symlink" on Waiting:
        SymlinkRequest { root_dir, old_path, new_path } about new_path
        -> SymlinkResponse = |call, request| {
            let new = path(call, &request.root_dir, &request.new_path)?;
            call.symlink(&request.old_path, &new)?;
            Ok(SymlinkResponse::default())
        };
    Filesystem "FileCreate" on Waiting:
        FileCreateRequest { root_dir, path } about path -> FileCreateResponse = |call, request| {
            let how = Opening {
                read: true,
                write: true,
                create: true,
                truncate: true,
                mode: 0o666,
                ..Opening::default()
            };
            let path = path(call, &request.root_dir, &request.path)?;
            let lent = call.lend(&path, how)?;
            Ok(FileCreateResponse { handle: lent.lease, error: None })
        };
    // Always in the plugin's own temporary directory, whatever `root_dir` says.
    Filesystem "FileCreateTemp" on Waiting:
        FileCreateTempRequest { root_dir, pattern } about pattern
        -> FileCreateTempResponse = |call, request| {
            let (handle, _) = call.temp_file(&request.pattern)?;
            Ok(FileCreateTempResponse { handle, error: None })
        };
    Filesystem "FileOpen" on ConnectionFirst:
        FileOpenRequest { root_dir, flags, perm, path } about path
        -> FileOpenResponse = |call, request| {
            let how = opening(request)?;
            let path = path(call, &request.root_dir, &request.path)?;
            let lent = call.lend(&path, how)?;
            Ok(FileOpenResponse {
                handle: lent.lease,
                size: size(&lent.stat),
                error: None,
            })
        };
    Filesystem "FileStat" on Waiting:
        FileStatRequest { handle } -> FileStatResponse = |call, request| {
            let file = call.file(&request.handle)?;
            Ok(FileStatResponse { info: info(file.name.clone(), &file.stat()?), error: None })
        };
    Filesystem "FileSeek" on Waiting:
        FileSeekRequest { handle, offset, whence } -> FileSeekResponse = |call, request| {
            // The contract sends a signed distance in an unsigned field.
            let distance = request.offset.cast_signed();
            let new_offset = call.file(&request.handle)?.seek(distance, request.whence)?;
            Ok(FileSeekResponse { new_offset, error: None })
        };
    Filesystem "FileSync" on Waiting:
        FileSyncRequest { handle } -> FileSyncResponse = |call, request| {
            rustix::fs::fsync(&call.file(&request.handle)?.file)?;
            Ok(FileSyncResponse::default())
        };
    Filesystem "FileClose" on ConnectionFirst:
        FileCloseRequest { handle } -> FileCloseResponse = |call, request| {
            if !call.may_wait && !call.file(&request.handle)?.closes_at_once() {
                return Err(Fault::WouldWait);
            }
            drop(call.session.give_back::<OpenFile>(&request.handle)?);
            Ok(FileCloseResponse::default())
        };
    Filesystem "FileTruncate" on Waiting:
        FileTruncateRequest { handle, size } -> FileTruncateResponse = |call, request| {
            let file = call.file(&request.handle)?;
            let size = u64::try_from(request.size);
            let size = size.map_err(|_| Fault::System(Errno::INVAL))?;
            call.resize(&file.file, file.storage, size)?;
            Ok(FileTruncateResponse::default())
        };
    Filesystem "FileChmod" on Waiting:
        FileChmodRequest { handle, mode } -> FileChmodResponse = |call, request| {
            let file = call.file(&request.handle)?;
            call.may_change(&file)?;
            rustix::fs::fchmod(&file.file, mode_to_set(request.mode)?)?;
            Ok(FileChmodResponse::default())
        };
    Filesystem "FileChown" on Waiting:
        FileChownRequest { handle, uid, gid } -> FileChownResponse = |call, request| {
            let file = call.file(&request.handle)?;
            call.may_change(&file)?;
            owners(call, request.uid, request.gid)?.give(&file.file)?;
            Ok(FileChownResponse::default())
        };
    Filesystem "FileReadSection" on ConnectionFirst:
        FileReadSectionRequest { handle, offset, length }
        -> FileReadSectionResponse = |call, request| {
            let length = call.read_length("a section", request.length)?;
            let file = call.file(&request.handle)?;
            let contents = file.read(length, request.offset, call.may_wait)?;
            Ok(got(call, contents))
        };
    // Writes at most `max_length` bytes of `data` (all when it is 0). `perm` has
    // no meaning for an open file.
    Filesystem "FileWriteSection" on Waiting:
        FileWriteSectionRequest { handle, offset, max_length, data, perm }
        -> FileWriteSectionResponse = |call, request| {
            call.session.may_move()?;
            let file = call.file(&request.handle)?;
            let data = &request.data;
            let length = match request.max_length {
                0 => data.len(),
                most => data.len().min(most as usize),
            };
            call.write_at(&file, &data[..length], request.offset)?;
            call.session.charge(length as u64);
            let bytes_written = u32::try_from(length).map_err(|_| Fault::Broken)?;
            Ok(FileWriteSectionResponse { bytes_written, error: None })
        };
    Environment "Getuid" on Connection:
        GetuidRequest {} -> GetuidResponse = |_, _| {
            Ok(GetuidResponse { uid: id(process::getuid().as_raw()), error: None })
        };
    Environment "Getgid" on Connection:
        GetgidRequest {} -> GetgidResponse = |_, _| {
            Ok(GetgidResponse { gid: id(process::getgid().as_raw()), error: None })
        };
    Environment "Geteuid" on Connection:
        GeteuidRequest {} -> GeteuidResponse = |_, _| {
            Ok(GeteuidResponse { euid: id(process::geteuid().as_raw()), error: None })
        };
    Environment "Getegid" on Connection:
        GetegidRequest {} -> GetegidResponse = |_, _| {
            Ok(GetegidResponse { egid: id(process::getegid().as_raw()), error: None })
        };
    Environment "Getpid" on Connection:
        GetpidRequest {} -> GetpidResponse = |_, _| {
            Ok(GetpidResponse { pid: process::getpid().as_raw_nonzero().get(), error: None })
        };
    // 0 when the parent is outside the host's process namespace, as the system
    // says it.
    Environment "Getppid" on Connection:
        GetppidRequest {} -> GetppidResponse = |_, _| {
            let ppid = process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
            Ok(GetppidResponse { ppid, error: None })
        };
    Environment "GetGroups" on Connection:
        GetGroupsRequest {} -> GetGroupsResponse = |_, _| {
            let groups = process::getgroups()?.into_iter();
            let groups = groups.map(|gid| id(gid.as_raw())).collect();
            Ok(GetGroupsResponse { groups, error: None })
        };
    Environment "GetEnv" on Connection:
        GetEnvRequest { key } about key -> GetEnvResponse = |call, request| {
            let value = environment::answer(&call.session, &call.progress, &request.key)?;
            // Empty where it is not set, as with Go's `os.Getenv`.
            let val = value.unwrap_or_default();
            Ok(GetEnvResponse { val, error: None })
        };
    // The plugin's own temporary directory rather than the system's: the one that
    // it can use.
    Filesystem "TempDir" on ConnectionFirst:
        TempDirRequest {} -> TempDirResponse = |call, _| {
            if call.files.temp_if_made().is_none() {
                call.wait()?;
            }
            let area = call.files.temp()?.area();
            call.progress.allowed_by(&area.rule);
            match area.canonical.to_str() {
                Some(dir) => Ok(TempDirResponse { dir: dir.into(), error: None }),
                None => Err(Fault::failed("the temporary directory is not UTF-8")),
            }
        };
    Environment "UserCacheDir" on Connection:
        UserCacheDirRequest {} -> UserCacheDirResponse = |_, _| {
            Ok(UserCacheDirResponse { dir: user_dir(UserDir::Cache)?, error: None })
        };
    Environment "UserConfigDir" on Connection:
        UserConfigDirRequest {} -> UserConfigDirResponse = |_, _| {
            Ok(UserConfigDirResponse { dir: user_dir(UserDir::Config)?, error: None })
        };
    Environment "UserHomeDir" on Connection:
        UserHomeDirRequest {} -> UserHomeDirResponse = |_, _| {
            Ok(UserHomeDirResponse { dir: user_dir(UserDir::Home)?, error: None })
        };
}

replies!(
    FileReadResponse,
    FileReadAtResponse,
    FileWriteResponse,
    FileWriteAtResponse
);

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::arguments::Arguments;
    use crate::operation::Described;

    #[test]
    fn the_log_shows_set_fields_escaped_and_never_contents_or_a_usable_handle() {
        let write = WriteFileRequest {
            root_dir: String::new(),
            path: "a\nb".into(),
            data: Bytes::from_static(b"secret"),
            perm: 0o644,
        };
        fn arguments(request: &impl Described) -> String {
            let mut shown = Arguments::default();
            request.show(&mut shown);
            shown.into_text()
        }
        assert_eq!(arguments(&write), r#"data=6_bytes perm=420 path="a\nb""#);
        let handle = "0123456789abcdef0123456789abcdef".to_owned();
        let seek = FileSeekRequest {
            handle,
            offset: 0,
            whence: 2,
        };
        assert_eq!(arguments(&seek), r#"handle="01234567" whence=2"#);
        assert_eq!(seek.subject(), "");
    }
}
