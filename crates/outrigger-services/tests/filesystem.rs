//! `outrigger.host.v1.Filesystem`: what each call does, and under which grant.

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use outrigger_services::{AuditLog, GrantedServices, HardLinks, Limits, Verdict};
use outrigger_wire::proto::host::*;
use rustix::fs::{CWD, FileType, Mode};
use support::grants_with;
use support::peer::{EVERYTHING, Peer, entry, grants, services};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A directory that is granted beside one that is not.
struct Place {
    _base: tempfile::TempDir,
    granted: PathBuf,
    outside: PathBuf,
}

impl Place {
    fn new() -> Self {
        let base = tempfile::tempdir().expect("a directory");
        let top = base.path().canonicalize().expect("its name");
        for (dir, text) in [("granted", "inside"), ("outside", "SECRET")] {
            std::fs::create_dir_all(top.join(dir).join("dir")).expect("a directory");
            std::fs::write(top.join(dir).join("dir/file"), text).expect("a file");
        }
        Self {
            granted: top.join("granted"),
            outside: top.join("outside"),
            _base: base,
        }
    }

    /// The absolute name of something in the granted directory.
    fn at(&self, path: &str) -> String {
        let path = self.granted.join(path);
        path.to_str().expect("UTF-8").to_owned()
    }

    fn services(&self, permissions: &str) -> GrantedServices {
        services(&self.granted, permissions)
    }
}

/// Services under several entries.
fn under(entries: &[(&Path, &str, bool)]) -> GrantedServices {
    let entries: Vec<String> = entries
        .iter()
        .map(|(path, permissions, recursive)| entry(path, permissions, *recursive))
        .collect();
    GrantedServices::new(grants(&format!("{{filesystem: [{}]}}", entries.join(", "))))
}

/// Calls of the service by name.
struct Fs<'a>(&'a Peer);

impl Fs<'_> {
    async fn call<Q, R>(&self, method: &str, request: Q) -> Result<R, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        self.0.call(&format!("Filesystem/{method}"), request).await
    }

    async fn open(&self, path: &str, options: OpenOptions) -> Result<String, Status> {
        let path = path.to_owned();
        let options = Some(options);
        let reply: OpenResponse = self.call("Open", OpenRequest { path, options }).await?;
        Ok(reply.lease)
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, Status> {
        let path = path.to_owned();
        let reply: ReadFileResponse = self.call("ReadFile", ReadFileRequest { path }).await?;
        Ok(reply.data.to_vec())
    }

    async fn write(&self, path: &str, data: &'static str) -> Result<(), Status> {
        let request = WriteFileRequest {
            path: path.into(),
            data: data.into(),
            ..Default::default()
        };
        let _: WriteFileResponse = self.call("WriteFile", request).await?;
        Ok(())
    }

    async fn at(&self, lease: &str, offset: u64, length: u32) -> Result<Vec<u8>, Status> {
        let request = ReadRequest {
            lease: lease.into(),
            offset,
            length,
        };
        let reply: ReadResponse = self.call("Read", request).await?;
        Ok(reply.data.to_vec())
    }

    async fn close(&self, lease: &str) -> Result<(), Status> {
        let lease = lease.to_owned();
        let _: CloseResponse = self.call("Close", CloseRequest { lease }).await?;
        Ok(())
    }

    async fn stat(&self, path: &str) -> Result<FileInfo, Status> {
        let path = path.to_owned();
        let reply: StatResponse = self.call("Stat", StatRequest { path }).await?;
        Ok(reply.info.expect("a successful reply has it"))
    }

    async fn rename(&self, from: &str, to: &str, replace: bool) -> Result<(), Status> {
        let request = RenameRequest {
            from: from.into(),
            to: to.into(),
            replace,
        };
        let _: RenameResponse = self.call("Rename", request).await?;
        Ok(())
    }

    async fn link(&self, existing: &str, new: &str) -> Result<(), Status> {
        let request = LinkRequest {
            existing: existing.into(),
            new: new.into(),
        };
        let _: LinkResponse = self.call("Link", request).await?;
        Ok(())
    }

    async fn copy(&self, from: &str, to: &str, replace: bool) -> Result<u64, Status> {
        let request = CopyRequest {
            from: from.into(),
            to: to.into(),
            replace,
        };
        let reply: CopyResponse = self.call("Copy", request).await?;
        Ok(reply.copied)
    }

    async fn mkdir(&self, path: &str, parents: bool) -> Result<(), Status> {
        let request = MkdirRequest {
            path: path.into(),
            parents,
            mode: 0,
        };
        let _: MkdirResponse = self.call("Mkdir", request).await?;
        Ok(())
    }

    async fn remove(&self, path: &str) -> Result<(), Status> {
        let path = path.to_owned();
        let _: RemoveResponse = self.call("Remove", RemoveRequest { path }).await?;
        Ok(())
    }

    async fn remove_all(&self, path: &str) -> Result<(), Status> {
        let path = path.to_owned();
        let _: RemoveAllResponse = self.call("RemoveAll", RemoveAllRequest { path }).await?;
        Ok(())
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, Status> {
        let request = ListRequest {
            path: path.into(),
            ..Default::default()
        };
        let reply: ListResponse = self.call("List", request).await?;
        let mut names: Vec<_> = reply.entries.into_iter().map(|entry| entry.name).collect();
        names.sort();
        Ok(names)
    }

    async fn chmod(&self, path: &str, mode: u32) -> Result<(), Status> {
        let path = path.to_owned();
        let _: ChmodResponse = self.call("Chmod", ChmodRequest { path, mode }).await?;
        Ok(())
    }
}

const READ: OpenOptions = OpenOptions {
    read: true,
    write: false,
    append: false,
    truncate: false,
    create: false,
    create_new: false,
    mode: 0,
};
const WRITE: OpenOptions = OpenOptions {
    read: false,
    write: true,
    ..READ
};

fn code<T: std::fmt::Debug>(outcome: Result<T, Status>) -> Code {
    outcome.expect_err("it fails").code()
}

fn denied<T: std::fmt::Debug>(outcome: Result<T, Status>) {
    let status = outcome.expect_err("it is refused");
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
}

fn reason(status: &Status) -> (String, std::collections::HashMap<String, String>) {
    let info = status.get_details_error_info().expect("ErrorInfo");
    assert_eq!(info.domain, "outrigger.host");
    (info.reason, info.metadata)
}

async fn leases(fs: &Fs<'_>, place: &Place) {
    let lease = fs
        .open(
            &place.at("new"),
            OpenOptions {
                read: true,
                create_new: true,
                mode: 0o640,
                ..WRITE
            },
        )
        .await
        .expect("made");
    let write = |offset, data: &'static str| WriteRequest {
        lease: lease.clone(),
        offset,
        data: data.into(),
    };
    let reply: WriteResponse = fs.call("Write", write(2, "abcd")).await.expect("written");
    assert_eq!(reply.written, 4);
    assert_eq!(fs.at(&lease, 1, 100).await.expect("read"), b"\0abcd");
    let next = WriteNextRequest {
        lease: lease.clone(),
        data: "xy".into(),
    };
    let _: WriteResponse = fs.call("WriteNext", next).await.expect("written");
    let next = ReadNextRequest {
        lease: lease.clone(),
        length: 3,
    };
    let reply: ReadResponse = fs.call("ReadNext", next).await.expect("read");
    assert_eq!((&reply.data[..], reply.end), (&b"abc"[..], false));
    for (offset, whence, position) in [
        (-1, Whence::Current, 4),
        (-6, Whence::End, 0),
        (5, Whence::Start, 5),
    ] {
        let request = SeekRequest {
            lease: lease.clone(),
            offset,
            whence: whence.into(),
        };
        let reply: SeekResponse = fs.call("Seek", request).await.expect("moved");
        assert_eq!(reply.position, position);
    }
    for data_only in [false, true] {
        let lease = lease.clone();
        let _: SyncResponse = fs
            .call("Sync", SyncRequest { lease, data_only })
            .await
            .expect("synced");
    }
    let request = TruncateRequest {
        lease: lease.clone(),
        size: 3,
        ..Default::default()
    };
    let _: TruncateResponse = fs.call("Truncate", request).await.expect("cut");
    let request = FileChmodRequest {
        lease: lease.clone(),
        mode: 0o600,
    };
    let _: ChmodResponse = fs.call("FileChmod", request).await.expect("changed");
    let request = FileChownRequest {
        lease: lease.clone(),
        uid: Some(rustix::process::geteuid().as_raw()),
        gid: None,
    };
    let _: ChownResponse = fs.call("FileChown", request).await.expect("its own");
    let modified = Some(prost_types::Timestamp {
        seconds: 1_000_000_000,
        nanos: 7,
    });
    let request = FileChtimesRequest {
        lease: lease.clone(),
        accessed: None,
        modified,
    };
    let _: ChtimesResponse = fs.call("FileChtimes", request).await.expect("changed");
    let request = FileStatRequest {
        lease: lease.clone(),
    };
    let reply: StatResponse = fs.call("FileStat", request).await.expect("there");
    let info = reply.info.expect("a successful reply has it");
    assert_eq!(
        (info.name.as_str(), info.size, info.mode),
        ("new", 3, 0o600)
    );
    assert_eq!((info.modified, info.kind()), (modified, FileKind::File));
    fs.close(&lease).await.expect("closed");
    assert_eq!(code(fs.close(&lease).await), Code::NotFound);
    assert_eq!(code(fs.at(&lease, 0, 1).await), Code::NotFound);

    let request = CreateRequest {
        path: place.at("created"),
        mode: 0,
    };
    let reply: OpenResponse = fs.call("Create", request).await.expect("made");
    fs.close(&reply.lease).await.expect("closed");
    assert_eq!(
        fs.stat(&place.at("created")).await.expect("there").mode,
        0o600
    );

    let path = place.at("dir");
    let reply: OpenDirResponse = fs
        .call("OpenDir", OpenDirRequest { path })
        .await
        .expect("opened");
    let open_at = |path: &str| OpenAtRequest {
        lease: reply.lease.clone(),
        path: path.into(),
        options: None,
    };
    let file: OpenResponse = fs.call("OpenAt", open_at("file")).await.expect("opened");
    assert_eq!(fs.at(&file.lease, 0, 10).await.expect("read"), b"inside");
    for path in ["../new", "/etc/passwd", "x/../../new"] {
        denied(fs.call::<_, OpenResponse>("OpenAt", open_at(path)).await);
    }
    fs.close(&file.lease).await.expect("closed");
    fs.close(&reply.lease).await.expect("closed");
}

