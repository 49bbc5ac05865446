//! What a host tells of itself and of the plugin, and what it refuses.

use std::time::Duration;

use outrigger_plugin::Host;
use outrigger_plugin::host::LogLevel;

use super::{Checked, dir};

pub(super) async fn refused(host: &Host) -> Checked {
    for path in ["/etc/passwd", "/proc/self/environ", "../outside", "/"] {
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", dir()?)
        };
        let error = host.fs().open(&path).await.err();
        let error = error.ok_or_else(|| format!("{path} was opened"))?;
        assert!(error.is_refusal());
        assert!(!error.code().is_empty());
    }
    let error = host
        .env()
        .var("HOSTCLIENT_SECRET")
        .await
        .err()
        .ok_or("a secret")?;
    assert_eq!(error.code(), "not-granted");
    assert!(error.missing().is_some());
    let command = host.process().command("/bin/sh").arg("-c").arg("true");
    assert!(command.clone().spawn().await.is_err());
    assert!(command.output().await.is_err());
    assert!(host.network().connect("127.0.0.1", 1).await.is_err());
    assert!(host.network().connect("example.com", 443).await.is_err());
    Ok(())
}

pub(super) async fn facts(host: &Host) -> Checked {
    assert_eq!(
        host.env().var("HOSTCLIENT_SHOWN").await?.as_deref(),
        Some("shown")
    );
    assert_eq!(host.env().names().await?, ["HOSTCLIENT_SHOWN"]);
    assert_eq!(host.env().vars().await?.len(), 1);
    assert_eq!(host.env().host_info().await?.os, "linux");
    host.clock().now().await?.elapsed()?;
    let before = host.clock().monotonic().await?;
    host.clock().sleep(Duration::from_millis(2)).await?;
    assert!(host.clock().monotonic().await? > before);
    assert_eq!(host.clock().random(64).await?.len(), 64);
    assert_eq!(host.clock().uuid().await?.len(), 36);
    let mut ticks = host.clock().ticks(Duration::from_millis(1)).await?;
    assert!(ticks.next().await?.is_some());
    let fields = [("key".to_owned(), "value".to_owned())];
    host.log().write(LogLevel::Error, "said", fields).await?;
    host.log().level().await?;
    assert!(!host.session().grants().await?.filesystem.is_empty());
    assert!(host.session().usage().await?.operations > 0);
    assert!(!host.session().services().is_empty());
    Ok(())
}

/// Where operations are bounded per second, a refused one says when to try again.
pub(super) async fn rate(host: &Host) -> Checked {
    let clock = host.clock();
    let refused = loop {
        match clock.monotonic().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(refused.grpc_code(), tonic::Code::ResourceExhausted);
    let pause = refused.retry_after().ok_or("no time to try again")?;
    assert!(
        !pause.is_zero() && pause <= Duration::from_secs(2),
        "{pause:?}"
    );
    tokio::time::sleep(pause).await;
    clock.monotonic().await?;
    Ok(())
}
