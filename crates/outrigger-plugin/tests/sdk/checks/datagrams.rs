//! Datagrams.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_plugin::Host;

use super::{Checked, Error, port};

pub(super) async fn datagrams(host: &Host) -> Checked {
    let (network, echo) = (host.network(), port("HOSTCLIENT_UDP")?);
    for name in ["127.0.0.1", "localhost"] {
        let socket = network.connect_udp(name, echo).await?;
        let there = SocketAddr::from(([127, 0, 0, 1], echo));
        assert_eq!(socket.peer_addr(), Some(there));
        assert_eq!(
            socket.local_addr().map(|address| address.ip()),
            Some(there.ip())
        );
        let mut buffer = vec![0; 70_000];
        for length in [0, 1, 1400, 65_507, 0] {
            let datagram: Vec<u8> = (0..length).map(|at| at as u8).collect();
            assert_eq!(socket.send(&datagram).await?, length);
            let (back, from) = socket.recv_from(&mut buffer).await?;
            assert_eq!(
                (buffer.get(..back) == Some(&datagram[..]), from),
                (true, there)
            );
        }
        let long = socket.send(&vec![0; 65_508]).await.err();
        assert_eq!(
            long.as_ref().and_then(|error| error.errno()),
            Some("EMSGSIZE")
        );
        let elsewhere = socket.send_to(b"x", ([127, 0, 0, 1], 1).into()).await.err();
        assert_eq!(
            elsewhere.as_ref().and_then(|error| error.errno()),
            Some("EISCONN")
        );
        // What does not fit is told, and the next one is whole.
        socket.send_to(b"0123456789", there).await?;
        socket.send(b"next").await?;
        let mut small = [0; 4];
        let cut = socket.recv(&mut small).await.err();
        assert_eq!(
            cut.as_ref().map(|error| error.code()),
            Some("datagram-truncated")
        );
        assert_eq!(&small, b"0123");
        assert_eq!(socket.recv(&mut small).await?, 4);
        assert_eq!(&small, b"next");
        // Both directions at once, and receiving that is given up loses nothing.
        let late = socket.recv(&mut buffer);
        let late = tokio::time::timeout(Duration::from_millis(1), late).await;
        assert!(late.is_err());
        let (sent, received) = tokio::join!(
            async {
                for number in 0..200_u8 {
                    socket.send(&[number; 50]).await?;
                }
                Ok::<_, Error>(())
            },
            async {
                let mut buffer = [0; 100];
                for number in 0..200_u8 {
                    assert_eq!(socket.recv(&mut buffer).await?, 50);
                    assert_eq!(buffer.first(), Some(&number));
                }
                Ok::<_, Error>(())
            }
        );
        sent.and(received)?;
        assert_eq!(socket.dropped(), 0);
    }

    let free = port("HOSTCLIENT_FREE")?;
    let socket = network.connect_udp("127.0.0.1", free).await?;
    socket.send(b"anybody?").await?;
    let nobody = socket.recv(&mut [0; 10]).await.err();
    assert_eq!(
        nobody.as_ref().and_then(|error| error.errno()),
        Some("ECONNREFUSED")
    );
    // What was sent to somebody arrives, although the socket is dropped at once.
    let server = tokio::net::UdpSocket::bind(("127.0.0.1", free)).await?;
    for number in 0..50_u8 {
        socket.send(&[number]).await?;
    }
    drop(socket);
    for number in 0..50_u8 {
        let mut one = [0; 10];
        let received = tokio::time::timeout(Duration::from_secs(10), server.recv(&mut one));
        assert_eq!((received.await??, one[0]), (1, number));
    }

    for (name, port) in [("127.0.0.1", 1), ("example.com", 53)] {
        let refused = network.connect_udp(name, port).await.err();
        assert_eq!(refused.map(|error| error.is_refusal()), Some(true));
    }
    let refused = network.bind_udp(None, 1).await.err();
    assert_eq!(refused.map(|error| error.is_refusal()), Some(true));

    let bind = port("HOSTCLIENT_BIND")?;
    let socket = loop {
        match network.bind_udp(None, bind).await {
            Ok(socket) => break socket,
            // The one before is being closed.
            Err(error) if error.errno() == Some("EADDRINUSE") => tokio::task::yield_now().await,
            Err(error) => return Err(error.into()),
        }
    };
    let at = SocketAddr::from(([127, 0, 0, 1], bind));
    assert_eq!((socket.local_addr(), socket.peer_addr()), (Some(at), None));
    let peer = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
    let stranger = tokio::net::UdpSocket::bind("127.0.0.2:0").await?;
    stranger.send_to(b"let me in", at).await?;
    peer.send_to(b"hello", at).await?;
    let mut buffer = [0; 100];
    let (length, from) = socket.recv_from(&mut buffer).await?;
    assert_eq!(
        (buffer.get(..length), from),
        (Some(&b"hello"[..]), peer.local_addr()?)
    );
    socket.send_to(b"welcome", from).await?;
    assert_eq!(peer.recv_from(&mut buffer).await?, (7, at));
    let unnamed = socket.send(b"x").await.err();
    assert_eq!(
        unnamed.as_ref().and_then(|error| error.errno()),
        Some("EDESTADDRREQ")
    );
    socket.send_to(b"x", stranger.local_addr()?).await?;
    let refused = socket.recv(&mut buffer).await.err();
    assert_eq!(refused.map(|error| error.is_refusal()), Some(true));
    Ok(())
}

/// A port that is not given back as long as the plugin runs.
pub(super) async fn held(host: &Host) -> Checked {
    match host
        .network()
        .bind_udp(None, port("HOSTCLIENT_BIND")?)
        .await
    {
        Ok(socket) => std::mem::forget(socket),
        // In the other way already.
        Err(error) if error.errno() == Some("EADDRINUSE") => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
