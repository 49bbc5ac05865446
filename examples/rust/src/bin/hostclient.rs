//! A plugin that does its work through its host's services, and says whether
//! they did what they should. Over gRPC (`Bench.CallBack`) and, with the argument
//! `netrpc`, over net/rpc (`Plugin.Run`).
//!
//! `HOSTCLIENT_DIR` names a directory where everything is granted; an echo
//! server at 127.0.0.1 is at `HOSTCLIENT_PORT`, one that only takes is at
//! `HOSTCLIENT_SINK`, and `HOSTCLIENT_LISTEN` is a port to listen on.
//! `HOSTCLIENT_UDP` is a UDP server that echoes, `HOSTCLIENT_FREE` a port where
//! nobody is, and `HOSTCLIENT_BIND` one to bind, both for UDP.

use std::io::SeekFrom;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use outrigger_examples::bench_cookie;
use outrigger_examples::proto::bench::bench_server::{Bench, BenchServer};
use outrigger_examples::proto::bench::{
    CallbackReply, CallbackRequest, Payload, StreamReply, StreamRequest,
};
use outrigger_plugin::host::{ExitStatus, FileKind, Host, LogLevel};
use outrigger_plugin::netrpc::Methods;
use outrigger_plugin::{PluginContext, PluginSet, Serve, ServiceSet};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tonic::{Request, Response, Status, Streaming};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Bytes that `dropped` sends on each connection.
const SENT: usize = 1 << 20;

/// Fails with what was found where something else should be.
macro_rules! same {
    ($found:expr, $wanted:expr) => {
        match (&$found, &$wanted) {
            (found, wanted) if *found == *wanted => {}
            (found, wanted) => {
                let at = line!();
                return Err(format!("line {at}: {found:?} where {wanted:?} should be").into());
            }
        }
    };
}

async fn run(context: &PluginContext, kind: &str) -> Result<(), Error> {
    let host = match kind.split_once('@') {
        None => context.host().await?,
        Some((_, id)) => context.host_on(id.parse()?).await?,
    };
    let kind = kind.split('@').next().unwrap_or_default();
    let hosts = match kind.strip_prefix("calls-") {
        Some(_) => vec![host.without_descriptors()],
        None => {
            if !host.has_descriptors() {
                return Err("the host hands over no descriptors".into());
            }
            vec![host.clone(), host.without_descriptors()]
        }
    };
    for host in hosts {
        let by = if host.has_descriptors() {
            "descriptor"
        } else {
            "call"
        };
        let done = match kind.strip_prefix("calls-").unwrap_or(kind) {
            "files" => files(&host).await,
            "tree" => tree(&host).await,
            "large" => large(&host).await,
            "refused" => refused(&host).await,
            "small" => small(&host).await,
            "commands" => commands(&host).await,
            "children" => children(&host).await,
            "network" => network(&host).await,
            "dropped" => dropped(&host).await,
            "listen" => listen(&host).await,
            "datagrams" => datagrams(&host).await,
            "held" => held(&host).await,
            "long" => long(&host).await,
            "leases" => leases(&host).await,
            "quota" => quota(&host).await,
            "waiting" => waiting(&host).await,
            other => Err(format!("unknown kind `{other}`").into()),
        };
        done.map_err(|error| format!("by {by}: {error}"))?;
    }
    Ok(())
}

fn dir() -> Result<String, Error> {
    Ok(std::env::var("HOSTCLIENT_DIR")?)
}

