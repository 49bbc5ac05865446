//! Each call of `hostserve.v1` does what the contract says, over a connection.

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use outrigger_services::{GrantedServices, HOST_SERVICES_DESCRIPTORS};
use outrigger_wire::proto::hostserve::*;
use prost::Message;
use prost_types::{FileDescriptorSet, Timestamp};
use support::peer::{EVERYTHING, Peer, entry, grants, in_band, services};
use support::raw::{Operation, operations};

/// Calls and unwraps: `call!(peer, Stat { root_dir: …, path: … })`.
macro_rules! call {
    ($peer:expr, $method:literal, $request:expr => $response:ty) => {{
        let reply: $response = $peer.call($method, $request).await.expect("a reply");
        in_band(reply.error.clone(), reply)
    }};
}

fn at(path: &str) -> (String, String) {
    (String::new(), path.to_owned())
}

async fn info(peer: &Peer, path: &str) -> Result<FileInfo, String> {
    let (root_dir, path) = at(path);
    let reply = call!(peer, "Stat", StatRequest { root_dir, path } => StatResponse)?;
    Ok(reply.info.expect("a successful reply has it"))
}

async fn link_info(peer: &Peer, path: &str) -> Result<FileInfo, String> {
    let (root_dir, path) = at(path);
    let reply = call!(peer, "Lstat", LstatRequest { root_dir, path } => LstatResponse)?;
    Ok(reply.info.expect("a successful reply has it"))
}

async fn paths(peer: &Peer, dir: &std::path::Path) {
    assert_eq!(peer.write("", "b.txt", b"hello").await, Ok(()));
    assert_eq!(peer.read("", "b.txt").await, Ok(b"hello".to_vec()));

    let (root_dir, name) = at("a");
    call!(peer, "Mkdir", MkdirRequest { root_dir, name, perm: 0o750 } => MkdirResponse)
        .expect("made");
    assert_eq!(
        std::fs::metadata(dir.join("a")).expect("there").mode() & 0o777,
        0o750
    );
    let (root_dir, path) = at("x/y/../z");
    call!(peer, "MkdirAll", MkdirAllRequest { root_dir, path, perm: 0o755 } => MkdirAllResponse)
        .expect("made");
    assert!(dir.join("x/y").is_dir() && dir.join("x/z").is_dir());

    let (root_dir, path) = at(".");
    let listed = call!(peer, "ReadDir", ReadDirRequest { root_dir, path } => ReadDirResponse)
        .expect("listed");
    let entries: Vec<_> = listed
        .entries
        .iter()
        .map(|e| (e.name.as_str(), e.is_dir))
        .collect();
    assert_eq!(entries, [("a", true), ("b.txt", false), ("x", true)]);

    let file = info(peer, "b.txt").await.expect("there");
    assert_eq!(
        (file.name.as_str(), file.size, file.is_dir),
        ("b.txt", 5, false)
    );
    assert_eq!(file.mode, 0o644 & !umask(dir));
    let here = info(peer, ".").await.expect("there");
    assert_eq!(
        (here.name.as_str(), here.is_dir, here.mode >> 31),
        (".", true, 1)
    );
    let missing = info(peer, "missing\n").await;
    assert_eq!(
        missing,
        Err(r#"Stat "missing\n": no such file or directory"#.into())
    );

    let (root_dir, path) = at("b.txt");
    let (uid, gid) = (-1, -1);
    call!(peer, "Chmod", ChmodRequest { root_dir, path, mode: 0o600 } => ChmodResponse)
        .expect("changed");
    let (root_dir, path) = at("b.txt");
    call!(peer, "Chown", ChownRequest { root_dir, path, uid, gid } => ChownResponse)
        .expect("unchanged");
    let (root_dir, path) = at("b.txt");
    call!(peer, "Lchown", LchownRequest { root_dir, path, uid, gid } => LchownResponse)
        .expect("unchanged");
    let (root_dir, path) = at("b.txt");
    let mtime = Some(Timestamp {
        seconds: 1_000_000_000,
        nanos: 5,
    });
    let request = ChtimesRequest {
        root_dir,
        path,
        atime: None,
        mtime,
    };
    call!(peer, "Chtimes", request => ChtimesResponse).expect("changed");
    let file = info(peer, "b.txt").await.expect("there");
    assert_eq!((file.mode, file.mod_time), (0o600, mtime));

    links(peer).await;

    let request = RenameRequest {
        root_dir: "a".into(),
        old_name: "hard".into(),
        new_name: "moved".into(),
    };
    call!(peer, "Rename", request => RenameResponse).expect("moved");
    assert_eq!(peer.read("a", "moved").await, Ok(b"hello".to_vec()));
    let (root_dir, path) = at("a/moved");
    call!(peer, "Remove", RemoveRequest { root_dir, path } => RemoveResponse).expect("removed");
    let (root_dir, path) = at("a");
    call!(peer, "Remove", RemoveRequest { root_dir, path } => RemoveResponse)
        .expect_err("it is not empty");
    for path in ["a", "x", "never-there"] {
        let (root_dir, path) = at(path);
        call!(peer, "RemoveAll", RemoveAllRequest { root_dir, path } => RemoveAllResponse)
            .expect("gone");
    }
    assert!(!dir.join("a").exists() && !dir.join("x").exists());
}

async fn links(peer: &Peer) {
    let (root_dir, new_path) = at("a/hard");
    let old_path = "b.txt".to_owned();
    call!(peer, "Link", LinkRequest { root_dir, old_path, new_path } => LinkResponse)
        .expect("linked");
    let (root_dir, new_path) = at("a/soft");
    let old_path = "hard".to_owned();
    call!(peer, "Symlink", SymlinkRequest { root_dir, old_path, new_path } => SymlinkResponse)
        .expect("linked");
    assert_eq!(peer.read("", "a/soft").await, Ok(b"hello".to_vec()));
    let (root_dir, path) = at("a/soft");
    let target = call!(peer, "Readlink", ReadlinkRequest { root_dir, path } => ReadlinkResponse);
    assert_eq!(target.expect("a link").destination, "hard");
    assert_eq!(
        link_info(peer, "a/soft").await.expect("there").mode & 1 << 27,
        1 << 27
    );
    assert_eq!(info(peer, "a/soft").await.expect("there").mode & 1 << 27, 0);
}

/// What the process takes away from the modes it creates files with.
fn umask(dir: &std::path::Path) -> u32 {
    let file = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o777))
        .tempfile_in(dir)
        .expect("a file");
    0o777 & !file.as_file().metadata().expect("its state").mode()
}

