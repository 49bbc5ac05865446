//! Commands.

use outrigger_plugin::Host;
use outrigger_plugin::host::ExitStatus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Checked, dir};

pub(super) async fn commands(host: &Host) -> Checked {
    let process = host.process();
    let echo = process.command("/bin/echo").arg("hello").output().await?;
    assert_eq!(echo.stdout, "hello\n");
    assert!(echo.status.success());
    let cat = process
        .command("/bin/cat")
        .input(&b"through"[..])
        .output()
        .await?;
    assert_eq!(cat.stdout, "through");

    let mut cat = process.command("/bin/cat").spawn().await?;
    let (mut stdin, mut stdout) = (
        cat.stdin.take().ok_or("no stdin")?,
        cat.stdout.take().ok_or("no stdout")?,
    );
    let mut line = [0; 5];
    stdin.write_all(b"first").await?;
    stdout.read_exact(&mut line).await?;
    assert_eq!(&line, b"first");
    // More than any pipe holds, both ways at once.
    let sent = tokio::spawn(async move {
        stdin.write_all(&vec![7; 1 << 20]).await?;
        stdin.shutdown().await
    });
    let mut all = Vec::new();
    stdout.read_to_end(&mut all).await?;
    sent.await??;
    assert_eq!(all.len(), 1 << 20);
    assert_eq!(cat.wait().await?, ExitStatus::Code(0));

    let mut cat = process.command("/bin/cat").spawn().await?;
    assert!(
        process
            .list()
            .await?
            .iter()
            .any(|known| known.pid == cat.pid())
    );
    cat.kill().await?;
    assert_eq!(cat.wait().await?, ExitStatus::Signal(9));
    let cat = process.command("/bin/cat").spawn().await?;
    let pid = cat.pid();
    drop(cat);
    while process
        .list()
        .await?
        .iter()
        .any(|known| known.pid == pid && known.status.is_none())
    {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Commands that end by being waited for, and by being dropped.
pub(super) async fn children(host: &Host) -> Checked {
    let process = host.process();
    let mut cat = process.command("/bin/cat").spawn().await?;
    assert_eq!(cat.wait().await?, ExitStatus::Code(0));
    drop(cat);
    let cat = process.command("/bin/cat").spawn().await?;
    let pid = cat.pid();
    drop(cat);
    while process.list().await?.iter().any(|known| known.pid == pid) {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// A request that does not fit into the descriptor socket.
pub(super) async fn long(host: &Host) -> Checked {
    let argument = "a".repeat(100 << 10);
    let echo = host.process().command("/bin/echo").arg(&argument);
    let mut echo = echo.spawn().await?;
    let mut printed = String::new();
    let stdout = echo.stdout.as_mut().ok_or("no stdout")?;
    stdout.read_to_string(&mut printed).await?;
    assert!(printed.trim_end() == argument);
    assert_eq!(echo.wait().await?, ExitStatus::Code(0));
    // The socket is still there.
    let path = format!("{}/after", dir()?);
    host.fs().write(&path, b"").await?;
    let file = host.fs().open(&path).await?;
    assert_eq!(file.descriptor().is_some(), host.has_descriptors());
    Ok(())
}
