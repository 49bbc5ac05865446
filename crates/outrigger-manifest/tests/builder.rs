//! What is made in code is what the same words in a file are, checked alike.

use outrigger_manifest::{
    Access, ByteSize, Connections, Cpu, Exec, Files, HostService, Manifest, ManifestBuilder,
    Permissions, Policy, PolicyRules, PolicySection, ProblemCode, ProcessControl, Protocol,
    Resources, SandboxMode, Transport,
};

fn cat() -> ManifestBuilder {
    Manifest::builder("cat", Transport::Grpc, "cat").handshake(1, "CAT_PLUGIN", "meow")
}

#[test]
fn every_key_of_a_manifest_can_be_said_in_code() {
    let file = include_str!("../samples/valid/everything.yaml");
    let resources = Resources {
        memory: "512MiB".parse().ok(),
        cpu: Cpu::from_millis(1500),
        pids: Some(64),
        open_files: Some(256),
        message_size: ByteSize::new(8 << 20),
        streams: Some(32),
    };
    let https = Connections::new()
        .protocol(Protocol::Tcp)
        .host("*.example.com")
        .host("xn--bcher-kva.example")
        .host("2001:db8::/32")
        .host("10.1.0.0/16")
        .port(443)
        .ports(8000..=8010);
    let names = Connections::new()
        .protocol(Protocol::Udp)
        .host("192.0.2.53")
        .port(53);
    let local = Connections::new()
        .protocol(Protocol::Tcp)
        .host("127.0.0.1")
        .host("::1")
        .ports(9000..=9009);
    let built = Manifest::builder("indexer", Transport::Grpc, "bin/indexer")
        .kind("worker")
        .language("rust")
        .version("2.1.0-rc.1+build.5")
        .description("Indexes documents.\nRuns at night.\n")
        .handshake(3, "INDEXER", "12345")
        .auto_mtls(false)
        .files(
            Files::new("${data_dir}", Permissions::ALL)
                .recursive(true)
                .access(Access::Direct),
        )
        .files(
            Files::new("${HOME}/documents", Permissions::READ | Permissions::LIST).recursive(true),
        )
        .files(Files::new("${plugin_dir}/words.txt", Permissions::READ))
        .egress(https)
        .egress(names)
        .ingress(local)
        .exec(Exec::new("${plugin_dir}/bin/convert").args(["*", "--to", "text"]))
        .exec(Exec::new("/usr/bin/true"))
        .control(ProcessControl::List)
        .read_variable("LANG")
        .read_variable("TZ")
        .set_variable("MODE", "night")
        .set_variable("WORKERS", "4")
        .set_variable("EMPTY", "")
        .resources(&resources)
        .sandbox(SandboxMode::BestEffort)
        .jit(true)
        .services(HostService::ALL.iter().copied())
        .build();
    assert_eq!(built, Manifest::parse(file));
    let about = cat()
        .maintainer("Ada")
        .url("https://example.com")
        .build()
        .unwrap();
    assert_eq!(about.about().maintainer(), Some("Ada"));
    assert_eq!(about.about().url(), Some("https://example.com"));
}

#[test]
fn every_key_of_a_policy_can_be_said_in_code() {
    let file = include_str!("../samples/valid/policy-everything.yaml");
    let limits = Resources {
        memory: "1GiB".parse().ok(),
        cpu: Cpu::from_millis(2000),
        pids: Some(128),
        open_files: Some(1024),
        message_size: "4MiB".parse().ok(),
        streams: Some(100),
    };
    let tcp = || Connections::new().protocol(Protocol::Tcp);
    let allow = PolicyRules::new()
        .files(Files::new("${plugin_dir}", Permissions::READ | Permissions::LIST).recursive(true))
        .files(
            Files::new("${data_dir}", Permissions::ALL)
                .recursive(true)
                .access(Access::Direct),
        )
        .egress(
            tcp()
                .host("*.example.com")
                .host("api.example.org")
                .port(443),
        )
        .ingress(
            tcp()
                .host("127.0.0.1")
                .host("10.0.0.0/8")
                .ports(9000..=9099),
        )
        .exec(Exec::new("/usr/bin/git").args(["pull", "*"]))
        .control(ProcessControl::Kill)
        .control(ProcessControl::List)
        .control(ProcessControl::Signal)
        .read_variables("LANG")
        .read_variables("LC_*")
        .read_variables("TZ")
        .set_variables("*")
        .services(HostService::ALL.iter().copied());
    let shadow = Files::new("/etc/shadow", Permissions::READ | Permissions::WRITE);
    let deny = PolicyRules::new()
        .files(Files::new("${HOME}/.ssh", Permissions::ALL))
        .files(shadow.recursive(false))
        .files(Files::new("/srv", Permissions::ALL).access(Access::Direct))
        .egress(
            Connections::new()
                .host("169.254.0.0/16")
                .host("evil.example.com"),
        )
        .egress(Connections::new().port(25))
        .egress(Connections::new().protocol(Protocol::Udp))
        .exec(Exec::new("/bin/sh"))
        .set_variables("LD_PRELOAD")
        .set_variables("LD_*")
        .services([HostService::Process]);
    let cats = Files::new("/srv/cats", Permissions::READ).recursive(true);
    let more = Resources {
        memory: "4GiB".parse().ok(),
        ..Resources::default()
    };
    let built = Policy::builder()
        .every_plugin(
            PolicySection::new()
                .sandbox(SandboxMode::Require)
                .jit(false)
                .resources(&limits)
                .allow(allow)
                .deny(deny),
        )
        .plugin(
            "cat",
            PolicySection::new()
                .sandbox(SandboxMode::BestEffort)
                .jit(true)
                .resources(&more)
                .allow(PolicyRules::new().files(cats)),
        )
        .plugin("dog-grpc", PolicySection::new())
        .build();
    assert_eq!(built, Policy::parse(file));
    let trusting = PolicySection::new()
        .sandbox(SandboxMode::Off)
        .jit(true)
        .allow_requested();
    let built = Policy::builder().every_plugin(trusting).build();
    assert_eq!(built, Ok(Policy::allow_requested()));
    assert_eq!(Policy::builder().build(), Ok(Policy::allow_nothing()));
}

