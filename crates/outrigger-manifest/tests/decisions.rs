//! What a policy makes of a manifest, case by case, and how refusals and denials read.

use std::net::IpAddr;
use std::path::Path;

use insta::assert_snapshot;
use outrigger_manifest::{
    Access, Decision, DenialKind, Grants, Host, HostName, HostService, Manifest, Permissions,
    Places, Policy, PolicyRules, PolicySection, Protocol, SandboxMode, Transport,
};

const HEAD: &str = "
plugin: {name: cat, format: grpc, entrypoint: cat}
handshake: {protocol_version: 1, magic_cookie_key: CAT, magic_cookie_value: meow}
";

fn places() -> Places {
    Places::new("/plugins/cat", "/data/cat")
        .unwrap()
        .with_home("/home/ada")
        .unwrap()
}

fn decide(manifest: &str, policy: &str) -> Decision {
    let manifest = Manifest::parse(&format!("{HEAD}{manifest}")).unwrap_or_else(|p| panic!("{p}"));
    let policy = Policy::parse(policy).unwrap_or_else(|p| panic!("{p}"));
    policy.decide(&manifest, &places())
}

fn requested(manifest: &str) -> Grants {
    let manifest = Manifest::parse(&format!("{HEAD}{manifest}")).unwrap_or_else(|p| panic!("{p}"));
    Policy::allow_requested()
        .decide(&manifest, &places())
        .grants()
}

/// One line for each thing granted and refused.
fn shown(decision: &Decision) -> String {
    let granted = decision
        .granted()
        .iter()
        .map(|granted| format!("+ {} {} by {}", granted.request, granted.text, granted.rule));
    let refused = decision
        .refused()
        .iter()
        .map(|refusal| format!("- {}: {refusal} [{}]", refusal.position, refusal.code()));
    granted.chain(refused).collect::<Vec<_>>().join("\n")
}

