//! Connections to addresses that were judged.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Instant;

use super::failure;
use crate::fault::Fault;

/// How long one address is tried alone before the next is tried as well.
const HEAD_START: Duration = Duration::from_millis(250);
/// How many addresses of one name are tried.
const MOST_TRIED: usize = 8;

/// Makes connections. It is given addresses, never names.
pub trait Dialer: Debug + Send + Sync + 'static {
    /// A connection to exactly this address.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up.
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>>;

    /// A UDP socket that is connected to exactly this address. A dialer that does
    /// not say how makes none: what it was made to avoid must not be done here.
    ///
    /// # Errors
    /// `Unsupported` unless the dialer has one of its own.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up.
    fn dial_udp(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<UdpSocket>> {
        let _ = address;
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

/// TCP and UDP as the operating system makes them.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDialer;

impl Dialer for SystemDialer {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            // Two ends that happen to pick each other's port make a connection
            // without anyone listening: the plugin would talk to itself.
            if stream.local_addr()? == stream.peer_addr()? {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }

    fn dial_udp(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<UdpSocket>> {
        Box::pin(async move {
            let family = match address {
                SocketAddr::V4(_) => AddressFamily::INET,
                SocketAddr::V6(_) => AddressFamily::INET6,
            };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            // Its port becomes known no earlier than its peer.
            let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
            rustix::net::connect(&socket, &address)?;
            let socket = UdpSocket::from_std(socket.into())?;
            // As with TCP: the plugin would talk to itself.
            if socket.local_addr()? == address {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(socket)
        })
    }
}

/// A UDP socket that is connected to the first of `addresses` to which this
/// machine knows a way; nobody answers to that, so that no more can be said.
pub(crate) async fn first_udp(
    dialer: &dyn Dialer,
    addresses: &[SocketAddr],
) -> Result<(UdpSocket, SocketAddr), Fault> {
    let mut failure = Fault::System(rustix::io::Errno::ADDRNOTAVAIL);
    for address in interleaved(addresses).into_iter().take(MOST_TRIED) {
        if !is_single(address.ip()) {
            let text = format!("{address} is no address of a single machine");
            failure = Fault::refused(text);
            continue;
        }
        match dialer.dial_udp(address).await {
            Ok(socket) => return Ok((socket, address)),
            Err(error) => failure = failure::io(&error),
        }
    }
    Err(failure)
}

/// Whether an address is that of one machine: none of a group, of all, or of
/// nobody. Those are no peers of datagrams, whatever is granted.
pub(crate) fn is_single(address: IpAddr) -> bool {
    // One of IPv4 may be written as one of IPv6.
    let address = address.to_canonical();
    let everybody = IpAddr::from([255, 255, 255, 255]);
    !address.is_unspecified() && !address.is_multicast() && address != everybody
}

/// A connection to the first of `addresses` that answers: each gets a head
/// start, then the next is tried beside it.
pub(crate) async fn first(
    dialer: &dyn Dialer,
    addresses: &[SocketAddr],
) -> io::Result<(TcpStream, SocketAddr)> {
    let mut waiting = interleaved(addresses).into_iter().take(MOST_TRIED);
    let mut tried = FuturesUnordered::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut next_at = Instant::now();
    loop {
        tokio::select! {
            biased;
            Some((address, outcome)) = tried.next() => match outcome {
                Ok(stream) => return Ok((stream, address)),
                Err(error) => {
                    failure = error;
                    next_at = Instant::now();
                }
            },
            () = tokio::time::sleep_until(next_at) => {
                match waiting.next() {
                    Some(address) => {
                        tried.push(async move { (address, dialer.dial(address).await) });
                        next_at = Instant::now() + HEAD_START;
                    }
                    None if tried.is_empty() => return Err(failure),
                    None => next_at = Instant::now() + Duration::from_secs(60),
                }
            }
        }
    }
}

/// The two families in turns, so that one that leads nowhere costs one step.
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut one, mut other): (Vec<SocketAddr>, Vec<SocketAddr>) = addresses
        .iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut mixed = Vec::with_capacity(addresses.len());
    one.reverse();
    other.reverse();
    while !one.is_empty() || !other.is_empty() {
        mixed.extend(one.pop());
        mixed.extend(other.pop());
    }
    mixed
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug, Default)]
    struct Script {
        dialled: Mutex<Vec<SocketAddr>>,
        answering: Option<SocketAddr>,
        real: Option<SocketAddr>,
        hang: bool,
    }

    impl Dialer for Script {
        fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
            self.dialled.lock().unwrap().push(address);
            Box::pin(async move {
                if Some(address) == self.answering {
                    return TcpStream::connect(self.real.unwrap()).await;
                }
                if self.hang {
                    std::future::pending::<()>().await;
                }
                Err(io::ErrorKind::ConnectionRefused.into())
            })
        }
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let mixed = interleaved(&addresses(&[
            "[2600::1]:1",
            "[2600::2]:1",
            "[2600::3]:1",
            "8.8.8.8:1",
        ]));
        let expected = ["[2600::1]:1", "8.8.8.8:1", "[2600::2]:1", "[2600::3]:1"];
        assert_eq!(mixed, addresses(&expected));
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses_or_hangs() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let all = addresses(&["8.8.8.8:1", "8.8.4.4:1"]);
        for hang in [false, true] {
            let script = Script {
                answering: Some(all[1]),
                real: Some(server.local_addr().unwrap()),
                hang,
                ..Script::default()
            };
            let (_, address) = first(&script, &all).await.unwrap();
            assert_eq!(address, all[1]);
            assert_eq!(*script.dialled.lock().unwrap(), all);
        }
    }

    #[tokio::test]
    async fn the_last_failure_is_told_and_only_so_many_are_tried() {
        let all: Vec<SocketAddr> = (1..100).map(|port| ([8, 8, 8, 8], port).into()).collect();
        let script = Script::default();
        let error = first(&script, &all).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(script.dialled.lock().unwrap().len(), MOST_TRIED);
        let error = first(&script, &[]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