async fn handles(peer: &Peer, dir: &std::path::Path) {
    let (root_dir, path) = at("h");
    let created =
        call!(peer, "FileCreate", FileCreateRequest { root_dir, path } => FileCreateResponse);
    let handle = created.expect("created").handle;
    let written = call!(
        peer,
        "FileWriteSection",
        FileWriteSectionRequest {
            handle: handle.clone(),
            offset: 3,
            max_length: 4,
            data: "abcdef".into(),
            perm: 0,
        } => FileWriteSectionResponse
    );
    assert_eq!(written.expect("written").bytes_written, 4);
    assert_eq!(peer.section(&handle, 2, 100).await, Ok(b"\0abcd".to_vec()));
    assert_eq!(peer.section(&handle, 100, 100).await, Ok(Vec::new()));
    let seek = |offset: i64, whence| FileSeekRequest {
        handle: handle.clone(),
        offset: offset.cast_unsigned(),
        whence,
    };
    for (offset, whence, expected) in [(4, 0, 4), (-1, 1, 3), (-2, 2, 5), (2, 0, 2)] {
        let moved = call!(peer, "FileSeek", seek(offset, whence) => FileSeekResponse);
        assert_eq!(moved.expect("moved").new_offset, expected);
    }
    call!(peer, "FileSeek", seek(-9, 1) => FileSeekResponse).expect_err("before the start");
    let status = peer
        .call::<_, FileSeekResponse>("FileSeek", seek(0, 3))
        .await;
    assert_eq!(
        status.expect_err("abuse").code(),
        tonic::Code::InvalidArgument
    );

    streams(peer, &handle).await;

    let request = FileTruncateRequest {
        handle: handle.clone(),
        size: 3,
    };
    call!(peer, "FileTruncate", request => FileTruncateResponse).expect("cut");
    let request = FileChmodRequest {
        handle: handle.clone(),
        mode: 0o640,
    };
    call!(peer, "FileChmod", request => FileChmodResponse).expect("changed");
    let request = FileChownRequest {
        handle: handle.clone(),
        uid: -1,
        gid: -1,
    };
    call!(peer, "FileChown", request => FileChownResponse).expect("unchanged");
    let request = FileSyncRequest {
        handle: handle.clone(),
    };
    call!(peer, "FileSync", request => FileSyncResponse).expect("synced");
    let request = FileStatRequest {
        handle: handle.clone(),
    };
    let stat = call!(peer, "FileStat", request => FileStatResponse).expect("there");
    let stat = stat.info.expect("a successful reply has it");
    assert_eq!((stat.name.as_str(), stat.size, stat.mode), ("h", 3, 0o640));
    assert_eq!(std::fs::read(dir.join("h")).expect("there").len(), 3);
    let request = FileCloseRequest {
        handle: handle.clone(),
    };
    call!(peer, "FileClose", request.clone() => FileCloseResponse).expect("closed");
    let again = call!(peer, "FileClose", request => FileCloseResponse);
    assert_eq!(again.map(drop), Err("FileClose: no such handle".into()));
}

