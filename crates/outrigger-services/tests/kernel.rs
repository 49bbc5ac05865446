//! Whatever is granted, nothing leads to the host's own process, to other
//! processes, or to a change of the kernel's settings; and what the kernel tells
//! everybody is read like any file.
#![allow(clippy::disallowed_methods)] // `unshare` and the test itself are no plugins.
#![allow(clippy::print_stderr)] // Whoever runs the test is told what was not.

mod support;

use std::path::{Path, PathBuf};

use outrigger_services::GrantedServices;
use outrigger_wire::proto::host::*;
use support::grants_with;
use support::peer::{EVERYTHING, Peer, entry};
use support::raw::{Operation, operations};

/// Services under which the whole tree is granted, and a command.
fn everything(rights: &str) -> GrantedServices {
    let entry = entry(Path::new("/"), rights, true);
    GrantedServices::new(grants_with(&format!(
        "capabilities: {{filesystem: [{entry}], process: {{exec: [{{command: /bin/cat}}]}}}}"
    )))
}

fn refused(text: &str) -> bool {
    text.ends_with("not permitted by the host") || text.ends_with("outside the granted directory")
}

/// Calls the operations that name places and are `chosen`, each place field of each
/// in turn set to `attacked` and the others to what is harmless beneath `dir`; none
/// may work. How many calls that were.
async fn attack(
    peer: &Peer,
    attacked: &str,
    dir: &Path,
    chosen: impl Fn(&Operation, &str) -> bool,
    mut judge: impl FnMut(&str, String),
) -> usize {
    let harmless = dir.join("file").to_str().expect("text").to_owned();
    let fresh = dir.join("fresh").to_str().expect("text").to_owned();
    let request = OpenDirRequest { path: "/".into() };
    let top = peer.call::<_, OpenDirResponse>("Filesystem/OpenDir", request);
    let top = top.await.expect("a lease");
    let mut attacks = 0;
    for operation in operations() {
        let by_lease = operation.name == "OpenAt";
        for field in operation.paths() {
            if !chosen(&operation, &field) {
                continue;
            }
            let text = |name: &str| match name {
                _ if name == field && by_lease => attacked.trim_start_matches('/').to_owned(),
                _ if name == field => attacked.to_owned(),
                "lease" if by_lease => top.lease.clone(),
                "from" | "existing" | "old_name" | "old_path" => harmless.clone(),
                "to" | "new" | "new_name" | "new_path" => fresh.clone(),
                "target" => "file".into(),
                _ => String::new(),
            };
            let names = operation.texts.iter().map(|(name, _)| name.as_str());
            let texts: Vec<(&str, String)> = names.map(|name| (name, text(name))).collect();
            let texts: Vec<(&str, &str)> = texts.iter().map(|(n, t)| (*n, t.as_str())).collect();
            let outcome = operation.call(peer, operation.request(&texts)).await;
            let what = format!("{}/{} {field}", operation.service, operation.name);
            match outcome {
                // Not what it says: that may be a secret of whoever runs the test.
                Ok(reply) => panic!("{what} of {attacked} is served: {} bytes", reply.len()),
                Err(text) => judge(&what, text),
            }
            attacks += 1;
        }
    }
    let close = CloseRequest { lease: top.lease };
    let _: CloseResponse = peer.call("Filesystem/Close", close).await.expect("closed");
    assert!(!dir.join("fresh").exists(), "{attacked}");
    attacks
}

/// All of them are refused, or fail because that is no link, no directory, or not
/// on one file system with what is made.
async fn all_refused(peer: &Peer, attacked: &str, dir: &Path) {
    let every = |_: &Operation, _: &str| true;
    let attacks = attack(peer, attacked, dir, every, |what, text| {
        let no_link = what.contains("Readlink") && text.ends_with("invalid argument");
        let no_dir = text.ends_with("not a directory");
        let across = what.contains("Link") && text.ends_with("invalid cross-device link");
        let none = no_link || no_dir || across;
        assert!(refused(&text) || none, "{what} of {attacked}: {text}");
    });
    let attacks = attacks.await;
    assert!(attacks >= 45, "{attacks} attacks");
}

