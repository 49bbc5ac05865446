//! Nothing leads out of what was granted, waits for a stranger, or outlives its
//! connection.

mod support;

use std::path::Path;
use std::time::Duration;

use outrigger_services::{GrantedServices, Limits};
use outrigger_wire::proto::hostserve::*;
use rustix::fs::{CWD, FileType, Mode};
use support::peer::{EVERYTHING, Peer, gone, in_band, services};
use tonic::{Code, Request};

/// A granted directory beside a secret one.
struct Place {
    base: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let base = tempfile::tempdir().expect("a directory");
        for (dir, text) in [("granted", "inside"), ("outside", "SECRET")] {
            std::fs::create_dir_all(base.path().join(dir).join("dir")).expect("a directory");
            std::fs::write(base.path().join(dir).join("dir/file"), text).expect("a file");
        }
        Self { base }
    }

    fn granted(&self) -> std::path::PathBuf {
        self.base.path().join("granted")
    }

    fn outside(&self) -> std::path::PathBuf {
        self.base.path().join("outside")
    }

    fn services(&self) -> GrantedServices {
        services(&self.granted(), EVERYTHING)
    }

    fn read_only(&self) -> GrantedServices {
        services(&self.granted(), "read, list")
    }
}

const OUTSIDE: &str = "outside the granted directory";

#[tokio::test]
async fn no_spelling_of_a_path_leads_out() {
    let place = Place::new();
    let (granted, outside) = (place.granted(), place.outside());
    std::os::unix::fs::symlink("../outside", granted.join("up")).expect("a link");
    std::os::unix::fs::symlink(&outside, granted.join("absolute")).expect("a link");
    std::os::unix::fs::symlink(outside.join("dir/file"), granted.join("file")).expect("a link");
    std::os::unix::fs::symlink("..", granted.join("dir/out")).expect("a link");
    let peer = Peer::new(&place.services(), "escaper").await;
    let secret = outside.join("dir/file");
    let (top, secret) = (
        granted.to_str().expect("UTF-8"),
        secret.to_str().expect("UTF-8"),
    );
    let sibling = format!("{top}/../outside/dir");
    let longer = format!("{top}-other");
    for (root_dir, path) in [
        ("", "../outside/dir/file"),
        ("", "dir/../../outside/dir/file"),
        ("..", "outside/dir/file"),
        ("dir", "../dir/file"),
        ("", secret),
        ("/", secret.trim_start_matches('/')),
        ("/", "etc/passwd"),
        ("/etc", "passwd"),
        ("", "/etc/passwd"),
        (sibling.as_str(), "file"),
        (longer.as_str(), "file"),
        ("", "up/dir/file"),
        ("", "absolute/dir/file"),
        ("", "file"),
        ("", "dir/out/up/dir/file"),
        ("", "dir/out/../outside/dir/file"),
    ] {
        let read = peer.read(root_dir, path).await.expect_err("refused");
        assert!(read.ends_with(OUTSIDE), "{root_dir} {path}: {read}");
        let write = peer
            .write(root_dir, path, b"changed")
            .await
            .expect_err("refused");
        assert!(write.ends_with(OUTSIDE), "{root_dir} {path}: {write}");
        let request = StatRequest {
            root_dir: root_dir.into(),
            path: path.into(),
        };
        let reply: StatResponse = peer.call("Stat", request).await.expect("a reply");
        assert!(
            reply.error.expect("refused").ends_with(OUTSIDE),
            "{root_dir} {path}"
        );
        let request = ChmodRequest {
            root_dir: root_dir.into(),
            path: path.into(),
            mode: 0,
        };
        let reply: ChmodResponse = peer.call("Chmod", request).await.expect("a reply");
        assert!(
            reply.error.expect("refused").ends_with(OUTSIDE),
            "{root_dir} {path}"
        );
    }
    for path in ["up", "up/", "up/.", "absolute/", "dir/out/../outside"] {
        let request = ReadDirRequest {
            root_dir: String::new(),
            path: path.into(),
        };
        let reply: ReadDirResponse = peer.call("ReadDir", request).await.expect("a reply");
        assert_eq!(reply.entries, [], "{path}");
        assert!(reply.error.expect("refused").ends_with(OUTSIDE), "{path}");
    }
    // Removing does not follow.
    for path in ["up", "absolute/", "file"] {
        let request = RemoveAllRequest {
            root_dir: String::new(),
            path: path.into(),
        };
        let reply: RemoveAllResponse = peer.call("RemoveAll", request).await.expect("a reply");
        assert_eq!(reply.error, None);
    }
    assert_eq!(
        std::fs::read_to_string(secret).expect("still there"),
        "SECRET"
    );
    peer.close().await;
}