async fn streams(fs: &Fs<'_>, place: &Place) {
    let lease = fs
        .open(
            &place.at("streamed"),
            OpenOptions {
                read: true,
                create: true,
                ..WRITE
            },
        )
        .await
        .expect("made");
    let parts = (0..40).map(|part| WriteStreamRequest {
        lease: if part == 0 {
            lease.clone()
        } else {
            String::new()
        },
        offset: if part == 0 { 3 } else { 0 },
        data: vec![part; 70_000].into(),
    });
    let parts: Vec<_> = parts.collect();
    let reply: WriteStreamResponse =
        fs.0.upload("Filesystem/WriteStream", futures_util::stream::iter(parts))
            .await
            .expect("written");
    assert_eq!(reply.written, 40 * 70_000);
    for (chunk, length) in [(0, 0), (1 << 20, 0), (1000, 5500)] {
        let request = ReadStreamRequest {
            lease: lease.clone(),
            offset: 1,
            length,
            chunk,
        };
        let parts: Vec<Result<ReadStreamResponse, _>> =
            fs.0.download("Filesystem/ReadStream", request).await;
        let data: Vec<u8> = parts
            .into_iter()
            .flat_map(|part| part.expect("a part").data)
            .collect();
        let whole = 2 + 40 * 70_000;
        let expected = if length == 0 { whole } else { 5500 };
        assert_eq!(data.len(), expected);
        assert!(
            data.iter()
                .enumerate()
                .all(|(at, byte)| { usize::from(*byte) == at.saturating_sub(2) / 70_000 })
        );
    }
    fs.close(&lease).await.expect("closed");
}

async fn paths(fs: &Fs<'_>, place: &Place) {
    fs.write(&place.at("file"), "hello").await.expect("written");
    assert_eq!(
        fs.read("file")
            .await
            .expect("relative to the only directory"),
        b"hello"
    );
    let request = WriteFileRequest {
        path: place.at("file"),
        create_new: true,
        ..Default::default()
    };
    assert_eq!(
        code(fs.call::<_, WriteFileResponse>("WriteFile", request).await),
        Code::AlreadyExists
    );
    let request = AppendRequest {
        path: place.at("file"),
        data: " there".into(),
        mode: 0,
    };
    let reply: AppendResponse = fs.call("Append", request).await.expect("written");
    assert_eq!(reply.size, 11);
    assert_eq!(
        fs.copy(&place.at("file"), &place.at("copy"), false)
            .await
            .expect("copied"),
        11
    );
    assert_eq!(
        code(fs.copy("file", "copy", false).await),
        Code::AlreadyExists
    );
    assert_eq!(
        code(fs.copy("file", "file", true).await),
        Code::InvalidArgument
    );
    assert_eq!(fs.read("copy").await.expect("there"), b"hello there");

    let request = ExistsRequest {
        path: place.at("copy"),
    };
    let reply: ExistsResponse = fs.call("Exists", request).await.expect("known");
    assert!(reply.exists);
    let request = ExistsRequest {
        path: place.at("missing/x"),
    };
    let reply: ExistsResponse = fs.call("Exists", request).await.expect("known");
    assert!(!reply.exists);
    let missing = fs.stat("missing").await.expect_err("it is not there");
    assert_eq!(missing.code(), Code::NotFound);
    let (reason, metadata) = reason(&missing);
    assert_eq!(reason, "not-found");
    assert_eq!(metadata["operation"], "filesystem.stat");
    assert_eq!(metadata["errno"], "ENOENT");

    fs.mkdir("a/b/c", true).await.expect("made");
    fs.mkdir("a/b/c", true).await.expect("there already");
    assert_eq!(code(fs.mkdir("a", false).await), Code::AlreadyExists);
    assert_eq!(
        std::fs::metadata(place.at("a")).expect("there").mode() & 0o777,
        0o700
    );
    fs.rename("copy", "a/b/moved", false).await.expect("moved");
    fs.write("copy", "2").await.expect("written");
    assert_eq!(
        code(fs.rename("copy", "a/b/moved", false).await),
        Code::AlreadyExists
    );
    fs.rename("copy", "a/b/moved", true)
        .await
        .expect("replaced");
    assert_eq!(fs.read("a/b/moved").await.expect("there"), b"2");
    let status = fs.remove("a").await.expect_err("it is not empty");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(self::reason(&status).1["errno"], "ENOTEMPTY");

    let request = SymlinkRequest {
        target: "b/moved".into(),
        new: "a/link".into(),
    };
    let _: SymlinkResponse = fs.call("Symlink", request).await.expect("made");
    let request = ReadlinkRequest {
        path: "a/link".into(),
    };
    let reply: ReadlinkResponse = fs.call("Readlink", request).await.expect("a link");
    assert_eq!(reply.target, "b/moved");
    let request = LstatRequest {
        path: "a/link".into(),
    };
    let reply: StatResponse = fs.call("Lstat", request).await.expect("there");
    assert_eq!(reply.info.expect("info").kind(), FileKind::Symlink);
    assert_eq!(
        fs.stat("a/link").await.expect("there").kind(),
        FileKind::File
    );
    assert_eq!(fs.read("a/link").await.expect("followed"), b"2");
    fs.link("a/b/moved", "a/hard").await.expect("made");
    assert_eq!(fs.stat("a/hard").await.expect("there").links, 2);
    fs.remove("a/hard").await.expect("removed");
    fs.remove("a/link").await.expect("removed");
    fs.chmod("a/b/moved", 0o640).await.expect("changed");
    assert_eq!(fs.stat("a/b/moved").await.expect("there").mode, 0o640);
    let request = ChownRequest {
        path: "a/b/moved".into(),
        uid: None,
        gid: Some(rustix::process::getegid().as_raw()),
        no_follow: true,
    };
    let _: ChownResponse = fs.call("Chown", request).await.expect("its own");
    let modified = Some(prost_types::Timestamp {
        seconds: 5,
        nanos: 0,
    });
    let request = ChtimesRequest {
        path: "a/b/moved".into(),
        accessed: modified,
        modified,
    };
    let _: ChtimesResponse = fs.call("Chtimes", request).await.expect("changed");
    assert_eq!(
        fs.stat("a/b/moved").await.expect("there").modified,
        modified
    );
    let request = TruncateRequest {
        path: "a/b/moved".into(),
        size: 100,
        ..Default::default()
    };
    let _: TruncateResponse = fs.call("Truncate", request).await.expect("grown");
    assert_eq!(fs.stat("a/b/moved").await.expect("there").size, 100);
    assert_eq!(fs.list("a").await.expect("listed"), ["b"]);
    fs.remove_all("a").await.expect("removed");
    fs.remove_all("a").await.expect("nothing there is fine");
    let unjudged = fs.remove_all("missing/../b").await;
    assert_eq!(unjudged.expect_err("no such way").code(), Code::NotFound);
    let request = ListStreamRequest { path: place.at("") };
    let pages: Vec<Result<ListStreamResponse, _>> =
        fs.0.download("Filesystem/ListStream", request).await;
    let names: usize = pages
        .iter()
        .map(|page| page.as_ref().expect("a page").entries.len())
        .sum();
    assert_eq!(names, 4);
}

