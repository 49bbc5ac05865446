//! Files with many mistakes at once: each is reported as if it were alone, in its own line and
//! column.

use std::collections::BTreeSet;

use outrigger_manifest::{Manifest, Policy, Problems};
use proptest::prelude::*;
use proptest::sample::subsequence;

const MANIFEST: &str = include_str!("../samples/valid/everything.yaml");
const POLICY: &str = include_str!("../samples/valid/policy-everything.yaml");

/// Line of the sample, what is replaced in it by what, and the problem: the text at whose
/// beginning it is shown, its code, and what was meant.
type Mistake = (
    u32,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const MANIFEST_MISTAKES: &[Mistake] = &[
    (1, "1", "2", "2", "unsupported-schema", ""),
    (2, "plugin", "plugn", "plugn", "unknown-key", "plugin"),
    (
        3,
        "indexer",
        "Indexer",
        "Indexer",
        "invalid-name",
        "indexer",
    ),
    (4, "worker", "7", "7", "wrong-type", "\"7\""),
    (5, "grpc", "grcp", "grcp", "unknown-word", "grpc"),
    (6, "bin/", "../", "../", "invalid-entrypoint", ""),
    (7, "rust", "[rust]", "[rust]", "wrong-type", ""),
    (
        8,
        "2.1.0-rc.1+build.5",
        "v2",
        "v2",
        "invalid-version",
        "2.0.0",
    ),
    (9, "about", "abuot", "abuot", "unknown-key", "about"),
    (
        13,
        "handshake",
        "hand-shake",
        "hand-shake",
        "unknown-key",
        "handshake",
    ),
    (14, "3", "\"3\"", "\"3\"", "wrong-type", "3"),
    (
        15,
        "INDEXER",
        "$INDEXER",
        "$INDEXER",
        "invalid-variable",
        "INDEXER",
    ),
    (16, "12345", "", ":", "empty-value", ""),
    (18, "false", "off", "off", "wrong-type", "false"),
    (
        19,
        "capabilities",
        "Capabilities",
        "Capabilities",
        "unknown-key",
        "capabilities",
    ),
    (
        20,
        "filesystem",
        "filesytem",
        "filesytem",
        "unknown-key",
        "filesystem",
    ),
    (
        21,
        "${data_dir}",
        "~/x",
        "~/x",
        "path-not-absolute",
        "${HOME}/x",
    ),
    (22, "create", "creat", "creat", "unknown-word", "create"),
    (
        23,
        "recursive",
        "Recursive",
        "Recursive",
        "unknown-key",
        "recursive",
    ),
    (24, "direct", "direkt", "direkt", "unknown-word", "direct"),
    (
        25,
        "documents",
        "../x",
        "${HOME}",
        "path-climbs",
        "${HOME}/x",
    ),
    (26, "read", "!r read", "read", "tag-not-allowed", ""),
    (27, "true", "yes", "yes", "wrong-type", "true"),
    (
        28,
        "plugin_dir",
        "plugindir",
        "\"${plugindir}",
        "path-placeholder",
        "${plugin_dir}",
    ),
    (29, "read", "read, read", "read]", "duplicate-entry", ""),
    (
        30,
        "network",
        "netwrok",
        "netwrok",
        "unknown-key",
        "network",
    ),
    (31, "egress", "egres", "egres", "unknown-key", "egress"),
    (32, "tcp", "tpc", "tpc", "unknown-word", "tcp"),
    (
        33,
        "xn--bcher-kva.example",
        "https://a.example/",
        "https",
        "invalid-host",
        "a.example",
    ),
    (34, "443", "0443", "0443", "invalid-port", "443"),
    (
        35,
        "192.0.2.53",
        "0x7f.1",
        "0x7f.1",
        "host-not-canonical",
        "127.0.0.1",
    ),
    (36, "ingress", "ingres", "ingres", "unknown-key", "ingress"),
    (
        37,
        "127.0.0.1",
        "\"*.example.com\"",
        "\"*",
        "wildcard-not-allowed",
        "",
    ),
    (38, "process", "proces", "proces", "unknown-key", "process"),
    (40, "command", "comand", "comand", "unknown-key", "command"),
    (41, "args", "arg", "arg", "unknown-key", "args"),
    (42, "/usr/bin/", "", "true", "wrong-type", "\"true\""),
    (43, "children", "child", "child", "unknown-word", "children"),
    (45, "LANG", "*LANG", "*LANG", "alias-not-allowed", ""),
    (
        47,
        "MODE",
        "PLUGIN_MIN_PORT",
        "PLUGIN_MIN_PORT",
        "reserved-variable",
        "",
    ),
    (
        50,
        "resources",
        "resource",
        "resource",
        "unknown-key",
        "resources",
    ),
    (51, "512MiB", "512MIB", "512MIB", "invalid-size", "512MiB"),
    (52, "1.5", "0", "0", "out-of-range", ""),
    (53, "64", "0", "0", "out-of-range", ""),
    (55, "8 MiB", "[8MiB]", "[8MiB]", "wrong-type", ""),
    (
        57,
        "best-effort",
        "besteffort",
        "besteffort",
        "unknown-word",
        "best-effort",
    ),
    (58, "jit", "JIT", "JIT", "unknown-key", "jit"),
    (
        59,
        "network",
        "netwrok",
        "netwrok",
        "unknown-word",
        "network",
    ),
];

const POLICY_MISTAKES: &[Mistake] = &[
    (
        2,
        "default",
        "defaults",
        "defaults",
        "unknown-key",
        "default",
    ),
    (
        3,
        "require",
        "required",
        "required",
        "unknown-word",
        "require",
    ),
    (4, "false", "\"false\"", "\"false\"", "wrong-type", "false"),
    (5, "pids", "pid", "pid", "unknown-key", "pids"),
    (6, "allow", "alow", "alow", "unknown-key", "allow"),
    (8, "list", "lst", "lst", "unknown-word", "list"),
    (
        9,
        "permissions",
        "permisions",
        "permisions",
        "unknown-key",
        "permissions",
    ),
    (12, "443", "65536", "65536", "invalid-port", ""),
    (
        14,
        "10.0.0.0/8",
        "10.0.0.1/8",
        "10.0.0.1/8",
        "host-not-canonical",
        "10.0.0.0/8",
    ),
    (16, "/usr", "usr", "usr", "path-not-absolute", ""),
    (18, "children", "all", "all", "unknown-word", ""),
    (21, "TZ", "T-Z", "T-Z", "invalid-variable", ""),
    (23, "clock", "Clock", "Clock", "unknown-word", "clock"),
    (24, "deny", "denny", "denny", "unknown-key", "deny"),
    (27, "false", "False", "False", "wrong-type", "false"),
    (28, "direct", "mediated", "mediated", "unknown-word", ""),
    (31, "evil", "*.evil", "*.evil", "alias-not-allowed", ""),
    (
        33,
        "protocol",
        "protcol",
        "protcol",
        "unknown-key",
        "protocol",
    ),
    (38, "process", "proces", "proces", "unknown-word", "process"),
    (40, "cat", "Cat", "Cat", "invalid-name", "cat"),
    (43, "4GiB", "4Gib", "4Gib", "invalid-size", "4GiB"),
    (45, "cats", "../cats", "/srv", "path-climbs", "/cats"),
];

/// Where a problem is, its code and what was meant.
type Found = (u32, u32, String, String);

fn with(text: &str, mistakes: &[Mistake]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (line, from, to, ..) in mistakes {
        let line = &mut lines[*line as usize - 1];
        assert!(line.contains(from), "{line} has no {from}");
        *line = line.replacen(from, to, 1);
    }
    lines.join("\n")
}

fn wanted(text: &str, (line, _, _, shown, code, near): &Mistake) -> Found {
    let content = text.lines().nth(*line as usize - 1).unwrap_or_default();
    let column = content
        .find(shown)
        .unwrap_or_else(|| panic!("{content} has no {shown}"))
        + 1;
    (
        *line,
        u32::try_from(column).unwrap(),
        (*code).to_owned(),
        (*near).to_owned(),
    )
}

fn found(problems: Option<&Problems>) -> BTreeSet<Found> {
    let problems = problems.into_iter().flatten().map(|problem| {
        let near = problem.near_miss().unwrap_or_default().to_owned();
        (
            problem.line(),
            problem.column(),
            problem.code().to_owned(),
            near,
        )
    });
    problems.collect()
}

fn check(text: &str, mistakes: &[Mistake], problems: Option<&Problems>) -> Result<(), String> {
    let wanted: BTreeSet<Found> = mistakes
        .iter()
        .map(|mistake| wanted(text, mistake))
        .collect();
    let found = found(problems);
    if found == wanted {
        return Ok(());
    }
    let missing: Vec<_> = wanted.difference(&found).collect();
    let more: Vec<_> = found.difference(&wanted).collect();
    Err(format!("{text}\nmissing: {missing:#?}\nmore: {more:#?}"))
}

fn manifest(mistakes: &[Mistake]) -> Result<(), String> {
    let text = with(MANIFEST, mistakes);
    check(&text, mistakes, Manifest::parse(&text).err().as_ref())
}

fn policy(mistakes: &[Mistake]) -> Result<(), String> {
    let text = with(POLICY, mistakes);
    check(&text, mistakes, Policy::parse(&text).err().as_ref())
}

#[test]
fn each_mistake_is_shown_in_its_place_with_what_was_meant() {
    let single = |list: &[Mistake], check: fn(&[Mistake]) -> Result<(), String>| {
        list.iter()
            .filter_map(|mistake| check(&[*mistake]).err())
            .collect::<Vec<_>>()
    };
    let mut wrong = single(MANIFEST_MISTAKES, manifest);
    wrong.extend(single(POLICY_MISTAKES, policy));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_of_them_are_shown_at_once() {
    manifest(MANIFEST_MISTAKES).unwrap_or_else(|wrong| panic!("{wrong}"));
    policy(POLICY_MISTAKES).unwrap_or_else(|wrong| panic!("{wrong}"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_mistake_hides_another(
        in_manifest in subsequence(MANIFEST_MISTAKES, 2..12),
        in_policy in subsequence(POLICY_MISTAKES, 2..8),
    ) {
        prop_assert_eq!(manifest(&in_manifest), Ok(()));
        prop_assert_eq!(policy(&in_policy), Ok(()));
    }
}
