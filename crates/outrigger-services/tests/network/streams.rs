//! Byte streams: both directions, their ends, their pace and their bounds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_services::Limits;
use outrigger_wire::proto::host::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Mutex, oneshot};
use tonic::Code;

use crate::world::*;

/// A grant for this machine, at these ports.
fn local(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let ports = ports.join(", ");
    format!("    egress: [{{protocol: tcp, hosts: [127.0.0.1], ports: [{ports}]}}]")
}

/// A server that does `serve` once and hands back what that returns.
async fn once<T, F>(
    serve: impl Fn(tokio::net::TcpStream) -> F + Send + Sync + 'static,
) -> (u16, oneshot::Receiver<T>)
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let sender = Arc::new(Mutex::new(Some(sender)));
    let serve = Arc::new(serve);
    let address = server(move |stream| {
        let (sender, serve) = (sender.clone(), serve.clone());
        async move {
            let outcome = serve(stream).await;
            if let Some(sender) = sender.lock().await.take() {
                let _ = sender.send(outcome);
            }
        }
    });
    (address.await.port(), receiver)
}

async fn result<T>(receiver: oneshot::Receiver<T>) -> T {
    let result = tokio::time::timeout(PATIENCE, receiver).await;
    result.expect("in time").expect("a result")
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let world = World::default();
    let port = echo_server().await.port();
    let mut plugin = world.plugin(&local(&[port])).await;
    let mut stream = plugin
        .connect("127.0.0.1", port.into())
        .await
        .expect("granted");
    assert_eq!(stream.connected.remote_address, format!("127.0.0.1:{port}"));
    assert!(stream.connected.local_address.starts_with("127.0.0.1:"));
    stream.send("one").await;
    assert_eq!(stream.next().await.unwrap(), Event::Data(b"one".into()));
    stream.send("two").await;
    stream.finish().await;
    assert_eq!(stream.rest().await.unwrap(), b"two");
    assert_eq!(stream.next().await.unwrap(), Event::End);
    let record = plugin.record().await;
    assert_eq!(
        (record.operation, record.code, record.bytes),
        ("connect", "ok", 12)
    );
    assert!(
        record.rule.contains("capabilities.network.egress[0]"),
        "{record}"
    );
    assert!(
        record.rule.contains(&format!("dialled 127.0.0.1:{port}")),
        "{record}"
    );
    assert!(plugin.audit.try_recv().is_none());
}

#[tokio::test]
async fn what_failed_after_it_was_judged_names_its_rule() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    drop(taken);
    let mut plugin = World::default().plugin(&local(&[port])).await;
    let refused = plugin.connect("127.0.0.1", port.into()).await.map(drop);
    refused.expect_err("nobody is there");
    let record = plugin.record().await;
    assert_eq!(record.verdict, outrigger_services::Verdict::Allowed);
    assert_eq!(record.code, "unavailable");
    assert!(record.rule.contains("network.egress[0]"), "{record}");
}

#[tokio::test]
async fn a_peer_that_finishes_first_still_hears_the_plugin() {
    let (port, heard) = once(async |mut stream: tokio::net::TcpStream| {
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        heard
    })
    .await;
    let plugin = World::default().plugin(&local(&[port])).await;
    let mut stream = plugin
        .connect("127.0.0.1", port.into())
        .await
        .expect("granted");
    assert_eq!(stream.rest().await.unwrap(), b"bye");
    stream.send("and more").await;
    // Ending the messages means the same as the word.
    stream.end();
    assert_eq!(stream.next().await.unwrap(), Event::End);
    assert_eq!(result(heard).await, b"and more");
}