async fn files(host: &Host) -> Result<(), Error> {
    let (fs, path) = (host.fs(), format!("{}/file", dir()?));
    let mut file = fs.create(&path).await?;
    same!(file.descriptor().is_some(), host.has_descriptors());
    file.write_all(b"hello ").await?;
    file.write_all(b"world").await?;
    file.write_all_at(b"W", 6).await?;
    same!(file.metadata().await?.len(), 11);
    let unreadable = file.read_at(&mut [0; 4], 0).await;
    same!(unreadable.is_err(), true);
    file.sync_data().await?;
    file.close().await?;

    let mut file = fs.open(&path).await?;
    let mut buffer = [0; 5];
    same!(file.read(&mut buffer).await?, 5);
    same!(&buffer, b"hello");
    same!(file.seek(SeekFrom::End(-5)).await?, 6);
    same!(file.read(&mut buffer).await?, 5);
    same!(&buffer, b"World");
    same!(file.read(&mut buffer).await?, 0);
    same!(file.seek(SeekFrom::Current(-11)).await?, 0);
    same!(file.seek(SeekFrom::Current(-1)).await.is_err(), true);
    let mut all = Vec::new();
    same!(file.read_to_end(&mut all).await?, 11);
    same!(all, b"hello World");
    same!(file.read_at(&mut buffer, 9).await?, 2);
    same!(file.read_exact_at(&mut buffer, 9).await.is_err(), true);
    // A file that is open for reading is that and no more.
    for refused in [file.write_all_at(b"x", 0).await, file.set_len(0).await] {
        let refused = refused.err().ok_or("changed what is open to read")?;
        same!(refused.errno().is_some(), true);
    }
    same!(fs.read_to_string(&path).await?, "hello World");

    let options = fs.options().append(true);
    let mut file = options.open(&path).await?;
    same!(file.write_all_at(b"!", 0).await.is_err(), true);
    file.write_all(b"!").await?;
    file.write_all(b"!").await?;
    same!(file.seek(SeekFrom::Current(0)).await?, 13);
    file.close().await?;
    same!(fs.append(&path, &b"?"[..]).await?, 14);

    let mut file = fs.options().read(true).write(true).open(&path).await?;
    file.set_len(5).await?;
    AsyncSeekExt::seek(&mut file, SeekFrom::End(0)).await?;
    file.write_all(b", all").await?;
    file.flush().await?;
    AsyncSeekExt::seek(&mut file, SeekFrom::Start(0)).await?;
    let mut text = String::new();
    AsyncReadExt::read_to_string(&mut file, &mut text).await?;
    same!(text, "hello, all");
    AsyncSeekExt::seek(&mut file, SeekFrom::Start(2)).await?;
    let mut two = [0; 2];
    AsyncReadExt::read_exact(&mut file, &mut two).await?;
    same!(&two, b"ll");
    // The same position for both ways of reading.
    same!(file.read(&mut two).await?, 2);
    same!(&two, b"o,");
    // What was read ahead is not what is there after a change.
    AsyncSeekExt::seek(&mut file, SeekFrom::Start(0)).await?;
    AsyncReadExt::read_exact(&mut file, &mut two).await?;
    file.write_all_at(b"LL", 2).await?;
    AsyncReadExt::read_exact(&mut file, &mut two).await?;
    same!(&two, b"LL");
    file.set_len(5).await?;
    text.clear();
    AsyncReadExt::read_to_string(&mut file, &mut text).await?;
    same!(text, "o");
    file.write_all_at(b", all", 5).await?;
    let rest: Vec<_> = file
        .stream(7, 2)
        .map(|part| part.unwrap_or_default())
        .collect()
        .await;
    same!(rest.concat(), b"al");
    drop(file);

    let exclusive = fs.options().write(true).create_new(true).mode(0o640);
    let there = exclusive
        .clone()
        .open(&path)
        .await
        .err()
        .ok_or("made again")?;
    same!(there.grpc_code(), tonic::Code::AlreadyExists);
    fs.remove(&path).await?;
    let file = exclusive.open(&path).await?;
    same!(file.metadata().await?.mode() & 0o600, 0o600);
    drop(file);
    fs.remove(&path).await?;
    let gone = fs.open(&path).await.err().ok_or("opened what is gone")?;
    same!(gone.is_not_found(), true);
    same!(gone.errno(), Some("ENOENT"));
    same!(gone.operation(), "filesystem.open");

    let (mut temporary, path) = fs.temp_file("note-*.txt").await?;
    temporary.write_all(b"note").await?;
    let path = path.to_str().ok_or("a text path")?.to_owned();
    same!(fs.read(path).await?, b"note");
    Ok(())
}

