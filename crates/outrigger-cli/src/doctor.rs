//! `outrigger doctor`: what this machine can enforce, found by trying it.
//!
//! What cannot be taken back, such as a filter, is tried by a process of its own: this program with
//! a hidden flag.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use anstyle::{AnsiColor, Style};
use landlock::{
    ABI, Access as _, AccessFs, LandlockStatus, Ruleset, RulesetAttr as _, RulesetCreated,
};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, ResolveFlags, SealFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{PidfdFlags, Resource, getrlimit, pidfd_open};
use rustix::thread::UnshareFlags;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde::Serialize;
use serde_json::json;

use crate::args::{DoctorArgs, Probe};
use crate::failure::{Exit, Failure, printable};
use crate::{json, output};

/// The version of Landlock that brought scopes.
const SCOPES: i32 = 6;

/// What the watcher of a host's plugins runs.
const LIFELINE: &[&str] = &["cat", "grep", "find", "chmod", "rm"];

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Yes,
    Partly,
    No,
}

/// One thing that was tried.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    verdict: Verdict,
    /// What was seen.
    detail: String,
    /// What it is for.
    serves: &'static str,
    /// What would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    /// Whether no plugin can be run well without it.
    needed: bool,
}

impl Finding {
    fn of(name: &'static str, serves: &'static str, tried: Result<String, String>) -> Self {
        let (verdict, detail) = match tried {
            Ok(detail) => (Verdict::Yes, detail),
            Err(detail) => (Verdict::No, detail),
        };
        Self {
            name,
            verdict,
            detail,
            serves,
            help: None,
            needed: false,
        }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        if self.verdict != Verdict::Yes {
            self.help = Some(help.into());
        }
        self
    }

    fn needed(mut self) -> Self {
        self.needed = true;
        self
    }
}

/// Tries everything, and tells what works.
///
/// # Errors
/// `machine-unfit`, after everything was told, where plugins cannot be run well.
pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let findings = [
        sandbox(),
        processes().needed(),
        pidfd(),
        openat2(),
        memfd(),
        landlock(),
        seccomp(),
        user_namespaces(),
        proc_file_system(),
        cgroup(),
    ];
    let limits = limits();
    if args.json {
        let object = json!({"kernel": kernel(), "findings": findings, "limits": limits});
        let text = json::pretty(&object).unwrap_or_else(|_| "null".to_owned());
        output::plain(&(text + "\n"))?;
    } else {
        output::text(&text(&findings, &limits))?;
    }
    let missing: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.needed && finding.verdict != Verdict::Yes)
        .map(|finding| finding.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "plugins cannot be run well here without {}",
        missing.join(", ")
    );
    Err(Failure::new(Exit::Failed, "machine-unfit", message))
}

/// Tries one thing in this process, which is for nothing else, and says how it went.
pub(crate) fn probe(probe: Probe) -> ExitCode {
    let done = |()| "done".to_owned();
    let tried = match probe {
        Probe::Landlock => try_landlock(),
        Probe::Seccomp => try_seccomp().map(done),
        Probe::Namespaces => try_namespaces(&mut |_| Ok(())).map(done),
        Probe::Proc => try_namespaces(&mut |folder| {
            // The first process of a new namespace is a child of the one that made it.
            said(again(Probe::ProcInside).current_dir(folder).output()).map(|_| ())
        })
        .map(done),
        Probe::ProcInside => try_proc().map(done),
    };
    // This is what the parent reads.
    match tried {
        Ok(found) => match output::plain(&found) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(why) => {
            output::finding(&why);
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::disallowed_methods)] // This program itself, and no plugin.
fn again(probe: Probe) -> Command {
    // Also where the file has been replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.args(["doctor", "--try", probe.as_str()]);
    command
}

fn try_apart(probe: Probe) -> Result<String, String> {
    said(again(probe).output())
}

/// What a process found, or why it failed.
fn said(ran: io::Result<Output>) -> Result<String, String> {
    let output = ran.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = text(&output.stderr);
    Err(if said.is_empty() {
        output.status.to_string()
    } else {
        said
    })
}

fn sandbox() -> Finding {
    Finding::of(
        "sandbox",
        "confines a plugin to its grants, whatever it does by itself",
        Err("not part of this release: every plugin runs unsandboxed".to_owned()),
    )
    .help("run plugins that you trust, or under a user of their own")
}

/// What ends plugins when their host is killed.
#[allow(clippy::disallowed_methods)] // A shell, and no plugin.
fn processes() -> Finding {
    let script: Vec<String> = LIFELINE
        .iter()
        .map(|program| format!("command -v {program} >/dev/null || echo {program}"))
        .collect();
    let ran = Command::new("/bin/sh")
        .arg("-c")
        .arg(script.join("; "))
        .output();
    let tried = match ran {
        Err(error) => Err(format!("/bin/sh: {error}")),
        Ok(output) => match String::from_utf8_lossy(&output.stdout)
            .split_whitespace()
            .collect::<Vec<_>>()
        {
            _ if !Path::new("/proc/self/environ").exists() => Err("/proc is not there".to_owned()),
            missing if missing.is_empty() => Ok(format!("/proc, /bin/sh, {}", LIFELINE.join(", "))),
            missing => Err(format!("missing: {}", missing.join(", "))),
        },
    };
    Finding::of(
        "lifeline",
        "ends plugins and all they started when their host is killed",
        tried,
    )
    .help("install a shell and the usual small programs")
}

fn pidfd() -> Finding {
    let tried = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .map(|_| "a process can be held by a descriptor".to_owned())
        .map_err(|error| error.to_string());
    Finding::of(
        "pidfd",
        "signals reach the plugin that was meant, and never another",
        tried,
    )
    .help("processes are told apart by their start time instead")
}

fn openat2() -> Finding {
    let tried = rustix::fs::openat2(
        CWD,
        ".",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    )
    .map(|_| "paths are resolved beneath a folder by the kernel".to_owned())
    .map_err(|error| error.to_string());
    Finding::of("openat2", "files of a grant are opened in one step", tried)
        .help("paths are resolved step by step instead")
}

fn memfd() -> Finding {
    let sealed = || -> rustix::io::Result<()> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create("doctor", flags)?;
        rustix::fs::fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::SHRINK)
    };
    let tried = sealed()
        .map(|()| "memory can be shared and sealed".to_owned())
        .map_err(|error| error.to_string());
    Finding::of(
        "memfd",
        "memory is shared that nobody can change any more",
        tried,
    )
}