#[tokio::test]
async fn sixty_four_mebibytes_go_both_ways_at_once() {
    const PART: usize = 64 << 10;
    const PARTS: usize = 1024;
    let port = echo_server().await.port();
    let plugin = World::default().plugin(&local(&[port])).await;
    let stream = plugin
        .connect("127.0.0.1", port.into())
        .await
        .expect("granted");
    let (sender, mut receiver) = stream.split();
    let sending = tokio::spawn(async move {
        for part in 0..PARTS {
            send(&sender, vec![part as u8; PART]).await;
        }
    });
    let mut received = 0;
    while let Some(next) = receiver.message().await.expect("a message") {
        if let Some(connect_response::Part::Data(data)) = next.part {
            for byte in [data.first(), data.last()].into_iter().flatten() {
                let near = [received, received + data.len() - 1];
                assert!(near.iter().any(|at| (at / PART) as u8 == *byte));
            }
            received += data.len();
        }
    }
    assert_eq!(received, PART * PARTS);
    sending.await.expect("sent");
}

#[tokio::test]
async fn a_plugin_that_takes_nothing_holds_its_peer_up_and_no_memory() {
    let (port, sent) = once(async |mut stream: tokio::net::TcpStream| {
        let part = vec![0; 64 << 10];
        let mut sent = 0_usize;
        // The peer stalls when every buffer on the way is full.
        while let Ok(Ok(())) =
            tokio::time::timeout(Duration::from_millis(500), stream.write_all(&part)).await
        {
            sent += part.len();
        }
        sent
    })
    .await;
    let plugin = World::default().plugin(&local(&[port])).await;
    let stream = plugin
        .connect("127.0.0.1", port.into())
        .await
        .expect("granted");
    let sent = result(sent).await;
    assert!(sent < 32 << 20, "{sent} bytes went somewhere");
    drop(stream);
}

#[tokio::test]
async fn giving_the_call_up_closes_the_connection() {
    let (port, heard) = once(async |mut stream: tokio::net::TcpStream| {
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        heard
    })
    .await;
    let mut plugin = World::default().plugin(&local(&[port])).await;
    let stream = plugin
        .connect("127.0.0.1", port.into())
        .await
        .expect("granted");
    drop(stream);
    assert!(result(heard).await.is_empty());
    assert_eq!(plugin.record().await.operation, "connect");
}

#[tokio::test]
async fn a_plugin_that_is_gone_takes_its_connections_with_it() {
    let (port, heard) = once(async |mut stream: tokio::net::TcpStream| {
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        heard
    })
    .await;
    let plugin = World::default().plugin(&local(&[port])).await;
    let stream = plugin
        .connect("127.0.0.1", port.into())
        .await
        .expect("granted");
    plugin.close().await;
    assert!(result(heard).await.is_empty());
    drop(stream);
}

#[tokio::test]
async fn a_connection_that_carries_nothing_ends() {
    let mut world = World::default();
    world.network.idle_timeout = Duration::from_millis(100);
    let port = echo_server().await.port();
    let mut plugin = world.plugin(&local(&[port])).await;
    let mut stream = plugin
        .connect("127.0.0.1", port.into())
        .await
        .expect("granted");
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("idle_timeout"), "{status}");
    let record = plugin.record().await;
    assert_eq!(record.code, "network-timeout");
}