async fn tree(host: &Host) -> Result<(), Error> {
    let (fs, root) = (host.fs(), format!("{}/tree", dir()?));
    fs.create_dir_all(format!("{root}/a/b")).await?;
    for number in 0..20 {
        fs.write(format!("{root}/a/{number:02}"), format!("{number}"))
            .await?;
    }
    let (mut names, mut entries) = (Vec::new(), fs.read_dir(format!("{root}/a")));
    while let Some(entry) = entries.next().await? {
        same!(entry.kind == FileKind::Directory, entry.name == "b");
        names.push(entry.name);
    }
    same!(names.len(), 21);
    same!(entries.unreadable(), 0);
    let folder = fs.open_dir(format!("{root}/a")).await?;
    fs.rename(format!("{root}/a"), format!("{root}/c")).await?;
    same!(
        fs.copy(format!("{root}/c/07"), format!("{root}/c/copy"))
            .await?,
        1
    );
    fs.symlink("07", format!("{root}/c/link")).await?;
    same!(
        fs.read_link(format!("{root}/c/link")).await?.to_str(),
        Some("07")
    );
    let link = fs.symlink_metadata(format!("{root}/c/link")).await?;
    same!(link.kind(), FileKind::Symlink);
    same!(fs.metadata(format!("{root}/c/link")).await?.is_file(), true);
    fs.set_permissions(format!("{root}/c/07"), 0o600).await?;
    same!(fs.metadata(format!("{root}/c/07")).await?.mode(), 0o600);
    same!(fs.exists(format!("{root}/c/none")).await?, false);
    // The directory is another one by that path now.
    same!(folder.open("07").await.is_err(), true);
    let folder = fs.open_dir(format!("{root}/c")).await?;
    let mut text = Vec::new();
    folder.open("07").await?.read_to_end(&mut text).await?;
    same!(text, b"7");
    same!(folder.open("../../file").await.is_err(), true);
    let mut changes = fs.watch(format!("{root}/c"), false).await?;
    fs.write(format!("{root}/c/new"), b"new").await?;
    let change = changes.next().await?.ok_or("no change")?;
    same!(
        change.path.file_name().and_then(|name| name.to_str()),
        Some("new")
    );
    fs.remove_all(root).await?;
    Ok(())
}

async fn large(host: &Host) -> Result<(), Error> {
    const SIZE: usize = 9 << 20;
    let (fs, path) = (host.fs(), format!("{}/large", dir()?));
    let data: Vec<u8> = (0..SIZE).map(|at| (at / 4096 + at) as u8).collect();
    let parts: Vec<Bytes> = data.chunks(1 << 20).map(Bytes::copy_from_slice).collect();
    let file = fs.create(&path).await?;
    let written = file
        .write_stream(0, futures_util::stream::iter(parts))
        .await?;
    same!(written, SIZE as u64);
    file.close().await?;
    same!(fs.read(&path).await? == data, true);
    let file = fs.open(&path).await?;
    let (mut parts, mut at) = (file.stream(1, 5 << 20), 1);
    drop(file);
    while let Some(part) = parts.next().await {
        let part = part?;
        same!(data.get(at..at + part.len()) == Some(&part[..]), true);
        at += part.len();
    }
    same!(at, 1 + (5 << 20));
    let mut file = fs.open(&path).await?;
    let copied = tokio::io::copy(&mut file, &mut tokio::io::sink()).await?;
    same!(copied, SIZE as u64);
    fs.write(&path, &data).await?;
    same!(fs.metadata(&path).await?.len(), SIZE as u64);
    fs.remove(&path).await?;
    Ok(())
}

async fn refused(host: &Host) -> Result<(), Error> {
    for path in ["/etc/passwd", "/proc/self/environ", "../outside", "/"] {
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", dir()?)
        };
        let error = host.fs().open(&path).await.err();
        let error = error.ok_or_else(|| format!("{path} was opened"))?;
        same!(error.is_refusal(), true);
        same!(error.code().is_empty(), false);
    }
    let error = host
        .env()
        .var("HOSTCLIENT_SECRET")
        .await
        .err()
        .ok_or("a secret")?;
    same!(error.code(), "not-granted");
    same!(error.missing().is_some(), true);
    let command = host.process().command("/bin/sh").arg("-c").arg("true");
    same!(command.clone().spawn().await.is_err(), true);
    same!(command.output().await.is_err(), true);
    same!(host.network().connect("127.0.0.1", 1).await.is_err(), true);
    same!(
        host.network().connect("example.com", 443).await.is_err(),
        true
    );
    Ok(())
}