async fn streams(peer: &Peer, handle: &str) {
    let part = |data: &'static str| FileWriteRequest {
        handle: handle.into(),
        chunk: Some(FileChunk {
            data: data.into(),
            offset: 0,
            is_final: false,
        }),
    };
    // The position is at 2.
    let parts = futures_util::stream::iter([part("wx"), part("yz")]);
    let written: FileWriteResponse = peer.upload("FileWriter", parts).await.expect("a reply");
    assert_eq!((written.bytes_written, written.error), (4, None));
    assert_eq!(
        peer.section(handle, 0, 100).await,
        Ok(b"\0\0wxyzd".to_vec())
    );

    // Both spellings of where later parts go mean the same.
    for later in [10, 12] {
        let part = |data: &'static str, offset| FileWriteAtRequest {
            handle: handle.into(),
            offset,
            chunk: Some(FileChunk {
                data: data.into(),
                offset: 0,
                is_final: data == "end",
            }),
        };
        let parts = futures_util::stream::iter([part("at", 10), part("end", later)]);
        let written: FileWriteAtResponse =
            peer.upload("FileWriterAt", parts).await.expect("a reply");
        assert_eq!((written.bytes_written, written.error), (5, None));
        assert_eq!(peer.section(handle, 10, 100).await, Ok(b"atend".to_vec()));
    }

    let request = FileReadAtRequest {
        handle: handle.into(),
        offset: 2,
        chunk_size: 4,
    };
    let parts: Vec<Result<FileReadAtResponse, _>> = peer.download("FileReaderAt", request).await;
    let parts: Vec<FileChunk> = parts
        .into_iter()
        .map(|part| part.expect("a part").chunk.expect("a chunk"))
        .collect();
    let shape: Vec<_> = parts
        .iter()
        .map(|p| (p.offset, p.data.len(), p.is_final))
        .collect();
    assert_eq!(
        shape,
        [(2, 4, false), (6, 4, false), (10, 4, false), (14, 1, true)]
    );
    assert_eq!(parts[0].data, "wxyz");

    // The position is at 6 and moves along.
    for expected in [9, 0] {
        let request = FileReadRequest {
            handle: handle.into(),
            chunk_size: 0,
        };
        let parts: Vec<Result<FileReadResponse, _>> = peer.download("FileReader", request).await;
        let [Ok(part)] = parts.as_slice() else {
            panic!("one part: {parts:?}")
        };
        let chunk = part.chunk.as_ref().expect("a chunk");
        assert_eq!((chunk.data.len(), chunk.is_final), (expected, true));
    }
}

async fn temporary(peer: &Peer) {
    let dir = peer.temp_dir().await;
    let (root_dir, pattern) = at("work-*.d");
    let made =
        call!(peer, "MkdirTemp", MkdirTempRequest { root_dir, pattern } => MkdirTempResponse);
    let made = made.expect("made").path;
    assert!(
        made.starts_with(&format!("{dir}/work-")) && made.ends_with(".d"),
        "{made}"
    );
    assert_eq!(peer.write(&made, "note", b"temporary").await, Ok(()));
    assert_eq!(
        peer.read("", &format!("{made}/note")).await,
        Ok(b"temporary".to_vec())
    );
    assert_eq!(
        peer.read(&dir, &format!("{}/note", &made[dir.len() + 1..]))
            .await
            .as_deref(),
        Ok(&b"temporary"[..])
    );
    let (root_dir, pattern) = at("file-");
    let request = FileCreateTempRequest { root_dir, pattern };
    let created = call!(peer, "FileCreateTemp", request => FileCreateTempResponse);
    let handle = created.expect("created").handle;
    let stat = call!(peer, "FileStat", FileStatRequest { handle } => FileStatResponse);
    let stat = stat
        .expect("there")
        .info
        .expect("a successful reply has it");
    assert!(stat.name.starts_with("file-"));
    assert_eq!(stat.mode, 0o600);
    assert_eq!(peer.read(&dir, &stat.name).await, Ok(Vec::new()));
}

