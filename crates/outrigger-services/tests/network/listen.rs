//! Ports that a plugin listens on, and who may reach it there.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_services::Verdict;
use outrigger_wire::proto::host::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tonic::Code;

use crate::world::*;

/// A port that nobody listens on, or did a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn grant(port: u16, origins: &str) -> String {
    format!("    ingress: [{{protocol: tcp, ports: [{port}], allowed_origins: [{origins}]}}]")
}

/// Connects from another address of this machine.
async fn from(origin: [u8; 4], port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((origin, 0)))?;
    socket.connect(([127, 0, 0, 1], port).into()).await
}

/// Whether the other end has closed, without a word.
async fn closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 1];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await;
    matches!(read.expect("in time"), Ok(0) | Err(_))
}

async fn reject(plugin: &Plugin, connection: &str) -> Result<RejectResponse, tonic::Status> {
    let connection = connection.to_owned();
    plugin.call("Reject", RejectRequest { connection }).await
}

#[tokio::test]
async fn a_connection_from_a_granted_origin_is_named_and_taken() {
    let port = free_port();
    let mut plugin = World::default().plugin(&grant(port, "127.0.0.1")).await;
    let mut arrivals = plugin.listen("", port).await.expect("granted");
    let mut visitor = from([127, 0, 0, 1], port).await.expect("a connection");
    let named = incoming(&mut arrivals).await;
    let local = visitor.local_addr().unwrap().to_string();
    assert_eq!(named.remote_address, local);
    let record = plugin.record().await;
    assert_eq!((record.operation, record.code), ("incoming", "ok"));
    assert!(record.argument.contains(&local), "{record}");

    let (sender, mut receiver) = plugin.accept(&named.connection).await.expect("there");
    visitor.write_all(b"hello").await.unwrap();
    let next = receiver.message().await.unwrap().unwrap();
    assert_eq!(next.part, Some(accept_response::Part::Data("hello".into())));
    for part in [
        accept_request::Part::Data("hi".into()),
        accept_request::Part::Finish(true),
    ] {
        sender
            .send(AcceptRequest { part: Some(part) })
            .await
            .unwrap();
    }
    let mut heard = Vec::new();
    visitor.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"hi");
    drop(visitor);
    let next = receiver.message().await.unwrap().unwrap();
    assert_eq!(next.part, Some(accept_response::Part::Finish(true)));
    assert!(receiver.message().await.unwrap().is_none());
    let record = plugin.record().await;
    assert_eq!((record.operation, record.bytes), ("accept", 7));

    // It was taken; it cannot be taken twice, and it has gone from the table.
    let again = plugin
        .accept(&named.connection)
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    drop(arrivals);
}

#[tokio::test]
async fn ingress_foreign_origin_is_filtered_before_the_plugin_hears_of_it() {
    let port = free_port();
    let mut plugin = World::default().plugin(&grant(port, "127.0.0.8/30")).await;
    let mut arrivals = plugin.listen("", port).await.expect("granted");
    for origin in [[127, 0, 0, 1], [127, 0, 0, 12]] {
        let mut foreign = from(origin, port).await.expect("a connection");
        assert!(closed(&mut foreign).await);
        let record = plugin.record().await;
        assert_eq!(
            (record.operation, record.verdict),
            ("incoming", Verdict::Refused)
        );
        assert!(record.missing.contains("ingress"), "{record}");
    }
    let _welcome = from([127, 0, 0, 9], port).await.expect("a connection");
    let named = incoming(&mut arrivals).await;
    assert!(named.remote_address.starts_with("127.0.0.9:"));
}