async fn temporary(fs: &Fs<'_>) {
    let pattern = "made-*.d".to_owned();
    let reply: TempDirResponse = fs
        .call("TempDir", TempDirRequest { pattern })
        .await
        .expect("made");
    let (dir, note) = (reply.path.clone(), format!("{}/note", reply.path));
    assert!(dir.contains("/made-") && dir.ends_with(".d"), "{dir}");
    fs.write(&note, "temporary").await.expect("written");
    assert_eq!(fs.read(&note).await.expect("read"), b"temporary");
    let pattern = "file-".to_owned();
    let reply: TempFileResponse = fs
        .call("TempFile", TempFileRequest { pattern })
        .await
        .expect("made");
    let request = WriteRequest {
        lease: reply.lease.clone(),
        offset: 0,
        data: "x".into(),
    };
    let _: WriteResponse = fs.call("Write", request).await.expect("written");
    assert_eq!(fs.read(&reply.path).await.expect("read"), b"x");
    let pattern = "a/b".to_owned();
    let refused = fs
        .call::<_, TempDirResponse>("TempDir", TempDirRequest { pattern })
        .await;
    assert_eq!(code(refused), Code::InvalidArgument);
}

#[tokio::test]
async fn every_call_of_the_contract_does_what_it_says() {
    let place = Place::new();
    let peer = Peer::new(&place.services(EVERYTHING), "worker").await;
    let fs = Fs(&peer);
    leases(&fs, &place).await;
    streams(&fs, &place).await;
    for name in ["new", "created", "streamed"] {
        fs.remove(name).await.expect("removed");
    }
    for name in ["one", "two", "three"] {
        fs.write(name, "").await.expect("written");
    }
    fs.remove("three").await.expect("removed");
    paths(&fs, &place).await;
    temporary(&fs).await;
    let request = WatchRequest {
        path: place.at(""),
        recursive: false,
    };
    let mut changes = peer
        .start::<_, WatchResponse>("Filesystem/Watch", request)
        .await;
    let ready = changes.next().await.expect("a message").expect("no error");
    assert_eq!(ready.kind(), ChangeKind::Ready);
    drop(changes);

    use prost::Message;
    let descriptors = outrigger_services::HOST_SERVICES_DESCRIPTORS;
    let contract = prost_types::FileDescriptorSet::decode(descriptors).expect("descriptors");
    let methods: std::collections::BTreeSet<String> = contract
        .file
        .iter()
        .flat_map(|file| &file.service)
        .filter(|service| service.name() == "Filesystem")
        .flat_map(|service| &service.method)
        .map(|method| format!("Filesystem/{}", method.name()))
        .collect();
    assert_eq!(methods.len(), 40);
    let untested: Vec<_> = methods.difference(&peer.called()).cloned().collect();
    assert_eq!(untested, Vec::<String>::new(), "calls without a test");
    peer.close().await;
}

/// What each right allows on its own, and what it does not.
#[tokio::test]
async fn each_right_allows_what_it_says_and_nothing_else() {
    for right in ["read", "write", "list", "create", "delete"] {
        let place = Place::new();
        std::fs::write(place.granted.join("victim"), "x").expect("a file");
        let peer = Peer::new(&place.services(right), right).await;
        let fs = Fs(&peer);
        let check = |allowed: &[&str], what: &str, outcome: Result<(), Status>| {
            if allowed.contains(&right) {
                outcome.unwrap_or_else(|status| panic!("{right} {what}: {status}"));
            } else {
                denied(outcome);
            }
        };
        check(&["read"], "read", fs.read("dir/file").await.map(drop));
        check(&["read"], "open", fs.open("dir/file", READ).await.map(drop));
        check(
            &["write"],
            "open to write",
            fs.open("dir/file", WRITE).await.map(drop),
        );
        let both = OpenOptions {
            read: true,
            ..WRITE
        };
        check(
            &[],
            "open to read and write",
            fs.open("dir/file", both).await.map(drop),
        );
        let truncate = OpenOptions {
            truncate: true,
            ..WRITE
        };
        check(
            &["write"],
            "truncate",
            fs.open("dir/file", truncate).await.map(drop),
        );
        let create = OpenOptions {
            create: true,
            ..WRITE
        };
        check(
            &["write"],
            "create what is there",
            fs.open("dir/file", create).await.map(drop),
        );
        check(&[], "create", fs.open("dir/made", create).await.map(drop));
        check(&["write"], "write", fs.write("dir/file", "changed").await);
        check(
            &["read", "list"],
            "stat",
            fs.stat("dir/file").await.map(drop),
        );
        let request = ExistsRequest {
            path: "dir/missing".into(),
        };
        let exists = fs.call::<_, ExistsResponse>("Exists", request).await;
        check(&["read", "list"], "exists", exists.map(drop));
        check(&["list"], "list", fs.list("dir").await.map(drop));
        let request = OpenDirRequest { path: "dir".into() };
        let opened = fs.call::<_, OpenDirResponse>("OpenDir", request).await;
        check(&["list"], "open a directory", opened.map(drop));
        check(&["create"], "mkdir", fs.mkdir("made", false).await);
        check(&["create"], "mkdir all", fs.mkdir("x/y", true).await);
        let request = SymlinkRequest {
            target: "dir".into(),
            new: "link".into(),
        };
        let link = fs.call::<_, SymlinkResponse>("Symlink", request).await;
        check(&["create"], "symlink", link.map(drop));
        check(&["write"], "chmod", fs.chmod("dir/file", 0o600).await);
        let request = ChtimesRequest {
            path: "dir/file".into(),
            ..Default::default()
        };
        let times = fs.call::<_, ChtimesResponse>("Chtimes", request).await;
        check(&["write"], "chtimes", times.map(drop));
        check(&[], "link", fs.link("dir/file", "hard").await);
        check(&[], "rename", fs.rename("dir/file", "moved", false).await);
        check(
            &[],
            "copy",
            fs.copy("dir/file", "copied", false).await.map(drop),
        );
        check(&["delete"], "remove", fs.remove("victim").await);
        check(&["delete"], "remove all", fs.remove_all("dir").await);
        let request = WatchRequest {
            path: place.at(""),
            recursive: true,
        };
        let watch = peer.download::<_, WatchResponse>("Filesystem/Watch", request);
        let watched = tokio::time::timeout(Duration::from_millis(50), watch).await;
        assert_eq!(
            watched.is_err(),
            right == "list",
            "{right}: a watch goes on"
        );
        peer.close().await;
    }
}

#[tokio::test]
async fn a_grant_covers_as_much_as_it_says() {
    let place = Place::new();
    let granted = &place.granted;
    std::fs::create_dir_all(granted.join("flat/deep")).expect("a directory");
    for file in ["flat/file", "flat/deep/file", "single", "beside"] {
        std::fs::write(granted.join(file), file).expect("a file");
    }
    std::os::unix::fs::symlink("deep/file", granted.join("flat/link")).expect("a link");
    std::os::unix::fs::symlink("beside", granted.join("single-link")).expect("a link");
    let services = under(&[
        (&granted.join("flat"), EVERYTHING, false),
        (&granted.join("single"), "read, write, delete", false),
        (&granted.join("later"), "read, write, create", false),
        (&granted.join("missing"), "read", true),
    ]);
    let unusable: Vec<_> = services.unusable().map(ToString::to_string).collect();
    let text = format!(
        "{:?} is granted and cannot be served: no such file or directory",
        place.at("missing")
    );
    assert_eq!(unusable, [text]);
    let peer = Peer::new(&services, "flat").await;
    let fs = Fs(&peer);
    // Not recursive: itself and what is in it, not what is below.
    assert_eq!(
        fs.list(&place.at("flat")).await.expect("listed"),
        ["deep", "file", "link"]
    );
    denied(fs.list(&place.at("flat/deep")).await);
    assert_eq!(
        fs.stat(&place.at("flat/deep")).await.expect("known").name,
        "deep"
    );
    assert_eq!(
        fs.read(&place.at("flat/file")).await.expect("there"),
        b"flat/file"
    );
    denied(fs.read(&place.at("flat/deep/file")).await);
    denied(fs.read(&place.at("flat/link")).await);
    denied(fs.read(&place.at("flat/deep/../deep/file")).await);
    denied(fs.write(&place.at("flat/deep/new"), "x").await);
    denied(fs.mkdir(&place.at("flat/a/b"), true).await);
    // What is in it is not granted, so it must be empty.
    assert_eq!(
        code(fs.remove_all(&place.at("flat/deep")).await),
        Code::FailedPrecondition
    );
    fs.mkdir(&place.at("flat/empty"), false)
        .await
        .expect("made");
    fs.remove_all(&place.at("flat/empty"))
        .await
        .expect("removed");
    // A single file, also when it is replaced.
    fs.write(&place.at("single"), "changed")
        .await
        .expect("written");
    denied(fs.read(&place.at("beside")).await);
    denied(fs.list(&place.at("")).await);
    denied(fs.stat(&place.at("")).await);
    std::fs::rename(granted.join("beside"), granted.join("single")).expect("replaced");
    assert_eq!(
        fs.read(&place.at("single")).await.expect("there"),
        b"beside"
    );
    std::fs::rename(granted.join("single-link"), granted.join("single")).expect("replaced");
    denied(fs.read(&place.at("single")).await);
    fs.remove(&place.at("single"))
        .await
        .expect("the link itself");
    // A file that may be made.
    assert_eq!(code(fs.read(&place.at("later")).await), Code::NotFound);
    fs.write(&place.at("later"), "made").await.expect("made");
    assert_eq!(fs.read(&place.at("later")).await.expect("there"), b"made");
    // What did not exist is refused, whatever happens later.
    std::fs::create_dir(granted.join("missing")).expect("a directory");
    std::fs::write(granted.join("missing/file"), "x").expect("a file");
    denied(fs.read(&place.at("missing/file")).await);
    // The only directory that can be served.
    assert_eq!(fs.read("file").await.expect("there"), b"flat/file");
    peer.close().await;
}

