//! Names to addresses, by the host's own resolver, with bounds on threads, time
//! and answers.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock};

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

/// Threads of this process that may wait for the system's resolver.
static THREADS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(16)));

/// Turns a name that a grant covers into addresses.
///
/// It is asked only for names that were matched first; what it answers is judged
/// afterwards, so it needs no rules of its own.
pub trait Resolver: Debug + Send + Sync + 'static {
    /// The addresses of `name`, which is in its canonical form: ASCII, lower
    /// case, without a dot at its end, and no address itself.
    ///
    /// # Cancel safety
    /// The future is dropped when it takes too long; the answer is then lost.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The resolver of the operating system (`getaddrinfo`), with its hosts file and
/// its search list.
///
/// A query cannot be given up while the system works on it, so each holds one of
/// a bounded number of threads until the system lets go; who finds none free
/// waits, within its own time.
#[derive(Clone, Debug)]
pub struct SystemResolver {
    threads: Arc<Semaphore>,
}

impl SystemResolver {
    /// A resolver that uses at most so many threads, apart from all others.
    pub fn with_threads(threads: usize) -> Self {
        Self {
            threads: Arc::new(Semaphore::new(threads.clamp(1, Semaphore::MAX_PERMITS))),
        }
    }
}

impl Default for SystemResolver {
    /// With at most 16 threads, which all such resolvers of a process share.
    fn default() -> Self {
        Self {
            threads: THREADS.clone(),
        }
    }
}

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let thread = self.threads.clone().acquire_owned().await;
            let thread = thread.map_err(io::Error::other)?;
            let name = name.to_owned();
            let lookup = tokio::task::spawn_blocking(move || {
                let _thread = thread;
                // The port is of no interest; no service name is looked up for it.
                let found = (name.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|address| address.ip()).collect())
            });
            lookup
                .await
                .unwrap_or_else(|_| Err(io::Error::other("the resolver failed")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_knows_localhost() {
        let found = SystemResolver::with_threads(1)
            .resolve("localhost")
            .await
            .unwrap();
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
        assert!(!found.is_empty());
    }
}