#[tokio::test]
async fn a_connection_ends_after_its_time_whatever_it_carries() {
    let mut world = World::default();
    world.network.total_timeout = Duration::from_millis(300);
    let port = echo_server().await.port();
    let plugin = world.plugin(&local(&[port])).await;
    let mut stream = plugin
        .connect("127.0.0.1", port.into())
        .await
        .expect("granted");
    let started = Instant::now();
    let status = loop {
        stream.send("x").await;
        match stream.next().await {
            Ok(Event::Data(_)) => assert!(started.elapsed() < PATIENCE),
            Ok(other) => panic!("{other:?}"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("total_timeout"), "{status}");
}

/// A peer that sends as much as it can; what it says when it hears no more.
async fn flood() -> (u16, oneshot::Receiver<()>) {
    once(async |stream: tokio::net::TcpStream| {
        let (mut reading, mut writing) = stream.into_split();
        let flood = tokio::spawn(async move {
            let part = vec![0; 64 << 10];
            while writing.write_all(&part).await.is_ok() {}
        });
        let _ = tokio::io::copy(&mut reading, &mut tokio::io::sink()).await;
        flood.abort();
    })
    .await
}

#[tokio::test]
async fn a_plugin_that_takes_nothing_does_not_stop_the_clock() {
    let (long, short) = (Duration::from_secs(3600), Duration::from_millis(300));
    for (setting, idle, total) in [
        ("idle_timeout", short, long),
        ("total_timeout", long, short),
    ] {
        let mut world = World::default();
        world.network.idle_timeout = idle;
        world.network.total_timeout = total;
        let (port, over) = flood().await;
        let mut plugin = world.plugin(&local(&[port])).await;
        let stream = plugin
            .connect("127.0.0.1", port.into())
            .await
            .expect("granted");
        let (sender, mut receiver) = stream.split();
        // What goes to the peer ends although nothing that comes is taken.
        let sending = (setting == "total_timeout").then(|| {
            tokio::spawn(async move {
                while !sender.is_closed() {
                    send(&sender, "more").await;
                    tokio::task::yield_now().await;
                }
            })
        });
        result(over).await;
        let record = plugin.record().await;
        assert_eq!(
            (record.operation, record.code),
            ("connect", "network-timeout")
        );
        assert!(record.reason.contains(setting), "{record}");
        let status = loop {
            match receiver.message().await {
                Ok(reply) => assert!(reply.is_some(), "an end without a word"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.message().contains(setting), "{status}");
        drop(receiver);
        plugin.close().await;
        if let Some(sending) = sending {
            sending.await.expect("sent");
        }
    }
}

#[tokio::test]
async fn a_connection_whose_time_is_up_is_closed_and_leaves_room_though_nothing_is_taken() {
    let mut world = World {
        limits: Limits {
            leases: 1,
            ..Limits::default()
        },
        ..World::default()
    };
    world.network.total_timeout = Duration::from_millis(300);
    let (port, over) = once(async |mut stream: tokio::net::TcpStream| {
        // Ends only when the other side neither takes nor keeps anything.
        let part = vec![0; 64 << 10];
        while stream.write_all(&part).await.is_ok() {}
    })
    .await;
    let other = echo_server().await.port();
    let mut plugin = world.plugin(&local(&[port, other])).await;
    let stream = plugin
        .connect("127.0.0.1", port.into())
        .await
        .expect("granted");
    result(over).await;
    assert_eq!(plugin.record().await.code, "network-timeout");
    plugin
        .connect("127.0.0.1", other.into())
        .await
        .expect("room again");
    drop(stream);
    plugin.close().await;
}

#[tokio::test]
async fn limits_that_never_come_are_none() {
    let mut world = World::default();
    world.network.idle_timeout = Duration::MAX;
    world.network.total_timeout = Duration::MAX;
    world.network.connect_timeout = Duration::MAX;
    world.network.resolve_timeout = Duration::MAX;
    world.network.unclaimed_timeout = Duration::MAX;
    let port = echo_server().await.port();
    let free = crate::listen::free_port();
    let ingress =
        format!("    ingress: [{{protocol: tcp, ports: [{free}], allowed_origins: [127.0.0.1]}}]");
    let grants = format!("{}\n{ingress}", local(&[port]));
    let plugin = world.plugin(&grants).await;
    let mut stream = plugin
        .connect("127.0.0.1", port.into())
        .await
        .expect("granted");
    stream.send("one").await;
    stream.finish().await;
    assert_eq!(stream.rest().await.unwrap(), b"one");
    let mut arrivals = plugin.listen("", free).await.expect("granted");
    let _visitor = tokio::net::TcpStream::connect(("127.0.0.1", free)).await;
    incoming(&mut arrivals).await;
    plugin.close().await;
}

#[tokio::test]
async fn connections_are_leases_and_there_are_only_so_many() {
    let world = World {
        limits: Limits {
            leases: 2,
            ..Limits::default()
        },
        ..World::default()
    };
    let port = echo_server().await.port();
    let mut plugin = world.plugin(&local(&[port])).await;
    let mut first = plugin
        .connect("127.0.0.1", port.into())
        .await
        .expect("room");
    let _second = plugin
        .connect("127.0.0.1", port.into())
        .await
        .expect("room");
    let status = plugin
        .connect("127.0.0.1", port.into())
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(plugin.record().await.code, "too-many-leases");
    first.finish().await;
    first.rest().await.expect("the end");
    assert_eq!(first.next().await.unwrap(), Event::End);
    drop(first);
    plugin.record().await;
    plugin
        .connect("127.0.0.1", port.into())
        .await
        .expect("room again");
}

#[tokio::test]
async fn bytes_are_paced() {
    let world = World {
        limits: Limits {
            bytes_per_second: 1 << 20,
            ..Limits::default()
        },
        ..World::default()
    };
    let port = echo_server().await.port();
    let plugin = world.plugin(&local(&[port])).await;
    let mut stream = plugin
        .connect("127.0.0.1", port.into())
        .await
        .expect("granted");
    let started = Instant::now();
    for _ in 0..12 {
        stream.send(vec![0; 64 << 10]).await;
        let mut back = 0;
        while back < 64 << 10 {
            match stream.next().await.unwrap() {
                Event::Data(data) => back += data.len(),
                other => panic!("{other:?}"),
            }
        }
    }
    stream.finish().await;
    // 1.5 MiB in both directions, of which one second's worth was free.
    assert!(started.elapsed() > Duration::from_millis(350));
}

#[tokio::test]
async fn a_peer_that_refuses_or_breaks_is_told_with_its_number() {
    let closed = crate::listen::free_port();
    let (breaking, _) = once(async |stream: tokio::net::TcpStream| {
        stream.set_zero_linger().unwrap();
        drop(stream);
    })
    .await;
    let plugin = World::default().plugin(&local(&[closed, breaking])).await;
    let status = plugin
        .connect("127.0.0.1", closed.into())
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(errno(&status), "ECONNREFUSED");
    let mut stream = plugin
        .connect("127.0.0.1", breaking.into())
        .await
        .expect("granted");
    let status = stream.next().await.unwrap_err();
    assert_eq!(errno(&status), "ECONNRESET");
}

#[tokio::test]
async fn what_does_not_begin_as_it_should_is_refused() {
    let port = echo_server().await.port();
    let plugin = World::default().plugin(&local(&[port])).await;
    let data = connect_request::Part::Data("x".into());
    for first in [None, Some(data)] {
        let parts = futures_util::stream::iter([ConnectRequest { part: first }]);
        let status = plugin.connect_with(parts).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    let target = || {
        let target = Target {
            host: "127.0.0.1".into(),
            port: port.into(),
            timeout_ms: 0,
        };
        ConnectRequest {
            part: Some(connect_request::Part::Target(target)),
        }
    };
    let parts = futures_util::stream::iter([target(), target()]);
    let status = plugin.connect_with(parts).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn net_sni_mismatch_a_greeting_for_another_name_does_not_leave() {
    let world = World::default();
    world.book.answers("api.example.com", &[&[PUBLIC]]);
    let (port, heard) = once(async |mut stream: tokio::net::TcpStream| {
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        heard
    })
    .await;
    let to = ([127, 0, 0, 1], port).into();
    world.board.route(&format!("{PUBLIC}:443"), to);
    let grant = "    egress: [{protocol: tcp, hosts: [api.example.com], ports: [443]}]";
    let mut plugin = world.plugin(grant).await;
    let mut stream = plugin
        .connect("api.example.com", 443)
        .await
        .expect("granted");
    stream.send(crate::http::greeting("evil.example")).await;
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(result(heard).await.is_empty());
    let record = plugin.record().await;
    assert!(record.reason.contains("evil.example"), "{record}");
}
