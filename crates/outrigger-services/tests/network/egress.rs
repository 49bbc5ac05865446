//! Which names and addresses a plugin reaches, and that nothing leaves for others.

use std::time::Duration;

use outrigger_manifest::Policy;
use outrigger_services::Verdict;
use outrigger_wire::proto::host::*;
use tonic::Code;

use crate::world::*;

const GRANT: &str = "    egress: [{protocol: tcp, hosts: [api.example.com, \"*.wild.example.com\"], ports: [80, 443]}]";

/// The same question at every door; all must give the same answer.
async fn every_door(plugin: &Plugin, host: &str, port: u32) -> Vec<Option<Code>> {
    let in_url = match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    };
    let url = format!("http://{in_url}:{port}/");
    let code = |status: tonic::Status| status.code();
    let streamed = plugin.http_stream(get(&url)).await;
    vec![
        plugin.resolve(host, port).await.err().map(code),
        plugin.connect(host, port).await.err().map(code),
        plugin.get(&url).await.err().map(code),
        streamed.err().map(code),
    ]
}

#[tokio::test]
async fn net_name_forms_only_the_canonical_form_can_match() {
    let world = World::default();
    world.book.answers("api.example.com", &[&[PUBLIC]]);
    world
        .board
        .route(&format!("{PUBLIC}:80"), echo_server().await);
    let grant = "    egress: [{protocol: tcp, hosts: [api.example.com, 127.0.0.1, 10.0.0.0/8, bücher.example], ports: [80]}]";
    let grant = grant.replace("bücher.example", "xn--bcher-kva.example");
    let plugin = world.plugin(&grant).await;
    for same in ["API.Example.COM", "api.example.com.", "ａｐｉ.example.com"] {
        let found = plugin.resolve(same, 80).await;
        assert_eq!(found.expect(same), [PUBLIC], "{same}");
        let stream = plugin.connect(same, 80).await.expect(same);
        assert_eq!(stream.connected.remote_address, format!("{PUBLIC}:80"));
    }
    world.book.answers("xn--bcher-kva.example", &[&[PUBLIC]]);
    assert_eq!(
        plugin.resolve("BÜCHER.example", 80).await.unwrap(),
        [PUBLIC]
    );
    let (asked, dialled) = (world.book.asked(), world.board.dialled());
    for other in [
        "0x7f000001",
        "2130706433",
        "127.1",
        "0177.0.0.1",
        "127.0.0.01",
        "127.0.0.1.",
        "0",
        "１２７.0.0.1",
        "127。0。0。1",
        "api.example.com..",
        ".api.example.com",
        "api..example.com",
        "api.example.com\0.evil.example",
        "user@api.example.com",
        "api.example.com@evil.example",
        "api.example.com%00",
        "api.example.com%2e",
        "api.example.com:80",
        "api.example.com/",
        "http://api.example.com",
        " api.example.com",
        "api.example.com\n",
        "[::1]",
        "fe80::1%eth0",
        "*.example.com",
        "",
    ] {
        for outcome in [
            plugin.resolve(other, 80).await.err(),
            plugin.connect(other, 80).await.err(),
        ] {
            let status = outcome.unwrap_or_else(|| panic!("{other:?} was accepted"));
            assert_eq!(status.code(), Code::InvalidArgument, "{other:?}: {status}");
        }
        if other.ends_with('/') {
            // In a URL, this is where the path begins.
            continue;
        }
        let url = format!("http://{other}:80/");
        assert!(plugin.get(&url).await.is_err(), "{url:?} was accepted");
    }
    assert_eq!(world.book.asked(), asked);
    assert_eq!(world.board.dialled(), dialled);
}

