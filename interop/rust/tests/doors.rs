//! Whatever way a plugin asks its host for something, it is told the same when
//! that fails: by descriptor and by call, through the SDKs in Rust and in Python,
//! and, as far as it says anything, in `hostserve.v1`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_examples::proto::filelister::FileListRequest;
use outrigger_examples::{FileLister, host_services_cookie};
use outrigger_host::{Launch, PluginSet, RunningPlugin, Serving};
use outrigger_manifest::{Manifest, Places, Policy};
use outrigger_services::{GrantedServices, Limits};
use outrigger_wire::SystemError;
use rustix::fs::{IFlags, Mode, OFlags};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PROGRAM: &str = env!("CARGO_BIN_EXE_doors");
const ALL: &str = "[read, write, list, create, delete]";

/// Where the host keeps what the plugins ask for.
struct Place {
    base: tempfile::TempDir,
    /// On another device than `base`, where there is one to write to.
    elsewhere: Option<tempfile::TempDir>,
    /// On a file system that is mounted read-only, where there is one.
    unwritable: Option<PathBuf>,
    /// A port that nobody listens at, kept from everybody else, and one that is taken.
    closed: (OwnedFd, u16),
    taken: TcpListener,
    udp: UdpSocket,
}

impl Place {
    fn new() -> Self {
        let base = tempfile::tempdir().expect("a directory");
        for dir in ["readable", "fixed", "all"] {
            std::fs::create_dir(base.path().join(dir)).expect("a directory");
        }
        std::fs::write(base.path().join("readable/file"), "hello").expect("a file");
        let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
        let elsewhere = tempfile::tempdir_in("/dev/shm").ok();
        let elsewhere = elsewhere.filter(|dir| device(dir.path()) != device(base.path()));
        let place = Self {
            base,
            elsewhere,
            unwritable: read_only_mount(),
            closed: closed_port().expect("a port"),
            taken: TcpListener::bind("127.0.0.1:0").expect("a port"),
            udp: UdpSocket::bind("127.0.0.1:0").expect("a port"),
        };
        place.prepare();
        place
    }

    /// A file that nobody may open: for who may do everything it is immutable, where
    /// the file system knows that.
    fn fixed(&self) -> PathBuf {
        self.base.path().join("fixed/file")
    }

    fn udp(&self) -> String {
        let taken = self.udp.local_addr().expect("an address");
        taken.port().to_string()
    }

    fn taken(&self) -> String {
        let taken = self.taken.local_addr().expect("an address");
        taken.port().to_string()
    }

    fn dir(&self) -> PathBuf {
        self.base.path().join("all")
    }

