//! What differs between two sets of requests, case by case, and how that reads.

use insta::assert_snapshot;
use outrigger_manifest::{Manifest, Requests};

fn asked(manifest: &str) -> Requests {
    let head = "
plugin: {name: cat, format: grpc, entrypoint: cat}
handshake: {protocol_version: 1, magic_cookie_key: CAT, magic_cookie_value: meow}
";
    let manifest = Manifest::parse(&format!("{head}{manifest}")).unwrap_or_else(|p| panic!("{p}"));
    manifest.requests().clone()
}

fn lines<const N: usize>(lines: [&str; N]) -> Requests {
    Requests::from_lines(lines).unwrap()
}

#[test]
fn every_request_is_a_line_in_the_words_of_the_manifest() {
    let requests = asked(
        r#"
capabilities:
  filesystem:
    - {path: /data, permissions: [list, read]}
    - {path: "${data_dir}/a b: c", permissions: [read, write], recursive: true, access: direct}
  network:
    egress:
      - {protocol: tcp, hosts: [api.example.com, "2001:db8::/32"], ports: [443, 8000-8010]}
      - {protocol: tcp, hosts: [api.example.com], ports: [80]}
    ingress: [{protocol: udp, allowed_origins: [10.0.0.0/8, "::1"], ports: [9000]}]
  process:
    exec: [{command: /usr/bin/git, args: [pull, "a, b", "*"]}, {command: /bin/true}]
    kill: [children]
  environment: {read: [HOME], set: {TZ: UTC, NOTE: "two words, \"quoted\"\u202e"}}
resources: {memory: 64MiB, cpu: 0.5, streams: 9}
sandbox: best-effort
jit: true
"#,
    );
    let lines = requests.lines();
    assert_snapshot!(lines.join("\n"), @r#"
    environment read HOME
    environment set NOTE: "two words, \"quoted\"\u202e"
    environment set TZ: UTC
    filesystem "${data_dir}/a b: c": read, write, recursive, direct
    filesystem /data: read, list
    jit: true
    network egress tcp [2001:db8::/32]:443,8000-8010
    network egress tcp api.example.com:80,443,8000-8010
    network ingress udp from 10.0.0.0/8 to 9000
    network ingress udp from [::1] to 9000
    process exec /bin/true []
    process exec /usr/bin/git [pull, "a, b", *]
    process kill children
    resources cpu: 0.5
    resources memory: 64MiB
    resources streams: 9
    sandbox: best-effort
    services: clock, environment, filesystem, log, network, process
    "#);
    assert_eq!(Requests::from_lines(&lines).unwrap().lines(), lines);
}

#[test]
fn a_difference_says_what_changed_and_why_a_widening_matters() {
    let before = lines([
        "filesystem /data: read",
        "filesystem /logs: read, write, recursive",
        "network egress tcp api.example.com:443",
        "network egress tcp old.example.com:443",
        "process exec /usr/bin/git [pull]",
        "environment set TZ: UTC",
        "services: clock, filesystem, log, network",
        "resources memory: 64MiB",
        "resources streams: 8",
    ]);
    let now = lines([
        "filesystem /data: read, write",
        "filesystem /logs/today: read",
        "network egress tcp api.example.com:443,8443",
        "network egress udp *.example.com:53",
        "network ingress tcp from 10.0.0.0/8 to 9000",
        "process exec /usr/bin/git [pull, *]",
        "process kill children",
        "environment read TOKEN",
        "environment set TZ: CET",
        "services: clock, environment, filesystem, log, network, process",
        "resources memory: 128MiB",
        "sandbox: off",
        "jit: true",
    ]);
    let changes = now.changes_from(&before);
    assert!(changes.widen());
    assert_snapshot!(changes, @r#"
    + environment read TOKEN
      it would know the value, which may be a secret
    ~ environment set TZ: UTC → CET
      such a variable can change what the plugin's libraries and commands do
    ~ filesystem /data: read → read, write
      it could change or remove what is there
    - filesystem /logs: read, write, recursive
    + filesystem /logs/today: read
    + jit: true
      it could run machine code that was never in its program
    ~ network egress tcp api.example.com:443 → 443,8443
      it could send there whatever it gets to see
    - network egress tcp old.example.com:443
    + network egress udp *.example.com:53
      it could send to any of these hosts whatever it gets to see
    + network ingress tcp from 10.0.0.0/8 to 9000
      these hosts could connect to it
    + process exec /usr/bin/git [pull, *]
      the command runs with arguments that the plugin chooses, and is not held to its grants
    - process exec /usr/bin/git [pull]
    + process kill children
      it could end the commands that it started
    ~ resources memory: 64MiB → 128MiB
      it could use more of this machine
    - resources streams: 8
      without it the host's own limit holds, which may be higher
    + sandbox: off
      less would hold it to its grants, or nothing
    ~ services: clock, filesystem, log, network → clock, environment, filesystem, log, network, process
      it could ask the host for more kinds of things
    "#);
    assert_snapshot!(serde_json::to_string_pretty(&changes.iter().next()).unwrap(), @r#"
    {
      "change": "added",
      "before": null,
      "after": "environment read TOKEN",
      "why": "it would know the value, which may be a secret"
    }
    "#);
}

#[test]
fn less_than_before_is_covered() {
    let before = lines([
        "filesystem /data: read, write, recursive",
        "filesystem ${HOME}/x: read, recursive",
        "network egress tcp *.example.com:1-1000",
        "network egress tcp 10.0.0.0/8:443",
        "process exec /usr/bin/git [pull, *]",
        "services: clock, filesystem, log, network, process",
        "resources memory: 64MiB",
        "sandbox: off",
        "jit: true",
    ]);
    for now in [
        &["filesystem /data/in: read"][..],
        &[
            "filesystem /data: read",
            "filesystem /data/in: write, recursive",
        ],
        &["filesystem ${HOME}/x/y: read"],
        &["network egress tcp api.example.com:443"],
        &[
            "network egress tcp 10.1.0.0/16:443",
            "network egress tcp 10.0.0.1:443",
        ],
        &["process exec /usr/bin/git [pull, origin]"],
        &["services: clock"],
        &["resources memory: 1MiB"],
        &["sandbox: best-effort"],
        &[],
    ] {
        let mut lines = now.to_vec();
        if !lines.iter().any(|line| line.starts_with("resources")) {
            lines.push("resources memory: 64MiB");
        }
        let changes = Requests::from_lines(&lines).unwrap().changes_from(&before);
        assert!(!changes.widen(), "{now:?}:\n{changes}");
        assert!(!changes.is_empty(), "{now:?}");
    }
}

#[test]
fn more_than_before_is_never_covered() {
    let before = lines([
        "filesystem /data: read",
        "filesystem /tree: read, recursive",
        "filesystem /tree/in: write, recursive",
        "network egress tcp *.example.com:443",
        "network egress tcp 10.0.0.0/8:443",
        "process exec /usr/bin/git [pull, *]",
        "environment set TZ: UTC",
        "services: clock",
        "resources memory: 64MiB",
    ]);
    for now in [
        "filesystem /data: read, recursive",
        "filesystem /data: read, list",
        "filesystem /data/in: read",
        "filesystem /: read",
        "filesystem /database: read",
        "filesystem ${data_dir}: read",
        "filesystem /tree: read, recursive, direct",
        "filesystem /tree: write, recursive",
        "network egress udp *.example.com:443",
        "network egress tcp *.b.example.com:443",
        "network egress tcp example.com:443",
        "network egress tcp a.example.com:442-443",
        "network egress tcp 10.0.0.0/7:443",
        "network ingress tcp from 10.0.0.1 to 443",
        "process exec /usr/bin/git [*]",
        "process exec /usr/bin/git [pull, -f]",
        "process exec /bin/git [pull]",
        "process list children",
        "environment read TZ",
        "environment set TZ: CET",
        "services: clock, log",
        "resources memory: 65MiB",
        "resources streams: 1",
        "sandbox: best-effort",
        "jit: true",
    ] {
        let mut all = before.lines();
        all.retain(|line| {
            !line.starts_with("resources memory") || !now.starts_with("resources memory")
        });
        all.push(now.to_owned());
        let changes = Requests::from_lines(&all).unwrap().changes_from(&before);
        assert!(changes.widen(), "{now}:\n{changes}");
    }
    let without_limit = Requests::none().changes_from(&lines(["resources memory: 64MiB"]));
    assert!(without_limit.widen(), "{without_limit}");
}

#[test]
fn an_operation_that_needs_two_permissions_of_one_grant_is_not_covered_by_two() {
    // Direct access takes nothing from grants around it that are not, so before, nothing below
    // /a was open for reading and writing at once.
    let before = lines([
        "filesystem /: write, recursive",
        "filesystem /a: read, recursive, direct",
    ]);
    let now = lines([
        "filesystem /: write, recursive",
        "filesystem /a: read, recursive",
    ]);
    assert!(!now.are_covered_by(&before));
    assert!(before.are_covered_by(&before));
}

#[test]
fn what_nobody_trusts_at_first_sight_is_named() {
    let shown = |requests: Requests| {
        let grave = requests.never_on_first_use();
        let lines: Vec<String> = grave
            .iter()
            .map(|g| format!("{}: {}", g.request, g.why))
            .collect();
        lines.join("\n")
    };
    assert_snapshot!(shown(lines([
        "filesystem /: write, recursive",
        "filesystem /home: create, recursive",
        "filesystem ${HOME}: delete, recursive",
        "filesystem /data/out: write, recursive",
        "filesystem /etc: read, recursive",
        "filesystem ${data_dir}: write, recursive",
        "filesystem /tmp: write",
        "process exec /usr/bin/git [pull]",
        "sandbox: off",
        "network egress tcp api.example.com:443",
    ])), @r#"
    filesystem /: write, recursive: it could change a whole tree of files, programs and settings among them
    filesystem /home: create, recursive: it could change a whole tree of files, programs and settings among them
    filesystem ${HOME}: delete, recursive: it could change a whole tree of files, programs and settings among them
    process exec /usr/bin/git [pull]: a command is not held to what the plugin is granted
    sandbox: off: nothing would hold it to its grants
    "#);
    let hosts = (0..1001).map(|host| format!("network egress tcp h{host}.example.com:443"));
    assert_snapshot!(shown(Requests::from_lines(hosts).unwrap()), @"1001 requests: nobody would see what is among so many");
}

#[test]
fn a_line_that_is_no_request_is_named() {
    for line in [
        "",
        "filesystem /data",
        "filesystem /data: ",
        "filesystem data: read",
        "filesystem /../etc: read",
        "filesystem /data: reed",
        "filesystem /data: read, direct",
        "filesystem \"/data: read",
        "network egress tcp *.com:443",
        "network egress tcp example.com:0",
        "network egress tcp example.com",
        "network ingress tcp 10.0.0.1:9000",
        "process exec /bin/true",
        "process exec /bin/true []x",
        "process exec [x]",
        "process end children",
        "environment read A-B",
        "environment set A",
        "services: Databases",
        "resources memory: lots",
        "resources hands: 2",
        "sandbox: none",
        "jit: false",
        " jit: true",
        "jit: true ",
    ] {
        let error = Requests::from_lines([line]).unwrap_err();
        assert_eq!(error.code(), "request-invalid");
        assert_eq!(
            error.to_string(),
            format!("`{line}` is no request in the words of a manifest")
        );
    }
    for twice in [["sandbox: off"; 2], ["resources pids: 1"; 2]] {
        assert!(Requests::from_lines(twice).is_err());
    }
}

#[test]
fn a_service_of_the_application_is_a_request_like_any_other() {
    let manifest = |services: &str| {
        let text = format!(
            "plugin: {{name: cat, format: grpc, entrypoint: cat}}
handshake: {{protocol_version: 1, magic_cookie_key: CAT, magic_cookie_value: meow}}
services: [{services}]
"
        );
        Manifest::parse(&text).unwrap()
    };
    let (before, after) = (manifest("cache"), manifest("geo, cache"));
    let (before, after) = (before.requests(), after.requests());
    assert_eq!(before.lines(), ["services: cache"]);
    assert_eq!(after.lines(), ["services: cache, geo"]);
    assert_eq!(
        &Requests::from_lines(after.lines()).unwrap().lines(),
        &after.lines()
    );
    assert!(after.changes_from(before).widen());
    assert!(!before.changes_from(after).widen());
    // Approving it approves no service of the host besides.
    assert!(
        manifest("cache, log")
            .requests()
            .changes_from(before)
            .widen()
    );
}