fn is_mounted(path: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the mounts");
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(path))
}

fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("file"), b"contents").expect("a file");
    dir
}

#[tokio::test]
async fn no_operation_reaches_a_process_or_changes_a_setting_whatever_is_granted() {
    let dir = place();
    let peer = Peer::new(&everything(EVERYTHING), "attacker").await;
    let pid = std::process::id();
    for attacked in [
        "/proc/self/environ",
        "/proc/self/mem",
        "/proc/self/oom_score_adj",
        "/proc/self/exe",
        "/proc/self/cwd",
        "/proc/self/root/proc/version",
        "/proc/self/map_files",
        "/proc/self/fd/0",
        "/proc/self/fdinfo/0",
        "/proc/self/ns/net",
        "/proc/thread-self/environ",
        "/proc/net/dev",
        "/proc/1/environ",
        &format!("/proc/{pid}"),
        &format!("/proc/{pid}/environ"),
        &format!("/proc/{pid}/task/{pid}/environ"),
        &format!("/proc/sys/../{pid}/environ"),
        "/proc/kcore",
        "/proc/kmsg",
        "/proc/kallsyms",
        "/proc/keys",
        "/proc/modules",
        "/proc/sysrq-trigger",
        "/sys/kernel/debug",
        "/sys/kernel/security",
        "/sys/kernel/tracing",
        "/sys/fs/bpf",
    ] {
        // The kernel may be without it, or not show it here.
        let there = std::fs::symlink_metadata(attacked).is_ok();
        if !there || (attacked.starts_with("/sys") && !is_mounted(attacked)) {
            continue;
        }
        all_refused(&peer, attacked, dir.path()).await;
    }
    peer.close().await;
}

#[tokio::test]
async fn no_command_works_in_the_directory_of_a_process() {
    let dir = place();
    let peer = Peer::new(&everything("read, list"), "runner").await;
    let run = |directory: &str| RunRequest {
        command: Some(Command {
            command: "/bin/cat".into(),
            directory: directory.into(),
            ..Command::default()
        }),
        ..RunRequest::default()
    };
    for directory in ["/proc/self", "/proc/self/cwd", "/proc/self/fd"] {
        let ran = peer.call::<_, RunResponse>("Process/Run", run(directory));
        let status = ran.await.expect_err("no such directory for a command");
        assert!(refused(status.message()), "{directory}: {status}");
    }
    let here = dir.path().to_str().expect("text");
    peer.call::<_, RunResponse>("Process/Run", run(here))
        .await
        .expect("an ordinary directory");
    peer.close().await;
}

#[tokio::test]
async fn what_the_kernel_tells_is_changed_by_no_operation() {
    let dir = place();
    let peer = Peer::new(&everything(EVERYTHING), "setter").await;
    let looking = [
        "ReadFile",
        "Open",
        "OpenAt",
        "OpenDir",
        "Stat",
        "Lstat",
        "Exists",
        "List",
        "ListStream",
        "ReadDir",
        "Readlink",
        "FileOpen",
        "Watch",
    ];
    for setting in [
        "/proc/sys/kernel/hostname",
        "/proc/sys/fs",
        "/proc/meminfo",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/fs/cgroup/unified/cgroup.procs",
        "/sys/class",
    ] {
        if !Path::new(setting).exists() {
            continue;
        }
        let changing = |operation: &Operation, field: &str| {
            let name = operation.name.as_str();
            !looking.contains(&name) && (name != "Copy" || field != "from")
        };
        let changes = attack(&peer, setting, dir.path(), changing, |what, text| {
            // A second name is no change of it; the kernel refuses that one.
            let across = what.contains("Link") && text.ends_with("invalid cross-device link");
            let no_file = what.contains("Link") && text.ends_with("is a directory");
            assert!(
                refused(&text) || across || no_file,
                "{what} of {setting}: {text}"
            );
        });
        let changes = changes.await;
        assert!(changes >= 30, "{changes} changes");
        assert!(Path::new(setting).exists(), "{setting}");
    }
    // Nor by a handle that was opened to read.
    let open = OpenRequest {
        path: "/proc/version".into(),
        options: None,
    };
    let opened: OpenResponse = peer.call("Filesystem/Open", open).await.expect("readable");
    let lease = opened.lease;
    let chmod = FileChmodRequest {
        lease: lease.clone(),
        mode: 0o600,
    };
    let status = peer
        .call::<_, ChmodResponse>("Filesystem/FileChmod", chmod)
        .await;
    assert!(refused(status.expect_err("refused").message()));
    let times = FileChtimesRequest {
        lease,
        ..FileChtimesRequest::default()
    };
    let status = peer
        .call::<_, ChtimesResponse>("Filesystem/FileChtimes", times)
        .await;
    assert!(refused(status.expect_err("refused").message()));
    peer.close().await;
}