async fn host(peer: &Peer) {
    let uid = call!(peer, "Getuid", GetuidRequest {} => GetuidResponse)
        .expect("known")
        .uid;
    assert_eq!(uid.cast_unsigned(), rustix::process::getuid().as_raw());
    let gid = call!(peer, "Getgid", GetgidRequest {} => GetgidResponse)
        .expect("known")
        .gid;
    assert_eq!(gid.cast_unsigned(), rustix::process::getgid().as_raw());
    let euid = call!(peer, "Geteuid", GeteuidRequest {} => GeteuidResponse)
        .expect("known")
        .euid;
    assert_eq!(euid.cast_unsigned(), rustix::process::geteuid().as_raw());
    let egid = call!(peer, "Getegid", GetegidRequest {} => GetegidResponse)
        .expect("known")
        .egid;
    assert_eq!(egid.cast_unsigned(), rustix::process::getegid().as_raw());
    let pid = call!(peer, "Getpid", GetpidRequest {} => GetpidResponse)
        .expect("known")
        .pid;
    assert_eq!(pid.cast_unsigned(), std::process::id());
    call!(peer, "Getppid", GetppidRequest {} => GetppidResponse).expect("known");
    let groups = call!(peer, "GetGroups", GetGroupsRequest {} => GetGroupsResponse);
    let own = rustix::process::getgroups().expect("known").len();
    assert_eq!(groups.expect("known").groups.len(), own);
    let key = "PATH".to_owned();
    let path = call!(peer, "GetEnv", GetEnvRequest { key } => GetEnvResponse).expect("granted");
    assert_eq!(Some(path.val), std::env::var("PATH").ok());
    let key = "CARGO_MANIFEST_DIR".to_owned();
    let refused = call!(peer, "GetEnv", GetEnvRequest { key } => GetEnvResponse);
    let text = r#"GetEnv "CARGO_MANIFEST_DIR": not permitted by the host"#;
    assert_eq!(refused.map(drop), Err(text.into()));
    let key = "OUTRIGGER_NEVER_SET".to_owned();
    let unset = call!(peer, "GetEnv", GetEnvRequest { key } => GetEnvResponse).expect("granted");
    assert_eq!(unset.val, "");
    let home = std::env::var("HOME").ok().filter(|home| !home.is_empty());
    let told = call!(peer, "UserHomeDir", UserHomeDirRequest {} => UserHomeDirResponse);
    assert_eq!(told.ok().map(|reply| reply.dir), home);
    let cache = call!(peer, "UserCacheDir", UserCacheDirRequest {} => UserCacheDirResponse);
    assert!(home.is_none() || cache.is_ok());
    let config = call!(peer, "UserConfigDir", UserConfigDirRequest {} => UserConfigDirResponse);
    assert!(home.is_none() || config.is_ok());
}

#[tokio::test]
async fn every_call_of_the_contract_does_what_it_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let granted = GrantedServices::new(grants(&format!(
        "{{filesystem: [{}], environment: {{read: [PATH, OUTRIGGER_NEVER_SET]}}}}",
        entry(dir.path(), EVERYTHING, true)
    )));
    let peer = Peer::new(&granted, "lister").await;
    paths(&peer, dir.path()).await;
    handles(&peer, dir.path()).await;
    temporary(&peer).await;
    host(&peer).await;
    let handle = peer.open("h", OpenFileFlags::ReadOnly).await.expect("open");
    assert_eq!(peer.section(&handle, 0, 3).await.map(|c| c.len()), Ok(3));

    let contract = FileDescriptorSet::decode(HOST_SERVICES_DESCRIPTORS).expect("descriptors");
    let methods: std::collections::BTreeSet<String> = contract
        .file
        .iter()
        .flat_map(|file| &file.service)
        .filter(|service| service.name() == "HostService")
        .flat_map(|service| &service.method)
        .map(|method| method.name().to_owned())
        .collect();
    assert_eq!(methods.len(), 46);
    let untested: Vec<_> = methods.difference(&peer.called()).cloned().collect();
    assert_eq!(untested, Vec::<String>::new(), "calls without a test");
    peer.close().await;
}

