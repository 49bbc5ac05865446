//! The services of `hostserve.v1`.

use futures_util::TryStreamExt;
use outrigger_plugin::host::FileKind;
use outrigger_plugin::{HostServe, HostServeError};

use super::{Checked, dir};

pub(crate) async fn check(host: &HostServe) -> Checked {
    let root = format!("{}/hostserve", dir()?);
    host.create_dir_all("", &root, 0o755).await?;
    host.create_dir_all(&root, "below/deep", 0o755).await?;
    host.write_file(&root, "note", "hello", 0o640).await?;
    std::os::unix::fs::symlink("note", format!("{root}/link"))?;
    let entries = host.read_dir(&root, ".").await?;
    let entries: Vec<_> = entries
        .iter()
        .map(|entry| (&*entry.name, entry.kind))
        .collect();
    let found = [
        ("below", FileKind::Directory),
        ("link", FileKind::File),
        ("note", FileKind::File),
    ];
    assert_eq!(entries, found);
    assert_eq!(host.read_file(&root, "note").await?, "hello");

    let note = host.metadata(&root, "link").await?;
    assert_eq!(
        (note.kind(), note.len(), note.mode()),
        (FileKind::File, 5, 0o640)
    );
    assert!(note.modified().is_some() && note.uid().is_none());
    assert!(host.metadata(&root, "below").await?.is_dir());
    let link = host.symlink_metadata(&root, "link").await?;
    assert_eq!(link.kind(), FileKind::Symlink);
    assert_eq!(host.read_link(&root, "link").await?, "note");

    let file = host.open(&root, "note").await?;
    let parts: Vec<_> = file.parts(2).await?.try_collect().await?;
    assert_eq!(parts.concat(), b"hello");
    file.close().await?;
    for name in ["link", "note"] {
        host.remove(&root, name).await?;
    }
    for refused in [
        host.open(&root, "note").await.map(drop),
        host.open("/etc", "passwd").await.map(drop),
    ] {
        let error = refused.expect_err("it is not there, or not granted");
        assert!(matches!(error, HostServeError::Refused { .. }), "{error:?}");
        assert_eq!(error.code(), "host-refused");
    }

    let made = host.create_temp_dir("made-*").await?;
    host.write_file(&made, "x", "y", 0o600).await?;
    assert_eq!(host.env("HOSTCLIENT_SHOWN").await?, "shown");
    assert!(!host.temp_dir().await?.is_empty());
    assert_eq!(
        u32::try_from(host.pid().await?)?,
        std::os::unix::process::parent_id()
    );
    assert_eq!(host.client_id().len(), 36);
    Ok(())
}