async fn read(peer: &Peer, path: &str) -> Result<Vec<u8>, String> {
    peer.read("", path).await
}

#[tokio::test]
async fn what_the_kernel_tells_everybody_is_read_and_ordinary_files_are_served_everywhere() {
    let peer = Peer::new(&everything(EVERYTHING), "reader").await;
    for facts in [
        "/proc/version",
        "/proc/cpuinfo",
        "/proc/sys/kernel/osrelease",
    ] {
        let text = read(&peer, facts).await.expect(facts);
        assert!(!text.is_empty(), "{facts}");
    }
    let list = ListRequest {
        path: "/proc".into(),
        ..ListRequest::default()
    };
    let page: ListResponse = peer.call("Filesystem/List", list).await.expect("listed");
    assert!(page.entries.iter().any(|entry| entry.name == "cpuinfo"));
    let list = ListRequest {
        path: "/sys/class".into(),
        ..ListRequest::default()
    };
    let _: ListResponse = peer.call("Filesystem/List", list).await.expect("listed");
    let stat = StatRequest {
        path: "/proc/meminfo".into(),
    };
    let _: StatResponse = peer.call("Filesystem/Stat", stat).await.expect("there");
    // A file of which the kernel shows nothing to most users.
    let page = read(&peer, "/proc/kpagecount")
        .await
        .expect_err("not for everybody");
    assert!(
        refused(&page) || page.ends_with("no such file or directory"),
        "{page}"
    );
    let slabs = read(&peer, "/proc/slabinfo")
        .await
        .expect_err("not for everybody");
    assert!(
        refused(&slabs) || slabs.ends_with("no such file or directory"),
        "{slabs}"
    );

    // Also on another mount than the granted directory's, where devices may lie.
    for base in ["/dev/shm", "/tmp"] {
        let dir = tempfile::tempdir_in(base).expect("a directory");
        let file = dir.path().join("file");
        let path = file.to_str().expect("text");
        peer.write("", path, b"contents").await.expect("written");
        assert_eq!(read(&peer, path).await.as_deref(), Ok(&b"contents"[..]));
        let remove = RemoveRequest { path: path.into() };
        let _: RemoveResponse = peer
            .call("Filesystem/Remove", remove)
            .await
            .expect("removed");
        assert!(!file.exists());
    }
    peer.close().await;
}

#[tokio::test]
async fn names_that_mean_the_hosts_own_descriptors_and_devices_lead_to_nothing() {
    let peer = Peer::new(&everything("read, list"), "opener").await;
    for path in [
        "/dev/stdin",
        "/dev/fd/0",
        "/dev/fd",
        "/proc/mounts",
        "/proc/net",
        "/dev/null",
        "/dev/tty",
        "/dev/mem",
        "/dev/kmsg",
        "/dev/ptmx",
    ] {
        if !Path::new(path).exists() {
            continue;
        }
        let error = read(&peer, path).await.expect_err(path);
        assert!(refused(&error), "{path}: {error}");
        let open = OpenRequest {
            path: path.into(),
            options: None,
        };
        let status = peer.call::<_, OpenResponse>("Filesystem/Open", open).await;
        assert!(refused(status.expect_err(path).message()), "{path}");
    }
    peer.close().await;
}