#[tokio::test]
async fn open_flags_mean_what_the_contract_says() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("file"), b"12345").expect("a file");
    let granted = services(dir.path(), EVERYTHING);
    let peer = Peer::new(&granted, "opener").await;
    let put = async |handle: &str| {
        let request = FileWriteRequest {
            handle: handle.into(),
            chunk: Some(FileChunk {
                data: "ab".into(),
                offset: 0,
                is_final: true,
            }),
        };
        let parts = futures_util::stream::iter([request]);
        let reply: FileWriteResponse = peer.upload("FileWriter", parts).await.expect("a reply");
        in_band(reply.error, ())
    };
    let now = || std::fs::read_to_string(dir.path().join("file")).expect("there");
    for (flags, after) in [
        (OpenFileFlags::ReadWrite, "ab345"),
        (OpenFileFlags::ReadWriteCreate, "ab345"),
        (OpenFileFlags::WriteCreateAppend, "ab345ab"),
        (OpenFileFlags::ReadWriteCreateAppend, "ab345abab"),
        (OpenFileFlags::ReadWriteCreateTruncate, "ab"),
        (OpenFileFlags::WriteCreateTruncate, "ab"),
    ] {
        let handle = peer.open("file", flags).await.expect("open");
        put(&handle).await.expect("written");
        assert_eq!(now(), after, "{flags:?}");
    }
    for flags in [OpenFileFlags::ReadOnly, OpenFileFlags::Unspecified] {
        let handle = peer.open("file", flags).await.expect("open");
        put(&handle).await.expect_err("not for writing");
        let request = FileTruncateRequest { handle, size: 0 };
        let cut: FileTruncateResponse = peer.call("FileTruncate", request).await.expect("a reply");
        cut.error.expect("truncation needs writing");
        assert_eq!(now(), "ab");
        peer.open("missing", flags)
            .await
            .expect_err("it makes nothing");
    }
    peer.open("missing", OpenFileFlags::ReadWrite)
        .await
        .expect_err("it makes nothing");
    let exclusive = OpenFileFlags::WriteCreateExclusive;
    peer.open("file", exclusive).await.expect_err("it is there");
    peer.open("new", exclusive).await.expect("it is new");
    let request = FileOpenRequest {
        flags: 99,
        path: "file".into(),
        ..Default::default()
    };
    let status = peer.call::<_, FileOpenResponse>("FileOpen", request).await;
    assert_eq!(
        status.expect_err("abuse").code(),
        tonic::Code::InvalidArgument
    );
    peer.close().await;
}

#[tokio::test]
async fn a_root_dir_may_be_relative_absolute_or_the_top() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("sub")).expect("a directory");
    std::fs::write(dir.path().join("sub/file"), b"x").expect("a file");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let alias = elsewhere.path().join("alias");
    std::os::unix::fs::symlink(dir.path(), &alias).expect("a link");
    let granted = services(&alias, EVERYTHING);
    let peer = Peer::new(&granted, "lister").await;
    let top = dir.path().to_str().expect("UTF-8");
    let from_slash = format!("{}/sub/file", &top[1..]);
    let sub = format!("{top}/sub/");
    let odd = format!("{top}//./x/../sub");
    let by_alias = format!("{}/sub", alias.to_str().expect("UTF-8"));
    for (root_dir, path) in [
        ("", "sub/file"),
        (".", "./sub/file"),
        ("./", "sub//file"),
        ("sub", "file"),
        ("sub", "../sub/file"),
        (top, "sub/file"),
        (sub.as_str(), "file"),
        (odd.as_str(), "file"),
        (by_alias.as_str(), "file"),
        ("/", from_slash.as_str()),
        ("ignored", sub.as_str()),
    ] {
        let path = if path == sub {
            format!("{sub}file")
        } else {
            path.to_owned()
        };
        let expected = if path.starts_with("..") {
            Err(())
        } else {
            Ok(b"x".to_vec())
        };
        assert_eq!(
            peer.read(root_dir, &path).await.map_err(drop),
            expected,
            "{root_dir} {path}"
        );
    }
    peer.close().await;
}

