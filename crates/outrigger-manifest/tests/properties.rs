//! Properties over random files: what is printed is read again as the same, no damage to a file
//! makes the reader panic or point outside of it, and what is granted is exactly what a slow
//! model says, which knows only sets of single operations.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use outrigger_manifest::{
    Access, AddressClass, ByteSize, Cpu, Decision, FilesystemGrant, Grants, Host, Manifest,
    Permissions, Places, Policy, Problems, ProcessControl, Protocol, Requests, Resources,
    SandboxMode, Transport, classify,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

// What is printed.

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,8}",
        "[ -~]{1,20}",
        "[ \\t:#,&*!|>'\"%@`\\[\\]{}?~-]{1,6}",
        "\\PC{1,12}",
        select(vec![
            "true", "null", "~", "1.0", "0x1f", "-", "=", "<<", "yes", "- a", "a: b", "#x", "1e3"
        ])
        .prop_map(str::to_owned),
    ]
    .prop_filter("no control characters", |text| {
        !text.chars().any(char::is_control)
    })
}

fn path_text() -> impl Strategy<Value = String> {
    let base = select(vec!["", "${plugin_dir}", "${data_dir}", "${HOME}"]);
    let part = any_text().prop_map(|text| text.replace(['/', '$'], "_"));
    (base, vec(part, 0..4)).prop_map(|(base, parts)| {
        let parts: Vec<String> = parts.into_iter().filter(|part| part != "..").collect();
        let path = format!("{base}/{}", parts.join("/"));
        if parts.is_empty() && !base.is_empty() {
            base.to_owned()
        } else {
            path
        }
    })
}

fn permissions() -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(vec!["read", "write", "list", "create", "delete"], 1..=5)
}

fn a_manifest() -> impl Strategy<Value = Value> {
    let filesystem = vec(
        (path_text(), permissions(), any::<bool>(), any::<bool>()),
        0..4,
    );
    let hosts = vec![
        "example.com",
        "*.example.com",
        "10.0.0.0/8",
        "192.0.2.1",
        "2001:db8::/32",
        "::1",
    ];
    let ports = vec![json!(1), json!(443), json!("8000-8010"), json!(65535)];
    let network = vec(
        (
            select(vec!["tcp", "udp"]),
            subsequence(hosts, 1..4),
            subsequence(ports, 1..4),
        ),
        0..3,
    );
    let exec = vec((path_text(), vec(any_text(), 0..4)), 0..3);
    let control = subsequence(vec!["kill", "list", "signal"], 0..=3);
    let set = proptest::collection::btree_map("[A-Z_][A-Z0-9_]{0,6}", any_text(), 0..3);
    let about = (any_text(), any::<bool>());
    let rest = (
        select(vec!["off", "best-effort", "require"]),
        any::<bool>(),
        proptest::option::of(1_u64..5_000_000_000),
        proptest::option::of(1_u32..2_000_000),
        any_text(),
        any::<bool>(),
    );
    (filesystem, network, exec, control, set, about, rest).prop_map(
        |(filesystem, network, exec, control, set, about, rest)| {
            let (sandbox, jit, memory, cpu, cookie, as_list) = rest;
            let filesystem: Vec<Value> = filesystem
                .iter()
                .map(|(path, permissions, recursive, direct)| {
                    let access = if *direct && *recursive { "direct" } else { "mediated" };
                    json!({"path": path, "permissions": permissions, "recursive": recursive, "access": access})
                })
                .collect();
            let egress: Vec<Value> = network
                .iter()
                .map(|(protocol, hosts, ports)| json!({"protocol": protocol, "hosts": hosts, "ports": ports}))
                .collect();
            let exec: Vec<Value> = exec
                .iter()
                .map(|(command, args)| json!({"command": command, "args": args}))
                .collect();
            let mut parts = vec![("exec", json!(exec))];
            parts.extend(control.iter().map(|name| (*name, json!(["children"]))));
            let process = if as_list {
                parts.iter().map(|(name, value)| json!({*name: value})).collect()
            } else {
                json!(parts.into_iter().collect::<std::collections::BTreeMap<_, _>>())
            };
            let mut manifest = json!({
                "plugin": {"name": "cat", "format": "rpc", "entrypoint": "bin/cat"},
                "handshake": {"protocol_version": 7, "magic_cookie_key": "COOKIE_KEY_X", "magic_cookie_value": cookie},
                "capabilities": {
                    "filesystem": filesystem,
                    "network": {"egress": egress},
                    "process": process,
                    "environment": {"read": ["a_lower_case_one"], "set": set},
                },
                "sandbox": sandbox,
                "jit": jit,
                "resources": {},
            });
            if about.1 {
                manifest["about"] = json!({"description": format!("{}\n{}", about.0, about.0)});
            }
            if let Some(memory) = memory {
                manifest["resources"]["memory"] = json!(memory);
            }
            if let Some(cpu) = cpu.filter(|cpu| *cpu <= 1_024_000) {
                manifest["resources"]["cpu"] = json!(f64::from(cpu) / 1000.0);
            }
            manifest
        },
    )
}