#[tokio::test]
async fn of_a_flood_at_a_port_every_connection_is_in_the_records_or_counted_there() {
    const KNOCKS: u64 = 60;
    let port = free_port();
    let mut plugin = World::default().plugin(&grant(port, "127.0.0.9")).await;
    let arrivals = plugin.listen("", port).await.expect("granted");
    for _ in 0..KNOCKS {
        let mut foreign = from([127, 0, 0, 1], port).await.expect("a connection");
        assert!(closed(&mut foreign).await);
    }
    drop(arrivals);
    let (mut kept, mut counted) = (0, 0);
    loop {
        let record = plugin.record().await;
        if record.operation == "listen" {
            break;
        }
        assert_eq!(
            (record.operation, record.verdict),
            ("incoming", Verdict::Refused)
        );
        let more = record.argument.split("more=").nth(1);
        kept += u64::from(record.argument.contains("from="));
        counted += more.map_or(0, |more| more.parse::<u64>().expect("a number"));
    }
    assert_eq!(kept + counted, KNOCKS);
    assert!(counted > 0, "{kept} records");
}

#[tokio::test]
async fn names_of_origins_stand_for_what_they_resolve_to_now() {
    let port = free_port();
    let mut world = World::default();
    world.network.origin_refresh = Duration::ZERO;
    world
        .book
        .answers("friend.example", &[&["127.0.0.5"], &["127.0.0.6", "::1"]]);
    let plugin = world
        .plugin(&grant(port, "friend.example, silent.example"))
        .await;
    let mut arrivals = plugin.listen("127.0.0.1", port).await.expect("granted");
    assert_eq!(world.book.asked(), ["friend.example", "silent.example"]);
    let mut former = from([127, 0, 0, 5], port).await.expect("a connection");
    assert!(closed(&mut former).await);
    let _friend = from([127, 0, 0, 6], port).await.expect("a connection");
    assert!(
        incoming(&mut arrivals)
            .await
            .remote_address
            .starts_with("127.0.0.6:")
    );
}

#[tokio::test]
async fn origins_that_do_not_resolve_hold_nobody_else_up() {
    let port = free_port();
    let mut world = World::default();
    world.network.origin_refresh = Duration::ZERO;
    world.network.resolve_timeout = Duration::from_millis(500);
    let names: Vec<String> = (0..10).map(|n| format!("n{n}.example")).collect();
    for name in &names {
        world.book.is_silent_about(name);
    }
    let origins = format!("127.0.0.9, {}", names.join(", "));
    let mut plugin = world.plugin(&grant(port, &origins)).await;
    // All names are looked up together, within the time of one.
    let started = std::time::Instant::now();
    let mut arrivals = plugin.listen("", port).await.expect("granted");
    assert!(started.elapsed() < Duration::from_millis(2500));
    // Whether this one may come in depends on the names, which are looked up again.
    let mut foreign = from([127, 0, 0, 1], port).await.expect("a connection");
    let _welcome = from([127, 0, 0, 9], port).await.expect("a connection");
    let named = incoming(&mut arrivals).await;
    assert!(named.remote_address.starts_with("127.0.0.9:"));
    assert!(closed(&mut foreign).await);
    let first = plugin.record().await;
    assert!(first.argument.contains("127.0.0.9:"), "{first}");
    let second = plugin.record().await;
    assert_eq!(
        (second.operation, second.verdict),
        ("incoming", Verdict::Refused)
    );
}

#[tokio::test]
async fn only_granted_ports_and_addresses_are_listened_on() {
    let port = free_port();
    let plugin = World::default().plugin(&grant(port, "127.0.0.1")).await;
    for (address, other, code) in [
        ("", port.wrapping_add(1).max(1), Code::PermissionDenied),
        ("", 0, Code::InvalidArgument),
        ("localhost", port, Code::InvalidArgument),
        ("127.1", port, Code::InvalidArgument),
        ("192.0.2.1", port, Code::FailedPrecondition),
    ] {
        let status = plugin.listen(address, other).await.unwrap_err();
        assert_eq!(status.code(), code, "{address}:{other}: {status}");
    }
}