    /// Makes everything anew, so that one way finds nothing of what another did.
    fn prepare(&self) {
        let (dir, fixed) = (self.dir(), self.fixed());
        let elsewhere = self.elsewhere.as_ref().map(|dir| dir.path().join("new"));
        for new in [Some(fixed.with_file_name("new")), elsewhere] {
            let new = new.unwrap_or_default();
            let _ = std::fs::remove_file(&new).or_else(|_| std::fs::remove_dir(&new));
        }
        if !fixed.exists() {
            std::fs::write(&fixed, "hello").expect("a file");
            let mode = std::fs::Permissions::from_mode(0o0);
            std::fs::set_permissions(&fixed, mode).expect("its mode");
            let _ = set_flags(&fixed, IFlags::IMMUTABLE);
        }
        // Emptied, not made anew: the grant is for this very directory.
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let removed = match entry.file_type().expect("a type").is_dir() {
                true => std::fs::remove_dir_all(&path),
                false => std::fs::remove_file(&path),
            };
            removed.expect("it can be removed");
        }
        std::fs::create_dir(dir.join("dir")).expect("a directory");
        std::fs::create_dir(dir.join("empty")).expect("a directory");
        for (name, mode) in [
            ("file", 0o644),
            ("dir/inner", 0o644),
            ("twin", 0o644),
            ("odd", 0o755),
        ] {
            std::fs::write(dir.join(name), "hello").expect("a file");
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(dir.join(name), mode).expect("its mode");
        }
        std::fs::hard_link(dir.join("twin"), dir.join("other")).expect("a second name");
        for (target, name) in [
            ("loop", "loop"),
            ("/etc", "away"),
            ("file", "link"),
            ("none", "nowhere"),
        ] {
            std::os::unix::fs::symlink(target, dir.join(name)).expect("a link");
        }
        let socket = std::os::unix::net::UnixListener::bind(dir.join("socket"));
        drop(socket.expect("a socket"));
    }

    fn services(&self) -> GrantedServices {
        let base = self.base.path();
        let more = [
            self.elsewhere.as_ref().map(tempfile::TempDir::path),
            self.unwritable.as_deref(),
        ];
        let more: String = more
            .into_iter()
            .flatten()
            .map(|path| format!("\n    - {{path: {path:?}, permissions: {ALL}, recursive: true}}"))
            .collect();
        let (taken, udp) = (self.taken(), self.udp());
        let manifest = format!(
            "plugin: {{name: doors, format: grpc, entrypoint: doors}}\n\
             handshake: {{protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}}\n\
             services: [filesystem, environment, process, network, clock]\n\
             capabilities:\n  \
             filesystem:\n    \
             - {{path: {all:?}, permissions: {ALL}, recursive: true}}\n    \
             - {{path: {fixed:?}, permissions: {ALL}, recursive: true}}\n    \
             - {{path: {readable:?}, permissions: [read, list], recursive: true}}{more}\n  \
             environment: {{set: {{DOORS_SHOWN: shown}}}}\n  \
             network:\n    \
             egress: [{{protocol: tcp, hosts: [127.0.0.1, localhost], ports: [{closed}, {taken}]}}, \
             {{protocol: udp, hosts: [127.0.0.1], ports: [{udp}]}}]\n    \
             ingress: [{{protocol: tcp, ports: [{taken}], allowed_origins: [127.0.0.1]}}, \
             {{protocol: udp, ports: [{udp}], allowed_origins: [127.0.0.1]}}]\n  \
             process:\n    exec: [{{command: /bin/true, args: [\"*\"]}}, {{command: {odd:?}}}]\n    \
             signal: [children]\n",
            all = self.dir(),
            fixed = base.join("fixed"),
            readable = base.join("readable"),
            closed = self.closed.1,
            odd = self.dir().join("odd"),
        );
        let manifest = Manifest::parse(&manifest).unwrap_or_else(|problems| panic!("{problems}"));
        let places = Places::new("/plugins/doors", "/data/doors").expect("places");
        let decision = Policy::allow_requested().decide(&manifest, &places);
        assert!(decision.is_complete(), "{:?}", decision.refused());
        GrantedServices::new(decision.grants())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = set_flags(&self.fixed(), IFlags::empty());
    }
}

fn set_flags(path: &Path, flags: IFlags) -> rustix::io::Result<()> {
    let file = rustix::fs::open(path, OFlags::RDONLY, Mode::empty())?;
    rustix::fs::ioctl_setflags(&file, flags)
}

/// A port that is bound and not listened at.
fn closed_port() -> std::io::Result<(OwnedFd, u16)> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    let address = SocketAddrV4::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, address.port()))
}

fn read_only_mount() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mut dirs = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (dir, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let kept = ["tmpfs", "ext4", "overlay"].contains(&kind) && !dir.contains('\\');
        (kept && options.split(',').any(|option| option == "ro")).then(|| PathBuf::from(dir))
    });
    dirs.find(|dir| {
        let refused = std::fs::File::create_new(dir.join("new")).err();
        refused.and_then(|error| error.raw_os_error())
            == Some(rustix::io::Errno::ROFS.raw_os_error())
    })
}

/// One way to ask.
struct Door<'a> {
    name: &'static str,
    plugin: &'a RunningPlugin,
    way: &'static str,
    /// What it is asked by where the limits are the usual ones.
    id: u32,
}

impl Door<'_> {
    /// The facts of the error; empty where this way has no such operation.
    async fn ask(&self, id: Option<u32>, case: &[&str]) -> Vec<String> {
        let request = FileListRequest {
            path: format!("{}\n{}", self.way, case.join("\n")),
            host_service: id.unwrap_or(self.id),
            ..FileListRequest::default()
        };
        let lister = self.plugin.dispense::<FileLister>("doors").await;
        let reply = lister.expect("a client").list(request).await;
        let reply = reply.unwrap_or_else(|status| panic!("{}, {case:?}: {status}", self.name));
        reply.into_inner().entry
    }
}

/// All that was found not to be the same, and all that was seen.
#[derive(Default)]
struct Findings {
    different: Vec<String>,
    failed: BTreeSet<String>,
    errnos: BTreeSet<String>,
    codes: BTreeSet<String>,
    by_host_serve: usize,
}

