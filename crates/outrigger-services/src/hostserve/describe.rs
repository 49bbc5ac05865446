//! What the log shows of a request, and how a reply says that it failed.

use bytes::Bytes;
use outrigger_wire::proto::hostserve::*;
use prost_types::Timestamp;

use crate::argument::Argument;

/// A request that can be shown.
pub(crate) trait Describe {
    /// What the request is about; empty when it names nothing.
    fn subject(&self) -> &str;
    /// The fields that are set.
    fn arguments(&self, shown: &mut Argument);
}

/// A reply that can carry a failure.
pub(crate) trait Reply {
    fn failed(error: String) -> Self;
}

trait Field {
    fn put(&self, key: &str, shown: &mut Argument);
}

impl Field for String {
    fn put(&self, key: &str, shown: &mut Argument) {
        if key == "handle" {
            shown.id(key, self);
        } else {
            shown.text(key, self);
        }
    }
}

impl Field for Bytes {
    fn put(&self, key: &str, shown: &mut Argument) {
        shown.bytes(key, self.len());
    }
}

impl Field for Option<Timestamp> {
    fn put(&self, key: &str, shown: &mut Argument) {
        if let Some(time) = self {
            shown.shown(key, format_args!("{}.{:09}", time.seconds, time.nanos));
        }
    }
}

impl Field for Option<FileChunk> {
    fn put(&self, _: &str, _: &mut Argument) {}
}

macro_rules! numbers {
    ($($kind:ty),*) => {$(
        impl Field for $kind {
            fn put(&self, key: &str, shown: &mut Argument) {
                shown.number(key, *self);
            }
        }
    )*};
}

numbers!(u32, i32, u64, i64);

macro_rules! requests {
    ($($message:ident($subject:ident $(, $field:ident)*);)*) => {$(
        impl Describe for $message {
            fn subject(&self) -> &str {
                &self.$subject
            }

            fn arguments(&self, shown: &mut Argument) {
                $(self.$field.put(stringify!($field), shown);)*
                self.$subject.put(stringify!($subject), shown);
            }
        }
    )*};
}

// Each request: what it is about, then its other fields.
requests! {
    ReadDirRequest(path, root_dir);
    ReadFileRequest(path, root_dir);
    WriteFileRequest(path, root_dir, data, perm);
    StatRequest(path, root_dir);
    LstatRequest(path, root_dir);
    RenameRequest(old_name, root_dir, new_name);
    RemoveRequest(path, root_dir);
    RemoveAllRequest(path, root_dir);
    MkdirRequest(name, root_dir, perm);
    MkdirAllRequest(path, root_dir, perm);
    MkdirTempRequest(pattern, root_dir);
    ChmodRequest(path, root_dir, mode);
    ChownRequest(path, root_dir, uid, gid);
    LchownRequest(path, root_dir, uid, gid);
    ChtimesRequest(path, root_dir, atime, mtime);
    ReadlinkRequest(path, root_dir);
    LinkRequest(new_path, root_dir, old_path);
    SymlinkRequest(new_path, root_dir, old_path);
    FileCreateRequest(path, root_dir);
    FileCreateTempRequest(pattern, root_dir);
    FileOpenRequest(path, root_dir, flags, perm);
    GetEnvRequest(key);
}

macro_rules! handle_requests {
    ($($message:ident($($field:ident),*);)*) => {$(
        impl Describe for $message {
            // A handle is authority: replies and logs do not repeat it.
            fn subject(&self) -> &str {
                ""
            }

            fn arguments(&self, shown: &mut Argument) {
                self.handle.put("handle", shown);
                $(self.$field.put(stringify!($field), shown);)*
            }
        }
    )*};
}

handle_requests! {
    FileStatRequest();
    FileSeekRequest(offset, whence);
    FileSyncRequest();
    FileCloseRequest();
    FileTruncateRequest(size);
    FileChmodRequest(mode);
    FileChownRequest(uid, gid);
    FileReadSectionRequest(offset, length);
    FileWriteSectionRequest(offset, max_length, data, perm);
    FileReadRequest(chunk_size);
    FileReadAtRequest(offset, chunk_size);
    FileWriteRequest(chunk);
    FileWriteAtRequest(offset, chunk);
}

macro_rules! empty_requests {
    ($($message:ident),* $(,)?) => {$(
        impl Describe for $message {
            fn subject(&self) -> &str {
                ""
            }

            fn arguments(&self, _: &mut Argument) {}
        }
    )*};
}

empty_requests!(
    GetuidRequest,
    GetgidRequest,
    GeteuidRequest,
    GetegidRequest,
    GetpidRequest,
    GetppidRequest,
    GetGroupsRequest,
    TempDirRequest,
    UserCacheDirRequest,
    UserConfigDirRequest,
    UserHomeDirRequest,
);

macro_rules! replies {
    ($($message:ident),* $(,)?) => {$(
        impl Reply for $message {
            #[allow(clippy::needless_update, reason = "some replies have no other field")]
            fn failed(error: String) -> Self {
                Self { error: Some(error), ..Self::default() }
            }
        }
    )*};
}

replies!(
    ReadDirResponse,
    ReadFileResponse,
    WriteFileResponse,
    StatResponse,
    LstatResponse,
    RenameResponse,
    RemoveResponse,
    RemoveAllResponse,
    MkdirResponse,
    MkdirAllResponse,
    MkdirTempResponse,
    ChmodResponse,
    ChownResponse,
    LchownResponse,
    ChtimesResponse,
    ReadlinkResponse,
    LinkResponse,
    SymlinkResponse,
    FileCreateResponse,
    FileCreateTempResponse,
    FileOpenResponse,
    FileStatResponse,
    FileSeekResponse,
    FileSyncResponse,
    FileCloseResponse,
    FileTruncateResponse,
    FileChmodResponse,
    FileChownResponse,
    FileReadSectionResponse,
    FileWriteSectionResponse,
    FileReadResponse,
    FileReadAtResponse,
    FileWriteResponse,
    FileWriteAtResponse,
    GetuidResponse,
    GetgidResponse,
    GeteuidResponse,
    GetegidResponse,
    GetpidResponse,
    GetppidResponse,
    GetGroupsResponse,
    GetEnvResponse,
    TempDirResponse,
    UserCacheDirResponse,
    UserConfigDirResponse,
    UserHomeDirResponse,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_shows_set_fields_escaped_and_never_contents_or_a_usable_handle() {
        let write = WriteFileRequest {
            root_dir: String::new(),
            path: "a\nb".into(),
            data: Bytes::from_static(b"secret"),
            perm: 0o644,
        };
        let arguments = |request: &dyn Describe| {
            let mut shown = Argument::default();
            request.arguments(&mut shown);
            shown.into_text()
        };
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