#[tokio::test]
async fn a_link_in_a_granted_directory_leads_to_no_process() {
    let dir = place();
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(to, dir.path().join(name)).expect("a link");
    };
    link("/proc/self/environ", "environ");
    link("/proc/self", "self");
    let here = dir.path().to_str().expect("text").to_owned();
    let services = [
        support::peer::services(dir.path(), "read, list"),
        everything("read, list"),
    ];
    for services in services {
        let peer = Peer::new(&services, "follower").await;
        for name in ["environ", "self/environ"] {
            let error = read(&peer, &format!("{here}/{name}"))
                .await
                .expect_err(name);
            assert!(refused(&error), "{name}: {error}");
        }
        peer.close().await;
    }
}

#[test]
fn a_grant_that_holds_such_places_is_said_to_be_served_in_part() {
    let told = |path: &str, rights| -> Vec<String> {
        let entry = entry(Path::new(path), rights, path == "/" || path == "/proc");
        let sections = format!("capabilities: {{filesystem: [{entry}]}}");
        let services = GrantedServices::new(grants_with(&sections));
        let limited = services.limited().map(|limited| limited.to_string());
        let unusable = services.unusable().map(ToString::to_string);
        limited.chain(unusable).collect()
    };
    let processes = "what belongs to processes is never served there, the rest is only read";
    assert!(told("/", "read").iter().any(|text| {
        text.starts_with("\"/\" is granted, with \"/proc\"") && text.ends_with(processes)
    }));
    assert_eq!(
        told("/proc", "read").first(),
        Some(&format!("\"/proc\" is granted: {processes}"))
    );
    assert_eq!(told("/proc/version", "read"), [""; 0]);
    assert_eq!(told("/proc/version", "read, write").len(), 1);
    assert_eq!(told("/usr", "read"), [""; 0]);
    let environ = told("/proc/self/environ", "read");
    assert_eq!(
        environ,
        [
            "\"/proc/self/environ\" is granted and cannot be served: what belongs to a process is never served"
        ]
    );
}

/// Without `openat2` what was opened is judged as well, by its own.
#[test]
fn the_same_is_refused_and_served_where_newer_system_calls_are_refused() {
    for (call, answer) in [("openat2", "ENOSYS"), ("all", "EPERM")] {
        let mut host = std::process::Command::new(outrigger_testing::program("refusing"));
        host.args([call, answer]);
        host.arg(std::env::current_exe().expect("its own name"));
        host.arg("--exact").args([
            "no_operation_reaches_a_process_or_changes_a_setting_whatever_is_granted",
            "what_the_kernel_tells_is_changed_by_no_operation",
            "what_the_kernel_tells_everybody_is_read_and_ordinary_files_are_served_everywhere",
        ]);
        let output = host.output().expect("run");
        let text = String::from_utf8_lossy(&output.stdout);
        let done = output.status.success() && text.contains("3 passed");
        assert!(done, "{call}: {answer}: {text}");
    }
}

/// Set where the test below runs in a mount namespace of its own.
const INSIDE: &str = "OUTRIGGER_TEST_MOUNTS";

/// Mounts that show parts of procfs elsewhere; `$1` is an empty directory.
const MOUNTS: &str = r#"
set -e
mount --make-rprivate /
cd "$1"
mkdir second process settings plain power
touch environ facts
mount -t proc proc second
mount --bind /proc/$$ process
mount --bind /proc/$$/environ environ
mount --bind /proc/sys settings
mount --bind /proc/version facts
mount -t tmpfs tmpfs plain
mount --bind /proc/$$ /proc/fs
mount -t debugfs debugfs power || mount -t tracefs tracefs power || mount -t bpf bpf power
echo contents > plain/file
shift
exec "$@"
"#;