fn landlock() -> Finding {
    let serves = "files, ports and signals outside the grants are out of reach";
    let tried = try_apart(Probe::Landlock);
    let version = tried
        .as_ref()
        .ok()
        .and_then(|version| version.parse::<i32>().ok());
    let mut finding = Finding::of(
        "landlock",
        serves,
        tried.map(|version| format!("ABI {version}: a file was out of reach")),
    );
    match version {
        None => {
            let listed = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
            finding = finding.help(match listed.trim() {
                "" => "use a kernel from 5.13 on that is built with Landlock".to_owned(),
                listed => format!(
                    "add `landlock` to the kernel's `lsm=` ({})",
                    printable(listed)
                ),
            });
        }
        Some(version) if version < SCOPES => {
            finding.verdict = Verdict::Partly;
            let help = "Linux 6.12 adds scopes for signals and abstract sockets (ABI 6)";
            finding.help = Some(help.to_owned());
        }
        Some(_) => {}
    }
    finding
}

/// Puts every file out of reach, and opens one. Returns the version of the kernel's interface.
fn try_landlock() -> Result<String, String> {
    let restricted = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .and_then(RulesetCreated::restrict_self)
        .map_err(|error| error.to_string())?;
    let version = match restricted.landlock {
        LandlockStatus::NotEnabled => return Err("the kernel has it and it is off".to_owned()),
        LandlockStatus::NotImplemented => return Err("the kernel does not have it".to_owned()),
        LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        } => kernel_abi.unwrap_or(effective_abi as i32),
    };
    match fs::File::open("/proc/self/status") {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(version.to_string()),
        _ => Err("a ruleset was accepted and restricts nothing".to_owned()),
    }
}

fn seccomp() -> Finding {
    let tried = try_apart(Probe::Seccomp).map(|_| "a filter refused a call".to_owned());
    Finding::of(
        "seccomp",
        "system calls that no plugin needs are refused",
        tried,
    )
    .help("use a kernel with CONFIG_SECCOMP_FILTER, or a container that allows it")
}

/// Has the kernel refuse one call, and makes it.
fn try_seccomp() -> Result<(), String> {
    let arch = std::env::consts::ARCH.try_into();
    let arch = arch.map_err(|error: seccompiler::BackendError| error.to_string())?;
    let eperm = rustix::io::Errno::PERM;
    let refused = u32::try_from(eperm.raw_os_error()).unwrap_or_default();
    let rules = BTreeMap::from([(libc::SYS_memfd_create, Vec::new())]);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(refused),
        arch,
    );
    let program: BpfProgram = filter
        .and_then(TryInto::try_into)
        .map_err(|error| error.to_string())?;
    seccompiler::apply_filter(&program).map_err(|error| error.to_string())?;
    match rustix::fs::memfd_create("doctor", MemfdFlags::CLOEXEC) {
        Err(error) if error == eperm => Ok(()),
        _ => Err("a filter was accepted and refuses nothing".to_owned()),
    }
}