impl Findings {
    /// Compares what each way told with what the first one did.
    fn compare(&mut self, case: &[&str], told: &[(&'static str, Vec<String>)]) {
        let shown: Vec<String> = case
            .iter()
            .map(|text| text.chars().take(60).collect())
            .collect();
        let Some(((first, model), others)) = told.split_first() else {
            return;
        };
        for (name, facts) in others {
            let same = match *name {
                _ if facts.is_empty() => true,
                "hostserve" => {
                    self.by_host_serve += 1;
                    host_serve_says(model, facts)
                }
                // Python has no error kinds.
                _ if name.starts_with("python") => facts.iter().eq(model.iter().take(5)),
                _ => facts == model,
            };
            if !same {
                let different = format!("{shown:?}\n  {first}: {model:?}\n  {name}: {facts:?}");
                self.different.push(different);
            }
        }
        let [status, errno, code, operation, text, _] = model.as_slice() else {
            assert_eq!(*model, ["ok"], "{shown:?}");
            return;
        };
        self.failed.insert(case[0].to_owned());
        self.codes.insert(code.clone());
        if !errno.is_empty() {
            self.errnos.insert(errno.clone());
            let system = SystemError::from_name(errno).expect("a name");
            let said = (system.status().to_string(), system.reason().to_owned());
            assert_eq!((status.clone(), code.clone()), said, "{shown:?}");
            assert_eq!(*text, format!("{operation}: {system}"), "{shown:?}");
        }
    }

    /// Nothing was different, and what was to be seen was.
    fn check(&self, place: &Place) {
        assert!(self.different.is_empty(), "{}", self.different.join("\n"));
        assert!(self.by_host_serve > 300, "{}", self.by_host_serve);
        let operations = ON_PATHS.iter().map(|(name, _)| *name);
        let operations = operations.chain(ON_TWO_PATHS.iter().copied());
        let operations = operations.chain(OTHERS.iter().copied());
        lacks_none(&self.failed, operations);
        let errnos = [
            Some(ERRNOS),
            place.elsewhere.is_some().then_some(&["EXDEV"][..]),
            place.unwritable.is_some().then_some(&["EROFS"][..]),
        ];
        lacks_none(
            &self.errnos,
            errnos.into_iter().flatten().flatten().copied(),
        );
        let fixed = std::fs::File::options().append(true).open(place.fixed());
        let codes = [
            Some(CODES),
            fixed.is_err().then_some(&["host-permission"][..]),
        ];
        lacks_none(&self.codes, codes.into_iter().flatten().flatten().copied());
    }
}

fn lacks_none<'a>(seen: &BTreeSet<String>, wanted: impl Iterator<Item = &'a str>) {
    let lacking: Vec<&str> = wanted.filter(|name| !seen.contains(*name)).collect();
    assert!(lacking.is_empty(), "{lacking:?} were not seen in {seen:?}");
}

/// Whether `hostserve.v1` tells what a call does: the same words, inside the reply
/// after an operation and its subject, or as the status of the call.
fn host_serve_says(model: &[String], facts: &[String]) -> bool {
    let ([status, _, _, operation, text, _], [how, told @ ..]) = (model, facts) else {
        return model == facts;
    };
    let words = text.strip_prefix(&format!("{operation}: ")).unwrap_or(text);
    let words = words.split("; it takes ").next().unwrap_or_default();
    match (how.as_str(), told) {
        ("in-band", [told]) => told.ends_with(&format!(": {words}")),
        ("status", [code, told]) => code == status && told == words,
        _ => false,
    }
}

/// Every operation on one path, with what else it takes.
const ON_PATHS: &[(&str, &str)] = &[
    ("open", "r"),
    ("open", "rw"),
    ("open", "wct"),
    ("open", "wn"),
    ("open", ""),
    ("open", "rt"),
    ("create", ""),
    ("open_dir", ""),
    ("open_at", "inner"),
    ("read", ""),
    ("write", ""),
    ("append", ""),
    ("metadata", ""),
    ("symlink_metadata", ""),
    ("exists", ""),
    ("read_dir", ""),
    ("read_link", ""),
    ("create_dir", ""),
    ("create_dir_all", ""),
    ("remove", ""),
    ("remove_all", ""),
    ("set_permissions", "416"),
    ("set_permissions", "2541"),
    ("set_owner", "54321"),
    ("set_times", "1000000000"),
    ("truncate", "3"),
    ("truncate", "9223372036854775808"),
    ("watch", ""),
];
const ON_TWO_PATHS: &[&str] = &["copy", "rename", "hard_link", "symlink"];
/// Every operation on an open file, and whether it takes an offset.
const ON_FILES: &[(&str, bool)] = &[
    ("file.read_at", true),
    ("file.read_at_empty", true),
    ("file.read_exact_at", true),
    ("file.read", false),
    ("file.write_at", true),
    ("file.write_at_empty", true),
    ("file.write", false),
    ("file.seek", true),
    ("file.set_len", true),
    ("file.sync_all", false),
    ("file.metadata", false),
    ("file.stream", true),
    ("file.write_stream", true),
    ("file.poll_read", false),
    ("file.poll_write", false),
    ("file.poll_seek", true),
];
const OFFSETS: &[&str] = &[
    "0",
    "3",
    "-1",
    "4611686018427387904",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
];

/// What must fail at least once beside the operations on paths, and how.
const OTHERS: &[&str] = &[
    "file.read_at",
    "file.read_exact_at",
    "file.write_at",
    "file.set_len",
    "file.seek",
    "file.stream",
    "file.write_stream",
    "run",
    "spawn",
    "signal",
    "resolve",
    "connect",
    "listen",
    "connect_udp",
    "bind_udp",
    "get",
    "var",
    "random",
    "temp_file",
    "temp_dir",
];
const ERRNOS: &[&str] = &[
    "ENOENT",
    "ENOTDIR",
    "EISDIR",
    "EEXIST",
    "ENOTEMPTY",
    "ELOOP",
    "ENAMETOOLONG",
    "EINVAL",
    "EBADF",
    "EMFILE",
    "ECONNREFUSED",
    "EADDRINUSE",
    "EISCONN",
    "EMSGSIZE",
];
const CODES: &[&str] = &[
    "already-exists",
    "forbidden",
    "host-resources",
    "invalid-argument",
    "malformed-request",
    "not-found",
    "not-granted",
    "outside-grant",
    "quota-exhausted",
    "rate-limited",
    "system-error",
    "too-many-leases",
    "unavailable",
    "unexpected-end",
];

fn cases(place: &Place) -> Vec<Vec<String>> {
    let (base, dir) = (place.base.path().display(), place.dir());
    let dir = dir.display();
    let mut paths: Vec<String> = [
        "",
        "/",
        "/file",
        "/file/",
        "/file/below",
        "/dir",
        "/dir/",
        "/dir/inner",
        "/empty",
        "/missing",
        "/missing/below",
        "/loop",
        "/away",
        "/link",
        "/nowhere",
        "/socket",
        "/twin",
        "/../out",
        "/a\0b",
    ]
    .map(|path| format!("{dir}{path}"))
    .into();
    paths.push(format!("{dir}/{}", "x".repeat(256)));
    paths.push(format!("{dir}/{}", "x/".repeat(3000)));
    paths.extend(
        [
            "/readable/file",
            "/readable/new",
            "/fixed/file",
            "/fixed/new",
        ]
        .map(|path| format!("{base}{path}")),
    );
    paths.extend(["/etc/passwd", "relative", "../up", "", "/"].map(str::to_owned));
    if let Some(dir) = &place.elsewhere {
        paths.push(dir.path().join("new").display().to_string());
    }
    if let Some(dir) = &place.unwritable {
        paths.push(dir.join("new").display().to_string());
    }
    let mut all = Vec::new();
    let mut case = |parts: &[&str]| all.push(parts.iter().map(|&part| part.to_owned()).collect());
    for path in &paths {
        for (operation, more) in ON_PATHS {
            case(&[operation, path, more]);
        }
        for operation in ON_TWO_PATHS {
            case(&[operation, path, &format!("{dir}/new")]);
            case(&[operation, &format!("{dir}/file"), path]);
        }
    }
    let file = format!("{dir}/file");
    for mode in ["r", "w", "rw", "a"] {
        for (operation, at) in ON_FILES {
            let offsets = if *at { OFFSETS } else { &["0"] };
            for offset in offsets {
                if offset.starts_with('-') && !operation.ends_with("seek") {
                    continue;
                }
                case(&[operation, &file, mode, offset]);
            }
        }
    }
    for pattern in ["a/b", "a\0", &"x".repeat(300)] {
        case(&["temp_file", pattern]);
        case(&["temp_dir", pattern]);
    }
    let (closed, taken) = (place.closed.1.to_string(), place.taken());
    for operation in ["run", "spawn", "signal"] {
        case(&[operation, "/bin/ls", ""]);
        case(&[operation, "/bin/true", &format!("{dir}/missing")]);
        case(&[operation, "/bin/true", &file]);
        case(&[operation, "/bin/true", "/etc"]);
        case(&[operation, "/bin/true", "", "a\0b"]);
        case(&[operation, &format!("{dir}/odd"), ""]);
        case(&[operation, "", ""]);
    }
    case(&["signal", "/bin/true", ""]);
    for operation in ["resolve", "connect"] {
        for host in [
            "127.0.0.1",
            "localhost",
            "::1",
            "10.1.2.3",
            "no such host",
            "",
            "999.1.1.1",
        ] {
            for port in [closed.as_str(), "1", "0"] {
                case(&[operation, host, port]);
            }
        }
    }
    for host in ["127.0.0.1", "10.1.2.3", "no such host", ""] {
        for port in [place.udp().as_str(), "1", "0"] {
            case(&["connect_udp", host, port, "4"]);
        }
    }
    case(&["connect_udp", "127.0.0.1", &place.udp(), "65508"]);
    case(&["bind_udp", &place.udp()]);
    case(&["bind_udp", "1"]);
    case(&["listen", &taken]);
    case(&["listen", &closed]);
    for url in [
        format!("http://127.0.0.1:{closed}/"),
        "http://10.1.2.3/".to_owned(),
        "ftp://127.0.0.1/".to_owned(),
        "no url".to_owned(),
    ] {
        case(&["get", &url]);
    }
    for name in ["DOORS_HIDDEN", "A=B", "", "a\0"] {
        case(&["var", name]);
    }
    case(&["rename", &format!("{dir}/dir"), &format!("{dir}/dir/below")]);
    case(&["rename", &format!("{dir}/dir"), &file]);
    case(&["random", "65537"]);
    case(&["sleep", "4000000000"]);
    all
}

/// Whether what was done last may change what is done next.
fn leaves_traces(operation: &str, told: &[(&'static str, Vec<String>)]) -> bool {
    let reads = [
        "metadata",
        "symlink_metadata",
        "exists",
        "read",
        "read_dir",
        "read_link",
        "open_dir",
    ];
    let worked = told.last().is_some_and(|(_, facts)| *facts == ["ok"]);
    // These may have come half-way.
    let in_parts = ["create_dir_all", "remove_all", "copy"];
    (worked && !reads.contains(&operation)) || in_parts.contains(&operation)
}

/// Whether `hostserve.v1` takes a path of `case` for another one: there it is
/// relative to `root_dir`, which may be left out, and slashes at its end say nothing.
fn has_paths_of_its_own(case: &[&str]) -> bool {
    let paths = match case {
        ["symlink", _, new] => &[*new][..],
        [operation, from, to] if ON_TWO_PATHS.contains(operation) => &[*from, *to],
        [operation, path, _] if ON_PATHS.iter().any(|(name, _)| name == operation) => &[*path],
        _ => &[],
    };
    let is_its_own = |path: &&str| !path.starts_with('/') || path.ends_with('/');
    paths.iter().any(is_its_own)
}

/// A Python with grpcio, where `OUTRIGGER_PYTHON` names one.
async fn python(services: &GrantedServices) -> Option<RunningPlugin> {
    let python = std::env::var_os("OUTRIGGER_PYTHON")?;
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../bindings/python/tests/doors.py"
    );
    let launch = Launch::new(python, host_services_cookie()).arg(script);
    Some(start(launch, services).await)
}

async fn start(launch: Launch, services: &GrantedServices) -> RunningPlugin {
    let launch = launch
        .offer(1, PluginSet::new().with::<FileLister>("doors"))
        .host_services(Arc::new(services.clone()));
    launch.start().await.expect("it starts")
}

/// Services of which the limits are to be met, served to each plugin.
struct Limited(BTreeMap<&'static str, Serving>);

impl Limited {
    async fn new(doors: &[Door<'_>], services: &GrantedServices, limits: Limits) -> Self {
        let services = services.clone().limits(limits);
        let mut serving = BTreeMap::new();
        for door in doors {
            let served = door.plugin.serve(&services).await.expect("it is served");
            serving.insert(door.name, served);
        }
        Self(serving)
    }

    fn id(&self, door: &Door<'_>) -> Option<u32> {
        self.0.get(door.name).map(|serving| serving.id().0)
    }
}

#[tokio::test]
async fn what_fails_is_told_alike_by_descriptor_call_host_serve_and_in_python() {
    let place = Place::new();
    let services = place.services();
    let rust = start(Launch::new(PROGRAM, host_services_cookie()), &services).await;
    let python = python(&services).await;
    let host_serve = rust.serve(&services).await.expect("it is served");
    let door = |name, plugin, way| Door {
        name,
        plugin,
        way,
        id: 0,
    };
    let mut doors = vec![
        door("rust by call", &rust, "call"),
        door("rust by descriptor", &rust, "descriptor"),
        Door {
            id: host_serve.id().0,
            ..door("hostserve", &rust, "hostserve")
        },
    ];
    if let Some(python) = &python {
        doors.push(door("python by call", python, "call"));
        doors.push(door("python by descriptor", python, "descriptor"));
        let mut told = doors[3].ask(None, &["system_errors"]).await.into_iter();
        for number in 1..140 {
            let system = SystemError::from_raw(number);
            let (status, name, reason) = (system.status(), system.name(), system.reason());
            let expected = format!("{status}\t{name}\t{reason}\tread\tread: {system}");
            assert_eq!(told.next(), Some(expected));
        }
    }
    let mut found = Findings::default();
    for case in cases(&place) {
        let case: Vec<&str> = case.iter().map(String::as_str).collect();
        let mut told = Vec::new();
        for door in &doors {
            if door.name == "hostserve" && has_paths_of_its_own(&case) {
                continue;
            }
            told.push((door.name, door.ask(None, &case).await));
            if leaves_traces(case[0], &told) {
                place.prepare();
            }
        }
        found.compare(&case, &told);
    }
    exhausted(&place, &doors, &mut found).await;
    limited(&place, &services, &doors, &mut found).await;

    found.check(&place);
    drop(host_serve);
    for plugin in [Some(rust), python].into_iter().flatten() {
        plugin.stop().await;
    }
}

/// The host has no descriptors left.
async fn exhausted(place: &Place, doors: &[Door<'_>], found: &mut Findings) {
    let file = place.dir().join("file").display().to_string();
    for operation in ["open", "open_dir", "read", "metadata"] {
        let case = [operation, &file, "r"];
        let mut told = Vec::new();
        for door in doors {
            place.prepare();
            let usual = getrlimit(Resource::Nofile);
            let none = Rlimit {
                current: Some(0),
                ..usual
            };
            setrlimit(Resource::Nofile, none).expect("a limit");
            let facts = door.ask(None, &case).await;
            setrlimit(Resource::Nofile, usual).expect("a limit");
            told.push((door.name, facts));
        }
        found.compare(&case, &told);
    }
}

/// Limits of the services are met.
async fn limited(
    place: &Place,
    services: &GrantedServices,
    doors: &[Door<'_>],
    found: &mut Findings,
) {
    let port = place.taken();
    let (dir, file) = (place.dir(), place.dir().join("file"));
    let (dir, file) = (dir.to_str().expect("text"), file.to_str().expect("text"));
    let no_leases = Limits {
        leases: 0,
        ..Limits::default()
    };
    let nothing_written = Limits {
        written_bytes: 1,
        ..Limits::default()
    };
    let once = Limits {
        operations_per_second: 1,
        ..Limits::default()
    };
    let cases: [(Limits, &[&[&str]]); 3] = [
        (
            no_leases,
            &[
                &["open_dir", dir],
                &["spawn", "/bin/true", ""],
                &["connect", "127.0.0.1", &port],
            ],
        ),
        (
            nothing_written,
            &[
                &["write", file],
                &["file.write", file, "rw", "0"],
                &["append", file],
            ],
        ),
        (once, &[&["metadata", file], &["open", file, "r"]]),
    ];
    for (limits, cases) in cases {
        let limited = Limited::new(doors, services, limits).await;
        for case in cases {
            let mut told = Vec::new();
            for door in doors {
                place.prepare();
                let mut facts = door.ask(limited.id(door), case).await;
                // What may be done once a second is done until then.
                for _ in 0..1000 {
                    if facts != ["ok"] {
                        break;
                    }
                    facts = door.ask(limited.id(door), case).await;
                }
                told.push((door.name, facts));
            }
            found.compare(case, &told);
        }
    }
}
