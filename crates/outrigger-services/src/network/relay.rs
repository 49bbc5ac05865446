//! A connection that a plugin has as a socket: the host carries what goes in and
//! out, so that it is counted, recorded, and ends in time. The plugin's socket
//! is one end of a pair of this host and leads nowhere else.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

use super::account::Account;
use super::deadline::Activity;
use super::failure;
use super::settings::NetworkLimits;
use crate::fault::Fault;

/// How long what a plugin wrote before it closed its end is sent.
const LINGER: Duration = Duration::from_secs(10);
/// How many chunks that nobody will read are taken at most before a connection is
/// closed. A peer that sends more than that is told so by a reset.
const DROPPED_CHUNKS: usize = 64;
/// How often the host looks whether a plugin that has finished is still there.
pub(crate) const LOOK: Duration = Duration::from_millis(250);

/// The plugin's end of `peer`, and the work that carries what it moves. The
/// connection ends when that is dropped.
pub(crate) fn relay(
    peer: TcpStream,
    account: Account,
    limits: &NetworkLimits,
) -> Result<(OwnedFd, impl Future<Output = ()> + Send + use<>), tonic::Status> {
    let pair = || {
        let (given, kept) = std::os::unix::net::UnixStream::pair()?;
        kept.set_nonblocking(true)?;
        Ok((given.into(), UnixStream::from_std(kept)?))
    };
    let (given, kept) = match pair() {
        Ok(pair) => pair,
        Err(error) => return Err(account.fail(failure::io(&error))),
    };
    let limits = limits.clone();
    let carrying = async move {
        match carry(kept, peer, &account, &limits).await {
            Ok(()) => account.end(),
            Err(fault) => drop(account.fail(fault)),
        }
    };
    Ok((given, carrying))
}

/// Carries both ways until both have ended, until the plugin is gone, or until it
/// takes too long.
async fn carry(
    plugin: UnixStream,
    peer: TcpStream,
    account: &Account,
    limits: &NetworkLimits,
) -> Result<(), Fault> {
    let moved = Activity::new(limits);
    let end = plugin.as_fd().try_clone_to_owned()?;
    let (from_plugin, to_plugin) = plugin.into_split();
    let (mut from_peer, to_peer) = peer.into_split();
    let sent = Notify::new();
    let up = async {
        match one_way(from_plugin, to_peer, Way::Up(account), &moved, limits.chunk).await {
            // It closed its end before it had read everything.
            Ok(()) | Err(Ended::Gone) => sent.notify_one(),
            Err(fault) => return Err(fault),
        }
        Ok(())
    };
    // It has not only finished, it is gone: nobody will read the answer.
    let left = async {
        sent.notified().await;
        while !is_closed(&end) {
            tokio::time::sleep(LOOK).await;
        }
        Err(Ended::Gone)
    };
    let down = async {
        let mut left = std::pin::pin!(left);
        let way = Way::Down(account);
        let ended = tokio::select! {
            ended = one_way(&mut from_peer, to_plugin, way, &moved, limits.chunk) => ended,
            gone = &mut left => {
                drop_what_is_there(&from_peer, account, limits.chunk).await;
                return gone;
            }
        };
        if matches!(ended, Err(Ended::Gone)) {
            // What the plugin wrote before may be on its way still. What comes for
            // it is read and dropped: a socket that is closed with something unread
            // is reset, and the other side loses what it has not received.
            let lingered = async {
                match is_closed(&end) {
                    true => tokio::time::sleep(LINGER).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = left => {}
                never = drop_all(&mut from_peer, account, limits.chunk) => match never {},
                () = lingered => {}
            }
            drop_what_is_there(&from_peer, account, limits.chunk).await;
        }
        ended
    };
    tokio::select! {
        both = async { tokio::try_join!(up, down) } => match both {
            Ok(_) | Err(Ended::Gone) => Ok(()),
            Err(Ended::Fault(fault)) => Err(fault),
        },
        fault = moved.over() => Err(fault),
    }
}

/// Which way bytes go, and who counts them.
enum Way<'a> {
    Up(&'a Account),
    Down(&'a Account),
}

/// Why carrying ends before both directions have.
enum Ended {
    /// The plugin has closed its end, or takes no more.
    Gone,
    Fault(Fault),
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Self::Fault(failure::io(&error))
    }
}

/// What an error of the plugin's end means.
fn of_plugin(error: std::io::Error) -> Ended {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ended::Gone,
        _ => error.into(),
    }
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way<'_>,
    moved: &Activity,
    chunk: usize,
) -> Result<(), Ended> {
    let (reading, writing): (fn(_) -> _, fn(_) -> _) = match way {
        Way::Up(_) => (of_plugin, Ended::from),
        Way::Down(_) => (Ended::from, of_plugin),
    };
    let mut buffer = vec![0; chunk.max(1)];
    loop {
        let read = from.read(&mut buffer).await.map_err(reading)?;
        moved.note();
        if read == 0 {
            to.shutdown().await.map_err(writing)?;
            return Ok(());
        }
        match way {
            Way::Up(account) => account.sent(read).await,
            Way::Down(account) => account.received(read).await,
        }
        let mut rest = buffer.get(..read).unwrap_or_default();
        while !rest.is_empty() {
            let written = to.write(rest).await.map_err(writing)?;
            moved.note();
            rest = rest.get(written..).unwrap_or_default();
        }
    }
}

/// Reads and drops what `peer` sends, until this is dropped.
async fn drop_all(peer: &mut OwnedReadHalf, account: &Account, chunk: usize) -> Infallible {
    let mut buffer = vec![0; chunk.max(1)];
    while let Ok(read @ 1..) = peer.read(&mut buffer).await {
        account.received(read).await;
    }
    std::future::pending().await
}

/// Reads and drops what `peer` has sent already.
async fn drop_what_is_there(peer: &OwnedReadHalf, account: &Account, chunk: usize) {
    let mut buffer = vec![0; chunk.max(1)];
    for _ in 0..DROPPED_CHUNKS {
        let Ok(read @ 1..) = rustix::io::read(peer.as_ref(), &mut buffer) else {
            return;
        };
        account.received(read).await;
    }
}

/// Whether the other end of a pair is closed, not only finished.
pub(crate) fn is_closed(end: impl AsFd) -> bool {
    let mut polled = [PollFd::new(&end, PollFlags::empty())];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut polled, Some(&at_once)).is_ok()
        && polled
            .iter()
            .any(|polled| polled.revents().contains(PollFlags::HUP))
}