fn user_namespaces() -> Finding {
    let tried = try_apart(Probe::Namespaces)
        .map(|_| "a user, its maps, namespaces of all kinds, and a mount in them".to_owned());
    let finding = Finding::of(
        "namespaces",
        "a plugin sees its own files, processes and network only",
        tried,
    );
    finding.help(namespace_help())
}

/// Which setting of the system refuses namespaces, as far as one is known to.
fn namespace_help() -> String {
    let value = |name: &str| {
        let text = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
        Some(text.trim().to_owned())
    };
    let settings = [
        ("user/max_user_namespaces", "0", "a number such as 10000"),
        ("kernel/unprivileged_userns_clone", "0", "1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "0, or a profile for the host",
        ),
    ];
    let refusing = settings
        .iter()
        .find(|(name, refuses, _)| value(name).as_deref() == Some(refuses));
    match refusing {
        Some((name, refuses, better)) => {
            format!(
                "`{}` is {refuses}; set it to {better}",
                name.replace('/', ".")
            )
        }
        None => "a container or a security module refuses them: allow them there".to_owned(),
    }
}

fn proc_file_system() -> Finding {
    let tried = try_apart(Probe::Proc).map(|_| "mounted for a new namespace".to_owned());
    Finding::of(
        "proc",
        "a plugin's own /proc hides all other processes",
        tried,
    )
    .help("a container masks /proc: run with an unmasked one; plugins can do without /proc")
}

/// Goes into a user of its own and namespaces of all kinds, mounts a folder there, and does
/// `inside` in it.
fn try_namespaces(inside: &mut dyn FnMut(&Path) -> Result<(), String>) -> Result<(), String> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let step = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let parent = std::env::temp_dir();
    unshare(UnshareFlags::NEWUSER).map_err(step("unshare of a user namespace"))?;
    let write = |file: &str, text: String| fs::write(format!("/proc/self/{file}"), text);
    write("setgroups", "deny".to_owned()).map_err(step("/proc/self/setgroups"))?;
    write("uid_map", format!("0 {uid} 1")).map_err(step("/proc/self/uid_map"))?;
    write("gid_map", format!("0 {gid} 1")).map_err(step("/proc/self/gid_map"))?;
    let all = UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS;
    unshare(all).map_err(step("unshare of the other namespaces"))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)
        .map_err(|error| format!("mounts of its own: {error}"))?;
    // Over a folder that is there: what is mounted goes with this process.
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("doctor", &parent, "tmpfs", flags, None)
        .map_err(|error| format!("mount of a tmpfs: {error}"))?;
    inside(&parent)
}

/// What the caller's other threads would lose does not matter here: there are none, and
/// descriptors stay shared.
#[expect(
    deprecated,
    reason = "the one that replaces it is unsafe for descriptors alone"
)]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    Ok(rustix::thread::unshare(flags)?)
}

/// As the first process of its namespace, in a folder that nobody else has.
fn try_proc() -> Result<(), String> {
    fs::create_dir("proc").map_err(|error| format!("a folder: {error}"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", "proc", "proc", flags, None)
        .map_err(|error| format!("mount of proc: {error}"))?;
    match Path::new("proc/1/exe").symlink_metadata() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("proc/1: {error}")),
    }
}

/// A group of processes below this one's, made and removed again.
fn cgroup() -> Finding {
    let serves = "memory, processes and processor time of a plugin are bounded";
    let Some(group) = own_cgroup() else {
        return Finding::of("cgroup", serves, Err("no cgroups are mounted".to_owned()))
            .help("limits of single processes are used instead");
    };
    let kind = if group.unified { "v2" } else { "v1" };
    let child = group
        .folder
        .join(format!("outrigger-doctor-{}", std::process::id()));
    let shown = printable(&group.folder.display().to_string());
    if let Err(error) = fs::create_dir(&child) {
        let why = format!("{kind}, {shown}: {error}");
        return Finding::of("cgroup", serves, Err(why))
            .help("have the service manager delegate a group (systemd: `Delegate=yes`)");
    }
    let has = |file: &str| child.join(file).exists();
    let bounds: Vec<&str> = [
        ("memory", "memory.max", "memory.limit_in_bytes"),
        ("processes", "pids.max", "pids.max"),
        ("processor time", "cpu.max", "cpu.cfs_quota_us"),
    ]
    .into_iter()
    .filter(|(_, unified, older)| has(unified) || has(older))
    .map(|(what, ..)| what)
    .collect();
    let _ = fs::remove_dir(&child);
    let mut finding = Finding::of(
        "cgroup",
        serves,
        Ok(format!("{kind}, {shown}: {}", bounds.join(", "))),
    );
    if bounds.len() < 3 {
        finding.verdict = Verdict::Partly;
        let what = if bounds.is_empty() {
            "nothing"
        } else {
            "only that"
        };
        finding.detail = format!(
            "{kind}, {shown}: {}",
            match bounds.as_slice() {
                [] => "no controllers".to_owned(),
                bounds => bounds.join(", "),
            }
        );
        finding.help = Some(format!(
            "{what} can be bounded in a group of one's own here: have more controllers delegated"
        ));
    }
    finding
}