#[test]
fn what_is_wrong_is_said_with_its_key_and_without_a_position() {
    let problems = cat()
        .files(Files::new("srv/data", Permissions::NONE))
        .egress(Connections::new().host("EXAMPLE.com").port(0))
        .set_variable("CAT_PLUGIN", "x")
        .build()
        .unwrap_err();
    insta::assert_snapshot!(problems, @"
    manifest: capabilities.filesystem[0].path: `srv/data` is not an absolute path [path-not-absolute]; help: begin with `/`, `${plugin_dir}`, `${data_dir}` or `${HOME}`
    manifest: capabilities.filesystem[0].permissions: the list is empty, so this says nothing [empty-list]; help: name at least one, or leave the entry out
    manifest: capabilities.network.egress[0].protocol: the key `protocol` is missing [missing-key]
    manifest: capabilities.network.egress[0].hosts[0]: `EXAMPLE.com` is not written the way hosts are compared; did you mean `example.com`? [host-not-canonical]
    manifest: capabilities.network.egress[0].ports[0]: `0` is not a port [invalid-port]; help: ports are 1 to 65535, and ranges such as `8000-8010`
    manifest: capabilities.environment.set.CAT_PLUGIN: `CAT_PLUGIN` is set by the host for its own talk with the plugin [reserved-variable]; help: choose another name
    ");
}

#[test]
fn what_a_file_must_have_must_be_said_in_code() {
    let problems = Manifest::builder("Cat", Transport::Grpc, "../cat")
        .build()
        .unwrap_err();
    let found: Vec<_> = problems
        .iter()
        .map(|problem| (problem.code(), problem.location()))
        .collect();
    let expected = [
        ("invalid-name", "plugin.name"),
        ("invalid-entrypoint", "plugin.entrypoint"),
        ("missing-key", "handshake"),
    ];
    assert_eq!(found, expected);
}

#[test]
#[cfg(unix)]
fn a_path_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::OsStr::from_bytes(b"/srv/\xff");
    let problems = cat()
        .files(Files::new(path, Permissions::READ))
        .exec(Exec::new(path))
        .build()
        .unwrap_err();
    assert!(
        problems
            .iter()
            .all(|problem| problem.kind() == ProblemCode::NotUtf8)
    );
    assert_eq!(problems.len(), 2, "{problems}");
}

#[test]
fn what_no_file_could_hold_is_refused() {
    let mut builder = cat();
    for number in 0..100 {
        builder = builder.set_variable(&format!("V{number}"), "x".repeat(4000));
    }
    let problems = builder.build().unwrap_err();
    assert_eq!(problems.as_slice()[0].kind(), ProblemCode::FileTooLarge);
    let entry = |number: u16| Files::new(format!("/srv/{number}"), Permissions::READ);
    let many = (0..300).fold(cat(), |builder, number| builder.files(entry(number)));
    let problems = many.build().unwrap_err();
    assert_eq!(problems.as_slice()[0].kind(), ProblemCode::TooManyEntries);
}

#[test]
fn what_is_said_again_replaces_what_was_said() {
    let built = cat()
        .version("1.0.0")
        .version("2.0.0")
        .set_variable("A", "1")
        .set_variable("A", "2")
        .build()
        .unwrap();
    let text = "
plugin: {name: cat, format: grpc, entrypoint: cat, version: 2.0.0}
handshake: {protocol_version: 1, magic_cookie_key: CAT_PLUGIN, magic_cookie_value: meow}
capabilities: {environment: {set: {A: 2}}}
";
    assert_eq!(Manifest::parse(text), Ok(built));
}