#[tokio::test]
async fn what_is_granted_by_name_stays_a_file_or_directory() {
    let place = Place::new();
    let granted = &place.granted;
    for file in ["app.json", "secrets.json", "private/key"] {
        std::fs::create_dir_all(granted.join("private")).expect("a directory");
        std::fs::write(granted.join(file), file).expect("a file");
    }
    let file = granted.join("app.json");
    let alone = under(&[(&file, "read, write, create, delete", false)]);
    let around = under(&[
        (granted, EVERYTHING, true),
        (&file, EVERYTHING, false),
        (&granted.join("later/sub"), EVERYTHING, true),
    ]);
    let path = place.at("app.json");
    let symlink = async |fs: &Fs<'_>, target: &str, new: &str| {
        let (target, new) = (target.to_owned(), place.at(new));
        let request = SymlinkRequest { target, new };
        fs.call::<_, SymlinkResponse>("Symlink", request).await
    };
    for services in [&alone, &around] {
        let peer = Peer::new(services, "linker").await;
        let fs = Fs(&peer);
        fs.remove(&path).await.expect("removed");
        denied(symlink(&fs, "secrets.json", "app.json").await);
        denied(fs.mkdir(&path, false).await);
        fs.write(&path, "again").await.expect("a file");
        peer.close().await;
    }
    let peer = Peer::new(&around, "mover").await;
    let fs = Fs(&peer);
    symlink(&fs, "secrets.json", "link").await.expect("made");
    fs.mkdir(&place.at("made"), false).await.expect("made");
    for other in ["link", "made"] {
        fs.remove(&path).await.expect("removed");
        denied(fs.rename(&place.at(other), &path, true).await);
        fs.write(&path, "again").await.expect("a file");
        denied(fs.rename(&place.at(other), &path, true).await);
    }
    fs.write(&place.at("new"), "new").await.expect("written");
    fs.rename(&place.at("new"), &path, true)
        .await
        .expect("a file");
    fs.remove(&path).await.expect("removed");
    fs.link(&place.at("secrets.json"), &path)
        .await
        .expect("a file, with its own rights");
    // What does not exist yet is looked for by its name, too.
    denied(symlink(&fs, "private", "later").await);
    symlink(&fs, "key", "private/sub").await.expect("made");
    denied(
        fs.rename(&place.at("private"), &place.at("later"), true)
            .await,
    );
    fs.mkdir(&place.at("later"), false)
        .await
        .expect("a new one");
    denied(symlink(&fs, "x", "later/sub").await);
    denied(
        fs.rename(&place.at("private/sub"), &place.at("later/sub"), true)
            .await,
    );
    fs.mkdir(&place.at("later/sub"), false)
        .await
        .expect("a new one");
    peer.close().await;
}

/// Whether something exists that is not granted cannot be asked for by going
/// through it.
#[tokio::test]
async fn nothing_is_learnt_of_what_lies_on_the_way() {
    let place = Place::new();
    let granted = &place.granted;
    std::fs::create_dir_all(granted.join("flat/sub/deep")).expect("directories");
    for file in ["flat/known", "flat/sub/file"] {
        std::fs::write(granted.join(file), "known").expect("a file");
    }
    std::os::unix::fs::symlink("sub/deep/../../known", granted.join("flat/link")).expect("a link");
    std::os::unix::fs::symlink("sub/none/../../known", granted.join("flat/none")).expect("a link");
    let (log, mut records) = AuditLog::channel(100);
    let services = under(&[(&granted.join("flat"), "read, write", false)]).audit(log);
    let peer = Peer::new(&services, "prober").await;
    let fs = Fs(&peer);
    for path in [
        "sub/deep/../../known",
        "sub/none/../../known",
        "sub/file/../../known",
        "sub/deep/../../missing",
        "link",
        "none",
    ] {
        let path = place.at(&format!("flat/{path}"));
        for status in [
            fs.read(&path).await.expect_err("refused"),
            fs.write(&path, "x").await.expect_err("refused"),
            fs.mkdir(&path, true).await.expect_err("refused"),
        ] {
            assert_eq!(status.code(), Code::PermissionDenied, "{path}: {status}");
            assert_eq!(reason(&status).0, "not-granted", "{path}");
            let record = records.recv().await.expect("a record");
            assert_eq!(record.verdict, Verdict::Refused, "{path}");
        }
    }
    // Its own entries may be gone through.
    assert_eq!(
        fs.read(&place.at("flat/sub/../known")).await.expect("read"),
        b"known"
    );
    let missing = fs.read(&place.at("flat/missing/../known")).await;
    assert_eq!(code(missing), Code::NotFound);
    peer.close().await;
}

#[tokio::test]
async fn a_trailing_slash_is_for_directories() {
    let place = Place::new();
    let granted = &place.granted;
    std::fs::write(granted.join("file"), "kept").expect("a file");
    std::os::unix::fs::symlink("file", granted.join("link")).expect("a link");
    let peer = Peer::new(&place.services(EVERYTHING), "slasher").await;
    let fs = Fs(&peer);
    let wrong = |outcome: Result<(), Status>| {
        let status = outcome.expect_err("it is no directory");
        assert_eq!(reason(&status).1["errno"], "ENOTDIR", "{status}");
    };
    wrong(fs.remove("file/").await);
    wrong(fs.remove_all("file/").await);
    wrong(fs.rename("file/", "moved", false).await);
    wrong(fs.rename("file", "moved/", false).await);
    wrong(fs.rename("link", "moved/", false).await);
    wrong(fs.link("file/", "second").await);
    wrong(fs.link("file", "second/").await);
    let request = LstatRequest {
        path: "file/".into(),
    };
    wrong(fs.call::<_, StatResponse>("Lstat", request).await.map(drop));
    let request = SymlinkRequest {
        target: "file".into(),
        new: "made/".into(),
    };
    wrong(
        fs.call::<_, SymlinkResponse>("Symlink", request)
            .await
            .map(drop),
    );
    assert_eq!(fs.read("file").await.expect("there"), b"kept");
    fs.mkdir("made/", false).await.expect("a directory");
    fs.rename("made/", "moved/", false).await.expect("moved");
    fs.remove("moved/").await.expect("removed");
    // A link stands for itself.
    fs.remove("link/").await.expect("removed");
    assert_eq!(fs.read("file").await.expect("there"), b"kept");
    peer.close().await;
}

#[tokio::test]
async fn grants_in_each_other_add_up_and_keep_their_directories() {
    let place = Place::new();
    let granted = &place.granted;
    std::fs::create_dir_all(granted.join("in/out/deep")).expect("directories");
    std::fs::write(granted.join("in/file"), "in").expect("a file");
    let services = under(&[
        (&granted.join("in"), "read, list, delete", true),
        (&granted.join("in/out"), "write, create", true),
    ]);
    let peer = Peer::new(&services, "nested").await;
    let fs = Fs(&peer);
    denied(fs.write(&place.at("in/file"), "x").await);
    fs.write(&place.at("in/out/deep/new"), "x")
        .await
        .expect("written");
    assert_eq!(
        fs.read(&place.at("in/out/deep/new")).await.expect("read"),
        b"x"
    );
    // A relative path would be ambiguous.
    assert_eq!(code(fs.read("in/file").await), Code::InvalidArgument);
    // The inner grant's directory cannot be moved away, alone or with others.
    for path in ["in/out", "in"] {
        denied(fs.remove_all(&place.at(path)).await);
        denied(
            fs.rename(&place.at(path), &place.at("in/out/x"), true)
                .await,
        );
    }
    // What could only be read would become writable.
    denied(
        fs.rename(&place.at("in/file"), &place.at("in/out/file"), false)
            .await,
    );
    denied(
        fs.link(&place.at("in/file"), &place.at("in/out/file"))
            .await,
    );
    let copied = fs
        .copy(&place.at("in/file"), &place.at("in/out/file"), false)
        .await;
    assert_eq!(copied.expect("a copy is a new file"), 2);
    // Names without links are the same names.
    std::os::unix::fs::symlink(granted.join("in"), granted.join("alias")).expect("a link");
    let services = under(&[
        (&granted.join("alias"), "read, list, delete, create", true),
        (&granted.join("in/out"), EVERYTHING, true),
    ]);
    let other = Peer::new(&services, "aliased").await;
    let fs = Fs(&other);
    assert_eq!(
        fs.read(&place.at("alias/file")).await.expect("there"),
        b"in"
    );
    denied(
        fs.rename(&place.at("alias/file"), &place.at("alias/out/moved"), false)
            .await,
    );
    denied(fs.remove_all(&place.at("alias/out")).await);
    other.close().await;
    peer.close().await;
}