#[tokio::test]
async fn texts_that_are_no_path_are_an_error_at_once() {
    let place = Place::new();
    let peer = Peer::new(&place.services(), "odd").await;
    for path in [
        "dir/fi\0le".to_owned(),
        "dir/".repeat(10_000),
        "./".repeat(10_000),
        "x".repeat(300),
    ] {
        peer.read("", &path).await.expect_err("refused");
        peer.read(&path, "file").await.expect_err("refused");
        let request = MkdirAllRequest {
            root_dir: String::new(),
            path,
            perm: 0o755,
        };
        let reply: MkdirAllResponse = peer.call("MkdirAll", request).await.expect("a reply");
        reply.error.expect("refused");
    }
    peer.close().await;
}

#[tokio::test]
async fn names_that_are_not_utf8_are_listed_and_reach_no_one() {
    use std::os::unix::ffi::OsStrExt;

    let place = Place::new();
    let name = std::ffi::OsStr::from_bytes(b"odd\xff");
    std::fs::write(place.granted().join(name), b"x").expect("a file");
    let peer = Peer::new(&place.services(), "lister").await;
    let request = ReadDirRequest::default();
    let reply: ReadDirResponse = peer.call("ReadDir", request).await.expect("a reply");
    let names: Vec<_> = reply
        .entries
        .iter()
        .map(|entry| entry.name.as_str())
        .collect();
    assert_eq!(names, ["dir", "odd\u{fffd}"]);
    peer.read("", "odd\u{fffd}")
        .await
        .expect_err("no such file");
    peer.close().await;
}

