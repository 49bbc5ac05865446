//! A unix socket of this process for its own user and root.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at a time, over all sockets of a run.
pub(crate) const MOST_CONNECTIONS: usize = 128;
/// How long a listener rests when the system refuses it a connection.
const REST: Duration = Duration::from_millis(100);

/// A socket that takes connections of this user and of root; removed when dropped.
#[derive(Debug)]
pub(crate) struct PrivateSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl PrivateSocket {
    /// Listens at `path`, at which nothing is.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn bind(path: &Path) -> std::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // The file gets the mode of the socket: at no moment can others connect.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, 128)?;
        Ok(Self {
            listener: UnixListener::from_std(socket.into())?,
            path: path.to_owned(),
        })
    }

    /// Hands each connection to `serve` until `stop` fires, then waits for those
    /// that are being served. `places` bounds how many there are.
    ///
    /// # Cancel safety
    /// Dropping the future drops what is being served.
    pub(crate) async fn serve<F>(
        self,
        places: Arc<Semaphore>,
        stop: CancellationToken,
        serve: impl Fn(UnixStream) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            while connections.try_join_next().is_some() {}
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the control socket was not taken");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            match user_of(&stream) {
                Some(user) if is_trusted(user) => {}
                user => {
                    tracing::warn!(user, "another user was refused at the control socket");
                    continue;
                }
            }
            let Ok(place) = places.clone().try_acquire_owned() else {
                tracing::warn!(
                    limit = MOST_CONNECTIONS,
                    "there are too many connections to the control socket"
                );
                continue;
            };
            let serving = serve(stream);
            connections.spawn(async move {
                serving.await;
                drop(place);
            });
        }
        while connections.join_next().await.is_some() {}
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The user at the other end, as the kernel knows it.
pub(crate) fn user_of(stream: &UnixStream) -> Option<u32> {
    stream.peer_cred().ok().map(|peer| peer.uid())
}

/// Whether a user may do what this process may.
pub(crate) fn is_trusted(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt as _;

    use super::*;

    #[tokio::test]
    async fn only_the_user_may_connect_and_nothing_is_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let socket = PrivateSocket::bind(&path).expect("bound");
        let found = std::fs::metadata(&path).expect("it is there");
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
        assert!(PrivateSocket::bind(&path).is_err(), "it is taken");
        drop(socket);
        assert!(!path.exists());
    }
}