#[tokio::test]
async fn net_dns_exfil_denied_name_no_query_leaves_for_what_is_not_granted() {
    let world = World::default();
    let plugin = world.plugin(GRANT).await;
    for (host, port) in [
        ("c2VjcmV0.evil.example", 80),
        ("c2VjcmV0.api.example.com", 80),
        ("example.com", 80),
        ("com", 80),
        ("xapi.example.com", 80),
        ("wild.example.com", 80),
        ("a.b.wild.example.com", 80),
        ("api.example.com", 22),
        ("localhost", 80),
        ("127.0.0.1", 80),
        ("93.184.215.14", 80),
        ("::1", 80),
    ] {
        let codes = every_door(&plugin, host, port).await;
        assert_eq!(codes, [Some(Code::PermissionDenied); 4], "{host}:{port}");
    }
    for port in [0, 65_536, u32::MAX] {
        let status = plugin.resolve("api.example.com", port).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    assert!(world.book.asked().is_empty(), "{:?}", world.book.asked());
    assert!(world.board.dialled().is_empty());
}

#[tokio::test]
async fn a_refusal_says_that_and_the_record_says_why() {
    let world = World::default();
    let mut plugin = world.plugin(GRANT).await;
    let status = plugin
        .connect("evil.example", 443)
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(
        status.message(),
        "network.connect: not permitted by the host"
    );
    let record = plugin.record().await;
    assert_eq!(
        (record.capability, record.operation),
        ("network", "connect")
    );
    assert_eq!(record.verdict, Verdict::Refused);
    assert_eq!(record.argument, "host=\"evil.example\" port=443");
    assert!(record.missing.contains("evil.example"), "{record}");
    assert!(plugin.audit.try_recv().is_none(), "one record only");
}

#[tokio::test]
async fn net_rebind_every_query_is_judged_and_the_checked_address_is_dialled() {
    let world = World::default();
    world
        .board
        .route(&format!("{PUBLIC}:80"), echo_server().await);
    world
        .book
        .answers("api.example.com", &[&[PUBLIC], &["127.0.0.1"]]);
    let plugin = world.plugin(GRANT).await;
    let stream = plugin
        .connect("api.example.com", 80)
        .await
        .expect("granted");
    assert_eq!(world.book.asked().len(), 1, "resolved once");
    drop(stream);
    let status = plugin
        .connect("api.example.com", 80)
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(world.board.dialled(), [format!("{PUBLIC}:80")]);
}

#[tokio::test]
async fn only_the_global_addresses_of_a_mixed_answer_are_dialled() {
    let world = World::default();
    world.book.answers(
        "api.example.com",
        &[&["10.0.0.1", "1.1.1.1", "::1", "8.8.8.8", "1.1.1.1"]],
    );
    let plugin = world.plugin(GRANT).await;
    assert_eq!(
        plugin.resolve("api.example.com", 80).await.unwrap(),
        ["1.1.1.1", "8.8.8.8"]
    );
    let status = plugin
        .connect("api.example.com", 80)
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(errno(&status), "ECONNREFUSED");
    assert_eq!(world.board.dialled(), ["1.1.1.1:80", "8.8.8.8:80"]);
}

#[tokio::test]
async fn net_private_answer_mapped_and_metadata_are_refused() {
    let world = World::default();
    let mut plugin = world.plugin(GRANT).await;
    for address in [
        "127.0.0.1",
        "127.255.0.1",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "::",
        "::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:808:808::80ff:fffe",
        "2001:470::5efe:7f00:1",
        "2001:470:1:2:200:5efe:a9fe:a9fe",
    ] {
        world.book.answers("api.example.com", &[&[address]]);
        let codes = every_door(&plugin, "api.example.com", 80).await;
        assert_eq!(codes, [Some(Code::PermissionDenied); 4], "{address}");
        for _ in 0..4 {
            let record = plugin.record().await;
            assert_eq!(record.verdict, Verdict::Refused);
            assert_eq!(record.code, "bad-address", "{record}");
        }
    }
    assert!(
        world.board.dialled().is_empty(),
        "{:?}",
        world.board.dialled()
    );
}

#[tokio::test]
async fn a_private_address_is_reached_where_a_grant_names_it_for_that_port() {
    let world = World::default();
    let port = echo_server().await.port();
    let other = echo_server().await.port();
    world.book.answers("local.example", &[&["127.0.0.1"]]);
    let grant = format!(
        "    egress: [{{protocol: tcp, hosts: [local.example], ports: [{port}, {other}]}}, \
         {{protocol: tcp, hosts: [127.0.0.0/8], ports: [{port}]}}]"
    );
    let plugin = world.plugin(&grant).await;
    let stream = plugin
        .connect("local.example", port.into())
        .await
        .expect("granted");
    assert_eq!(stream.connected.remote_address, format!("127.0.0.1:{port}"));
    let status = plugin
        .connect("local.example", other.into())
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    // And by its own name, whichever way IPv6 writes it.
    for literal in ["127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1"] {
        let stream = plugin.connect(literal, port.into()).await.expect(literal);
        assert_eq!(stream.connected.remote_address, format!("127.0.0.1:{port}"));
    }
}

#[tokio::test]
async fn what_a_policy_denies_is_not_reached_by_any_name_or_way_round() {
    let policy = Policy::parse(
        "default:\n  allow:\n    network:\n      egress: [{protocol: tcp, hosts: [api.example.com], ports: [80]}]\n  \
         deny:\n    network:\n      egress: [{protocol: tcp, hosts: [8.8.8.0/24], ports: [80]}]\n",
    )
    .expect("a policy");
    let world = World::default();
    let grant = "    egress: [{protocol: tcp, hosts: [api.example.com], ports: [80]}]";
    let plugin = world.plugin_with(grant, &policy).await;
    for address in [
        "8.8.8.8",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ] {
        world.book.answers("api.example.com", &[&[address]]);
        let codes = every_door(&plugin, "api.example.com", 80).await;
        assert_eq!(codes, [Some(Code::PermissionDenied); 4], "{address}");
    }
    assert!(world.board.dialled().is_empty());
    world.book.answers("api.example.com", &[&["8.8.4.4"]]);
    assert_eq!(
        plugin.resolve("api.example.com", 80).await.unwrap(),
        ["8.8.4.4"]
    );
}

#[tokio::test]
async fn a_denied_ipv4_address_is_not_reached_by_the_literal_that_carries_it() {
    let rules = "egress: [{protocol: tcp, hosts: [\"64:ff9b::/96\", \"2002::/16\"], ports: [80]}]";
    let policy = Policy::parse(&format!(
        "default:\n  allow:\n    network: {{{rules}}}\n  \
         deny:\n    network: {{egress: [{{hosts: [8.8.8.0/24, 169.254.0.0/16]}}]}}\n"
    ))
    .expect("a policy");
    let world = World::default();
    let plugin = world.plugin_with(&format!("    {rules}"), &policy).await;
    for literal in ["64:ff9b::808:808", "64:ff9b::a9fe:a9fe", "2002:808:808::1"] {
        let status = plugin.connect(literal, 80).await.map(drop).unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{literal}");
    }
    assert!(world.board.dialled().is_empty());
    assert_eq!(
        plugin.resolve("64:ff9b::808:404", 80).await.unwrap(),
        ["64:ff9b::808:404"]
    );
}

#[tokio::test]
async fn wildcards_stand_for_one_label() {
    let world = World::default();
    world.book.answers("a.wild.example.com", &[&[PUBLIC]]);
    let plugin = world.plugin(GRANT).await;
    assert_eq!(
        plugin.resolve("a.wild.example.com", 443).await.unwrap(),
        [PUBLIC]
    );
}

#[tokio::test]
async fn a_name_without_addresses_is_not_found() {
    let world = World::default();
    let plugin = world.plugin(GRANT).await;
    let status = plugin
        .connect("api.example.com", 80)
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
}

#[tokio::test]
async fn a_resolver_and_a_peer_that_never_answer_cost_their_time_and_no_more() {
    let mut world = World::default();
    world.network.resolve_timeout = Duration::from_millis(50);
    world.network.connect_timeout = Duration::from_millis(100);
    world.network.lookups = 2;
    world.book.is_silent_about("api.example.com");
    world.board.is_silent_at(&format!("{PUBLIC}:80"));
    world.book.answers("a.wild.example.com", &[&[PUBLIC]]);
    let plugin = world.plugin(GRANT).await;
    let status = plugin
        .connect("a.wild.example.com", 80)
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("connect_timeout"), "{status}");
    let target = Target {
        host: "a.wild.example.com".into(),
        port: 80,
        timeout_ms: 1,
    };
    let status = plugin.connect_to(target).await.map(|_| ()).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    for _ in 0..5 {
        let status = plugin.resolve("api.example.com", 80).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!(status.message().contains("resolve_timeout"), "{status}");
    }
    let hanging = world
        .book
        .asked()
        .iter()
        .filter(|name| *name == "api.example.com")
        .count();
    assert_eq!(hanging, 2, "those that hang keep their places");
}

#[tokio::test]
async fn a_plugin_without_the_service_is_refused_at_every_door() {
    let world = World::default();
    let plugin = world.plugin_with(GRANT, &Policy::allow_nothing()).await;
    let codes = every_door(&plugin, "api.example.com", 80).await;
    assert_eq!(codes, [Some(Code::PermissionDenied); 4]);
    let status = plugin.listen("", 9000).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(world.book.asked().is_empty());
}
