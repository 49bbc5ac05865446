//! The operations of `hostserve.v1` that are calls with one reply, and how a reply
//! says that one failed.

use outrigger_wire::proto::hostserve::*;

use super::{files, host};
use crate::fs::operation::file_operations;

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
        ReadDirRequest { root_dir, path } about path -> ReadDirResponse = files::read_dir;
    Filesystem "ReadFile" on ConnectionFirst:
        ReadFileRequest { root_dir, path } about path -> ReadFileResponse = files::read_file;
    Filesystem "WriteFile" on Waiting:
        WriteFileRequest { root_dir, data, perm, path } about path -> WriteFileResponse = files::write_file;
    Filesystem "Stat" on ConnectionFirst:
        StatRequest { root_dir, path } about path -> StatResponse = files::stat;
    Filesystem "Lstat" on Waiting:
        LstatRequest { root_dir, path } about path -> LstatResponse = files::lstat;
    Filesystem "Rename" on Waiting:
        RenameRequest { root_dir, new_name, old_name } about old_name -> RenameResponse = files::rename;
    Filesystem "Remove" on Waiting:
        RemoveRequest { root_dir, path } about path -> RemoveResponse = files::remove;
    Filesystem "RemoveAll" on Waiting:
        RemoveAllRequest { root_dir, path } about path -> RemoveAllResponse = files::remove_all;
    Filesystem "Mkdir" on Waiting:
        MkdirRequest { root_dir, perm, name } about name -> MkdirResponse = files::mkdir;
    Filesystem "MkdirAll" on Waiting:
        MkdirAllRequest { root_dir, perm, path } about path -> MkdirAllResponse = files::mkdir_all;
    Filesystem "MkdirTemp" on Waiting:
        MkdirTempRequest { root_dir, pattern } about pattern -> MkdirTempResponse = files::mkdir_temp;
    Filesystem "Chmod" on Waiting:
        ChmodRequest { root_dir, mode, path } about path -> ChmodResponse = files::chmod;
    Filesystem "Chown" on Waiting:
        ChownRequest { root_dir, uid, gid, path } about path -> ChownResponse = files::chown;
    Filesystem "Lchown" on Waiting:
        LchownRequest { root_dir, uid, gid, path } about path -> LchownResponse = files::lchown;
    Filesystem "Chtimes" on Waiting:
        ChtimesRequest { root_dir, atime, mtime, path } about path -> ChtimesResponse = files::chtimes;
    Filesystem "Readlink" on Waiting:
        ReadlinkRequest { root_dir, path } about path -> ReadlinkResponse = files::readlink;
    Filesystem "Link" on Waiting:
        LinkRequest { root_dir, old_path, new_path } about new_path -> LinkResponse = files::link;
    Filesystem "Symlink" on Waiting:
        SymlinkRequest { root_dir, old_path, new_path } about new_path -> SymlinkResponse = files::symlink;
    Filesystem "FileCreate" on Waiting:
        FileCreateRequest { root_dir, path } about path -> FileCreateResponse = files::file_create;
    Filesystem "FileCreateTemp" on Waiting:
        FileCreateTempRequest { root_dir, pattern } about pattern -> FileCreateTempResponse = files::file_create_temp;
    Filesystem "FileOpen" on ConnectionFirst:
        FileOpenRequest { root_dir, flags, perm, path } about path -> FileOpenResponse = files::file_open;
    Filesystem "FileStat" on Waiting:
        FileStatRequest { handle } -> FileStatResponse = files::file_stat;
    Filesystem "FileSeek" on Waiting:
        FileSeekRequest { handle, offset, whence } -> FileSeekResponse = files::file_seek;
    Filesystem "FileSync" on Waiting:
        FileSyncRequest { handle } -> FileSyncResponse = files::file_sync;
    Filesystem "FileClose" on ConnectionFirst:
        FileCloseRequest { handle } -> FileCloseResponse = files::file_close;
    Filesystem "FileTruncate" on Waiting:
        FileTruncateRequest { handle, size } -> FileTruncateResponse = files::file_truncate;
    Filesystem "FileChmod" on Waiting:
        FileChmodRequest { handle, mode } -> FileChmodResponse = files::file_chmod;
    Filesystem "FileChown" on Waiting:
        FileChownRequest { handle, uid, gid } -> FileChownResponse = files::file_chown;
    Filesystem "FileReadSection" on ConnectionFirst:
        FileReadSectionRequest { handle, offset, length } -> FileReadSectionResponse = files::file_read_section;
    Filesystem "FileWriteSection" on Waiting:
        FileWriteSectionRequest { handle, offset, max_length, data, perm } -> FileWriteSectionResponse = files::file_write_section;
    Environment "Getuid" on Connection: GetuidRequest {} -> GetuidResponse = host::getuid;
    Environment "Getgid" on Connection: GetgidRequest {} -> GetgidResponse = host::getgid;
    Environment "Geteuid" on Connection: GeteuidRequest {} -> GeteuidResponse = host::geteuid;
    Environment "Getegid" on Connection: GetegidRequest {} -> GetegidResponse = host::getegid;
    Environment "Getpid" on Connection: GetpidRequest {} -> GetpidResponse = host::getpid;
    Environment "Getppid" on Connection: GetppidRequest {} -> GetppidResponse = host::getppid;
    Environment "GetGroups" on Connection:
        GetGroupsRequest {} -> GetGroupsResponse = host::get_groups;
    Environment "GetEnv" on Connection:
        GetEnvRequest { key } about key -> GetEnvResponse = host::get_env;
    Filesystem "TempDir" on ConnectionFirst:
        TempDirRequest {} -> TempDirResponse = host::temp_dir;
    Environment "UserCacheDir" on Connection:
        UserCacheDirRequest {} -> UserCacheDirResponse = host::user_cache_dir;
    Environment "UserConfigDir" on Connection:
        UserConfigDirRequest {} -> UserConfigDirResponse = host::user_config_dir;
    Environment "UserHomeDir" on Connection:
        UserHomeDirRequest {} -> UserHomeDirResponse = host::user_home_dir;
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
