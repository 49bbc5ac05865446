//! Files and directories.

use std::io::SeekFrom;

use bytes::Bytes;
use futures_util::StreamExt;
use outrigger_plugin::Host;
use outrigger_plugin::host::FileKind;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::{Checked, dir};

pub(super) async fn files(host: &Host) -> Checked {
    let (fs, path) = (host.fs(), format!("{}/file", dir()?));
    let mut file = fs.create(&path).await?;
    assert_eq!(file.descriptor().is_some(), host.has_descriptors());
    file.write_all(b"hello ").await?;
    file.write_all(b"world").await?;
    file.write_all_at(b"W", 6).await?;
    assert_eq!(file.metadata().await?.len(), 11);
    let unreadable = file.read_at(&mut [0; 4], 0).await;
    assert!(unreadable.is_err());
    file.sync_data().await?;
    file.close().await?;

    let mut file = fs.open(&path).await?;
    let mut buffer = [0; 5];
    assert_eq!(file.read(&mut buffer).await?, 5);
    assert_eq!(&buffer, b"hello");
    assert_eq!(file.seek(SeekFrom::End(-5)).await?, 6);
    assert_eq!(file.read(&mut buffer).await?, 5);
    assert_eq!(&buffer, b"World");
    assert_eq!(file.read(&mut buffer).await?, 0);
    assert_eq!(file.seek(SeekFrom::Current(-11)).await?, 0);
    assert!(file.seek(SeekFrom::Current(-1)).await.is_err());
    let mut all = Vec::new();
    assert_eq!(file.read_to_end(&mut all).await?, 11);
    assert_eq!(all, b"hello World");
    assert_eq!(file.read_at(&mut buffer, 9).await?, 2);
    assert!(file.read_exact_at(&mut buffer, 9).await.is_err());
    // A file that is open for reading is that and no more.
    for refused in [file.write_all_at(b"x", 0).await, file.set_len(0).await] {
        let refused = refused.err().ok_or("changed what is open to read")?;
        assert!(refused.errno().is_some());
    }
    assert_eq!(fs.read_to_string(&path).await?, "hello World");

    let options = fs.options().append(true);
    let mut file = options.open(&path).await?;
    assert!(file.write_all_at(b"!", 0).await.is_err());
    file.write_all(b"!").await?;
    file.write_all(b"!").await?;
    assert_eq!(file.seek(SeekFrom::Current(0)).await?, 13);
    file.close().await?;
    assert_eq!(fs.append(&path, &b"?"[..]).await?, 14);

    let mut file = fs.options().read(true).write(true).open(&path).await?;
    file.set_len(5).await?;
    AsyncSeekExt::seek(&mut file, SeekFrom::End(0)).await?;
    file.write_all(b", all").await?;
    file.flush().await?;
    AsyncSeekExt::seek(&mut file, SeekFrom::Start(0)).await?;
    let mut text = String::new();
    AsyncReadExt::read_to_string(&mut file, &mut text).await?;
    assert_eq!(text, "hello, all");
    AsyncSeekExt::seek(&mut file, SeekFrom::Start(2)).await?;
    let mut two = [0; 2];
    AsyncReadExt::read_exact(&mut file, &mut two).await?;
    assert_eq!(&two, b"ll");
    // The same position for both ways of reading.
    assert_eq!(file.read(&mut two).await?, 2);
    assert_eq!(&two, b"o,");
    // What was read ahead is not what is there after a change.
    AsyncSeekExt::seek(&mut file, SeekFrom::Start(0)).await?;
    AsyncReadExt::read_exact(&mut file, &mut two).await?;
    file.write_all_at(b"LL", 2).await?;
    AsyncReadExt::read_exact(&mut file, &mut two).await?;
    assert_eq!(&two, b"LL");
    file.set_len(5).await?;
    text.clear();
    AsyncReadExt::read_to_string(&mut file, &mut text).await?;
    assert_eq!(text, "o");
    file.write_all_at(b", all", 5).await?;
    let rest: Vec<_> = file
        .stream(7, 2)
        .map(|part| part.unwrap_or_default())
        .collect()
        .await;
    assert_eq!(rest.concat(), b"al");
    drop(file);

    let exclusive = fs.options().write(true).create_new(true).mode(0o640);
    let there = exclusive
        .clone()
        .open(&path)
        .await
        .err()
        .ok_or("made again")?;
    assert_eq!(there.grpc_code(), tonic::Code::AlreadyExists);
    fs.remove(&path).await?;
    let file = exclusive.open(&path).await?;
    assert_eq!(file.metadata().await?.mode() & 0o600, 0o600);
    drop(file);
    fs.remove(&path).await?;
    let gone = fs.open(&path).await.err().ok_or("opened what is gone")?;
    assert!(gone.is_not_found());
    assert_eq!(gone.errno(), Some("ENOENT"));
    assert_eq!(gone.operation(), "filesystem.open");

    let (mut temporary, path) = fs.temp_file("note-*.txt").await?;
    temporary.write_all(b"note").await?;
    let path = path.to_str().ok_or("a text path")?.to_owned();
    assert_eq!(fs.read(path).await?, b"note");
    Ok(())
}