/// The same in code: what the methods are given is what the JSON says.
fn built(value: &Value) -> Result<Manifest, Problems> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let each = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let handshake = &value["handshake"];
    let cookie = text(&handshake["magic_cookie_value"]);
    let mut builder = Manifest::builder("cat", Transport::NetRpc, "bin/cat")
        .handshake(7, text(&handshake["magic_cookie_key"]), cookie)
        .jit(value["jit"].as_bool().unwrap());
    let sandbox = SandboxMode::ALL
        .iter()
        .find(|mode| mode.as_str() == value["sandbox"]);
    builder = builder.sandbox(*sandbox.unwrap());
    if let Some(description) = value["about"]["description"].as_str() {
        builder = builder.description(description);
    }
    let asked = &value["capabilities"];
    for entry in each(&asked["filesystem"]) {
        let words = each(&entry["permissions"]);
        let all = ["read", "write", "list", "create", "delete"];
        let bits = [
            Permissions::READ,
            Permissions::WRITE,
            Permissions::LIST,
            Permissions::CREATE,
            Permissions::DELETE,
        ];
        let named = all
            .iter()
            .zip(bits)
            .filter(|(word, _)| words.contains(&json!(word)));
        let access = Access::ALL
            .iter()
            .find(|access| access.as_str() == entry["access"]);
        let files = outrigger_manifest::Files::new(
            text(&entry["path"]),
            named.map(|(_, bit)| bit).collect(),
        )
        .recursive(entry["recursive"].as_bool().unwrap())
        .access(*access.unwrap());
        builder = builder.files(files);
    }
    for entry in each(&asked["network"]["egress"]) {
        let protocol = Protocol::ALL
            .iter()
            .find(|known| known.as_str() == entry["protocol"]);
        let mut connections = outrigger_manifest::Connections::new().protocol(*protocol.unwrap());
        for host in each(&entry["hosts"]) {
            connections = connections.host(text(&host));
        }
        for port in each(&entry["ports"]) {
            connections = match port.as_u64() {
                Some(port) => connections.port(u16::try_from(port).unwrap()),
                None => connections.ports(8000..=8010),
            };
        }
        builder = builder.egress(connections);
    }
    let process = &asked["process"];
    let parts: Vec<&Value> = process
        .as_array()
        .map_or(vec![process], |list| list.iter().collect());
    for part in parts {
        for entry in each(&part["exec"]) {
            let args = each(&entry["args"]);
            builder = builder.exec(
                outrigger_manifest::Exec::new(text(&entry["command"])).args(args.iter().map(text)),
            );
        }
        for control in ProcessControl::ALL {
            if part.get(control.as_str()).is_some() {
                builder = builder.control(*control);
            }
        }
    }
    for name in each(&asked["environment"]["read"]) {
        builder = builder.read_variable(text(&name));
    }
    for (name, value) in asked["environment"]["set"].as_object().unwrap() {
        builder = builder.set_variable(name, text(value));
    }
    let millis = |cores: f64| Cpu::from_millis((cores * 1000.0).round() as u32);
    builder
        .resources(&Resources {
            memory: value["resources"]["memory"]
                .as_u64()
                .and_then(ByteSize::new),
            cpu: value["resources"]["cpu"].as_f64().and_then(millis),
            ..Resources::default()
        })
        .build()
}

/// What is reported, wherever it stands.
fn reports(problems: &Problems) -> BTreeSet<(&str, &str, Option<&str>)> {
    problems
        .iter()
        .map(|problem| (problem.code(), problem.location(), problem.near_miss()))
        .collect()
}