#[tokio::test]
async fn nothing_leads_out_of_a_grant() {
    let place = Place::new();
    let (granted, outside) = (&place.granted, &place.outside);
    std::os::unix::fs::symlink(outside, granted.join("absolute")).expect("a link");
    std::os::unix::fs::symlink("../outside", granted.join("up")).expect("a link");
    std::os::unix::fs::symlink(outside.join("dir/file"), granted.join("file")).expect("a link");
    std::os::unix::fs::symlink(granted.join("dir"), granted.join("inner")).expect("a link");
    std::os::unix::fs::symlink("loop", granted.join("loop")).expect("a link");
    let peer = Peer::new(&place.services(EVERYTHING), "escaper").await;
    let fs = Fs(&peer);
    let secret = outside.join("dir/file");
    for path in [
        "../outside/dir/file",
        "dir/../../outside/dir/file",
        secret.to_str().expect("UTF-8"),
        "absolute/dir/file",
        "absolute/",
        "up/dir/file",
        "up/",
        "file",
        "file/",
        "/etc/passwd",
        "/proc/self/root/etc/passwd",
    ] {
        denied(fs.read(path).await);
        denied(fs.write(path, "x").await);
        denied(fs.stat(path).await);
        denied(fs.list(path).await);
        denied(fs.chmod(path, 0).await);
    }
    assert_eq!(
        fs.read("inner/file").await.expect("it stays inside"),
        b"inside"
    );
    assert_eq!(
        fs.read(&place.at("inner/../dir/file"))
            .await
            .expect("inside"),
        b"inside"
    );
    let status = fs.read("loop").await.expect_err("a loop");
    assert_eq!(reason(&status).1["errno"], "ELOOP");
    // Deleting does not follow.
    for path in ["absolute", "up", "file"] {
        fs.remove_all(path).await.expect("the link itself");
    }
    assert_eq!(std::fs::read(secret).expect("there"), b"SECRET");
    for (path, expected) in [
        (String::new(), Code::InvalidArgument),
        ("a\0b".into(), Code::InvalidArgument),
        ("dir/".repeat(10_000), Code::InvalidArgument),
        ("x".repeat(300), Code::InvalidArgument),
        ("dir/file/".into(), Code::FailedPrecondition),
        ("dir/file/x".into(), Code::FailedPrecondition),
        ("dir".into(), Code::FailedPrecondition),
    ] {
        assert_eq!(
            code(fs.read(&path).await),
            expected,
            "{}",
            &path[..path.len().min(20)]
        );
    }
    for target in ["..", "../outside", "/etc/passwd", "dir/../../x"] {
        let request = SymlinkRequest {
            target: target.into(),
            new: "made".into(),
        };
        denied(fs.call::<_, SymlinkResponse>("Symlink", request).await);
    }
    peer.close().await;
}