pub(super) async fn tree(host: &Host) -> Checked {
    let (fs, root) = (host.fs(), format!("{}/tree", dir()?));
    fs.create_dir_all(format!("{root}/a/b")).await?;
    for number in 0..20 {
        fs.write(format!("{root}/a/{number:02}"), format!("{number}"))
            .await?;
    }
    let (mut names, mut entries) = (Vec::new(), fs.read_dir(format!("{root}/a")));
    while let Some(entry) = entries.next().await? {
        assert_eq!(entry.kind == FileKind::Directory, entry.name == "b");
        names.push(entry.name);
    }
    assert_eq!(names.len(), 21);
    assert_eq!(entries.unreadable(), 0);
    let folder = fs.open_dir(format!("{root}/a")).await?;
    fs.rename(format!("{root}/a"), format!("{root}/c")).await?;
    assert_eq!(
        fs.copy(format!("{root}/c/07"), format!("{root}/c/copy"))
            .await?,
        1
    );
    fs.symlink("07", format!("{root}/c/link")).await?;
    assert_eq!(
        fs.read_link(format!("{root}/c/link")).await?.to_str(),
        Some("07")
    );
    let link = fs.symlink_metadata(format!("{root}/c/link")).await?;
    assert_eq!(link.kind(), FileKind::Symlink);
    assert!(fs.metadata(format!("{root}/c/link")).await?.is_file());
    fs.set_permissions(format!("{root}/c/07"), 0o600).await?;
    assert_eq!(fs.metadata(format!("{root}/c/07")).await?.mode(), 0o600);
    assert!(!fs.exists(format!("{root}/c/none")).await?);
    // The directory is another one by that path now.
    assert!(folder.open("07").await.is_err());
    let folder = fs.open_dir(format!("{root}/c")).await?;
    let mut text = Vec::new();
    folder.open("07").await?.read_to_end(&mut text).await?;
    assert_eq!(text, b"7");
    assert!(folder.open("../../file").await.is_err());
    let mut changes = fs.watch(format!("{root}/c"), false).await?;
    fs.write(format!("{root}/c/new"), b"new").await?;
    let change = changes.next().await?.ok_or("no change")?;
    assert_eq!(
        change.path.file_name().and_then(|name| name.to_str()),
        Some("new")
    );
    fs.remove_all(root).await?;
    Ok(())
}

pub(super) async fn large(host: &Host) -> Checked {
    const SIZE: usize = 9 << 20;
    let (fs, path) = (host.fs(), format!("{}/large", dir()?));
    let data: Vec<u8> = (0..SIZE).map(|at| (at / 4096 + at) as u8).collect();
    let parts: Vec<Bytes> = data.chunks(1 << 20).map(Bytes::copy_from_slice).collect();
    let file = fs.create(&path).await?;
    let written = file
        .write_stream(0, futures_util::stream::iter(parts))
        .await?;
    assert_eq!(written, SIZE as u64);
    file.close().await?;
    assert!(fs.read(&path).await? == data);
    let file = fs.open(&path).await?;
    let (mut parts, mut at) = (file.stream(1, 5 << 20), 1);
    drop(file);
    while let Some(part) = parts.next().await {
        let part = part?;
        assert!(data.get(at..at + part.len()) == Some(&part[..]));
        at += part.len();
    }
    assert_eq!(at, 1 + (5 << 20));
    let mut file = fs.open(&path).await?;
    let copied = tokio::io::copy(&mut file, &mut tokio::io::sink()).await?;
    assert_eq!(copied, SIZE as u64);
    fs.write(&path, &data).await?;
    assert_eq!(fs.metadata(&path).await?.len(), SIZE as u64);
    fs.remove(&path).await?;
    Ok(())
}

/// Dropping gives back: far more files than leases.
pub(super) async fn leases(host: &Host) -> Checked {
    let path = format!("{}/leased", dir()?);
    host.fs().write(&path, b"x").await?;
    for _ in 0..300 {
        host.fs().open(&path).await?.close().await?;
    }
    for _ in 0..300 {
        let file = loop {
            match host.fs().open(&path).await {
                Ok(file) => break file,
                // What was dropped is on its way back.
                Err(error) if error.code() == "too-many-leases" => tokio::task::yield_now().await,
                Err(error) => return Err(error.into()),
            }
        };
        drop(file);
    }
    // What ran is listed until its place is needed.
    let ran = host.process().list().await?.len();
    while host.session().usage().await?.leases as usize > ran {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Where written bytes are counted, they are: whatever way is asked for.
pub(super) async fn quota(host: &Host) -> Checked {
    let path = format!("{}/counted", dir()?);
    let mut file = host.fs().create(&path).await?;
    assert!(file.descriptor().is_none());
    let before = host.session().usage().await?.written_bytes;
    file.write_all(&[1; 1000]).await?;
    assert_eq!(host.session().usage().await?.written_bytes - before, 1000);
    let file = host.fs().open(&path).await?;
    assert_eq!(file.descriptor().is_some(), host.has_descriptors());
    Ok(())
}

/// An owner can be set where the host lets it be; here to the one that there is.
/// Sets the owner that a file has, and then another one: that needs a host that lets
/// it, and a kernel too, which lets only root.
pub(super) async fn owner(host: &Host) -> Checked {
    let (fs, path) = (host.fs(), format!("{}/owned", dir()?));
    fs.write(&path, b"mine").await?;
    let before = fs.metadata(&path).await?;
    fs.set_owner(&path, before.uid(), before.gid()).await?;
    fs.set_owner(&path, None, before.gid()).await?;
    let after = fs.metadata(&path).await?;
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
    let other = before.uid().map(|uid| uid + 1);
    assert!(other.is_some());
    match fs.set_owner(&path, other, None).await {
        Ok(()) => assert_eq!(fs.metadata(&path).await?.uid(), other),
        Err(error) if error.errno() == Some("EPERM") => {}
        Err(error) => return Err(error.into()),
    }
    fs.remove(&path).await?;
    Ok(())
}