#[tokio::test]
async fn what_is_no_file_is_refused_without_waiting_for_it() {
    let place = Place::new();
    let fifo = place.granted().join("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).expect("a fifo");
    let _socket =
        std::os::unix::net::UnixListener::bind(place.granted().join("socket")).expect("a socket");
    let peer = Peer::new(&place.services(), "opener").await;
    let devices = Peer::new(&services(Path::new("/dev"), "read, list"), "dev").await;
    let refused = "not permitted by the host";
    let read = async |peer: &Peer, path| {
        let read = peer.read("", path);
        let read = tokio::time::timeout(Duration::from_secs(10), read).await;
        read.expect("without waiting").expect_err("refused")
    };
    assert!(read(&peer, "fifo").await.ends_with(refused));
    assert!(read(&peer, "socket").await.contains("no such device"));
    assert!(read(&peer, "dir").await.ends_with("is a directory"));
    for device in ["null", "zero", "tty"] {
        assert!(
            read(&devices, device).await.starts_with("ReadFile "),
            "{device}"
        );
    }
    peer.write("", "fifo", b"x").await.expect_err("refused");
    peer.open("fifo", OpenFileFlags::ReadWrite)
        .await
        .expect_err("refused");
    devices.close().await;
    peer.close().await;
}

#[tokio::test]
async fn magic_links_are_not_followed() {
    let granted = services(Path::new("/proc"), "read, list");
    let peer = Peer::new(&granted, "magician").await;
    for path in [
        "self/root/etc/passwd",
        "self/cwd/Cargo.toml",
        "self/exe",
        "self/fd/0",
        "self/task/../root/etc/passwd",
        "thread-self/root/etc/passwd",
    ] {
        peer.read("", path).await.expect_err("refused");
    }
    // A file without a size is read all the same.
    let text = peer.read("", "version").await.expect("readable");
    assert!(!text.is_empty());
    peer.close().await;
}

async fn close(peer: &Peer, handle: &str) {
    let request = FileCloseRequest {
        handle: handle.into(),
    };
    let reply: FileCloseResponse = peer.call("FileClose", request).await.expect("a reply");
    assert_eq!(reply.error, None);
}

#[tokio::test]
async fn handles_are_counted_belong_to_one_connection_and_end_with_it() {
    let place = Place::new();
    let services = place.services().limits(Limits {
        leases: 3,
        ..Limits::default()
    });
    let (one, two) = (
        Peer::new(&services, "one").await,
        Peer::new(&services, "two").await,
    );
    let read_only = OpenFileFlags::ReadOnly;
    let mut handles = Vec::new();
    for _ in 0..3 {
        handles.push(one.open("dir/file", read_only).await.expect("open"));
    }
    for flags in [read_only, OpenFileFlags::ReadWrite] {
        let flags = flags.into();
        let request = FileOpenRequest {
            path: "dir/file".into(),
            flags,
            ..Default::default()
        };
        let status = one.call::<_, FileOpenResponse>("FileOpen", request).await;
        assert_eq!(status.expect_err("full").code(), Code::ResourceExhausted);
    }
    // The other plugin has room of its own, and no use for these.
    let own = two.open("dir/file", read_only).await.expect("open");
    assert_eq!(two.section(&own, 0, 10).await, Ok(b"inside".to_vec()));
    let unknown = Err("FileReadSection: no such handle".to_owned());
    let mut request = Request::new(FileReadSectionRequest {
        handle: handles[0].clone(),
        offset: 0,
        length: 10,
    });
    // Claiming to be the owner changes nothing.
    request
        .metadata_mut()
        .insert("client", "one-1".parse().expect("a value"));
    let reply: FileReadSectionResponse = two
        .call_with("FileReadSection", request)
        .await
        .expect("a reply");
    assert_eq!(in_band(reply.error, reply.contents.to_vec()), unknown);
    for forged in [
        "",
        "1",
        "../../etc/passwd",
        &"f".repeat(32),
        &format!("+{}", &own[1..]),
    ] {
        assert_eq!(two.section(forged, 0, 10).await, unknown, "{forged}");
    }
    close(&one, &handles[0]).await;
    assert_eq!(one.section(&handles[0], 0, 10).await, unknown);
    one.open("dir/file", read_only)
        .await
        .expect("there is room again");
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn closing_a_handle_ends_its_streams() {
    let place = Place::new();
    std::fs::write(place.granted().join("large"), vec![7; 64 << 20]).expect("a file");
    let peer = Peer::new(&place.services(), "reader").await;
    let handle = peer
        .open("large", OpenFileFlags::ReadOnly)
        .await
        .expect("open");
    let request = FileReadRequest {
        handle: handle.clone(),
        chunk_size: 1 << 20,
    };
    let (parts, ()) = tokio::join!(
        peer.download::<_, FileReadResponse>("FileReader", request),
        close(&peer, &handle)
    );
    let last = parts.last().expect("an end").as_ref().expect("in-band");
    assert_eq!(last.error.as_deref(), Some("FileReader: no such handle"));
    peer.close().await;
}

#[tokio::test]
async fn a_temporary_directory_is_private_and_gone_with_its_connection() {
    let place = Place::new();
    let temp = tempfile::tempdir().expect("a directory");
    let services = place.read_only().temp_root(temp.path());
    let (one, two) = (
        Peer::new(&services, "one").await,
        Peer::new(&services, "two").await,
    );
    assert_eq!(
        std::fs::read_dir(temp.path()).expect("listed").count(),
        0,
        "not before it is used"
    );
    let dir = one.temp_dir().await;
    one.write(&dir, "note", b"mine").await.expect("writable");
    let note = format!("{dir}/note");
    assert_eq!(one.read("", &note).await, Ok(b"mine".to_vec()));
    let up = one
        .read(&dir, "../../granted/dir/file")
        .await
        .expect_err("refused");
    assert!(up.ends_with(OUTSIDE), "{up}");
    for peer in [&one, &two] {
        let escape = peer
            .read("", &format!("{dir}/../note"))
            .await
            .expect_err("refused");
        assert!(escape.ends_with(OUTSIDE), "{escape}");
    }
    let foreign = two.read("", &note).await.expect_err("not its own");
    assert!(foreign.ends_with(OUTSIDE), "{foreign}");
    let other = two.temp_dir().await;
    assert_ne!(other, dir);
    let request = FileCreateTempRequest::default();
    let reply: FileCreateTempResponse = one.call("FileCreateTemp", request).await.expect("a reply");
    assert_eq!(reply.error, None);
    one.close().await;
    gone(Path::new(&dir)).await;
    two.close().await;
    gone(Path::new(&other)).await;
    assert_eq!(
        std::fs::read_dir(temp.path()).expect("listed").count(),
        0,
        "nothing is left"
    );
}

#[tokio::test]
async fn a_read_only_grant_allows_no_change_by_any_way() {
    let place = Place::new();
    let peer = Peer::new(&place.read_only(), "reader").await;
    let temp = peer.temp_dir().await;
    let refused = |error: Option<String>, what: &str| {
        let error = error.expect(what);
        assert!(
            error.ends_with("not permitted by the host"),
            "{what}: {error}"
        );
    };
    let path = || "dir/file".to_owned();
    let root_dir = String::new;
    assert_eq!(peer.read("", &path()).await, Ok(b"inside".to_vec()));
    refused(peer.write("", "dir/file", b"x").await.err(), "write");
    for flags in 2..=8 {
        let request = FileOpenRequest {
            root_dir: root_dir(),
            path: path(),
            flags,
            perm: 0o644,
        };
        let reply: FileOpenResponse = peer.call("FileOpen", request).await.expect("a reply");
        refused(reply.error, "open");
    }
    let request = FileCreateRequest {
        root_dir: root_dir(),
        path: path(),
    };
    let reply: FileCreateResponse = peer.call("FileCreate", request).await.expect("a reply");
    refused(reply.error, "create");
    let request = RemoveRequest {
        root_dir: root_dir(),
        path: path(),
    };
    let reply: RemoveResponse = peer.call("Remove", request).await.expect("a reply");
    refused(reply.error, "remove");
    let request = RemoveAllRequest {
        root_dir: root_dir(),
        path: "dir".into(),
    };
    let reply: RemoveAllResponse = peer.call("RemoveAll", request).await.expect("a reply");
    refused(reply.error, "remove all");
    let request = MkdirRequest {
        root_dir: root_dir(),
        name: "new".into(),
        perm: 0o755,
    };
    let reply: MkdirResponse = peer.call("Mkdir", request).await.expect("a reply");
    refused(reply.error, "mkdir");
    let request = MkdirAllRequest {
        root_dir: root_dir(),
        path: "new".into(),
        perm: 0o755,
    };
    let reply: MkdirAllResponse = peer.call("MkdirAll", request).await.expect("a reply");
    refused(reply.error, "mkdir all");
    let request = ChmodRequest {
        root_dir: root_dir(),
        path: path(),
        mode: 0o777,
    };
    let reply: ChmodResponse = peer.call("Chmod", request).await.expect("a reply");
    refused(reply.error, "chmod");
    let request = ChownRequest {
        root_dir: root_dir(),
        path: path(),
        uid: -1,
        gid: -1,
    };
    let reply: ChownResponse = peer.call("Chown", request).await.expect("a reply");
    refused(reply.error, "chown");
    let request = LchownRequest {
        root_dir: root_dir(),
        path: path(),
        uid: -1,
        gid: -1,
    };
    let reply: LchownResponse = peer.call("Lchown", request).await.expect("a reply");
    refused(reply.error, "lchown");
    let request = ChtimesRequest {
        root_dir: root_dir(),
        path: path(),
        atime: None,
        mtime: None,
    };
    let reply: ChtimesResponse = peer.call("Chtimes", request).await.expect("a reply");
    refused(reply.error, "chtimes");
    let request = SymlinkRequest {
        root_dir: root_dir(),
        old_path: "file".into(),
        new_path: "dir/l".into(),
    };
    let reply: SymlinkResponse = peer.call("Symlink", request).await.expect("a reply");
    refused(reply.error, "symlink");
    // Neither end of a rename or a link may be read-only: the other is writable.
    let inside = format!("{temp}/mine");
    peer.write("", &inside, b"mine").await.expect("writable");
    let other = format!("{temp}/other");
    for (old, new) in [(path(), other), (inside, "dir/new".into())] {
        let request = RenameRequest {
            root_dir: root_dir(),
            old_name: old.clone(),
            new_name: new.clone(),
        };
        let reply: RenameResponse = peer.call("Rename", request).await.expect("a reply");
        refused(reply.error, "rename");
        let request = LinkRequest {
            root_dir: root_dir(),
            old_path: old,
            new_path: new,
        };
        let reply: LinkResponse = peer.call("Link", request).await.expect("a reply");
        refused(reply.error, "link");
    }
    let handle = peer
        .open("dir/file", OpenFileFlags::ReadOnly)
        .await
        .expect("open");
    let request = FileChmodRequest {
        handle: handle.clone(),
        mode: 0o777,
    };
    let reply: FileChmodResponse = peer.call("FileChmod", request).await.expect("a reply");
    refused(reply.error, "chmod by handle");
    let request = FileChownRequest {
        handle,
        uid: -1,
        gid: -1,
    };
    let reply: FileChownResponse = peer.call("FileChown", request).await.expect("a reply");
    refused(reply.error, "chown by handle");
    let left = std::fs::read_to_string(place.granted().join("dir/file")).expect("still there");
    assert_eq!(left, "inside");
    peer.close().await;
}

#[tokio::test]
async fn authority_is_not_lent_by_modes_owners_or_links() {
    let place = Place::new();
    let peer = Peer::new(&place.services(), "lender").await;
    let (root_dir, path) = (String::new, || "dir/file".to_owned());
    for mode in [1 << 23 | 0o755, 1 << 22 | 0o755, 1 << 20 | 0o755] {
        let request = ChmodRequest {
            root_dir: root_dir(),
            path: path(),
            mode,
        };
        let reply: ChmodResponse = peer.call("Chmod", request).await.expect("a reply");
        reply.error.expect("refused");
    }
    for (uid, gid) in [(12_345, -1), (-1, 12_345)] {
        let request = ChownRequest {
            root_dir: root_dir(),
            path: path(),
            uid,
            gid,
        };
        let reply: ChownResponse = peer.call("Chown", request).await.expect("a reply");
        assert!(
            reply
                .error
                .expect("refused")
                .ends_with("not permitted by the host")
        );
    }
    let outside = place
        .outside()
        .join("dir")
        .to_str()
        .expect("UTF-8")
        .to_owned();
    let inside = place
        .granted()
        .join("dir/file")
        .to_str()
        .expect("UTF-8")
        .to_owned();
    for old_path in [
        "..",
        "../outside",
        "dir/../../outside",
        &outside,
        "/etc/passwd",
    ] {
        let (old_path, new_path) = (old_path.to_owned(), "dir/link".to_owned());
        let request = SymlinkRequest {
            root_dir: root_dir(),
            old_path,
            new_path,
        };
        let reply: SymlinkResponse = peer.call("Symlink", request).await.expect("a reply");
        reply.error.expect("refused");
    }
    let request = SymlinkRequest {
        root_dir: root_dir(),
        old_path: inside,
        new_path: "dir/link".into(),
    };
    let reply: SymlinkResponse = peer.call("Symlink", request).await.expect("a reply");
    assert_eq!(
        reply.error, None,
        "an absolute path into the link's own directory"
    );
    assert_eq!(peer.read("", "dir/link").await, Ok(b"inside".to_vec()));
    for path in ["", ".", "dir/.."] {
        let request = RemoveAllRequest {
            root_dir: root_dir(),
            path: path.into(),
        };
        let reply: RemoveAllResponse = peer.call("RemoveAll", request).await.expect("a reply");
        reply.error.expect("the granted directory stays");
    }
    peer.close().await;
}

#[tokio::test]
async fn limits_are_reported_as_limits() {
    let place = Place::new();
    let granted = place.granted();
    for name in 0..20 {
        std::fs::write(granted.join(format!("{name}")), b"x").expect("a file");
    }
    std::fs::write(granted.join("large"), vec![0; 5 << 20]).expect("a file");
    let limits = Limits {
        list_entries: 20,
        ..Limits::default()
    };
    let peer = Peer::new(&place.services().limits(limits), "greedy").await;
    let status = peer
        .call::<_, ReadDirResponse>("ReadDir", ReadDirRequest::default())
        .await;
    let status = status.expect_err("22 entries");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("list_entries"), "{status}");
    let large = peer.read("", "large").await.expect_err("too large");
    assert!(
        large.contains("larger than 4193280 bytes") && large.contains("FileReader"),
        "{large}"
    );
    let handle = peer
        .open("large", OpenFileFlags::ReadOnly)
        .await
        .expect("open");
    let section = |length| FileReadSectionRequest {
        handle: handle.clone(),
        offset: 0,
        length,
    };
    let status = peer
        .call::<_, FileReadSectionResponse>("FileReadSection", section(u32::MAX))
        .await;
    assert_eq!(
        status.expect_err("too long").code(),
        Code::ResourceExhausted
    );
    let most = section(4_193_280);
    let most: FileReadSectionResponse =
        peer.call("FileReadSection", most).await.expect("just fits");
    assert_eq!(most.contents.len(), 4_193_280);
    let request = WriteFileRequest {
        path: "w".into(),
        data: vec![0; 5 << 20].into(),
        ..WriteFileRequest::default()
    };
    let status = peer
        .call::<_, WriteFileResponse>("WriteFile", request)
        .await;
    assert_eq!(status.expect_err("too large").code(), Code::OutOfRange);
    peer.close().await;
}

#[tokio::test]
async fn calls_wait_for_a_place_until_unread_replies_give_theirs_back() {
    let place = Place::new();
    std::fs::write(place.granted().join("large"), vec![7; 64 << 20]).expect("a file");
    let limits = Limits {
        calls: 2,
        call_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let peer = Peer::new(&place.services().limits(limits), "hoarder").await;
    let handle = peer
        .open("large", OpenFileFlags::ReadOnly)
        .await
        .expect("open");
    let request = || FileReadAtRequest {
        handle: handle.clone(),
        offset: 0,
        chunk_size: 0,
    };
    let mut unread = Vec::new();
    for _ in 0..2 {
        unread.push(
            peer.start::<_, FileReadAtResponse>("FileReaderAt", request())
                .await,
        );
    }
    let status = peer
        .call::<_, GetuidResponse>("Getuid", GetuidRequest {})
        .await;
    assert_eq!(status.expect_err("full").code(), Code::ResourceExhausted);
    unread.pop();
    let mut tries = 0;
    while let Err(status) = peer
        .call::<_, GetuidResponse>("Getuid", GetuidRequest {})
        .await
    {
        assert_eq!(status.code(), Code::ResourceExhausted);
        tries += 1;
        assert!(tries < 20, "the place was not given back");
    }
    drop(unread);
    peer.close().await;
}

#[tokio::test]
async fn a_call_that_takes_too_long_ends_with_its_deadline() {
    let place = Place::new();
    let limits = Limits {
        blocking: 0,
        call_timeout: Duration::from_millis(20),
        ..Limits::default()
    };
    let peer = Peer::new(&place.services().limits(limits), "waiting").await;
    let status = peer
        .call::<_, ReadDirResponse>("ReadDir", ReadDirRequest::default())
        .await;
    assert_eq!(
        status.expect_err("no thread for it").code(),
        Code::DeadlineExceeded
    );
    // A plugin that starts a stream and says nothing more.
    let silent = futures_util::stream::pending::<FileWriteRequest>();
    let status = peer
        .upload::<_, FileWriteResponse>("FileWriter", silent)
        .await;
    assert_eq!(status.expect_err("silent").code(), Code::DeadlineExceeded);
    peer.close().await;
}

#[tokio::test]
async fn a_stream_must_name_one_handle_and_keep_to_it() {
    let place = Place::new();
    let peer = Peer::new(&place.services(), "writer").await;
    let one = peer
        .open("one", OpenFileFlags::WriteCreateTruncate)
        .await
        .expect("open");
    let two = peer
        .open("two", OpenFileFlags::WriteCreateTruncate)
        .await
        .expect("open");
    let part = |handle: &str| FileWriteRequest {
        handle: handle.into(),
        chunk: Some(FileChunk {
            data: "x".into(),
            offset: 0,
            is_final: false,
        }),
    };
    for parts in [vec![], vec![part("")], vec![part(&one), part(&two)]] {
        let parts = futures_util::stream::iter(parts);
        let status = peer
            .upload::<_, FileWriteResponse>("FileWriter", parts)
            .await;
        assert_eq!(status.expect_err("abuse").code(), Code::InvalidArgument);
    }
    let parts = futures_util::stream::iter([part(&one), part("")]);
    let reply: FileWriteResponse = peer.upload("FileWriter", parts).await.expect("a reply");
    assert_eq!((reply.bytes_written, reply.error), (2, None));
    peer.close().await;
}

/// While the second end of a rename is looked for, which takes as long as a
/// plugin wants, it moves the first one's directory to where it has fewer
/// rights, and there puts a file of others in the place of its own.
#[tokio::test]
async fn no_rename_takes_what_was_moved_in_while_it_was_resolved() {
    use outrigger_wire::proto::host;

    let base = tempfile::tempdir().expect("a directory");
    let base = base.path().canonicalize().expect("its name");
    let (own, drop_box) = (base.join("own"), base.join("drop-box"));
    let at = |path: &str| base.join(path).to_str().expect("UTF-8").to_owned();
    std::fs::create_dir_all(own.join("a")).expect("directories");
    std::fs::create_dir(&drop_box).expect("a directory");
    let links = 8;
    for link in 0..links {
        let next = if link + 1 == links {
            ".".to_owned()
        } else {
            format!("link-{}", link + 1)
        };
        let text = format!("{}{next}", "a/../".repeat(700));
        std::os::unix::fs::symlink(text, own.join(format!("link-{link}"))).expect("a link");
    }
    let entries = [
        support::peer::entry(&own, EVERYTHING, true),
        support::peer::entry(&drop_box, "list, create, delete", true),
    ];
    let granted = support::peer::grants(&format!("{{filesystem: [{}]}}", entries.join(", ")));
    let peer = Peer::new(&GrantedServices::new(granted), "racer").await;
    let rename = async |from: &str, to: &str| {
        let request = host::RenameRequest {
            from: at(from),
            to: at(to),
            replace: true,
        };
        peer.call::<_, host::RenameResponse>("Filesystem/Rename", request)
            .await
    };
    for round in 0..15 {
        std::fs::create_dir(own.join("dir")).expect("a directory");
        std::fs::write(own.join("dir/secret"), "own").expect("a file");
        std::fs::write(drop_box.join("secret"), "SECRET").expect("a file");
        let attack = async {
            // At another moment each time.
            for _ in 0..round {
                let request = host::ExistsRequest { path: at("own/a") };
                let there = peer.call::<_, host::ExistsResponse>("Filesystem/Exists", request);
                there.await.expect("an answer");
            }
            let out = rename("own/dir", "drop-box/dir").await;
            let other = rename("drop-box/secret", "drop-box/dir/secret").await;
            out.and(other)
        };
        let (first, attacked) = tokio::join!(rename("own/dir/secret", "own/link-0/got"), attack);
        attacked.expect("both are granted");
        match first {
            Ok(_) => {
                let got = std::fs::read_to_string(own.join("got")).expect("a file");
                assert_eq!(got, "own", "taken in round {round}");
                std::fs::remove_file(own.join("got")).expect("removed");
            }
            Err(status) => assert_eq!(status.code(), Code::NotFound, "{status}"),
        }
        std::fs::remove_dir_all(drop_box.join("dir")).expect("removed");
    }
    peer.close().await;
}