/// Descriptors of this process that lead beneath `dir`.
fn open_beneath(dir: &std::path::Path) -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd")
        .expect("procfs")
        .flatten();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets
        .filter(|target| target.starts_with(dir) && target != dir)
        .count()
}

#[tokio::test]
async fn a_hundred_clients_at_once_keep_apart_and_leave_nothing() {
    let (dir, temporary) = (tempfile::tempdir(), tempfile::tempdir());
    let (dir, temporary) = (dir.expect("a directory"), temporary.expect("a directory"));
    let services = services(dir.path(), EVERYTHING).temp_root(temporary.path());
    let clients = (0..100).map(|n| {
        let services = &services;
        async move {
            let (name, file) = (format!("client{n}"), format!("{n}.txt"));
            let peer = Peer::new(services, &name).await;
            let own = peer.temp_dir().await;
            peer.write(&own, "note", b"temporary")
                .await
                .expect("written");
            let handle = peer.open(&file, OpenFileFlags::WriteCreateTruncate);
            let handle = handle.await.expect("opened");
            for part in ["one ", "two ", &name] {
                let request = FileWriteSectionRequest {
                    handle: handle.clone(),
                    offset: info(&peer, &file).await.expect("there").size as u64,
                    max_length: 0,
                    data: part.to_owned().into(),
                    perm: 0,
                };
                call!(peer, "FileWriteSection", request => FileWriteSectionResponse)
                    .expect("written");
            }
            assert_eq!(peer.read(&own, "note").await, Ok(b"temporary".to_vec()));
            let written = peer.read("", &file).await.expect("read");
            assert_eq!(String::from_utf8(written), Ok(format!("one two {name}")));
            (peer, own)
        }
    });
    let clients = futures_util::future::join_all(clients).await;
    let owned: std::collections::BTreeSet<_> = clients.iter().map(|(_, own)| own).collect();
    assert_eq!(
        owned.len(),
        100,
        "each has a temporary directory of its own"
    );
    for (peer, own) in clients {
        peer.close().await;
        support::peer::gone(std::path::Path::new(&own)).await;
    }
    assert_eq!(open_beneath(dir.path()), 0);
}

#[tokio::test]
async fn fifty_handles_at_once_each_keep_their_own_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let services = services(dir.path(), EVERYTHING);
    let peer = Peer::new(&services, "handles").await;
    let content = |n: usize| format!("file {n}: {}", "x".repeat(n));
    let handles = (0..50).map(|n| {
        std::fs::write(dir.path().join(format!("{n}")), content(n)).expect("a file");
        let peer = &peer;
        async move { peer.open(&n.to_string(), OpenFileFlags::ReadOnly).await }
    });
    let handles = futures_util::future::try_join_all(handles)
        .await
        .expect("opened");
    assert_eq!(open_beneath(dir.path()), 50);
    let seeks = handles.iter().enumerate().map(|(n, handle)| {
        let peer = &peer;
        async move {
            let request = FileSeekRequest {
                handle: handle.clone(),
                offset: n as u64,
                whence: 0,
            };
            let reply = call!(peer, "FileSeek", request => FileSeekResponse).expect("moved");
            assert_eq!(reply.new_offset, n as u64);
        }
    });
    futures_util::future::join_all(seeks).await;
    let reads = handles.iter().enumerate().map(|(n, handle)| {
        let (peer, request) = (
            &peer,
            FileReadRequest {
                handle: handle.clone(),
                chunk_size: 16,
            },
        );
        async move {
            let pieces: Vec<Result<FileReadResponse, _>> =
                peer.download("FileReader", request).await;
            let data = pieces.into_iter().flat_map(|piece| {
                let piece = piece.expect("a piece");
                in_band(piece.error, piece.chunk.unwrap_or_default().data).expect("its data")
            });
            let rest: Vec<u8> = data.collect();
            assert_eq!(rest, content(n).as_bytes()[n..], "{n}");
        }
    });
    futures_util::future::join_all(reads).await;
    for handle in &handles[..25] {
        let request = FileCloseRequest {
            handle: handle.clone(),
        };
        call!(peer, "FileClose", request => FileCloseResponse).expect("closed");
    }
    assert_eq!(open_beneath(dir.path()), 25);
    peer.close().await;
    assert_eq!(
        open_beneath(dir.path()),
        0,
        "a lost client's handles are closed"
    );
}