#[test]
fn nothing_is_granted_that_no_rule_allows() {
    let decision = decide(
        "capabilities:
  filesystem: [{path: /srv, permissions: [read]}]
  network:
    egress: [{protocol: tcp, hosts: [example.com], ports: [443]}]
    ingress: [{protocol: tcp, allowed_origins: [127.0.0.1], ports: [9000]}]
  process: {exec: [{command: /bin/true}], kill: [children]}
  environment: {read: [HOME], set: {A: b}}
resources: {memory: 1GiB}
sandbox: off
jit: true
",
        "default: {}",
    );
    assert_snapshot!(shown(&decision), @r#"
+ services clock by policy default.allow
+ services log by policy default.allow
+ resources.memory 1GiB by policy default
- 5:16: capabilities.filesystem[0] {path: /srv, permissions: [read]}: no rule of the policy allows it [not-allowed]
- 7:14: capabilities.network.egress[0] {protocol: tcp, hosts: [example.com], ports: [443]}: no rule of the policy allows it [not-allowed]
- 8:15: capabilities.network.ingress[0] {protocol: tcp, allowed_origins: [127.0.0.1], ports: [9000]}: no rule of the policy allows it [not-allowed]
- 9:20: capabilities.process.exec[0] {command: /bin/true, args: []}: no rule of the policy allows it [not-allowed]
- 9:49: capabilities.process.kill [children]: no rule of the policy allows it [not-allowed]
- 10:24: capabilities.environment.read[0] HOME: no rule of the policy allows it [not-allowed]
- 10:37: capabilities.environment.set.A b: no rule of the policy allows it [not-allowed]
- 12:10: sandbox off: policy default.sandbox; granted instead: require [narrowed]
- 13:6: jit true: no rule of the policy allows it [not-allowed]
"#);
    let grants = decision.grants();
    assert!(grants.filesystem().is_empty() && grants.network().egress_grants().is_empty());
    assert!(
        grants.process().exec_grants().is_empty() && grants.environment().names().next().is_none()
    );
    assert_eq!(
        (grants.sandbox(), grants.jit()),
        (SandboxMode::Require, false)
    );
}

#[test]
fn a_request_is_narrowed_to_what_a_rule_shares_with_it() {
    let decision = decide(
        "capabilities:
  filesystem:
    - {path: /srv/data/in, permissions: [read, write]}
    - {path: /home, permissions: [read], recursive: true}
    - {path: /var, permissions: [read, list], recursive: true, access: direct}
  network:
    egress:
      - {protocol: tcp, hosts: [\"*.example.com\", 10.0.0.0/8], ports: [80, 443-450]}
  process:
    exec: [{command: /usr/bin/git, args: [\"*\"]}]
resources: {memory: 4GiB, pids: 10}
sandbox: off
",
        "default:
  sandbox: best-effort
  resources: {memory: 1GiB, pids: 100}
  allow:
    filesystem:
      - {path: /srv/data, permissions: [read, list], recursive: true}
      - {path: \"${HOME}/public\", permissions: [read]}
      - {path: /var, permissions: [read, list], recursive: true}
    network:
      egress: [{protocol: tcp, hosts: [api.example.com, 10.1.0.0/16], ports: [443-65535]}]
    process:
      exec: [{command: /usr/bin/git, args: [pull]}]
",
    );
    assert_snapshot!(shown(&decision), @r#"
+ capabilities.filesystem[0] {path: /srv/data/in, permissions: [read]} by policy default.allow.filesystem[0]
+ capabilities.filesystem[1] {path: /home/ada/public, permissions: [read]} by policy default.allow.filesystem[1]
+ capabilities.filesystem[2] {path: /var, permissions: [read, list], recursive: true} by policy default.allow.filesystem[2]
+ capabilities.network.egress[0] {protocol: tcp, hosts: [api.example.com], ports: [443-450]} by policy default.allow.network.egress[0]
+ capabilities.network.egress[0] {protocol: tcp, hosts: [10.1.0.0/16], ports: [443-450]} by policy default.allow.network.egress[0]
+ capabilities.process.exec[0] {command: /usr/bin/git, args: [pull]} by policy default.allow.process.exec[0]
+ services filesystem by policy default.allow
+ services process by policy default.allow
+ services network by policy default.allow
+ services clock by policy default.allow
+ services log by policy default.allow
+ resources.pids 10 by policy default.resources.pids
- 6:7: capabilities.filesystem[0] {path: /srv/data/in, permissions: [write]}: no rule of the policy allows it [not-allowed]
- 7:7: capabilities.filesystem[1] {path: /home, permissions: [read], recursive: true}: no rule of the policy allows it; granted instead: {path: /home/ada/public, permissions: [read]} [narrowed]
- 8:7: capabilities.filesystem[2] access: direct: policy default.allow.filesystem[2]; granted instead: access: mediated [narrowed]
- 11:9: capabilities.network.egress[0] {protocol: tcp, hosts: ["*.example.com"], ports: [80, 443-450]}: no rule of the policy allows it; granted instead: {protocol: tcp, hosts: [api.example.com], ports: [443-450]} [narrowed]
- 11:9: capabilities.network.egress[0] {protocol: tcp, hosts: [10.0.0.0/8], ports: [80, 443-450]}: no rule of the policy allows it; granted instead: {protocol: tcp, hosts: [10.1.0.0/16], ports: [443-450]} [narrowed]
- 13:12: capabilities.process.exec[0] {command: /usr/bin/git, args: ["*"]}: no rule of the policy allows it; granted instead: {command: /usr/bin/git, args: [pull]} [narrowed]
- 14:12: resources.memory 4GiB: policy default.resources.memory; granted instead: 1GiB [narrowed]
- 15:10: sandbox off: policy default.sandbox; granted instead: best-effort [narrowed]
"#);
}

#[test]
fn a_denial_takes_whatever_it_touches() {
    let decision = decide(
        "capabilities:
  filesystem:
    - {path: \"${HOME}\", permissions: [read, list], recursive: true}
    - {path: \"${HOME}/docs\", permissions: [read]}
    - {path: /srv, permissions: [read, write], recursive: true, access: direct}
  network:
    egress: [{protocol: tcp, hosts: [\"*.example.com\", api.example.org], ports: [25, 443]}]
  process:
    exec: [{command: /bin/sh, args: [-c, \"*\"]}, {command: /bin/ls}]
  environment: {read: [LC_ALL, HOME], set: {LD_PRELOAD: x}}
services: [filesystem, process, network, environment, log]
",
        "default:
  allow: requested
  deny:
    filesystem: [{path: \"${HOME}/.ssh\"}, {path: /srv/a, access: direct}]
    network: {egress: [{hosts: [evil.example.com]}, {ports: [25]}]}
    process: {exec: [{command: /bin/sh}]}
    environment: {read: [LC_*], set: [LD_*]}
    services: [log]
",
    );
    assert_snapshot!(shown(&decision), @r#"
+ capabilities.filesystem[1] {path: /home/ada/docs, permissions: [read]} by policy default.allow
+ capabilities.filesystem[2] {path: /srv, permissions: [read, write], recursive: true} by policy default.allow
+ capabilities.network.egress[0] {protocol: tcp, hosts: [api.example.org], ports: [443]} by policy default.allow
+ capabilities.process.exec[1] {command: /bin/ls, args: []} by policy default.allow
+ capabilities.environment.read[1] HOME by policy default.allow
+ services filesystem by policy default.allow
+ services process by policy default.allow
+ services network by policy default.allow
+ services environment by policy default.allow
- 6:7: capabilities.filesystem[0] {path: "${HOME}", permissions: [read, list], recursive: true}: policy default.deny.filesystem[0] [denied]
- 8:7: capabilities.filesystem[2] access: direct: policy default.deny.filesystem[1]; granted instead: access: mediated [narrowed]
- 10:14: capabilities.network.egress[0] {protocol: tcp, hosts: ["*.example.com"], ports: [25, 443]}: policy default.deny.network.egress[0] [denied]
- 10:14: capabilities.network.egress[0] {protocol: tcp, hosts: [api.example.org], ports: [25]}: policy default.deny.network.egress[1] [denied]
- 12:12: capabilities.process.exec[0] {command: /bin/sh, args: [-c, "*"]}: policy default.deny.process.exec[0] [denied]
- 13:24: capabilities.environment.read[0] LC_ALL: policy default.deny.environment.read[0] [denied]
- 13:45: capabilities.environment.set.LD_PRELOAD x: policy default.deny.environment.set[0] [denied]
- 14:11: services log: policy default.deny.services [denied]
"#);
}

#[test]
fn a_plugins_own_section_adds_rules_and_replaces_limits() {
    let policy = "default:
  jit: false
  resources: {memory: 1GiB, pids: 5}
  allow: {filesystem: [{path: /srv, permissions: [read]}]}
plugins:
  cat:
    sandbox: off
    jit: true
    resources: {memory: 8GiB}
    allow: {filesystem: [{path: /opt, permissions: [read]}]}
    deny: {environment: {read: [HOME]}}
  dog:
    allow: requested
";
    let decision = decide(
        "capabilities: {filesystem: [{path: /srv, permissions: [read]}, {path: /opt, permissions: [read]}]}
resources: {memory: 4GiB}
sandbox: off
jit: true
",
        policy,
    );
    assert!(decision.is_complete(), "{}", shown(&decision));
    let grants = decision.grants();
    assert_eq!(grants.resources().pids, Some(5));
    assert_eq!(grants.resources().memory.unwrap().to_string(), "4GiB");
    assert_eq!(grants.sandbox(), SandboxMode::Off);
}

#[test]
fn a_manifest_may_ask_for_more_confinement_than_the_policy_wants() {
    let manifest = Manifest::parse(HEAD).unwrap();
    let grants = Policy::allow_requested()
        .decide(&manifest, &places())
        .grants();
    assert_eq!(grants.sandbox(), SandboxMode::Require);
}

#[test]
fn an_unknown_place_refuses_requests_and_whatever_a_denial_might_mean() {
    let homeless = Places::new("/plugins/cat", "/data/cat").unwrap();
    let manifest = Manifest::parse(&format!(
        "{HEAD}capabilities: {{filesystem: [{{path: \"${{HOME}}/x\", permissions: [read]}}, {{path: /srv, permissions: [read]}}]}}"
    ))
    .unwrap();
    let allows = Policy::parse("default: {allow: requested}").unwrap();
    let decision = allows.decide(&manifest, &homeless);
    assert_snapshot!(shown(&decision), @r#"
+ capabilities.filesystem[1] {path: /srv, permissions: [read]} by policy default.allow
+ services filesystem by policy default.allow
+ services clock by policy default.allow
+ services log by policy default.allow
- 4:29: capabilities.filesystem[0] {path: "${HOME}/x", permissions: [read]}: this host does not know ${HOME}/x [place-unknown]
"#);
    let denies =
        Policy::parse("default: {allow: requested, deny: {filesystem: [{path: \"${HOME}\"}]}}")
            .unwrap();
    let decision = denies.decide(&manifest, &homeless);
    assert_snapshot!(shown(&decision), @r#"
+ services filesystem by policy default.allow
+ services clock by policy default.allow
+ services log by policy default.allow
- 4:29: capabilities.filesystem[0] {path: "${HOME}/x", permissions: [read]}: this host does not know ${HOME}/x [place-unknown]
- 4:71: capabilities.filesystem[1] {path: /srv, permissions: [read]}: policy default.deny.filesystem[0] names ${HOME}, which this host does not know [place-unknown]
"#);
}

#[test]
fn a_policy_that_names_services_allows_no_other() {
    let manifest = "capabilities: {filesystem: [{path: /srv, permissions: [read]}]}";
    let rule = "filesystem: [{path: /srv, permissions: [read]}]";
    let silent = decide(manifest, &format!("default: {{allow: {{{rule}}}}}")).grants();
    let services: Vec<_> = silent.services().collect();
    assert_eq!(
        services,
        [
            HostService::Filesystem,
            HostService::Clock,
            HostService::Log
        ]
    );
    let naming = decide(
        manifest,
        &format!("default: {{allow: {{{rule}, services: [log]}}}}"),
    )
    .grants();
    assert_eq!(naming.services().collect::<Vec<_>>(), [HostService::Log]);
    let denial = naming.service(HostService::Filesystem).unwrap_err();
    assert_snapshot!(denial, @r#"services call of `filesystem` is not granted: no rule of the policy allows it, though services asks for it; it would need services: [filesystem]"#);
    let denial = naming.service(HostService::Network).unwrap_err();
    assert_snapshot!(denial, @r#"services call of `network` is not granted: no grant covers it; it would need services: [network]"#);
}

#[test]
fn overlapping_grants_add_up() {
    let grants = requested(
        "capabilities:
  filesystem:
    - {path: /srv, permissions: [read, list], recursive: true}
    - {path: /srv/out, permissions: [write, create], recursive: true}
    - {path: /srv/out/log.txt, permissions: [delete]}
",
    );
    let verdict = |path: &str, needs| grants.filesystem_verdict(Path::new(path), needs);
    let grant = verdict("/srv/out/a", Permissions::READ | Permissions::WRITE).unwrap();
    assert_eq!(grant.path(), Path::new("/srv/out"));
    assert!(verdict("/srv/a", Permissions::WRITE).is_err());
    let grant = verdict("/srv/out/log.txt", Permissions::ALL).unwrap();
    assert_eq!((grant.index(), grant.recursive()), (2, false));
    assert!(verdict("/srv/out/other.txt", Permissions::DELETE).is_err());
}

#[test]
fn one_level_is_listed_where_the_grant_is_not_recursive() {
    let grants = requested(
        "capabilities:
  filesystem:
    - {path: /srv, permissions: [read, list]}
    - {path: /srv/deep, permissions: [write]}
    - {path: /var/log, permissions: [list], recursive: true}
    - {path: /var/log/app, permissions: [read]}
",
    );
    let verdict = |path: &str, needs| grants.filesystem_verdict(Path::new(path), needs).is_ok();
    assert!(verdict("/srv", Permissions::LIST));
    assert!(verdict("/srv/sub", Permissions::READ));
    for path in ["/srv/sub", "/srv/deep", "/srv/deep/sub"] {
        assert!(!verdict(path, Permissions::LIST), "{path}");
    }
    // What contains a grant adds to it, one level down as well.
    let both = Permissions::READ | Permissions::LIST;
    assert!(verdict("/var/log/app", both) && verdict("/var/log/app/old", both));
    assert!(!verdict("/srv/sub", both));
}

#[test]
fn what_the_plugin_reaches_itself_takes_nothing_from_what_the_host_mediates() {
    let grants = requested(
        "capabilities:
  filesystem:
    - {path: /srv, permissions: [read, write], recursive: true}
    - {path: /srv/own, permissions: [list], recursive: true, access: direct}
    - {path: /srv/own/deep, permissions: [create], recursive: true}
",
    );
    let [outer, own, deep] = grants.filesystem() else {
        panic!()
    };
    assert_eq!(
        (own.access(), own.permissions()),
        (Access::Direct, Permissions::LIST)
    );
    assert_eq!(outer.permissions(), Permissions::READ | Permissions::WRITE);
    assert_eq!(deep.permissions(), Permissions::ALL - Permissions::DELETE);
    let read = grants
        .filesystem_verdict(Path::new("/srv/own/x"), Permissions::READ)
        .unwrap();
    assert_eq!(read.path(), Path::new("/srv"));
}

#[test]
fn a_path_that_cannot_be_judged_is_denied() {
    let grants =
        requested("capabilities: {filesystem: [{path: /, permissions: [read], recursive: true}]}");
    for path in ["etc", "", ".", "/etc/../etc", "/a\0b", "../etc"] {
        let denial = grants
            .filesystem_verdict(Path::new(path), Permissions::READ)
            .unwrap_err();
        assert_eq!(denial.kind(), DenialKind::BadArgument, "{path:?}");
    }
    assert!(
        grants
            .filesystem_verdict(Path::new("//etc/./x/"), Permissions::READ)
            .is_ok()
    );
    let long = format!("/{}", "a/".repeat(10_000));
    assert!(
        grants
            .filesystem_verdict(Path::new(&long), Permissions::READ)
            .is_ok()
    );
}

#[test]
fn a_file_is_granted_alone() {
    let grants =
        requested("capabilities: {filesystem: [{path: /etc/config.json, permissions: [read]}]}");
    assert!(
        grants
            .filesystem_verdict(Path::new("/etc/config.json"), Permissions::READ)
            .is_ok()
    );
    assert!(
        grants
            .filesystem_verdict(Path::new("/etc/config.json"), Permissions::NONE)
            .is_ok()
    );
    for path in [
        "/etc",
        "/etc/config.jso",
        "/etc/config.json5",
        "/etc/passwd",
    ] {
        assert!(
            grants
                .filesystem_verdict(Path::new(path), Permissions::READ)
                .is_err(),
            "{path}"
        );
        assert!(
            grants
                .filesystem_verdict(Path::new(path), Permissions::NONE)
                .is_err(),
            "{path}"
        );
    }
}

fn host(text: &str) -> Host {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_name_leads_to_global_addresses_only() {
    let grants = requested(
        "capabilities:
  network:
    egress:
      - {protocol: tcp, hosts: [api.example.com, 10.1.0.0/16], ports: [443]}
      - {protocol: tcp, hosts: [localhost, 127.0.0.1], ports: [8080]}
",
    );
    let network = grants.network();
    let resolved = |name: &str, port, address: &str| {
        network.resolved(Protocol::Tcp, &host(name), port, ip(address))
    };
    assert!(resolved("api.example.com", 443, "93.184.215.14").is_ok());
    assert!(resolved("API.Example.com.", 443, "93.184.215.14").is_ok());
    assert!(resolved("api.example.com", 443, "10.1.2.3").is_ok());
    assert!(resolved("api.example.com", 443, "::ffff:10.1.2.3").is_ok());
    assert!(resolved("localhost", 8080, "127.0.0.1").is_ok());
    for (name, port, address) in [
        ("api.example.com", 443, "10.2.0.1"),
        ("api.example.com", 443, "127.0.0.1"),
        ("api.example.com", 443, "169.254.169.254"),
        ("api.example.com", 443, "::ffff:169.254.169.254"),
        ("api.example.com", 443, "64:ff9b::a9fe:a9fe"),
        ("localhost", 8080, "::1"),
    ] {
        let denial = resolved(name, port, address).unwrap_err();
        assert_eq!(denial.kind(), DenialKind::BadAddress, "{name} {address}");
    }
    assert!(resolved("other.example.com", 443, "93.184.215.14").is_err());
    assert!(resolved("api.example.com", 80, "93.184.215.14").is_err());
    let swapped = network.resolved(Protocol::Tcp, &host("127.0.0.1"), 8080, ip("127.0.0.2"));
    assert!(swapped.is_err());
    let denial = resolved("api.example.com", 443, "169.254.169.254").unwrap_err();
    assert_snapshot!(denial, @r#"network egress of `tcp api.example.com at 169.254.169.254 port 443` is not granted: a name may only lead to global addresses, and this one is metadata; it would need capabilities.network.egress: {protocol: tcp, hosts: [169.254.169.254], ports: [443]}"#);
}

#[test]
fn a_denied_network_is_denied_to_names_too() {
    let decision = decide(
        "capabilities: {network: {egress: [{protocol: tcp, hosts: [api.example.com], ports: [443]}]}}",
        "default: {allow: requested, deny: {network: {egress: [{hosts: [93.184.0.0/16]}]}}}",
    );
    assert!(decision.is_complete());
    let grants = decision.grants();
    let resolved = |address| {
        grants
            .network()
            .resolved(Protocol::Tcp, &host("api.example.com"), 443, ip(address))
    };
    assert!(resolved("8.8.8.8").is_ok());
    assert_snapshot!(resolved("93.184.215.14").unwrap_err(), @r#"network egress of `tcp api.example.com at 93.184.215.14 port 443` is not granted: policy default.deny.network.egress[0]"#);
}

#[test]
fn origins_are_let_in_by_address_or_by_a_name_the_host_resolved() {
    let grants = requested(
        "capabilities: {network: {ingress: [{protocol: tcp, ports: [9000], allowed_origins: [10.0.0.0/8, peer.example]}]}}",
    );
    let network = grants.network();
    let peer: HostName = "peer.example".parse().unwrap();
    let other: HostName = "other.example".parse().unwrap();
    let origin = |port, address, names: &[HostName]| {
        network
            .ingress_origin(Protocol::Tcp, port, ip(address), names)
            .is_ok()
    };
    assert!(network.ingress(Protocol::Tcp, 9000).is_ok());
    assert!(network.ingress(Protocol::Tcp, 9001).is_err());
    assert!(network.ingress(Protocol::Udp, 9000).is_err());
    assert!(origin(9000, "10.1.2.3", &[]));
    assert!(origin(9000, "::ffff:10.1.2.3", &[]));
    assert!(!origin(9000, "11.1.2.3", &[]));
    assert!(origin(9000, "11.1.2.3", &[other.clone(), peer]));
    assert!(!origin(9000, "11.1.2.3", &[other]));
    assert!(!origin(9001, "10.1.2.3", &[]));
    assert_eq!(network.origins(Protocol::Tcp, 9000).count(), 2);
    let denial = network
        .ingress_origin(Protocol::Tcp, 9000, ip("11.1.2.3"), &[])
        .unwrap_err();
    assert_snapshot!(denial, @r#"network ingress of `tcp port 9000 from 11.1.2.3` is not granted: no grant covers it; it would need capabilities.network.ingress: {protocol: tcp, allowed_origins: [11.1.2.3], ports: [9000]}"#);
}

#[test]
fn each_protocol_is_granted_and_denied_by_itself() {
    for (mine, other) in [
        (Protocol::Tcp, Protocol::Udp),
        (Protocol::Udp, Protocol::Tcp),
    ] {
        let part = |protocol| {
            (
                format!("{{protocol: {protocol}, hosts: [a.example, 10.0.0.1], ports: [53]}}"),
                format!("{{protocol: {protocol}, ports: [9000], allowed_origins: [10.0.0.0/8]}}"),
            )
        };
        let ((egress, ingress), (egress_too, ingress_too)) = (part(mine), part(other));
        let one =
            format!("capabilities: {{network: {{egress: [{egress}], ingress: [{ingress}]}}}}");
        let both = format!(
            "capabilities: {{network: {{egress: [{egress}, {egress_too}], ingress: [{ingress}, {ingress_too}]}}}}"
        );
        let deny = format!(
            "default: {{allow: requested, deny: {{network: {{egress: [{{protocol: {other}}}], ingress: [{{protocol: {other}}}]}}}}}}"
        );
        let denied = decide(&both, &deny);
        for grants in [requested(&one), denied.grants().clone()] {
            let network = grants.network();
            for (protocol, granted) in [(mine, true), (other, false)] {
                let (name, address) = (host("a.example"), host("10.0.0.1"));
                let verdicts = [
                    network.egress(protocol, &name, 53).is_ok(),
                    network
                        .resolved(protocol, &name, 53, ip("10.0.0.1"))
                        .is_ok(),
                    network
                        .resolved(protocol, &address, 53, ip("10.0.0.1"))
                        .is_ok(),
                    network.ingress(protocol, 9000).is_ok(),
                    network
                        .ingress_origin(protocol, 9000, ip("10.1.2.3"), &[])
                        .is_ok(),
                    network.origins(protocol, 9000).count() == 1,
                ];
                assert_eq!(verdicts, [granted; 6], "{protocol} where {mine} is granted");
            }
        }
    }
}

#[test]
fn denials_tell_the_plugin_less_than_the_host() {
    let decision = decide(
        "capabilities:
  filesystem: [{path: /srv, permissions: [read, write], recursive: true}]
  network: {egress: [{protocol: tcp, hosts: [example.com], ports: [443]}]}
  process: {exec: [{command: /bin/sh, args: [-c, id]}], kill: [children]}
  environment: {read: [HOME]}
",
        "default: {allow: requested, deny: {filesystem: [{path: /srv/secret, permissions: [write]}], process: {exec: [{command: /bin/sh}], kill: [children]}, environment: {read: [HOME]}, network: {egress: [{protocol: tcp}]}}}",
    );
    let grants = decision.grants();
    let denials = [
        grants
            .filesystem_verdict(Path::new("/srv/a"), Permissions::WRITE)
            .unwrap_err(),
        grants
            .filesystem_verdict(Path::new("/etc/passwd\u{1b}[2J"), Permissions::READ)
            .unwrap_err(),
        grants
            .filesystem_verdict(Path::new("../x"), Permissions::READ)
            .unwrap_err(),
        grants
            .network()
            .egress(Protocol::Tcp, &host("example.com"), 443)
            .unwrap_err(),
        grants
            .network()
            .egress(Protocol::Udp, &host("10.0.0.1"), 53)
            .unwrap_err(),
        grants.network().ingress(Protocol::Tcp, 80).unwrap_err(),
        grants.process().exec("/bin/sh", &["-c", "id"]).unwrap_err(),
        grants
            .process()
            .exec("/bin/ls", &["a b", "\n"])
            .unwrap_err(),
        grants.process().exec("sh", &["-c"]).unwrap_err(),
        grants.process().kill().unwrap_err(),
        grants.process().signal().unwrap_err(),
        grants.environment().read("HOME").unwrap_err(),
        grants.environment().read("PATH=\n").unwrap_err(),
    ];
    let shown: Vec<String> = denials
        .iter()
        .map(|denial| format!("{} | {} | {denial}", denial.code(), denial.public()))
        .collect();
    assert_snapshot!(shown.join("\n"), @r#"
refused-by-policy | filesystem write of `/srv/a` is not granted | filesystem write of `/srv/a` is not granted: policy default.deny.filesystem[0] refused capabilities.filesystem[0]; it would need capabilities.filesystem: {path: /srv/a, permissions: [write]}
not-granted | filesystem read of `/etc/passwd\u{1b}[2J` is not granted | filesystem read of `/etc/passwd\u{1b}[2J` is not granted: no grant covers it; it would need capabilities.filesystem: {path: "/etc/passwd\u{1b}[2J", permissions: [read]}
bad-argument | filesystem read of `../x` is not possible | filesystem read of `../x` is not possible: `../x` is not absolute
refused-by-policy | network egress of `tcp example.com port 443` is not granted | network egress of `tcp example.com port 443` is not granted: policy default.deny.network.egress[0] refused capabilities.network.egress[0]; it would need capabilities.network.egress: {protocol: tcp, hosts: [example.com], ports: [443]}
not-granted | network egress of `udp 10.0.0.1 port 53` is not granted | network egress of `udp 10.0.0.1 port 53` is not granted: no grant covers it; it would need capabilities.network.egress: {protocol: udp, hosts: [10.0.0.1], ports: [53]}
not-granted | network ingress of `tcp port 80` is not granted | network ingress of `tcp port 80` is not granted: no grant covers it; it would need capabilities.network.ingress: {protocol: tcp, allowed_origins: […], ports: [80]}
refused-by-policy | process exec of `/bin/sh [-c, id]` is not granted | process exec of `/bin/sh [-c, id]` is not granted: policy default.deny.process.exec[0] refused capabilities.process.exec[0]; it would need capabilities.process.exec: {command: /bin/sh, args: [-c, id]}
not-granted | process exec of `/bin/ls ["a b", "\n"]` is not granted | process exec of `/bin/ls ["a b", "\n"]` is not granted: no grant covers it; it would need capabilities.process.exec: {command: /bin/ls, args: ["a b", "\n"]}
bad-argument | process exec of `sh [-c]` is not possible | process exec of `sh [-c]` is not possible: `sh` is not absolute
refused-by-policy | process kill of `children` is not granted | process kill of `children` is not granted: policy default.deny.process.kill refused capabilities.process.kill; it would need capabilities.process.kill: [children]
not-granted | process signal of `children` is not granted | process signal of `children` is not granted: no grant covers it; it would need capabilities.process.signal: [children]
refused-by-policy | environment read of `HOME` is not granted | environment read of `HOME` is not granted: policy default.deny.environment.read[0] refused capabilities.environment.read[0]; it would need capabilities.environment.read: [HOME]
not-granted | environment read of `PATH=\n` is not granted | environment read of `PATH=\n` is not granted: no grant covers it; it would need capabilities.environment.read: ["PATH=\n"]
"#);
}

#[test]
fn grants_are_shown_in_a_readable_form() {
    let grants = requested(
        "capabilities:
  filesystem: [{path: \"${data_dir}\", permissions: [read, list], recursive: true}]
  network: {egress: [{protocol: tcp, hosts: [example.com], ports: [443, 8000-8010]}]}
  process: {exec: [{command: /usr/bin/git, args: [pull, \"*\"]}], kill: [children]}
  environment: {read: [HOME], set: {MODE: test}}
resources: {memory: 64MiB, cpu: 0.5}
",
    );
    assert_snapshot!(format!("{:#}", serde_json::to_value(&grants).unwrap()), @r#"
{
  "environment": {
    "read": [
      "HOME"
    ],
    "set": {
      "MODE": "test"
    }
  },
  "filesystem": [
    {
      "access": "mediated",
      "path": "/data/cat",
      "permissions": [
        "read",
        "list"
      ],
      "recursive": true,
      "rule": "capabilities.filesystem[0] by policy default.allow"
    }
  ],
  "jit": false,
  "network": {
    "egress": [
      {
        "host": "example.com",
        "ports": [
          443,
          "8000-8010"
        ],
        "protocol": "tcp",
        "rule": "capabilities.network.egress[0] by policy default.allow"
      }
    ],
    "ingress": []
  },
  "plugin": "cat",
  "process": {
    "children": [
      "kill"
    ],
    "exec": [
      {
        "args": [
          "pull",
          "*"
        ],
        "command": "/usr/bin/git",
        "rule": "capabilities.process.exec[0] by policy default.allow"
      }
    ]
  },
  "resources": {
    "cpu": 0.5,
    "memory": "64MiB"
  },
  "sandbox": "require",
  "services": [
    "filesystem",
    "environment",
    "process",
    "network",
    "clock",
    "log"
  ]
}
"#);
}

#[test]
fn services_of_an_application_are_allowed_by_their_names_alone() {
    let manifest = "services: [log, cache, geo, poems]";
    let decision = decide(
        manifest,
        "default:
  allow: {services: [log, cache, geo]}
  deny: {services: [geo]}
",
    );
    assert_snapshot!(shown(&decision), @r#"
+ services log by policy default.allow.services
+ services cache by policy default.allow.services
- 4:11: services geo: policy default.deny.services [denied]
- 4:11: services poems: no rule of the policy allows it [not-allowed]
"#);
    let grants = decision.grants();
    let granted: Vec<_> = grants
        .application_services()
        .map(|name| name.as_str())
        .collect();
    assert_eq!(granted, ["cache"]);
    assert_eq!(
        grants.application_service("cache").unwrap().policy(),
        "policy default.allow.services"
    );
    let denial = grants.application_service("geo").unwrap_err();
    assert_eq!(denial.kind(), DenialKind::RefusedByPolicy);
    assert_snapshot!(denial, @r#"services call of `geo` is not granted: policy default.deny.services refused services; it would need services: [geo]"#);
    let denial = grants.application_service("others").unwrap_err();
    assert_eq!(denial.kind(), DenialKind::NotGranted);
}

#[test]
fn an_application_grants_only_the_services_that_it_has() {
    let manifest = Manifest::parse(&format!("{HEAD}services: [cache, geo]")).unwrap();
    let has = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    let policy = Policy::allow_requested();
    let decision = policy.decide_offering(&manifest, &places(), &has(&["cache"]));
    assert_snapshot!(shown(&decision), @r#"
+ services cache by policy default.allow
- 4:11: services geo: this application has no such service; it has `cache` [not-offered]
"#);
    let decision = policy.decide_offering(&manifest, &places(), &has(&[]));
    assert_snapshot!(shown(&decision), @r#"
- 4:11: services cache: this application has no services of its own [not-offered]
- 4:11: services geo: this application has no services of its own [not-offered]
"#);
    assert!(policy.decide(&manifest, &places()).is_complete());
}

#[test]
fn services_are_built_as_they_are_written() {
    let built = Manifest::builder("cat", Transport::Grpc, "cat")
        .handshake(1, "CAT", "meow")
        .application_service("cache")
        .services([HostService::Log])
        .build()
        .unwrap();
    let written = Manifest::parse(&format!("{HEAD}services: [log, cache]")).unwrap();
    assert_eq!(built, written);
    let policy = Policy::builder()
        .every_plugin(PolicySection::new().allow(PolicyRules::new().application_service("cache")));
    let written = Policy::parse("default: {allow: {services: [cache]}}").unwrap();
    assert_eq!(policy.build().unwrap(), written);
    let unnamed = Manifest::builder("cat", Transport::Grpc, "cat")
        .handshake(1, "CAT", "meow")
        .application_service("filesytem");
    assert_eq!(
        unnamed
            .build()
            .unwrap_err()
            .iter()
            .next()
            .unwrap()
            .near_miss(),
        Some("filesystem")
    );
}