struct Cgroup {
    folder: PathBuf,
    unified: bool,
}

/// The group of this process: of the unified hierarchy if it has controllers, else that of the
/// older one that bounds memory.
fn own_cgroup() -> Option<Cgroup> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounted = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, place, found, options, ..] = fields[..] else {
                return None;
            };
            let fits =
                found == kind && (option.is_empty() || options.split(',').any(|o| o == option));
            fits.then(|| PathBuf::from(place))
        })
    };
    let group = |controller: &str| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let fits = controllers.split(',').any(|c| c == controller);
            fits.then(|| path.trim_start_matches('/').to_owned())
        })
    };
    // In a namespace of its own, the group may be named as it is seen from outside.
    let existing = |root: PathBuf, group: String, unified| {
        let folder = root.join(group);
        let folder = if folder.is_dir() { folder } else { root };
        Cgroup { folder, unified }
    };
    let unified = mounted("cgroup2", "").zip(group(""));
    let unified = unified.map(|(root, group)| existing(root, group, true));
    let older = mounted("cgroup", "memory").zip(group("memory"));
    let older = older.map(|(root, group)| existing(root, group, false));
    let controls = |group: &Cgroup| {
        let controllers = fs::read_to_string(group.folder.join("cgroup.controllers"));
        controllers.is_ok_and(|controllers| !controllers.trim().is_empty())
    };
    match unified {
        Some(unified) if older.is_none() || controls(&unified) => Some(unified),
        _ => older,
    }
}

fn kernel() -> String {
    let uname = rustix::system::uname();
    let text = |text: &std::ffi::CStr| printable(&text.to_string_lossy());
    format!(
        "{} {} {}",
        text(uname.sysname()),
        text(uname.release()),
        text(uname.machine())
    )
}

/// The limits that everything started from here runs under.
fn limits() -> Vec<(&'static str, String)> {
    let limit = |resource| {
        let limit = getrlimit(resource);
        let shown = |value: Option<u64>| value.map_or("none".to_owned(), |value| value.to_string());
        format!("{}, at most {}", shown(limit.current), shown(limit.maximum))
    };
    let mut limits = vec![
        ("open files", limit(Resource::Nofile)),
        ("processes", limit(Resource::Nproc)),
        ("address space", limit(Resource::As)),
        ("core files", limit(Resource::Core)),
    ];
    if let Some(group) = own_cgroup() {
        for (name, files) in [
            (
                "memory of the group",
                ["memory.max", "memory.limit_in_bytes"],
            ),
            ("processes of the group", ["pids.max", "pids.max"]),
            (
                "processor time of the group",
                ["cpu.max", "cpu.cfs_quota_us"],
            ),
        ] {
            let texts = files
                .iter()
                .filter_map(|file| fs::read_to_string(group.folder.join(file)).ok());
            if let Some(text) = texts.map(|text| printable(text.trim())).next() {
                limits.push((name, text));
            }
        }
    }
    limits
}

fn text(findings: &[Finding], limits: &[(&str, String)]) -> String {
    let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
    let mut text = format!("{bold}kernel{bold:#} {}\n\n", kernel());
    for finding in findings {
        let (word, colour) = match finding.verdict {
            Verdict::Yes => ("yes", AnsiColor::Green),
            Verdict::Partly => ("partly", AnsiColor::Yellow),
            Verdict::No => ("no", AnsiColor::Red),
        };
        let style = Style::new().bold().fg_color(Some(colour.into()));
        let detail = printable(&finding.detail);
        let _ = writeln!(
            text,
            "{style}{word:<7}{style:#}{bold}{:<11}{bold:#} {detail}",
            finding.name
        );
        let _ = writeln!(text, "       {dim}{:<11} {}{dim:#}", "", finding.serves);
        if let Some(help) = &finding.help {
            let _ = writeln!(text, "       {:<11} {bold}help{bold:#}: {help}", "");
        }
    }
    let _ = writeln!(
        text,
        "\n{bold}limits{bold:#} of this process and of what it starts"
    );
    for (name, limit) in limits {
        let _ = writeln!(text, "       {name:<28} {limit}");
    }
    text
}