/// Entries that repeat one another are a problem that these generators do not avoid.
fn only_repeats(problems: &Problems) -> bool {
    problems.iter().all(|problem| {
        matches!(
            problem.code(),
            "duplicate-entry" | "contradiction" | "not-a-directory"
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_printed_manifest_is_read_as_the_same(value in a_manifest()) {
        let text = serde_json::to_string(&value).unwrap();
        match Manifest::parse(&text) {
            Err(problems) => prop_assert!(only_repeats(&problems), "{problems}\n{text}"),
            Ok(manifest) => {
                let printed = manifest.to_yaml();
                match Manifest::parse(&printed) {
                    Ok(again) => prop_assert_eq!(manifest, again),
                    Err(problems) => prop_assert!(false, "{}\n{}", problems, printed),
                }
            }
        }
    }

    #[test]
    fn what_is_built_is_what_a_file_says_and_is_printed_as_such(value in a_manifest()) {
        match (built(&value), Manifest::parse(&value.to_string())) {
            (Ok(built), Ok(read)) => {
                prop_assert_eq!(&built, &read);
                prop_assert_eq!(Manifest::parse(&built.to_yaml()), Ok(built));
            }
            (Err(built), Err(read)) => prop_assert_eq!(reports(&built), reports(&read)),
            (built, read) => prop_assert!(false, "{built:?}\n{read:?}"),
        }
    }

    #[test]
    fn any_text_at_all_can_be_built_or_is_refused(path in any::<String>(), text in any::<String>()) {
        let built = Manifest::builder("cat", Transport::Grpc, "cat")
            .handshake(1, "K", text.as_str())
            .files(outrigger_manifest::Files::new(format!("/{path}"), Permissions::READ))
            .exec(outrigger_manifest::Exec::new("/bin/true").args([text.as_str()]))
            .description(text.as_str())
            .set_variable("V", text.as_str())
            .build();
        if let Ok(built) = built {
            let printed = built.to_yaml();
            prop_assert_eq!(Manifest::parse(&printed), Ok(built), "{}", printed);
        }
    }

    #[test]
    fn texts_are_read_as_they_are_written(text in any_text(), path in path_text()) {
        let manifest = json!({
            "plugin": {"name": "cat", "format": "rpc", "entrypoint": "cat"},
            "handshake": {"protocol_version": 1, "magic_cookie_key": "K", "magic_cookie_value": text},
            "capabilities": {"filesystem": [{"path": path, "permissions": ["read"]}]},
        });
        let manifest = Manifest::parse(&manifest.to_string()).unwrap();
        prop_assert_eq!(manifest.handshake().magic_cookie_value(), text);
    }
}

// What is damaged.

fn valid_samples() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/valid");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

#[derive(Clone, Debug)]
enum Damage {
    Delete(usize, usize),
    Insert(usize, String),
    RepeatLine(usize),
    DropLine(usize),
    Cut(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let piece = prop_oneof![
        select(vec![
            ":",
            " ",
            "\t",
            "\n",
            "- ",
            "[",
            "]",
            "{",
            "}",
            "\"",
            "'",
            "*a",
            "&a ",
            "!x ",
            "|",
            "\0",
            "\r",
            "#",
            "---\n",
            "\u{feff}",
            "é",
            "\u{85}",
            "\u{2028}",
            "? ",
            "%YAML 9\n"
        ])
        .prop_map(str::to_owned),
        "\\PC{1,3}",
    ];
    prop_oneof![
        (any::<usize>(), 1_usize..8).prop_map(|(at, length)| Damage::Delete(at, length)),
        (any::<usize>(), piece).prop_map(|(at, piece)| Damage::Insert(at, piece)),
        any::<usize>().prop_map(Damage::RepeatLine),
        any::<usize>().prop_map(Damage::DropLine),
        any::<usize>().prop_map(Damage::Cut),
    ]
}

fn damaged(text: &str, damages: &[Damage]) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for damage in damages {
        let length = characters.len();
        if length == 0 {
            break;
        }
        match damage {
            Damage::Delete(at, count) => {
                let at = at % length;
                characters.drain(at..(at + count).min(length));
            }
            Damage::Insert(at, piece) => {
                let at = at % length;
                characters.splice(at..at, piece.chars());
            }
            Damage::Cut(at) => characters.truncate(at % length),
            Damage::RepeatLine(at) | Damage::DropLine(at) => {
                let text: String = characters.iter().collect();
                let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
                let at = at % lines.len();
                if matches!(damage, Damage::DropLine(_)) {
                    lines.remove(at);
                } else {
                    lines.insert(at, lines[at]);
                }
                characters = lines.concat().chars().collect();
            }
        }
    }
    characters.into_iter().collect()
}

/// The lines as YAML counts them.
fn line_lengths(text: &str) -> Vec<usize> {
    text.replace("\r\n", "\n")
        .replace('\r', "\n")
        .split('\n')
        .map(|line| line.chars().count())
        .collect()
}

fn assert_positions(text: &str, problems: &Problems) -> Result<(), TestCaseError> {
    let lines = line_lengths(text);
    prop_assert!(problems.len() > 0);
    for problem in problems {
        let (line, column) = (problem.line() as usize, problem.column() as usize);
        prop_assert!((1..=lines.len()).contains(&line), "{problem}\n{text}");
        prop_assert!(
            (1..=lines[line - 1] + 1).contains(&column),
            "{problem}\n{text}"
        );
        prop_assert!(!problem.message().is_empty());
    }
    let positions: Vec<_> = problems.iter().map(|problem| problem.position()).collect();
    prop_assert!(positions.is_sorted());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_has_problems_inside_itself_or_none(
        sample in any::<usize>(),
        damages in vec(damage(), 1..6),
    ) {
        let samples = valid_samples();
        let text = damaged(&samples[sample % samples.len()], &damages);
        if let Err(problems) = Manifest::parse(&text) {
            assert_positions(&text, &problems)?;
        }
        if let Err(problems) = Policy::parse(&text) {
            assert_positions(&text, &problems)?;
        }
    }

    #[test]
    fn any_text_at_all_is_read_or_refused(text in "(\\PC|[\\n\\t\\r :\\[\\]{}-]){0,80}") {
        if let Err(problems) = Manifest::parse(&text) {
            assert_positions(&text, &problems)?;
        }
    }
}

// What is granted.

#[derive(Clone, Debug, PartialEq)]
struct Files {
    path: &'static str,
    permissions: Vec<&'static str>,
    recursive: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Net {
    protocol: &'static str,
    hosts: Vec<&'static str>,
    ports: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq)]
struct Exec {
    command: &'static str,
    args: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct Side {
    files: Vec<Files>,
    net: Vec<Net>,
    exec: Vec<Exec>,
    control: Vec<&'static str>,
    read: Vec<&'static str>,
}

/// Paths that requests and rules name; the model's tree goes two levels further down.
const PATHS: &[&str] = &["/", "/a", "/b", "/a/a", "/a/b", "/a/a/a"];
const HOSTS: &[&str] = &[
    "example.com",
    "a.example.com",
    "b.example.com",
    "*.example.com",
    "*.b.example.com",
    "10.0.0.1",
    "10.0.0.0/16",
    "10.0.0.0/8",
    "93.184.215.14",
    "93.0.0.0/8",
];
const NAMES: &[&str] = &[
    "example.com",
    "a.example.com",
    "b.example.com",
    "c.example.com",
    "a.b.example.com",
    "other.net",
];
const ADDRESSES: &[&str] = &[
    "10.0.0.1",
    "10.0.7.7",
    "10.9.9.9",
    "93.184.215.14",
    "93.1.1.1",
    "8.8.8.8",
    "169.254.169.254",
];
const PORTS: &[u16] = &[1, 443, 444, 65535];
const COMMANDS: &[&str] = &["/bin/a", "/bin/b"];
const ARGUMENTS: &[&str] = &["x", "y", "-f"];

fn side(most: usize) -> impl Strategy<Value = Side> {
    let files = (select(PATHS.to_vec()), permissions(), any::<bool>()).prop_map(
        |(path, permissions, recursive)| Files {
            path,
            permissions,
            recursive,
        },
    );
    let net = (
        select(vec!["tcp", "udp"]),
        subsequence(HOSTS.to_vec(), 1..4),
        subsequence(PORTS.to_vec(), 1..4),
    )
        .prop_map(|(protocol, hosts, ports)| Net {
            protocol,
            hosts,
            ports,
        });
    let exec = (
        select(COMMANDS.to_vec()),
        vec(select(vec!["x", "y", "-f", "*"]), 0..3),
    )
        .prop_map(|(command, args)| Exec { command, args });
    let control = subsequence(vec!["kill", "list", "signal"], 0..=3);
    let read = subsequence(vec!["HOME", "LANG", "TZ"], 0..=3);
    (
        vec(files, 0..most),
        vec(net, 0..most),
        vec(exec, 0..most),
        control,
        read,
    )
        .prop_map(|(mut files, mut net, mut exec, control, read)| {
            let mut seen: Vec<(&str, bool)> = Vec::new();
            files.retain(|entry| {
                let new = !seen.contains(&(entry.path, entry.recursive));
                seen.push((entry.path, entry.recursive));
                new
            });
            for index in (0..net.len()).rev() {
                if net[..index].contains(&net[index]) {
                    net.remove(index);
                }
            }
            for index in (0..exec.len()).rev() {
                if exec[..index].contains(&exec[index]) {
                    exec.remove(index);
                }
            }
            Side {
                files,
                net,
                exec,
                control,
                read,
            }
        })
}

fn capabilities(side: &Side) -> Value {
    let files: Vec<Value> = side
        .files
        .iter()
        .map(|f| json!({"path": f.path, "permissions": f.permissions, "recursive": f.recursive}))
        .collect();
    let net: Vec<Value> = side
        .net
        .iter()
        .map(|n| json!({"protocol": n.protocol, "hosts": n.hosts, "ports": n.ports}))
        .collect();
    let exec: Vec<Value> = side
        .exec
        .iter()
        .map(|e| json!({"command": e.command, "args": e.args}))
        .collect();
    let mut process = json!({"exec": exec});
    for control in &side.control {
        process[*control] = json!(["children"]);
    }
    json!({
        "filesystem": files,
        "network": {"egress": net},
        "process": process,
        "environment": {"read": side.read},
    })
}

/// A rule that is both allowed and denied word for word is a problem of the file.
fn apart(mut allow: Side, deny: &Side) -> Side {
    allow.files.retain(|a| {
        !deny
            .files
            .iter()
            .any(|d| d.path == a.path && d.recursive == a.recursive)
    });
    allow.read.retain(|name| !deny.read.contains(name));
    allow
}

/// Every path of the model's tree.
fn tree() -> Vec<String> {
    let mut level = vec!["/".to_owned()];
    let mut all = level.clone();
    for _ in 0..5 {
        level = level
            .iter()
            .flat_map(|path| {
                ["a", "b"].map(|name| format!("{}/{name}", path.trim_end_matches('/')))
            })
            .collect();
        all.extend(level.clone());
    }
    all
}

fn area(path: &str, recursive: bool, tree: &[String]) -> BTreeSet<String> {
    let prefix = format!("{}/", path.trim_end_matches('/'));
    let below = |node: &str| {
        node.strip_prefix(&prefix)
            .is_some_and(|rest| !rest.is_empty() && (recursive || !rest.contains('/')))
    };
    tree.iter()
        .filter(|node| *node == path || below(node))
        .cloned()
        .collect()
}

/// Which host texts of the model a pattern means, found by looking at the letters.
fn hosts_of(pattern: &str, wide: bool) -> BTreeSet<&'static str> {
    let means = |host: &str| match (pattern.strip_prefix('*'), pattern.split_once('/')) {
        (Some(suffix), _) => host
            .strip_suffix(suffix)
            .is_some_and(|label| !label.is_empty() && (wide || !label.contains('.'))),
        (_, Some((network, length))) => {
            let bits = |text: &str| text.parse::<std::net::Ipv4Addr>().ok().map(u32::from);
            let shift = 32 - length.parse::<u32>().unwrap();
            bits(host).is_some_and(|host| host >> shift == bits(network).unwrap() >> shift)
        }
        (None, None) => host == pattern,
    };
    NAMES
        .iter()
        .chain(ADDRESSES)
        .copied()
        .filter(|host| means(host))
        .collect()
}

fn words(length: usize) -> Vec<Vec<&'static str>> {
    let mut all: Vec<Vec<&str>> = vec![Vec::new()];
    let mut last = all.clone();
    for _ in 0..length {
        last = last
            .iter()
            .flat_map(|words| {
                ARGUMENTS.iter().map(|word| {
                    let mut longer = words.clone();
                    longer.push(word);
                    longer
                })
            })
            .collect();
        all.extend(last.clone());
    }
    all
}

/// The argument lists of the model that a pattern lets through.
fn lists_of(
    args: &[&str],
    options_too: bool,
    words: &[Vec<&'static str>],
) -> BTreeSet<Vec<&'static str>> {
    let star = |word: &str| options_too || !word.starts_with('-');
    let matches = |list: &[&str]| -> bool {
        let (fixed, rest) = match args.split_last() {
            Some((&"*", fixed)) => (fixed, true),
            _ => (args, false),
        };
        if list.len() < fixed.len() || (!rest && list.len() != fixed.len()) {
            return false;
        }
        fixed
            .iter()
            .zip(list)
            .all(|(arg, word)| if *arg == "*" { star(word) } else { arg == word })
            && list[fixed.len()..].iter().all(|word| star(word))
    };
    words.iter().filter(|list| matches(list)).cloned().collect()
}

fn protocol(text: &str) -> Protocol {
    if text == "tcp" {
        Protocol::Tcp
    } else {
        Protocol::Udp
    }
}

const PERMISSIONS: &[(&str, Permissions)] = &[
    ("read", Permissions::READ),
    ("write", Permissions::WRITE),
    ("list", Permissions::LIST),
    ("create", Permissions::CREATE),
    ("delete", Permissions::DELETE),
];

struct Model {
    request: Side,
    allow: Side,
    deny: Side,
    tree: Vec<String>,
    areas: BTreeSet<BTreeSet<String>>,
    words: Vec<Vec<&'static str>>,
}

impl Model {
    fn new(request: Side, allow: Side, deny: Side) -> Model {
        let tree = tree();
        // Deepest paths have nothing below them in the model, so no request ends there.
        let areas = tree
            .iter()
            .filter(|path| path.matches('/').count() <= 4)
            .flat_map(|path| [area(path, true, &tree), area(path, false, &tree)])
            .collect();
        Model {
            request,
            allow,
            deny,
            tree,
            areas,
            words: words(3),
        }
    }

    /// The parts of the tree where a permission is granted.
    fn files(&self, permission: &str) -> BTreeSet<String> {
        let of = |entry: &Files| {
            let whole = area(entry.path, entry.recursive, &self.tree);
            (whole, entry.recursive)
        };
        let with = |side: &Side| -> Vec<(BTreeSet<String>, bool)> {
            side.files
                .iter()
                .filter(|f| f.permissions.contains(&permission))
                .map(of)
                .collect()
        };
        let denied = with(&self.deny);
        let mut granted = BTreeSet::new();
        for (asked, asked_below) in with(&self.request) {
            for (allowed, allowed_below) in with(&self.allow) {
                let shared: BTreeSet<String> = asked.intersection(&allowed).cloned().collect();
                if !self.areas.contains(&shared)
                    || denied
                        .iter()
                        .any(|(denied, _)| !denied.is_disjoint(&shared))
                {
                    continue;
                }
                let below = if shared == asked {
                    asked_below
                } else {
                    allowed_below
                };
                if permission == "list" && !below {
                    // Only what is in the directory itself is shown.
                    granted.extend(shared.into_iter().min_by_key(String::len));
                } else {
                    granted.extend(shared);
                }
            }
        }
        granted
    }

    fn egress(&self, protocol: &str, host: &str, port: u16) -> bool {
        let with = |side: &Side, wide: bool| -> Vec<BTreeSet<&'static str>> {
            side.net
                .iter()
                .filter(|n| n.protocol == protocol && n.ports.contains(&port))
                .flat_map(|n| n.hosts.iter().map(|host| hosts_of(host, wide)))
                .collect()
        };
        let denied = with(&self.deny, true);
        with(&self.request, false).iter().any(|asked| {
            with(&self.allow, false).iter().any(|allowed| {
                let shared: BTreeSet<&str> = asked.intersection(allowed).copied().collect();
                shared.contains(host) && denied.iter().all(|denied| denied.is_disjoint(&shared))
            })
        })
    }

    fn resolved(&self, protocol: &str, host: &str, port: u16, address: &str) -> bool {
        let denied = self.deny.net.iter().any(|n| {
            n.protocol == protocol
                && n.ports.contains(&port)
                && n.hosts
                    .iter()
                    .any(|host| hosts_of(host, true).contains(address))
        });
        let global = classify(address.parse().unwrap()) == AddressClass::Global;
        self.egress(protocol, host, port)
            && !denied
            && (global || self.egress(protocol, address, port))
    }

    fn exec(&self, command: &str, list: &[&'static str]) -> bool {
        let with = |side: &Side, wide: bool| -> Vec<BTreeSet<Vec<&'static str>>> {
            side.exec
                .iter()
                .filter(|e| e.command == command)
                .map(|e| lists_of(&e.args, wide, &self.words))
                .collect()
        };
        let denied = with(&self.deny, true);
        with(&self.request, false).iter().any(|asked| {
            with(&self.allow, false).iter().any(|allowed| {
                let shared: BTreeSet<Vec<&str>> = asked.intersection(allowed).cloned().collect();
                shared.contains(list) && denied.iter().all(|denied| denied.is_disjoint(&shared))
            })
        })
    }
}

fn decide(request: &Side, allow: &Value, deny: &Side) -> Decision {
    let manifest = json!({
        "plugin": {"name": "cat", "format": "rpc", "entrypoint": "cat"},
        "handshake": {"protocol_version": 1, "magic_cookie_key": "K", "magic_cookie_value": "v"},
        "capabilities": capabilities(request),
    });
    let manifest =
        Manifest::parse(&manifest.to_string()).unwrap_or_else(|p| panic!("{p}\n{manifest}"));
    let policy = json!({"default": {"allow": allow, "deny": capabilities(deny)}});
    let policy = Policy::parse(&policy.to_string()).unwrap_or_else(|p| panic!("{p}\n{policy}"));
    policy.decide(&manifest, &Places::new("/plugins/cat", "/var/cat").unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_granted_is_what_the_model_says(
        request in side(4),
        allow in side(5),
        deny in side(2),
    ) {
        let allow = apart(allow, &deny);
        let decision = decide(&request, &capabilities(&allow), &deny);
        let grants = decision.grants();
        let model = Model::new(request, allow, deny);

        for (word, permission) in PERMISSIONS {
            let granted = model.files(word);
            for path in &model.tree {
                let verdict = grants.filesystem_verdict(Path::new(path), *permission);
                prop_assert_eq!(verdict.is_ok(), granted.contains(path), "{} {} {:?}", word, path, verdict);
            }
        }
        for path in &model.tree {
            for needs in 0..32_u32 {
                let needs: Permissions = PERMISSIONS
                    .iter()
                    .enumerate()
                    .filter(|(bit, _)| needs & (1 << bit) != 0)
                    .map(|(_, (_, permission))| *permission)
                    .collect();
                // Several permissions at once are never more than each of them.
                if let Ok(grant) = grants.filesystem_verdict(Path::new(path), needs) {
                    prop_assert!(grant.covers(Path::new(path)));
                    prop_assert!(grant.permissions().contains(needs));
                    prop_assert_eq!(&grants.filesystem()[grant.index()], grant);
                }
            }
        }
        for (word, port) in ["tcp", "udp"].iter().flat_map(|word| PORTS.iter().map(move |port| (*word, *port))) {
            for text in NAMES.iter().chain(ADDRESSES) {
                let host: Host = text.parse().unwrap();
                let verdict = grants.network().egress(protocol(word), &host, port);
                prop_assert_eq!(verdict.is_ok(), model.egress(word, text, port), "{} {} {} {:?}", word, text, port, verdict);
            }
            for name in NAMES {
                for address in ADDRESSES {
                    let (host, ip): (Host, IpAddr) = (name.parse().unwrap(), address.parse().unwrap());
                    let verdict = grants.network().resolved(protocol(word), &host, port, ip);
                    prop_assert_eq!(verdict.is_ok(), model.resolved(word, name, port, address), "{} {} {} {} {:?}", word, name, address, port, verdict);
                }
            }
        }
        for command in COMMANDS {
            for list in &model.words {
                let verdict = grants.process().exec(command, list);
                prop_assert_eq!(verdict.is_ok(), model.exec(command, list), "{} {:?} {:?}", command, list, verdict);
            }
        }
        let both = |name: &str, of: fn(&Side) -> &Vec<&'static str>| {
            of(&model.request).contains(&name)
                && of(&model.allow).contains(&name)
                && !of(&model.deny).contains(&name)
        };
        for name in ["HOME", "LANG", "TZ", "OTHER"] {
            prop_assert_eq!(grants.environment().read(name).is_ok(), both(name, |side| &side.read));
        }
        let process = grants.process();
        for (name, verdict) in [("kill", process.kill()), ("list", process.list()), ("signal", process.signal())] {
            prop_assert_eq!(verdict.is_ok(), both(name, |side| &side.control));
        }
    }

    #[test]
    fn a_decision_that_refuses_nothing_grants_all_that_is_asked(
        request in side(4),
        deny in side(2),
        everything in any::<bool>(),
    ) {
        let allow = if everything { json!("requested") } else { capabilities(&request) };
        let no_conflict = apart(request.clone(), &deny);
        prop_assume!(everything || no_conflict.files.len() == request.files.len());
        prop_assume!(everything || no_conflict.read.len() == request.read.len());
        let decision = decide(&request, &allow, &deny);
        let nothing = Side { files: vec![], net: vec![], exec: vec![], control: vec![], read: vec![] };
        let asked = Model::new(request.clone(), request, nothing);
        let grants = decision.grants();
        let mut all = true;
        for (word, permission) in PERMISSIONS {
            for path in asked.files(word) {
                all &= grants.filesystem_verdict(Path::new(&path), *permission).is_ok();
            }
        }
        for word in ["tcp", "udp"] {
            for port in PORTS {
                for text in NAMES.iter().chain(ADDRESSES) {
                    let host: Host = text.parse().unwrap();
                    let wanted = asked.egress(word, text, *port);
                    let verdict = grants.network().egress(protocol(word), &host, *port).is_ok();
                    prop_assert!(wanted || !verdict);
                    all &= !wanted || verdict;
                }
            }
        }
        if decision.is_complete() {
            prop_assert!(all, "{:?}", decision.refused());
        }
    }
}

// What was approved before.

/// What requests have besides the lists of a side.
#[derive(Clone, Debug)]
struct Rest {
    direct: Vec<bool>,
    ingress: bool,
    set: Vec<(&'static str, &'static str)>,
    memory: Option<u64>,
    streams: Option<u32>,
    sandbox: &'static str,
    jit: bool,
}

fn rest() -> impl Strategy<Value = Rest> {
    (
        vec(any::<bool>(), 4),
        any::<bool>(),
        subsequence(vec![("A", "x"), ("B", "x"), ("C", "a b")], 0..=3),
        proptest::option::of(1_u64..4),
        proptest::option::of(1_u32..4),
        select(vec!["require", "require", "best-effort", "off"]),
        any::<bool>(),
    )
        .prop_map(
            |(direct, ingress, set, memory, streams, sandbox, jit)| Rest {
                direct,
                ingress,
                set,
                memory,
                streams,
                sandbox,
                jit,
            },
        )
}

/// What a side and the rest ask for. Of one path that is named twice, only one way of access is.
fn asking(side: &Side, rest: &Rest) -> Manifest {
    let mut asked = capabilities(side);
    for (index, entry) in side.files.iter().enumerate() {
        let twice = side
            .files
            .iter()
            .filter(|other| other.path == entry.path)
            .count()
            > 1;
        if entry.recursive && rest.direct[index] && !twice {
            asked["filesystem"][index]["access"] = json!("direct");
        }
    }
    if rest.ingress {
        let entries = side.net.iter().map(|n| {
            let origins: Vec<&str> = n
                .hosts
                .iter()
                .copied()
                .filter(|h| !h.contains('*'))
                .collect();
            json!({"protocol": n.protocol, "allowed_origins": origins, "ports": n.ports})
        });
        let mut entries: Vec<Value> = entries
            .filter(|e| e["allowed_origins"] != json!([]))
            .collect();
        entries.dedup();
        asked["network"]["ingress"] = json!(entries);
    }
    for (name, value) in &rest.set {
        asked["environment"]["set"][name] = json!(value);
    }
    let mut manifest = json!({
        "plugin": {"name": "cat", "format": "rpc", "entrypoint": "cat"},
        "handshake": {"protocol_version": 1, "magic_cookie_key": "K", "magic_cookie_value": "v"},
        "capabilities": asked,
        "sandbox": rest.sandbox,
        "jit": rest.jit,
    });
    if let Some(memory) = rest.memory {
        manifest["resources"]["memory"] = json!(memory);
    }
    if let Some(streams) = rest.streams {
        manifest["resources"]["streams"] = json!(streams);
    }
    Manifest::parse(&manifest.to_string()).unwrap_or_else(|p| panic!("{p}\n{manifest}"))
}

/// Some of a side, so that it is often covered.
fn part(side: &Side, keep: &[bool]) -> Side {
    fn some<T: Clone>(all: &[T], keep: &[bool]) -> Vec<T> {
        let kept = all.iter().zip(keep).filter(|(_, keep)| **keep);
        kept.map(|(one, _)| one.clone()).collect()
    }
    Side {
        files: some(&side.files, keep),
        net: some(&side.net, keep),
        exec: some(&side.exec, keep),
        control: some(&side.control, keep),
        read: some(&side.read, keep),
    }
}

/// The first operation that the decision about `now` lets through and that about `before` does not.
fn allowed_anew(now: &Manifest, before: &Manifest, words: &[Vec<&str>]) -> Option<String> {
    let places = Places::new("/a/plugin", "/b/data").unwrap();
    let [new, old] = [now, before].map(|m| Policy::allow_requested().decide(m, &places).grants());
    for path in tree() {
        for bits in 0..32_u32 {
            let named = PERMISSIONS
                .iter()
                .enumerate()
                .filter(|(bit, _)| bits & (1 << bit) != 0);
            let needs: Permissions = named.map(|(_, (_, permission))| *permission).collect();
            let verdict = |g: &Grants| g.filesystem_verdict(Path::new(&path), needs).is_ok();
            let direct = |g: &Grants| {
                let fits = |g: &FilesystemGrant| {
                    g.covers(Path::new(&path)) && g.permissions().contains(needs)
                };
                g.filesystem()
                    .iter()
                    .any(|g| fits(g) && g.access() == Access::Direct)
            };
            if (verdict(&new) && !verdict(&old)) || (direct(&new) && !direct(&old)) {
                return Some(format!("{needs} of {path}"));
            }
        }
    }
    for (word, port) in ["tcp", "udp"]
        .iter()
        .flat_map(|w| PORTS.iter().map(move |p| (*w, *p)))
    {
        let spoken = protocol(word);
        for text in NAMES.iter().chain(ADDRESSES) {
            let host: Host = text.parse().unwrap();
            let egress = |g: &Grants| g.network().egress(spoken, &host, port).is_ok();
            if egress(&new) && !egress(&old) {
                return Some(format!("{word} {text} {port}"));
            }
            for address in ADDRESSES {
                let ip: IpAddr = address.parse().unwrap();
                let leads = |g: &Grants| g.network().resolved(spoken, &host, port, ip).is_ok();
                if leads(&new) && !leads(&old) {
                    return Some(format!("{word} {text} at {address} {port}"));
                }
            }
        }
        for address in ADDRESSES {
            let ip: IpAddr = address.parse().unwrap();
            let comes = |g: &Grants| g.network().ingress_origin(spoken, port, ip, &[]).is_ok();
            if comes(&new) && !comes(&old) {
                return Some(format!("{word} from {address} to {port}"));
            }
        }
        let hears = |g: &Grants| g.network().ingress(spoken, port).is_ok();
        if hears(&new) && !hears(&old) {
            return Some(format!("{word} at {port}"));
        }
    }
    for command in COMMANDS {
        for list in words {
            let runs = |g: &Grants| g.process().exec(command, list).is_ok();
            if runs(&new) && !runs(&old) {
                return Some(format!("{command} {list:?}"));
            }
        }
    }
    for control in ProcessControl::ALL {
        let may = |g: &Grants| g.process().control(*control).is_ok();
        if may(&new) && !may(&old) {
            return Some(control.to_string());
        }
    }
    for name in ["HOME", "LANG", "TZ"] {
        if new.environment().read(name).is_ok() && old.environment().read(name).is_err() {
            return Some(format!("read {name}"));
        }
    }
    if let Some(set) = new
        .environment()
        .set()
        .find(|set| !old.environment().set().any(|o| o == *set))
    {
        return Some(format!("{set:?}"));
    }
    if let Some(service) = new
        .services()
        .find(|service| old.service(*service).is_err())
    {
        return Some(service.to_string());
    }
    let (limits, before) = (new.resources(), old.resources());
    if limits.memory.is_none() && before.memory.is_some() || limits.memory > before.memory {
        return Some("memory".to_owned());
    }
    if limits.streams.is_none() && before.streams.is_some() || limits.streams > before.streams {
        return Some("streams".to_owned());
    }
    if new.sandbox() < old.sandbox() || (new.jit() && !old.jit()) {
        return Some("sandbox or jit".to_owned());
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_allowed_anew_by_what_is_covered(
        before in side(5),
        other in side(3),
        keep in vec(any::<bool>(), 5),
        unrelated in any::<bool>(),
        rests in (rest(), rest()),
        same_rest in any::<bool>(),
    ) {
        let now = if unrelated { other } else { part(&before, &keep) };
        let before = asking(&before, &rests.0);
        let now = asking(&now, if same_rest { &rests.0 } else { &rests.1 });
        if now.requests().are_covered_by(before.requests()) {
            let anew = allowed_anew(&now, &before, &words(3));
            prop_assert_eq!(anew, None, "{:#?} covers {:#?}", before.requests().lines(), now.requests().lines());
        }
    }

    #[test]
    fn requests_cover_themselves_and_the_union_covers_both(a in side(4), b in side(4), rests in (rest(), rest())) {
        // Limits and confinement have no union that a file can say.
        let rest = Rest { memory: None, streams: None, sandbox: "require", ..rests.0 };
        let [a, b] = [asking(&a, &rest), asking(&b, &rest)].map(|m| m.requests().lines());
        let both = Requests::from_lines(a.iter().chain(&b)).unwrap();
        for lines in [a, b] {
            let one = Requests::from_lines(&lines).unwrap();
            prop_assert!(one.changes_from(&one).is_empty());
            prop_assert!(one.are_covered_by(&both), "{}", one.changes_from(&both));
        }
    }

    #[test]
    fn requests_are_read_back_from_their_lines(value in a_manifest()) {
        let Ok(manifest) = Manifest::parse(&value.to_string()) else { return Ok(()) };
        let requests = manifest.requests();
        let mut lines = requests.lines();
        prop_assert!(lines.iter().flat_map(|line| line.chars()).all(outrigger_wire::text::is_visible));
        let changes = Requests::from_lines(&lines).unwrap().changes_from(requests);
        prop_assert!(changes.is_empty(), "{changes}\n{lines:#?}");
        lines.reverse();
        prop_assert_eq!(Requests::from_lines(&lines).unwrap().lines(), requests.lines());
    }

    #[test]
    fn any_line_at_all_is_read_or_refused(line in "(filesystem |network egress tcp |network ingress udp from |process exec |process |environment set |services: |resources memory: |sandbox: |jit: )?(\\PC|[ :,\"\\[\\]\\\\/]){0,30}") {
        if let Ok(requests) = Requests::from_lines([&line]) {
            let lines = requests.lines();
            let again = Requests::from_lines(&lines).unwrap();
            prop_assert_eq!(again.lines(), lines);
        }
    }
}
