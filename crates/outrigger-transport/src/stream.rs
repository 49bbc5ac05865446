//! Byte streams, and how to reach one by its address.

use std::io;

use outrigger_wire::{Address, Endpoint};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Any byte stream that carries a connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A byte stream: a socket, a yamux stream, TLS over either.
pub type Stream = Box<dyn Io>;

/// Connects to `address` once.
///
/// # Errors
/// The address does not resolve, or the system refuses the connection.
///
/// # Cancel safety
/// Dropping the future abandons the attempt.
pub async fn connect(address: &Address) -> io::Result<Stream> {
    let endpoint = address
        .resolve()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    match endpoint {
        Endpoint::UnixPath(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Endpoint::UnixAbstract(name) => Ok(Box::new(connect_abstract(&name).await?)),
        Endpoint::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
    }
}

#[cfg(target_os = "linux")]
async fn connect_abstract(name: &[u8]) -> io::Result<UnixStream> {
    use std::os::linux::net::SocketAddrExt;

    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    // Connecting to a local socket does not wait for the network.
    let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

#[cfg(not(target_os = "linux"))]
async fn connect_abstract(_name: &[u8]) -> io::Result<UnixStream> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "abstract unix sockets exist on Linux only",
    ))
}