/// The parts of procfs that such mounts show are what they are wherever they lie.
#[test]
fn another_mount_of_procfs_shows_no_process_either() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(attack_mounts());
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let test = std::env::current_exe().expect("its own name");
    let name = "another_mount_of_procfs_shows_no_process_either";
    let unshare = |more: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount"]).args(more);
        command.stdin(std::process::Stdio::null());
        command
    };
    if !unshare(&["true"])
        .output()
        .is_ok_and(|done| done.status.success())
    {
        eprintln!("not run: this machine gives no mount namespace");
        return;
    }
    let mut inside = unshare(&["sh", "-c", MOUNTS, "sh"]);
    inside
        .arg(dir.path())
        .arg(&test)
        .args([name, "--exact", "--nocapture"]);
    let done = inside.env(INSIDE, dir.path()).output().expect("it ran");
    let text = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && text.contains("1 passed"), "{text}");
}

async fn attack_mounts() {
    let dir = PathBuf::from(std::env::var_os(INSIDE).expect("set"));
    let here = dir.to_str().expect("text");
    let pid = std::process::id();
    std::fs::write(dir.join("file"), b"contents").expect("a file");
    for granted in [Path::new("/"), &dir] {
        let entry = entry(granted, EVERYTHING, true);
        let sections = format!("capabilities: {{filesystem: [{entry}]}}");
        let peer = Peer::new(&GrantedServices::new(grants_with(&sections)), "mounted").await;
        for attacked in [
            "second/self/environ",
            &format!("second/{pid}/environ"),
            "process/environ",
            "process/fd/0",
            "process/root/proc/version",
        ] {
            if granted == Path::new("/") {
                all_refused(&peer, &format!("{here}/{attacked}"), &dir).await;
            }
            let error = read(&peer, &format!("{here}/{attacked}")).await;
            assert!(refused(&error.expect_err(attacked)), "{attacked}");
        }
        for attacked in ["environ", "process/status", "second/1/status"] {
            let error = read(&peer, &format!("{here}/{attacked}")).await;
            assert!(refused(&error.expect_err(attacked)), "{attacked}");
        }
        if granted == Path::new("/") {
            let error = read(&peer, "/proc/fs/environ").await;
            assert!(refused(&error.expect_err("a process by another name")));
        }
        let written = peer
            .write("", &format!("{here}/settings/kernel/hostname"), b"x")
            .await;
        assert!(refused(&written.expect_err("a setting")));
        let power = ListRequest {
            path: format!("{here}/power"),
            ..ListRequest::default()
        };
        let listed = peer.call::<_, ListResponse>("Filesystem/List", power).await;
        assert!(refused(listed.expect_err("no contents").message()));
        for facts in ["facts", "second/version", "settings/kernel/osrelease"] {
            read(&peer, &format!("{here}/{facts}")).await.expect(facts);
        }
        let plain = format!("{here}/plain/file");
        assert_eq!(read(&peer, &plain).await.as_deref(), Ok(&b"contents\n"[..]));
        peer.write("", &plain, b"changed")
            .await
            .expect("an ordinary file");
        std::fs::write(&plain, "contents\n").expect("as it was");
        peer.close().await;
    }
    for granted in ["process", "environ", "process/environ"] {
        let entry = entry(&dir.join(granted), "read, list", granted == "process");
        let sections = format!("capabilities: {{filesystem: [{entry}]}}");
        let services = GrantedServices::new(grants_with(&sections));
        let unusable: Vec<String> = services.unusable().map(ToString::to_string).collect();
        assert_eq!(unusable.len(), 1, "{granted}");
        assert!(unusable[0].ends_with("never served"), "{unusable:?}");
    }
}

/// The table above knows every operation that names a place.
#[test]
fn every_operation_that_names_a_place_is_attacked() {
    let all = operations();
    let named = |operation: &&Operation| !operation.paths().is_empty();
    let ours = |operation: &&Operation| operation.service == "outrigger.host.v1.Filesystem";
    let by_lease = [
        "Close",
        "Read",
        "Write",
        "ReadNext",
        "WriteNext",
        "Seek",
        "Sync",
    ];
    for operation in all.iter().filter(ours).filter(|one| !named(one)) {
        let name = operation.name.as_str();
        let by_lease = by_lease.contains(&name) || operation.takes("lease");
        assert!(
            by_lease || operation.streamed_requests || name.starts_with("Temp"),
            "{name}"
        );
    }
}