async fn small(host: &Host) -> Result<(), Error> {
    same!(
        host.env().var("HOSTCLIENT_SHOWN").await?.as_deref(),
        Some("shown")
    );
    same!(host.env().names().await?, ["HOSTCLIENT_SHOWN"]);
    same!(host.env().vars().await?.len(), 1);
    same!(host.env().host_info().await?.os, "linux");
    host.clock().now().await?.elapsed()?;
    let before = host.clock().monotonic().await?;
    host.clock()
        .sleep(std::time::Duration::from_millis(2))
        .await?;
    same!(host.clock().monotonic().await? > before, true);
    same!(host.clock().random(64).await?.len(), 64);
    same!(host.clock().uuid().await?.len(), 36);
    let mut ticks = host
        .clock()
        .ticks(std::time::Duration::from_millis(1))
        .await?;
    same!(ticks.next().await?.is_some(), true);
    let fields = [("key".to_owned(), "value".to_owned())];
    host.log().write(LogLevel::Error, "said", fields).await?;
    host.log().level().await?;
    same!(host.session().grants().await?.filesystem.is_empty(), false);
    same!(host.session().usage().await?.operations > 0, true);
    same!(host.session().services().is_empty(), false);
    Ok(())
}

async fn commands(host: &Host) -> Result<(), Error> {
    let process = host.process();
    let echo = process.command("/bin/echo").arg("hello").output().await?;
    same!(echo.stdout, "hello\n");
    same!(echo.status.success(), true);
    let cat = process
        .command("/bin/cat")
        .input(&b"through"[..])
        .output()
        .await?;
    same!(cat.stdout, "through");

    let mut cat = process.command("/bin/cat").spawn().await?;
    let (mut stdin, mut stdout) = (
        cat.stdin.take().ok_or("no stdin")?,
        cat.stdout.take().ok_or("no stdout")?,
    );
    let mut line = [0; 5];
    stdin.write_all(b"first").await?;
    stdout.read_exact(&mut line).await?;
    same!(&line, b"first");
    // More than any pipe holds, both ways at once.
    let sent = tokio::spawn(async move {
        stdin.write_all(&vec![7; 1 << 20]).await?;
        stdin.shutdown().await
    });
    let mut all = Vec::new();
    stdout.read_to_end(&mut all).await?;
    sent.await??;
    same!(all.len(), 1 << 20);
    same!(cat.wait().await?, ExitStatus::Code(0));

    let mut cat = process.command("/bin/cat").spawn().await?;
    same!(
        process
            .list()
            .await?
            .iter()
            .any(|known| known.pid == cat.pid()),
        true
    );
    cat.kill().await?;
    same!(cat.wait().await?, ExitStatus::Signal(9));
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
async fn children(host: &Host) -> Result<(), Error> {
    let process = host.process();
    let mut cat = process.command("/bin/cat").spawn().await?;
    same!(cat.wait().await?, ExitStatus::Code(0));
    drop(cat);
    let cat = process.command("/bin/cat").spawn().await?;
    let pid = cat.pid();
    drop(cat);
    while process.list().await?.iter().any(|known| known.pid == pid) {
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn network(host: &Host) -> Result<(), Error> {
    let port: u16 = std::env::var("HOSTCLIENT_PORT")?.parse()?;
    let network = host.network();
    // By its name the host stays in between, by its address it need not.
    for name in ["127.0.0.1", "localhost"] {
        let mut stream = network.connect(name, port).await?;
        same!(stream.peer_addr().map(|address| address.port()), Some(port));
        stream.write_all(b"hello").await?;
        let mut back = [0; 5];
        stream.read_exact(&mut back).await?;
        same!(&back, b"hello");
        let (mut reader, mut writer) = tokio::io::split(stream);
        let sent = tokio::spawn(async move {
            writer.write_all(&vec![3; 1 << 20]).await?;
            writer.shutdown().await
        });
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await?;
        sent.await??;
        same!(all.len(), 1 << 20);
    }
    Ok(())
}

/// What was written arrives, although nobody waits for it.
async fn dropped(host: &Host) -> Result<(), Error> {
    let port: u16 = std::env::var("HOSTCLIENT_SINK")?.parse()?;
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
async fn listen(host: &Host) -> Result<(), Error> {
    let port: u16 = std::env::var("HOSTCLIENT_LISTEN")?.parse()?;
    let mut listener = host.network().listen(None, port).await?;
    let mut late = tokio::net::TcpStream::connect(listener.local_addr()).await?;
    // The host gives it up.
    same!(late.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let mut peer = tokio::net::TcpStream::connect(listener.local_addr()).await?;
    let (mut stream, remote) = listener.accept().await?;
    same!(remote, peer.local_addr()?);
    peer.write_all(b"in time").await?;
    let mut text = [0; 7];
    stream.read_exact(&mut text).await?;
    same!(&text, b"in time");
    Ok(())
}

fn port_of(variable: &str) -> Result<u16, Error> {
    Ok(std::env::var(variable)?.parse()?)
}

async fn datagrams(host: &Host) -> Result<(), Error> {
    let (network, echo) = (host.network(), port_of("HOSTCLIENT_UDP")?);
    for name in ["127.0.0.1", "localhost"] {
        let socket = network.connect_udp(name, echo).await?;
        let there = SocketAddr::from(([127, 0, 0, 1], echo));
        same!(socket.peer_addr(), Some(there));
        same!(
            socket.local_addr().map(|address| address.ip()),
            Some(there.ip())
        );
        let mut buffer = vec![0; 70_000];
        for length in [0, 1, 1400, 65_507, 0] {
            let datagram: Vec<u8> = (0..length).map(|at| at as u8).collect();
            same!(socket.send(&datagram).await?, length);
            let (back, from) = socket.recv_from(&mut buffer).await?;
            same!(
                (buffer.get(..back) == Some(&datagram[..]), from),
                (true, there)
            );
        }
        let long = socket.send(&vec![0; 65_508]).await.err();
        same!(
            long.as_ref().and_then(|error| error.errno()),
            Some("EMSGSIZE")
        );
        let elsewhere = socket.send_to(b"x", ([127, 0, 0, 1], 1).into()).await.err();
        same!(
            elsewhere.as_ref().and_then(|error| error.errno()),
            Some("EISCONN")
        );
        // What does not fit is told, and the next one is whole.
        socket.send_to(b"0123456789", there).await?;
        socket.send(b"next").await?;
        let mut small = [0; 4];
        let cut = socket.recv(&mut small).await.err();
        same!(
            cut.as_ref().map(|error| error.code()),
            Some("datagram-truncated")
        );
        same!(&small, b"0123");
        same!(socket.recv(&mut small).await?, 4);
        same!(&small, b"next");
        // Both directions at once, and receiving that is given up loses nothing.
        let late = socket.recv(&mut buffer);
        let late = tokio::time::timeout(Duration::from_millis(1), late).await;
        same!(late.is_err(), true);
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
                    same!(socket.recv(&mut buffer).await?, 50);
                    same!(buffer.first(), Some(&number));
                }
                Ok::<_, Error>(())
            }
        );
        sent.and(received)?;
        same!(socket.dropped(), 0);
    }

    let free = port_of("HOSTCLIENT_FREE")?;
    let socket = network.connect_udp("127.0.0.1", free).await?;
    socket.send(b"anybody?").await?;
    let nobody = socket.recv(&mut [0; 10]).await.err();
    same!(
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
        same!((received.await??, one[0]), (1, number));
    }

    for (name, port) in [("127.0.0.1", 1), ("example.com", 53)] {
        let refused = network.connect_udp(name, port).await.err();
        same!(refused.map(|error| error.is_refusal()), Some(true));
    }
    let refused = network.bind_udp(None, 1).await.err();
    same!(refused.map(|error| error.is_refusal()), Some(true));

    let bind = port_of("HOSTCLIENT_BIND")?;
    let socket = loop {
        match network.bind_udp(None, bind).await {
            Ok(socket) => break socket,
            // The one before is being closed.
            Err(error) if error.errno() == Some("EADDRINUSE") => tokio::task::yield_now().await,
            Err(error) => return Err(error.into()),
        }
    };
    let at = SocketAddr::from(([127, 0, 0, 1], bind));
    same!((socket.local_addr(), socket.peer_addr()), (Some(at), None));
    let peer = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
    let stranger = tokio::net::UdpSocket::bind("127.0.0.2:0").await?;
    stranger.send_to(b"let me in", at).await?;
    peer.send_to(b"hello", at).await?;
    let mut buffer = [0; 100];
    let (length, from) = socket.recv_from(&mut buffer).await?;
    same!(
        (buffer.get(..length), from),
        (Some(&b"hello"[..]), peer.local_addr()?)
    );
    socket.send_to(b"welcome", from).await?;
    same!(peer.recv_from(&mut buffer).await?, (7, at));
    let unnamed = socket.send(b"x").await.err();
    same!(
        unnamed.as_ref().and_then(|error| error.errno()),
        Some("EDESTADDRREQ")
    );
    socket.send_to(b"x", stranger.local_addr()?).await?;
    let refused = socket.recv(&mut buffer).await.err();
    same!(refused.map(|error| error.is_refusal()), Some(true));
    Ok(())
}

/// A port that is not given back as long as the plugin runs.
async fn held(host: &Host) -> Result<(), Error> {
    match host
        .network()
        .bind_udp(None, port_of("HOSTCLIENT_BIND")?)
        .await
    {
        Ok(socket) => std::mem::forget(socket),
        // In the other way already.
        Err(error) if error.errno() == Some("EADDRINUSE") => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// A request that does not fit into the descriptor socket.
async fn long(host: &Host) -> Result<(), Error> {
    let argument = "a".repeat(100 << 10);
    let echo = host.process().command("/bin/echo").arg(&argument);
    let mut echo = echo.spawn().await?;
    let mut printed = String::new();
    let stdout = echo.stdout.as_mut().ok_or("no stdout")?;
    stdout.read_to_string(&mut printed).await?;
    same!(printed.trim_end() == argument, true);
    same!(echo.wait().await?, ExitStatus::Code(0));
    // The socket is still there.
    let path = format!("{}/after", dir()?);
    host.fs().write(&path, b"").await?;
    let file = host.fs().open(&path).await?;
    same!(file.descriptor().is_some(), host.has_descriptors());
    Ok(())
}

/// Has a secret in a temporary directory and a command that runs, and waits.
async fn waiting(host: &Host) -> Result<(), Error> {
    let command = host.process().command("/bin/sleep").arg("300");
    let _running = command.spawn().await?;
    let dir = host.fs().temp_dir("waiting-").await?;
    let secret = dir.join("secret").display().to_string();
    host.fs().write(&secret, &b"hush"[..]).await?;
    std::future::pending().await
}

/// Dropping gives back: far more files than leases.
async fn leases(host: &Host) -> Result<(), Error> {
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
async fn quota(host: &Host) -> Result<(), Error> {
    let path = format!("{}/counted", dir()?);
    let mut file = host.fs().create(&path).await?;
    same!(file.descriptor().is_none(), true);
    let before = host.session().usage().await?.written_bytes;
    file.write_all(&[1; 1000]).await?;
    same!(host.session().usage().await?.written_bytes - before, 1000);
    let file = host.fs().open(&path).await?;
    same!(file.descriptor().is_some(), host.has_descriptors());
    Ok(())
}

struct Work(PluginContext);

#[tonic::async_trait]
impl Bench for Work {
    async fn echo(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    type DownStream = BoxStream<'static, Result<Payload, Status>>;

    async fn down(&self, _: Request<StreamRequest>) -> Result<Response<Self::DownStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn up(&self, _: Request<Streaming<Payload>>) -> Result<Response<StreamReply>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn call_back(
        &self,
        request: Request<CallbackRequest>,
    ) -> Result<Response<CallbackReply>, Status> {
        let done = run(&self.0, &request.into_inner().kind).await;
        done.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(CallbackReply::default()))
    }
}

fn main() -> ExitCode {
    let set = if std::env::args().any(|argument| argument == "netrpc") {
        PluginSet::new().netrpc("client", |context| {
            let context = context.clone();
            Methods::new().method("Run", move |kind: String| {
                let context = context.clone();
                async move {
                    let done = run(&context, &kind).await;
                    done.map(|()| true).map_err(|error| error.to_string())
                }
            })
        })
    } else {
        PluginSet::new().grpc("client", |context| {
            ServiceSet::new().with(BenchServer::new(Work(context.clone())))
        })
    };
    outrigger_plugin::serve(Serve::new(bench_cookie()).offer(1, set))
}
