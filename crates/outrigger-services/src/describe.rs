//! What the log shows of a request, and how a reply says that it failed.

use std::fmt::Write;

use bytes::Bytes;
use outrigger_wire::proto::hostserve::*;
use prost_types::Timestamp;

use crate::text::Quoted;

/// How much of a handle the log shows: enough to follow it, too little to use.
const HANDLE_SHOWN: usize = 8;

/// A request that can be shown.
pub(crate) trait Describe {
    /// What the request is about; empty when it names nothing.
    fn subject(&self) -> &str;
    /// The fields that are set, escaped.
    fn arguments(&self) -> String;
}

/// A reply that can carry a failure.
pub(crate) trait Reply {
    fn failed(error: String) -> Self;
}

trait Argument {
    fn put(&self, key: &str, out: &mut String);
}

fn put(key: &str, value: impl std::fmt::Display, out: &mut String) {
    let space = if out.is_empty() { "" } else { " " };
    // Writing to a string cannot fail.
    let _ = write!(out, "{space}{key}={value}");
}

impl Argument for String {
    fn put(&self, key: &str, out: &mut String) {
        if key == "handle" {
            let shown = self.get(..HANDLE_SHOWN).unwrap_or(self);
            put(key, Quoted(shown), out);
        } else if !self.is_empty() {
            put(key, Quoted(self), out);
        }
    }
}

impl Argument for Bytes {
    fn put(&self, key: &str, out: &mut String) {
        put(key, format_args!("{}_bytes", self.len()), out);
    }
}

impl Argument for Option<Timestamp> {
    fn put(&self, key: &str, out: &mut String) {
        if let Some(time) = self {
            put(key, format_args!("{}.{:09}", time.seconds, time.nanos), out);
        }
    }
}

impl Argument for Option<FileChunk> {
    fn put(&self, _: &str, _: &mut String) {}
}

macro_rules! numbers {
    ($($kind:ty),*) => {$(
        impl Argument for $kind {
            fn put(&self, key: &str, out: &mut String) {
                if *self != 0 {
                    put(key, self, out);
                }
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

            fn arguments(&self) -> String {
                let mut out = String::new();
                $(self.$field.put(stringify!($field), &mut out);)*
                self.$subject.put(stringify!($subject), &mut out);
                out
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

            fn arguments(&self) -> String {
                let mut out = String::new();
                self.handle.put("handle", &mut out);
                $(self.$field.put(stringify!($field), &mut out);)*
                out
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

            fn arguments(&self) -> String {
                String::new()
            }
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
        assert_eq!(write.arguments(), r#"data=6_bytes perm=420 path="a\nb""#);
        let handle = "0123456789abcdef0123456789abcdef".to_owned();
        let seek = FileSeekRequest {
            handle,
            offset: 0,
            whence: 2,
        };
        assert_eq!(seek.arguments(), r#"handle="01234567" whence=2"#);
        assert_eq!(seek.subject(), "");
    }
}
