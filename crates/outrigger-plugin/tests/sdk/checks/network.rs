//! Connections.

use std::time::Duration;

use futures_util::TryStreamExt;
use outrigger_plugin::Host;
use outrigger_plugin::host::HttpRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Checked, port};

/// Bytes that `dropped` sends on each connection.
const SENT: usize = 1 << 20;

pub(super) async fn network(host: &Host) -> Checked {
    let port: u16 = port("HOSTCLIENT_PORT")?;
    let network = host.network();
    // By its name the host stays in between, by its address it need not.
    for name in ["127.0.0.1", "localhost"] {
        let mut stream = network.connect(name, port).await?;
        assert_eq!(stream.peer_addr().map(|address| address.port()), Some(port));
        stream.write_all(b"hello").await?;
        let mut back = [0; 5];
        stream.read_exact(&mut back).await?;
        assert_eq!(&back, b"hello");
        let (mut reader, mut writer) = tokio::io::split(stream);
        let sent = tokio::spawn(async move {
            writer.write_all(&vec![3; 1 << 20]).await?;
            writer.shutdown().await
        });
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await?;
        sent.await??;
        assert_eq!(all.len(), 1 << 20);
    }
    Ok(())
}

/// What was written arrives, although nobody waits for it.
pub(super) async fn dropped(host: &Host) -> Checked {
    let port: u16 = port("HOSTCLIENT_SINK")?;
    for name in ["127.0.0.1", "localhost"] {
        for shut in [true, false] {
            let mut stream = host.network().connect(name, port).await?;
            stream.write_all(&vec![5; SENT]).await?;
            if shut {
                stream.shutdown().await?;
            }
            drop(stream);
        }
    }
    Ok(())
}

/// A connection that was not taken in time is no end of listening.
pub(super) async fn listen(host: &Host) -> Checked {
    let port: u16 = port("HOSTCLIENT_LISTEN")?;
    let mut listener = host.network().listen(None, port).await?;
    let mut late = tokio::net::TcpStream::connect(listener.local_addr()).await?;
    // The host gives it up.
    assert_eq!(late.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let mut peer = tokio::net::TcpStream::connect(listener.local_addr()).await?;
    let (mut stream, remote) = listener.accept().await?;
    assert_eq!(remote, peer.local_addr()?);
    peer.write_all(b"in time").await?;
    let mut text = [0; 7];
    stream.read_exact(&mut text).await?;
    assert_eq!(&text, b"in time");
    Ok(())
}

pub(super) async fn http(host: &Host) -> Checked {
    let (network, port) = (host.network(), port("HOSTCLIENT_HTTP")?);
    let url = format!("http://127.0.0.1:{port}/page");
    let got = network.get(&url).await?;
    assert_eq!((got.status(), &got.body()[..]), (200, &b"hello"[..]));
    assert_eq!(got.header("x-said"), Some(&b"yes"[..]));
    assert_eq!(got.url(), url);

    let request = HttpRequest::new("POST", &url).header("X-Asked", "yes");
    let posted = network.request(request.body("a question")).await?;
    assert_eq!(posted.status(), 200);

    let request = HttpRequest::new("GET", &url).timeout(Duration::from_secs(10));
    let (head, body) = network.request_stream(request).await?;
    assert_eq!((head.status(), head.body().len()), (200, 0));
    assert!(
        head.headers()
            .any(|(name, _)| name.eq_ignore_ascii_case("x-said"))
    );
    let parts: Vec<_> = body.try_collect().await?;
    assert_eq!(parts.concat(), b"hello");

    let elsewhere = network.get("http://127.0.0.1:1/").await;
    assert!(elsewhere.expect_err("it is not granted").is_refusal());
    Ok(())
}