#[tokio::test]
async fn ingress_port_taken_is_a_typed_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().unwrap().port();
    let plugin = World::default().plugin(&grant(port, "127.0.0.1")).await;
    let status = plugin.listen("", port).await.unwrap_err();
    assert_eq!(
        (status.code(), &*errno(&status)),
        (Code::FailedPrecondition, "EADDRINUSE")
    );
}

#[tokio::test]
async fn listening_ends_with_the_call() {
    let port = free_port();
    let mut plugin = World::default().plugin(&grant(port, "127.0.0.1")).await;
    let mut arrivals = plugin.listen("", port).await.expect("granted");
    let mut taken = from([127, 0, 0, 1], port).await.expect("a connection");
    let first = incoming(&mut arrivals).await;
    let (_sender, mut receiver) = plugin.accept(&first.connection).await.expect("there");
    let mut waiting = from([127, 0, 0, 1], port).await.expect("a connection");
    let second = incoming(&mut arrivals).await;
    drop(arrivals);
    // Who was not taken is closed, who was taken stays.
    assert!(closed(&mut waiting).await);
    let gone = plugin
        .accept(&second.connection)
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    taken.write_all(b"still here").await.unwrap();
    assert!(receiver.message().await.unwrap().is_some());
    while plugin.record().await.operation != "listen" {}
    let again = plugin.listen("", port).await;
    again.expect("the port is free again");
}

#[tokio::test]
async fn who_is_not_taken_in_time_or_rejected_is_closed() {
    let port = free_port();
    let mut world = World::default();
    world.network.unclaimed_timeout = Duration::from_millis(100);
    let mut plugin = world.plugin(&grant(port, "127.0.0.1")).await;
    let mut arrivals = plugin.listen("", port).await.expect("granted");
    let mut late = from([127, 0, 0, 1], port).await.expect("a connection");
    let named = incoming(&mut arrivals).await;
    assert!(closed(&mut late).await);
    let status = plugin
        .accept(&named.connection)
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(plugin.record().await.code, "ok");
    assert_eq!(plugin.record().await.code, "unclaimed");

    let mut unwanted = from([127, 0, 0, 1], port).await.expect("a connection");
    let named = incoming(&mut arrivals).await;
    reject(&plugin, &named.connection).await.expect("there");
    assert!(closed(&mut unwanted).await);
    let status = reject(&plugin, &named.connection).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn only_so_many_wait() {
    let port = free_port();
    let mut world = World::default();
    world.network.backlog = 2;
    let mut plugin = world.plugin(&grant(port, "127.0.0.1")).await;
    let mut arrivals = plugin.listen("", port).await.expect("granted");
    let _first = from([127, 0, 0, 1], port).await.expect("a connection");
    let _second = from([127, 0, 0, 1], port).await.expect("a connection");
    let named = [incoming(&mut arrivals).await, incoming(&mut arrivals).await];
    let mut third = from([127, 0, 0, 1], port).await.expect("a connection");
    assert!(closed(&mut third).await);
    plugin.record().await;
    plugin.record().await;
    assert_eq!(plugin.record().await.code, "backlog-full");
    reject(&plugin, &named[0].connection).await.expect("there");
    let _fourth = from([127, 0, 0, 1], port).await.expect("a connection");
    incoming(&mut arrivals).await;
}

#[tokio::test]
async fn connections_of_one_plugin_mean_nothing_to_another() {
    let (port, other) = (free_port(), free_port());
    let world = World::default();
    let plugin = world.plugin(&grant(port, "127.0.0.1")).await;
    let stranger = world.plugin(&grant(other, "127.0.0.1")).await;
    let mut arrivals = plugin.listen("", port).await.expect("granted");
    let _visitor = from([127, 0, 0, 1], port).await.expect("a connection");
    let named = incoming(&mut arrivals).await;
    for guess in [named.connection.as_str(), "", "0", &"0".repeat(32)] {
        let status = stranger.accept(guess).await.map(|_| ()).unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{guess:?}: {status}");
        let status = reject(&stranger, guess).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
    }
    plugin.accept(&named.connection).await.expect("still there");
}