/// What one operation of `hostserve.v1` on one place does to fresh files: how it
/// failed, and what is there afterwards.
async fn outcome(operation: &Operation, file: bool, whole_in_root: bool) -> (String, Vec<String>) {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("sub")).expect("a directory");
    std::fs::create_dir(dir.path().join("sub/dir")).expect("a directory");
    std::fs::write(dir.path().join("sub/file"), b"contents").expect("a file");
    let peer = Peer::new(&services(dir.path(), EVERYTHING), "rooted").await;
    let target = dir.path().join(if file { "sub/file" } else { "sub/dir" });
    let target = target.to_str().expect("text").to_owned();
    let place = operation.paths().concat();
    let request = if whole_in_root {
        operation.request(&[("root_dir", &target)])
    } else {
        operation.request(&[(&place, &target)])
    };
    let outcome = operation.call(&peer, request).await;
    let failed = outcome.err().unwrap_or_default();
    let failed = failed.rsplit(": ").next().unwrap_or_default().to_owned();
    peer.close().await;
    let mut left = Vec::new();
    for name in ["sub", "sub/dir", "sub/file"] {
        let about = std::fs::metadata(dir.path().join(name));
        left.push(about.map_or_else(
            |error| error.kind().to_string(),
            |about| format!("{:o} {}", about.mode(), about.len()),
        ));
    }
    (failed, left)
}

#[tokio::test]
async fn a_whole_path_in_root_dir_means_the_same_as_in_the_path() {
    let all = operations().into_iter().filter(|operation| {
        operation.service == "hostserve.v1.HostService"
            && operation.takes("root_dir")
            && operation.paths().len() == 1
            // Their text is not seen from `root_dir`.
            && !["MkdirTemp", "FileCreateTemp"].contains(&operation.name.as_str())
    });
    let (mut seen, mut worked) = (0, 0);
    for operation in all {
        for file in [true, false] {
            let in_root = outcome(&operation, file, true).await;
            let in_path = outcome(&operation, file, false).await;
            assert_eq!(in_root, in_path, "{} of a file: {file}", operation.name);
            worked += usize::from(in_root.0.is_empty());
        }
        seen += 1;
    }
    // An empty place is none for what takes two.
    assert!(
        seen >= 14 && worked >= 14,
        "{seen} operations, {worked} worked"
    );
}

#[tokio::test]
async fn root_dir_and_path_are_joined_as_go_joins_them() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("sub")).expect("a directory");
    std::fs::write(dir.path().join("sub/file"), b"contents").expect("a file");
    let peer = Peer::new(&services(dir.path(), "read, list"), "joiner").await;
    let top = dir.path().to_str().expect("text");
    for (root_dir, path) in [
        ("sub/file", ""),
        ("sub/file/", ""),
        ("sub/file", "."),
        ("sub/file/.", "./"),
        ("./sub//file", ""),
        ("sub", "file/"),
        ("", "sub/file/"),
        (".", "./sub/./file"),
        ("sub/", "../sub/file"),
        (&format!("{top}/sub/file"), ""),
        (&format!("{top}//sub/file/"), "."),
        (&format!("{top}/sub/.."), "sub/file"),
        ("elsewhere", &format!("{top}/sub/file/")),
    ] {
        let read = peer.read(root_dir, path).await;
        let leaves = path.starts_with("..");
        match leaves {
            false => assert_eq!(
                read.as_deref(),
                Ok(&b"contents"[..]),
                "{root_dir:?} {path:?}"
            ),
            true => assert!(read.expect_err("refused").ends_with("granted directory")),
        }
    }
    // A step through a file is one, however it is joined.
    for (root_dir, path) in [
        ("sub/file", "x"),
        ("", "sub/file/../file"),
        ("sub/file", "./x"),
    ] {
        let error = peer
            .read(root_dir, path)
            .await
            .expect_err("not a directory");
        assert!(
            error.ends_with("not a directory"),
            "{root_dir:?} {path:?}: {error}"
        );
    }
    peer.close().await;
}