#[tokio::test]
async fn special_files_are_refused_without_waiting() {
    let place = Place::new();
    let fifo = place.granted.join("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).expect("a fifo");
    let _socket =
        std::os::unix::net::UnixListener::bind(place.granted.join("socket")).expect("a socket");
    let entries: [(&Path, &str, bool); 3] = [
        (&place.granted, EVERYTHING, true),
        (Path::new("/dev"), "read, write, list", true),
        (Path::new("/proc"), "read, list", true),
    ];
    let peer = Peer::new(&under(&entries), "opener").await;
    let fs = Fs(&peer);
    let all = async {
        for path in [place.at("fifo"), "/dev/null".into(), "/dev/zero".into()] {
            denied(fs.read(&path).await);
            denied(
                fs.open(
                    &path,
                    OpenOptions {
                        read: true,
                        ..WRITE
                    },
                )
                .await,
            );
            fs.open(&path, WRITE).await.expect_err("refused");
            denied(fs.chmod(&path, 0o777).await);
        }
        assert_eq!(
            code(fs.read(&place.at("socket")).await),
            Code::FailedPrecondition
        );
        // Magic links are links like others: they lead out.
        for path in ["root/etc/passwd", "cwd/Cargo.toml", "exe", "fd/0"] {
            let status = fs
                .read(&format!("/proc/self/{path}"))
                .await
                .expect_err("refused");
            assert_eq!(status.code(), Code::PermissionDenied, "{path}: {status}");
        }
        assert!(!fs.read("/proc/version").await.expect("readable").is_empty());
        let request = LstatRequest {
            path: place.at("fifo"),
        };
        let reply: StatResponse = fs.call("Lstat", request).await.expect("there");
        assert_eq!(reply.info.expect("info").kind(), FileKind::Other);
    };
    tokio::time::timeout(Duration::from_secs(20), all)
        .await
        .expect("without waiting");
    peer.close().await;
}

#[tokio::test]
async fn files_with_several_names_are_read_only_unless_the_host_says_otherwise() {
    let place = Place::new();
    let hard = place.granted.join("hard");
    std::fs::hard_link(place.outside.join("dir/file"), &hard).expect("a link");
    let peer = Peer::new(&place.services(EVERYTHING), "writer").await;
    let fs = Fs(&peer);
    assert_eq!(
        fs.read("hard").await.expect("reading is granted"),
        b"SECRET"
    );
    denied(fs.write("hard", "x").await);
    denied(fs.open("hard", WRITE).await);
    denied(
        fs.open(
            "hard",
            OpenOptions {
                truncate: true,
                ..WRITE
            },
        )
        .await,
    );
    denied(fs.chmod("hard", 0o777).await);
    denied(fs.copy("dir/file", "hard", true).await);
    let request = TruncateRequest {
        path: "hard".into(),
        ..Default::default()
    };
    denied(fs.call::<_, TruncateResponse>("Truncate", request).await);
    assert_eq!(std::fs::read(&hard).expect("there"), b"SECRET");
    fs.remove("hard")
        .await
        .expect("a name is removed, not a file");
    peer.close().await;
    std::fs::hard_link(place.outside.join("dir/file"), &hard).expect("a link");
    let services = place.services(EVERYTHING).hard_links(HardLinks::Writable);
    let peer = Peer::new(&services, "writer").await;
    Fs(&peer).write("hard", "changed").await.expect("written");
    peer.close().await;
}

#[tokio::test]
async fn a_directory_of_any_size_is_listed_in_pages() {
    use std::os::unix::ffi::OsStrExt;

    let place = Place::new();
    let many = place.granted.join("many");
    std::fs::create_dir(&many).expect("a directory");
    let expected = 12_000;
    for number in 0..expected {
        std::fs::File::create(many.join(format!("entry-{number}"))).expect("a file");
    }
    for number in 0..3 {
        let name = [b"odd-", &[0xff, number + 1][..]].concat();
        std::fs::File::create(many.join(std::ffi::OsStr::from_bytes(&name))).expect("a file");
    }
    let peer = Peer::new(&place.services("list"), "lister").await;
    let fs = Fs(&peer);
    for limit in [0, 777, 50_000] {
        let (mut names, mut unreadable, mut cookie, mut pages) =
            (std::collections::BTreeSet::new(), 0, String::new(), 0);
        loop {
            let request = ListRequest {
                path: "many".into(),
                limit,
                cookie: cookie.clone(),
            };
            let reply: ListResponse = fs.call("List", request).await.expect("a page");
            assert!(reply.entries.len() <= 16_384);
            for entry in reply.entries {
                assert_eq!(entry.kind(), FileKind::File);
                assert!(names.insert(entry.name), "listed twice");
            }
            unreadable += reply.unreadable;
            pages += 1;
            if reply.next.is_empty() {
                break;
            }
            cookie = reply.next;
            // Other listings push this one out: it goes on where it was.
            if pages % 5 == 0 {
                for _ in 0..6 {
                    let request = ListRequest {
                        path: "many".into(),
                        limit: 1,
                        ..Default::default()
                    };
                    let _: ListResponse = fs.call("List", request).await.expect("a page");
                }
            }
        }
        assert_eq!((names.len(), unreadable), (expected, 3), "limit {limit}");
    }
    let request = |path: &str, cookie: &str| ListRequest {
        path: path.into(),
        limit: 5,
        cookie: cookie.into(),
    };
    let first: ListResponse = fs.call("List", request("many", "")).await.expect("a page");
    let other = fs
        .call::<_, ListResponse>("List", request("dir", &first.next))
        .await;
    assert_eq!(code(other), Code::InvalidArgument);
    for cookie in ["x", "+", &"f".repeat(31), &"g".repeat(40), "é"] {
        let forged = fs
            .call::<_, ListResponse>("List", request("many", cookie))
            .await;
        assert_eq!(code(forged), Code::InvalidArgument, "{cookie}");
    }
    peer.close().await;
}

#[tokio::test]
async fn changes_are_reported_until_the_call_ends_and_none_from_outside() {
    let place = Place::new();
    let peer = Peer::new(&place.services("list"), "watcher").await;
    let request = WatchRequest {
        path: place.at(""),
        recursive: true,
    };
    let mut changes = peer
        .start::<_, WatchResponse>("Filesystem/Watch", request)
        .await;
    let mut next = async || {
        let change = tokio::time::timeout(Duration::from_secs(20), changes.next()).await;
        let change = change
            .expect("in time")
            .expect("a message")
            .expect("no error");
        (change.kind(), change.path)
    };
    assert_eq!(next().await.0, ChangeKind::Ready);
    let mut until = async |kind: ChangeKind, path: &str| {
        let expected = (kind, place.at(path));
        loop {
            let change = next().await;
            assert!(!change.1.contains("outside"), "{change:?}");
            if change == expected {
                break;
            }
        }
    };
    std::fs::write(place.granted.join("one"), "x").expect("a file");
    until(ChangeKind::Created, "one").await;
    std::fs::write(place.granted.join("dir/file"), "changed").expect("a file");
    until(ChangeKind::Modified, "dir/file").await;
    // What is in new directories is found, however quick they are filled.
    std::fs::create_dir_all(place.granted.join("new/a/b")).expect("directories");
    std::fs::write(place.granted.join("new/a/b/file"), "x").expect("a file");
    until(ChangeKind::Created, "new/a/b/file").await;
    std::fs::rename(place.granted.join("new/a"), place.granted.join("moved")).expect("moved");
    until(ChangeKind::Removed, "new/a").await;
    until(ChangeKind::Created, "moved").await;
    std::fs::write(place.granted.join("moved/b/second"), "x").expect("a file");
    until(ChangeKind::Created, "moved/b/second").await;
    // What left the grant is out of sight.
    std::fs::rename(place.granted.join("moved"), place.outside.join("left")).expect("moved");
    until(ChangeKind::Removed, "moved").await;
    std::fs::write(place.outside.join("left/b/secret"), "x").expect("a file");
    std::fs::remove_file(place.granted.join("one")).expect("removed");
    until(ChangeKind::Removed, "one").await;
    drop(changes);
    // One call has few watches to use, and gives them back.
    let mut held = Vec::new();
    let watch = async || {
        let request = WatchRequest {
            path: place.at("dir"),
            recursive: false,
        };
        let mut changes = peer
            .start::<_, WatchResponse>("Filesystem/Watch", request)
            .await;
        (
            changes
                .next()
                .await
                .expect("a message")
                .map(drop)
                .map_err(|status| status.code()),
            changes,
        )
    };
    for _ in 0..8 {
        // The one from before may still be on its way out.
        let mut started = watch().await;
        for _ in 0..100 {
            if started.0.is_ok() {
                break;
            }
            started = watch().await;
        }
        assert_eq!(started.0, Ok(()));
        held.push(started.1);
    }
    peer.close().await;
}

/// The changes that a watch reports, until it reports this one.
async fn changes_until(
    changes: &mut tonic::Streaming<WatchResponse>,
    kind: ChangeKind,
    path: &str,
) -> Result<Vec<String>, Status> {
    let mut seen = Vec::new();
    loop {
        let change = tokio::time::timeout(Duration::from_secs(20), changes.next()).await;
        let change = change.expect("in time").expect("a message")?;
        seen.push(change.path.clone());
        if (change.kind(), change.path.as_str()) == (kind, path) {
            return Ok(seen);
        }
    }
}

#[tokio::test]
async fn a_watch_shows_what_may_be_listed() {
    let place = Place::new();
    let flat = place.granted.join("flat");
    std::fs::create_dir_all(flat.join("deep/below")).expect("directories");
    std::fs::write(flat.join("file"), "x").expect("a file");
    let peer = Peer::new(&under(&[(&flat, "list", false)]), "watcher").await;
    let watch = async |path: &str, recursive| {
        let path = place.at(path);
        let request = WatchRequest { path, recursive };
        peer.start::<_, WatchResponse>("Filesystem/Watch", request)
            .await
    };
    for path in ["flat/deep", "flat/deep/below", ""] {
        let path = place.at(path);
        let request = WatchRequest {
            path,
            recursive: true,
        };
        let mut refused = peer
            .download::<_, WatchResponse>("Filesystem/Watch", request)
            .await;
        denied(refused.pop().expect("an answer"));
    }
    let mut changes = watch("flat", true).await;
    let mut file = watch("flat/file", true).await;
    for changes in [&mut changes, &mut file] {
        let ready = changes_until(changes, ChangeKind::Ready, "").await;
        assert_eq!(ready.expect("ready"), [""]);
    }
    std::fs::write(flat.join("deep/secret"), "x").expect("a file");
    std::fs::write(flat.join("deep/below/secret"), "x").expect("a file");
    std::fs::create_dir_all(flat.join("new/secret")).expect("directories");
    std::fs::write(flat.join("file"), "changed").expect("a file");
    let modified = (ChangeKind::Modified, place.at("flat/file"));
    let seen = changes_until(&mut changes, modified.0, &modified.1).await;
    let seen = seen.expect("it goes on");
    assert!(seen.contains(&place.at("flat/new")), "{seen:?}");
    assert!(!seen.concat().contains("secret"), "{seen:?}");
    let seen = changes_until(&mut file, modified.0, &modified.1).await;
    assert_eq!(seen.expect("it goes on"), [modified.1]);
    peer.close().await;
}

#[tokio::test]
async fn watches_and_listings_end_where_their_directory_is_taken_away() {
    let place = Place::new();
    let top = place.granted.join("a/b");
    std::fs::create_dir_all(top.join("below")).expect("directories");
    for number in 0..20 {
        std::fs::File::create(top.join(format!("entry-{number}"))).expect("a file");
    }
    let peer = Peer::new(&place.services("list"), "watcher").await;
    let path = place.at("a/b");
    let request = WatchRequest {
        path: path.clone(),
        recursive: true,
    };
    let mut changes = peer
        .start::<_, WatchResponse>("Filesystem/Watch", request)
        .await;
    let ready = changes_until(&mut changes, ChangeKind::Ready, "").await;
    assert_eq!(ready.expect("ready"), [""]);
    let page = async |cookie: &str| {
        let request = ListRequest {
            path: path.clone(),
            limit: 5,
            cookie: cookie.into(),
        };
        peer.call::<_, ListResponse>("Filesystem/List", request)
            .await
    };
    let first = page("").await.expect("a page");
    // What is watched and listed is not moved itself: nobody says so.
    std::fs::rename(place.granted.join("a"), place.outside.join("a")).expect("moved");
    std::fs::create_dir_all(&top).expect("another one");
    for below in ["a/b/secret", "a/b/below/secret"] {
        std::fs::write(place.outside.join(below), "x").expect("a file");
    }
    let seen = changes_until(&mut changes, ChangeKind::Removed, &path).await;
    assert_eq!(seen.expect("its end is told"), [path.as_str()]);
    let end = changes.next().await.expect("an end");
    assert_eq!(code(end), Code::NotFound);
    assert_eq!(code(page(&first.next).await), Code::NotFound);
    assert_eq!(page("").await.expect("the other one").entries, []);
    peer.close().await;
}

#[tokio::test]
async fn what_is_kept_in_the_temporary_directory_is_bounded() {
    const PART: usize = 100 << 10;
    let place = Place::new();
    let limits = Limits {
        temp_bytes: 1 << 20,
        ..Limits::default()
    };
    let temp = tempfile::tempdir().expect("a directory");
    let services = place.services(EVERYTHING).limits(limits);
    let peer = Peer::new(&services.temp_root(temp.path()), "filler").await;
    let fs = Fs(&peer);
    let full = |outcome: Result<(), Status>| {
        let status = outcome.expect_err("too much");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert_eq!(reason(&status).0, "temp-quota-exhausted", "{status}");
    };
    let made = async || {
        let request = TempFileRequest {
            pattern: String::new(),
        };
        let made: TempFileResponse = fs.call("TempFile", request).await.expect("made");
        (made.lease, made.path)
    };
    let write = async |lease: &str, part: u64| {
        let request = WriteRequest {
            lease: lease.into(),
            offset: part * PART as u64,
            data: vec![1; PART].into(),
        };
        let written = fs.call::<_, WriteResponse>("Write", request).await;
        written.map(drop)
    };
    let (one, other) = (made().await, made().await);
    // Writing the same again keeps no more.
    for part in (0..30).map(|part| part % 9) {
        write(&one.0, part).await.expect("room");
    }
    full(write(&other.0, 0).await.and(write(&other.0, 1).await));
    full(
        fs.copy(&one.1, &format!("{}-copy", one.1), true)
            .await
            .map(drop),
    );
    let request = TruncateRequest {
        lease: other.0.clone(),
        size: 2 << 20,
        ..Default::default()
    };
    full(
        fs.call::<_, TruncateResponse>("Truncate", request)
            .await
            .map(drop),
    );
    let part = WriteStreamRequest {
        lease: other.0.clone(),
        offset: 0,
        data: vec![1; 3 * PART].into(),
    };
    let stream = futures_util::stream::iter([part]);
    let streamed: Result<WriteStreamResponse, _> =
        peer.upload("Filesystem/WriteStream", stream).await;
    full(streamed.map(drop));
    // A name is not what takes the room.
    fs.remove(&one.1).await.expect("removed");
    full(write(&other.0, 2).await);
    fs.close(&one.0).await.expect("closed");
    for part in 0..9 {
        write(&other.0, part).await.expect("room");
    }
    // Elsewhere it is not counted.
    fs.copy(&other.1, &place.at("copied"), true)
        .await
        .expect("copied");
    fs.copy(&place.at("copied"), &place.at("again"), true)
        .await
        .expect("copied");
    peer.close().await;
}

#[tokio::test]
async fn what_there_is_no_room_for_leaves_the_old_contents() {
    const KIB: usize = 1 << 10;
    let place = Place::new();
    std::fs::write(place.granted.join("large"), vec![9; 1200 * KIB]).expect("a file");
    std::fs::write(place.granted.join("fits"), vec![7; 900 * KIB]).expect("a file");
    let limits = Limits {
        temp_bytes: 1 << 20,
        ..Limits::default()
    };
    let temp = tempfile::tempdir().expect("a directory");
    let services = place.services(EVERYTHING).limits(limits);
    let peer = Peer::new(&services.temp_root(temp.path()), "replacer").await;
    let fs = Fs(&peer);
    let pattern = String::new();
    let made: TempFileResponse = fs
        .call("TempFile", TempFileRequest { pattern })
        .await
        .expect("made");
    let path = made.path;
    let write = async |byte: u8, length: usize| {
        let request = WriteFileRequest {
            path: path.clone(),
            data: vec![byte; length].into(),
            ..Default::default()
        };
        fs.call::<_, WriteFileResponse>("WriteFile", request).await
    };
    let full = |status: Status| assert_eq!(reason(&status).0, "temp-quota-exhausted");
    let holds = |byte: u8, length: usize| {
        let held = std::fs::read(&path).expect("there");
        assert!(held == vec![byte; length], "{} bytes", held.len());
    };
    write(1, 700 * KIB).await.expect("room");
    full(write(2, 1200 * KIB).await.expect_err("too much"));
    holds(1, 700 * KIB);
    let copied = fs.copy(&place.at("large"), &path, true).await;
    full(copied.expect_err("too much"));
    holds(1, 700 * KIB);
    // What is replaced makes room for what comes.
    write(3, 800 * KIB).await.expect("room");
    holds(3, 800 * KIB);
    let copied = fs.copy(&place.at("fits"), &path, true).await;
    copied.expect("room");
    holds(7, 900 * KIB);
    // Others that fill the directory do not keep it from being emptied.
    std::fs::write(format!("{path}-other"), vec![0; 1200 * KIB]).expect("a file");
    full(write(4, 1100 * KIB).await.expect_err("too much"));
    write(5, 0).await.expect("it takes less");
    holds(5, 0);
    peer.close().await;
}

#[tokio::test]
async fn what_may_be_written_in_total_is_counted_by_every_way() {
    let place = Place::new();
    let limits = Limits {
        written_bytes: 1000,
        ..Limits::default()
    };
    let peer = Peer::new(&place.services(EVERYTHING).limits(limits), "writer").await;
    let fs = Fs(&peer);
    let used = async || {
        let reply: UsageResponse = peer
            .call("Session/Usage", UsageRequest {})
            .await
            .expect("known");
        reply.written_bytes
    };
    let full = |status: Status| {
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(reason(&status).0, "quota-exhausted");
    };
    fs.write("a", "1234567890").await.expect("written");
    assert_eq!(used().await, 10);
    let request = |size| TruncateRequest {
        path: "a".into(),
        size,
        ..Default::default()
    };
    let _: TruncateResponse = fs.call("Truncate", request(500)).await.expect("grown");
    assert_eq!(used().await, 500);
    full(
        fs.call::<_, TruncateResponse>("Truncate", request(5000))
            .await
            .expect_err("too much"),
    );
    fs.copy("a", "b", false).await.expect("copied");
    assert_eq!(used().await, 1000);
    full(fs.copy("a", "c", false).await.expect_err("too much"));
    full(fs.write("d", "x").await.expect_err("too much"));
    assert!(
        !place.granted.join("d").exists(),
        "nothing is made that cannot be written"
    );
    let lease = fs.open("a", WRITE).await.expect("open");
    let request = WriteRequest {
        lease: lease.clone(),
        offset: 0,
        data: "x".into(),
    };
    full(
        fs.call::<_, WriteResponse>("Write", request)
            .await
            .expect_err("too much"),
    );
    let part = WriteStreamRequest {
        lease,
        offset: 0,
        data: "x".into(),
    };
    let stream = futures_util::stream::iter([part]);
    let written: Result<WriteStreamResponse, _> =
        peer.upload("Filesystem/WriteStream", stream).await;
    full(written.expect_err("too much"));
    assert_eq!(used().await, 1000);
    // What fails gives back what it reserved.
    let _: TruncateResponse = fs
        .call(
            "Truncate",
            TruncateRequest {
                path: "a".into(),
                size: 1,
                ..Default::default()
            },
        )
        .await
        .expect("cut");
    peer.close().await;
}

#[tokio::test]
async fn a_plugin_that_is_too_fast_is_slowed_down_or_refused() {
    let place = Place::new();
    std::fs::write(place.granted.join("large"), vec![7; 300_000]).expect("a file");
    let limits = Limits {
        operations_per_second: 20,
        ..Limits::default()
    };
    let peer = Peer::new(&place.services("read").limits(limits), "hasty").await;
    let fs = Fs(&peer);
    let mut refused = None;
    for _ in 0..100 {
        if let Err(status) = fs.read("dir/file").await {
            refused = Some(status);
            break;
        }
    }
    let refused = refused.expect("too fast");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let (why, metadata) = reason(&refused);
    assert_eq!(why, "rate-limited");
    let wait: u64 = metadata["retry_after_ms"].parse().expect("a number");
    assert!((1..=50).contains(&wait), "{wait}");
    peer.close().await;

    let limits = Limits {
        bytes_per_second: 200_000,
        ..Limits::default()
    };
    let peer = Peer::new(&place.services("read").limits(limits), "hungry").await;
    let fs = Fs(&peer);
    let lease = fs.open("large", READ).await.expect("open");
    let started = std::time::Instant::now();
    let request = ReadStreamRequest {
        lease: lease.clone(),
        ..Default::default()
    };
    let parts: Vec<Result<ReadStreamResponse, _>> =
        peer.download("Filesystem/ReadStream", request).await;
    let total: usize = parts
        .iter()
        .map(|part| part.as_ref().expect("a part").data.len())
        .sum();
    assert_eq!(total, 300_000);
    assert!(
        started.elapsed() > Duration::from_millis(250),
        "{:?}",
        started.elapsed()
    );
    let status = fs.at(&lease, 0, 10).await.expect_err("in debt");
    assert_eq!(reason(&status).0, "rate-limited");
    peer.close().await;
}

#[tokio::test]
async fn leases_belong_to_one_plugin_end_when_unused_and_with_the_connection() {
    let place = Place::new();
    let granted = place.services("read, list");
    let (one, two) = (
        Peer::new(&granted, "one").await,
        Peer::new(&granted, "two").await,
    );
    let lease = Fs(&one).open("dir/file", READ).await.expect("open");
    for forged in [
        "",
        "1",
        &lease,
        &"f".repeat(32),
        &lease.to_uppercase(),
        "../../etc/passwd",
    ] {
        assert_eq!(
            code(Fs(&two).at(forged, 0, 1).await),
            Code::NotFound,
            "{forged}"
        );
        assert_eq!(
            code(Fs(&two).close(forged).await),
            Code::NotFound,
            "{forged}"
        );
        let request = OpenAtRequest {
            lease: forged.into(),
            path: "file".into(),
            options: None,
        };
        let opened = Fs(&two).call::<_, OpenResponse>("OpenAt", request).await;
        assert_eq!(code(opened), Code::NotFound, "{forged}");
    }
    assert_eq!(
        Fs(&one).at(&lease, 0, 10).await.expect("its own"),
        b"inside"
    );
    one.close().await;
    two.close().await;

    let limits = Limits {
        leases: 3,
        lease_idle: Duration::from_millis(150),
        ..Limits::default()
    };
    let peer = Peer::new(&granted.limits(limits), "forgetful").await;
    let fs = Fs(&peer);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(fs.open("dir/file", READ).await.expect("open"));
    }
    let full = fs.open("dir/file", READ).await.expect_err("full");
    assert_eq!(reason(&full).0, "too-many-leases");
    let usage = async || {
        let reply: UsageResponse = peer
            .call("Session/Usage", UsageRequest {})
            .await
            .expect("known");
        reply.leases
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    // The one that is used stays.
    while usage().await > 1 {
        assert!(std::time::Instant::now() < deadline, "they remain");
        fs.at(&held[0], 0, 1).await.expect("in use");
    }
    assert_eq!(code(fs.at(&held[1], 0, 1).await), Code::NotFound);
    peer.close().await;
}

#[tokio::test]
async fn each_decision_is_one_record_that_says_who_what_and_why() {
    let place = Place::new();
    let (audit, mut records) = AuditLog::channel(1000);
    let entry = entry(&place.granted, "read, write", true);
    let granted = GrantedServices::new(grants_with(&format!(
        "services: [filesystem]\ncapabilities: {{filesystem: [{entry}]}}"
    )));
    let services = granted.audit(audit).digest("sha256:abc");
    let peer = Peer::new(&services, "audited").await;
    let fs = Fs(&peer);
    let mut next = || records.try_recv().expect("a record");
    fs.read("dir/file").await.expect("read");
    let record = next();
    assert_eq!(
        (&*record.plugin, &*record.instance),
        ("audited", "audited-1")
    );
    assert_eq!(record.digest.as_deref(), Some("sha256:abc"));
    assert_eq!(
        (record.capability, record.operation),
        ("filesystem", "read_file")
    );
    assert_eq!(record.argument, r#"path="dir/file""#);
    assert_eq!(
        (record.verdict, record.code, record.bytes),
        (Verdict::Allowed, "ok", 6)
    );
    assert!(
        record.rule.starts_with("capabilities.filesystem[0]"),
        "{}",
        record.rule
    );
    let mut request = tonic::Request::new(ListRequest {
        path: "dir/\u{1b}[2J\n".into(),
        ..Default::default()
    });
    request
        .metadata_mut()
        .insert("client", "someone-else".parse().expect("a value"));
    request
        .metadata_mut()
        .insert("request", "r-7".parse().expect("a value"));
    let status = peer
        .call_with::<_, ListResponse>("Filesystem/List", request)
        .await;
    let status = status.expect_err("not granted");
    assert!(!status.message().contains("capabilities"), "{status}");
    let record = next();
    assert_eq!(record.verdict, Verdict::Refused);
    assert_eq!((record.code, &*record.plugin), ("not-granted", "audited"));
    assert_eq!(
        (record.client.as_str(), record.request.as_str()),
        ("someone-else", "r-7")
    );
    assert!(
        record.missing.contains("permissions: [list]"),
        "{}",
        record.missing
    );
    assert!(
        record.argument.contains(r"\u{1b}[2J\n"),
        "{}",
        record.argument
    );
    assert_eq!(code(fs.read("missing").await), Code::NotFound);
    let record = next();
    assert_eq!(
        (record.verdict, record.code),
        (Verdict::Allowed, "not-found")
    );
    // A service that is not granted.
    let key = "PATH".to_owned();
    let refused: outrigger_wire::proto::hostserve::GetEnvResponse = peer
        .call(
            "GetEnv",
            outrigger_wire::proto::hostserve::GetEnvRequest { key },
        )
        .await
        .expect("a reply");
    assert!(refused.error.is_some());
    let record = next();
    assert_eq!(
        (record.verdict, record.capability),
        (Verdict::Refused, "environment")
    );
    assert_eq!(record.missing, "services: [environment]");
    // A stream that the plugin gives up is recorded once, as that.
    std::fs::write(place.granted.join("large"), vec![7; 8 << 20]).expect("a file");
    let lease = fs.open("large", READ).await.expect("open");
    assert_eq!(next().operation, "open");
    let request = ReadStreamRequest {
        lease,
        chunk: 1 << 20,
        ..Default::default()
    };
    let mut parts = peer
        .start::<_, ReadStreamResponse>("Filesystem/ReadStream", request)
        .await;
    parts.next().await.expect("a part").expect("no error");
    drop(parts);
    peer.close().await;
    let record = next();
    assert_eq!(
        (record.operation, record.code),
        ("read_stream", "cancelled")
    );
    assert!(
        record.bytes >= 1 << 20 && record.bytes < 8 << 20,
        "{}",
        record.bytes
    );
    assert!(records.try_recv().is_none(), "one record for each");
}

/// Work on a thread stops soon after nobody waits for it.
#[tokio::test]
async fn a_call_that_is_given_up_stops_its_work() {
    let place = Place::new();
    std::fs::write(place.granted.join("large"), vec![7; 64 << 20]).expect("a file");
    let (audit, mut records) = AuditLog::channel(100);
    let limits = Limits {
        bytes_per_second: 8 << 20,
        ..Limits::default()
    };
    let services = place.services(EVERYTHING).limits(limits).audit(audit);
    let peer = Peer::new(&services, "impatient").await;
    let mut request = tonic::Request::new(CopyRequest {
        from: "large".into(),
        to: "copy".into(),
        replace: false,
    });
    request.set_timeout(Duration::from_millis(100));
    let copied = peer
        .call_with::<_, CopyResponse>("Filesystem/Copy", request)
        .await;
    copied.expect_err("given up");
    let record = tokio::time::timeout(Duration::from_secs(20), records.recv()).await;
    let record = record.expect("in time").expect("a record");
    assert_eq!((record.operation, record.code), ("copy", "cancelled"));
    // What was on its way is done at most; then nothing is added any more.
    let size = || std::fs::metadata(place.granted.join("copy")).map_or(0, |file| file.len());
    let deadline = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < deadline {
        assert!(size() < 40 << 20, "{} bytes", size());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    peer.close().await;
}

#[tokio::test]
async fn a_plugin_may_know_what_it_is_and_what_it_was_granted() {
    let place = Place::new();
    let entry = entry(&place.granted, "read, list", true);
    let granted = GrantedServices::new(grants_with(&format!(
        "resources: {{message_size: 1MiB, streams: 10, open_files: 5}}\n\
         capabilities: {{filesystem: [{entry}], environment: {{read: [LANG], set: {{MODE: fast}}}}, \
         network: {{egress: [{{protocol: tcp, hosts: [api.example.com], ports: [443, 8000-8010]}}]}}, \
         process: {{exec: [{{command: /usr/bin/git, args: [pull, \"a b\"]}}], kill: [children]}}}}"
    )));
    let peer = Peer::new(&granted, "curious").await;
    let reply: DescribeResponse = peer
        .call("Session/Describe", DescribeRequest {})
        .await
        .expect("known");
    assert_eq!(
        (reply.plugin.as_str(), reply.instance.as_str()),
        ("curious", "curious-1")
    );
    assert_eq!(
        reply.services,
        [
            "filesystem",
            "environment",
            "process",
            "network",
            "clock",
            "log"
        ]
    );
    let limits = reply.limits.expect("limits");
    assert_eq!(
        (limits.message_bytes, limits.calls, limits.leases),
        (1 << 20, 10, 5)
    );
    assert!(Path::new(&reply.temp_dir).is_dir(), "{}", reply.temp_dir);
    let mode = std::fs::metadata(&reply.temp_dir)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    let reply: GrantsResponse = peer
        .call("Session/Grants", GrantsRequest {})
        .await
        .expect("known");
    assert_eq!(reply.filesystem[0].permissions, ["read", "list"]);
    assert_eq!(reply.environment, ["LANG", "MODE"]);
    assert_eq!(reply.egress[0].hosts, ["api.example.com"]);
    assert_eq!(reply.egress[0].ports, ["443", "8000-8010"]);
    assert_eq!(reply.exec[0].command, "/usr/bin/git");
    assert_eq!(reply.exec[0].args, ["pull", "a b"]);
    assert_eq!(reply.children, ["kill"]);
    let reply: UsageResponse = peer
        .call("Session/Usage", UsageRequest {})
        .await
        .expect("known");
    assert_eq!((reply.operations, reply.refused, reply.leases), (3, 0, 0));
    peer.close().await;
}

#[test]
#[allow(clippy::disallowed_methods)] // Hosts are no plugins.
fn files_are_served_where_newer_system_calls_are_refused() {
    let calls = outrigger_testing::NEWER_CALLS.iter().map(|(call, _)| *call);
    for call in calls.chain(["all"]) {
        for answer in ["ENOSYS", "EPERM"] {
            let mut host = std::process::Command::new(outrigger_testing::program("refusing"));
            host.args([call, answer]);
            host.arg(std::env::current_exe().expect("its own path"));
            host.arg("--exact").args([
                "every_call_of_the_contract_does_what_it_says",
                "a_trailing_slash_is_for_directories",
            ]);
            let output = host.output().expect("run");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && text.contains("2 passed"),
                "{call}: {answer}: {text}"
            );
        }
    }
}
