//! Connections to addresses that were judged.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::Instant;

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
}

/// TCP as the operating system makes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDialer;

impl Dialer for TcpDialer {
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
