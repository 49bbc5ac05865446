//! Where the numbers are shown: in a file, on a unix socket, or on this machine's own
//! addresses.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use outrigger_transport::{OwnedTask, Stream};
use outrigger_wire::{Coded, Excerpt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::{Metrics, MetricsFormat};

/// How often the file is written anew.
const WRITE_EVERY: Duration = Duration::from_secs(15);
/// How many readers there may be at the same time; others are turned away.
const READERS: usize = 16;
/// How long one of them may take, from its connection to the end of its reply.
const READING: Duration = Duration::from_secs(10);
/// The longest head of a request, in bytes.
const HEAD: usize = 8 << 10;
/// The most headers of a request.
const HEADERS: usize = 64;
/// How long nobody is accepted after that failed, as without a descriptor left.
const PAUSE: Duration = Duration::from_millis(100);
/// Where the numbers are.
const PATH: &str = "/metrics";

/// Where [`Metrics::serve`] shows the numbers.
///
/// # Examples
/// ```
/// use outrigger::ExpositionPlace;
///
/// let place = ExpositionPlace::Address("127.0.0.1:9464".parse()?);
/// assert_eq!(place.to_string(), "127.0.0.1:9464");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpositionPlace {
    /// A file that is replaced every 15 s, in Prometheus text, such as one that ends
    /// in `.prom` in the folder of node_exporter's collector `textfile`. Everybody
    /// may read it. It is removed at the end.
    File(PathBuf),
    /// A unix socket, for this user alone, that answers `GET /metrics`.
    Socket(PathBuf),
    /// A TCP address of this machine's own that answers `GET /metrics`; port 0 is a
    /// free one. Every user of the machine reaches it.
    Address(SocketAddr),
}

impl fmt::Display for ExpositionPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Socket(path) => Excerpt::from(path.as_path()).fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The numbers cannot be shown there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExpositionError {
    /// Code `metrics-not-loopback`.
    ///
    /// *Cause*: the address is one that other machines reach; there is neither TLS
    /// nor a password. *Resolution*: use a loopback address, and a proxy in front of
    /// it where others are to read.
    #[error("metrics are not shown at {0}: it is no loopback address")]
    NotLoopback(SocketAddr),
    /// Code `metrics-place-taken`.
    ///
    /// *Cause*: another process listens there, or the path is that of something else.
    /// *Resolution*: name another place.
    #[error("metrics cannot be shown at {place}, which is taken")]
    Taken {
        /// What was asked for.
        place: ExpositionPlace,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Code `metrics-place-unusable`.
    ///
    /// *Cause*: the folder does not exist, or this user may not write there.
    /// *Resolution*: see what the system says.
    #[error("metrics cannot be shown at {place}")]
    Unusable {
        /// What was asked for.
        place: ExpositionPlace,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ExpositionError {
    fn new(place: &ExpositionPlace, source: io::Error) -> Self {
        let place = place.clone();
        match source.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::AlreadyExists => {
                Self::Taken { place, source }
            }
            _ => Self::Unusable { place, source },
        }
    }
}

impl Coded for ExpositionError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotLoopback(_) => "metrics-not-loopback",
            Self::Taken { .. } => "metrics-place-taken",
            Self::Unusable { .. } => "metrics-place-unusable",
        }
    }

    fn hint(&self) -> Option<std::borrow::Cow<'static, str>> {
        match self {
            Self::NotLoopback(address) => Some(
                format!(
                    "use 127.0.0.1:{}, and a proxy with TLS in front of it where other machines are to read",
                    address.port()
                )
                .into(),
            ),
            Self::Taken { .. } | Self::Unusable { .. } => None,
        }
    }
}

/// Shows the numbers until it is dropped.
#[derive(Debug)]
pub struct Exposition {
    address: Option<SocketAddr>,
    _task: OwnedTask,
    _removed: Option<Removed>,
}

impl Exposition {
    /// Where it is reached over TCP.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

/// A path that goes with its owner.
#[derive(Debug)]
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Metrics {
    /// Shows the numbers at `place`, until what this returns is dropped.
    ///
    /// A socket and an address answer `GET /metrics` over HTTP/1.1 with Prometheus
    /// text, or with OpenMetrics text where that is accepted: 16 readers at the same
    /// time, each within 10 s.
    ///
    /// # Errors
    /// [`ExpositionError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Nothing is shown when the future is dropped.
    ///
    /// # Examples
    /// ```
    /// use outrigger::{ExpositionPlace, Metrics};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let metrics = Metrics::new();
    /// let any = ExpositionPlace::Address("127.0.0.1:0".parse()?);
    /// let shown = metrics.serve(any).await?;
    /// println!("http://{}/metrics", shown.address().expect("an address"));
    /// # Ok(()) }
    /// ```
    pub async fn serve(&self, place: ExpositionPlace) -> Result<Exposition, ExpositionError> {
        let metrics = self.clone();
        let failed = |source| ExpositionError::new(&place, source);
        match &place {
            ExpositionPlace::File(path) => {
                let file = NumbersFile::new(path.clone(), metrics);
                file.write().await.map_err(failed)?;
                Ok(Exposition {
                    address: None,
                    _removed: Some(Removed(path.clone())),
                    _task: OwnedTask::spawn(file.keep()),
                })
            }
            ExpositionPlace::Socket(path) => {
                let listener = private_socket(path).await.map_err(failed)?;
                Ok(Exposition {
                    address: None,
                    _removed: Some(Removed(path.clone())),
                    _task: OwnedTask::spawn(listen(Listener::Unix(listener), metrics)),
                })
            }
            ExpositionPlace::Address(address) => {
                if !address.ip().is_loopback() {
                    return Err(ExpositionError::NotLoopback(*address));
                }
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                Ok(Exposition {
                    address: Some(listener.local_addr().map_err(failed)?),
                    _removed: None,
                    _task: OwnedTask::spawn(listen(Listener::Tcp(listener), metrics)),
                })
            }
        }
    }
}

/// A file with the numbers.
struct NumbersFile {
    path: PathBuf,
    metrics: Metrics,
}

impl NumbersFile {
    fn new(path: PathBuf, metrics: Metrics) -> Self {
        Self { path, metrics }
    }

    /// Writes it anew again and again. Whoever reads it meanwhile finds a whole one.
    async fn keep(self) {
        let mut fails = false;
        loop {
            tokio::time::sleep(WRITE_EVERY).await;
            let written = self.write().await;
            if let Err(error) = &written
                && !fails
            {
                let path = Excerpt::from(self.path.as_path());
                tracing::warn!(%path, %error, "metrics could not be written");
            }
            fails = written.is_err();
        }
    }

    async fn write(&self) -> io::Result<()> {
        let (path, metrics) = (self.path.clone(), self.metrics.clone());
        let write = move || {
            let text = metrics.text(MetricsFormat::Prometheus);
            replace(&path, text.as_bytes())
        };
        let written = tokio::task::spawn_blocking(write).await;
        written.unwrap_or_else(|panic| Err(io::Error::other(panic)))
    }
}

/// Puts a new file in the place of the one at `path`.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    // Not a name that a collector takes for one of its files.
    beside.push(format!(".{}.new", std::process::id()));
    let beside = Removed(beside.into());
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&beside.0)?;
    io::Write::write_all(&mut file, content)?;
    std::fs::rename(&beside.0, path)
}

/// Listens at `path`, where a socket that nobody listens at any more is replaced.
async fn private_socket(path: &Path) -> io::Result<UnixListener> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket && UnixStream::connect(path).await.is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // Nothing here is secret: the moment in between is no matter.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

async fn listen(listener: Listener, metrics: Metrics) {
    let is_tcp = matches!(listener, Listener::Tcp(_));
    let mut readers = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = readers.join_next() => continue,
        };
        match accepted {
            Ok(_) if readers.len() >= READERS => {}
            Ok(stream) => {
                let answering = answer(stream, metrics.clone(), is_tcp);
                readers.spawn(tokio::time::timeout(READING, answering));
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a reader of metrics");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(stream: Stream, metrics: Metrics, is_tcp: bool) {
    let service = service_fn(|request: Request<_>| {
        let metrics = metrics.clone();
        async move { Ok::<_, Infallible>(reply(&request, metrics, is_tcp).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READING)
        .max_buf_size(HEAD)
        .max_headers(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a reader of metrics was not answered");
    }
}

async fn reply<B>(request: &Request<B>, metrics: Metrics, is_tcp: bool) -> Response<String> {
    let status = |status: StatusCode, text: &str| {
        let mut reply = Response::new(format!("{text}\n"));
        *reply.status_mut() = status;
        reply
    };
    if is_tcp && !is_own_name(request.headers()) {
        return status(
            StatusCode::FORBIDDEN,
            "this address is reached by its number or as localhost",
        );
    }
    if request.uri().path() != PATH {
        return status(StatusCode::NOT_FOUND, "the numbers are at /metrics");
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut reply = status(StatusCode::METHOD_NOT_ALLOWED, "GET is all there is");
        reply
            .headers_mut()
            .insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
        return reply;
    }
    let format = format_for(request.headers());
    // It looks at the processes of all plugins.
    let text = tokio::task::spawn_blocking(move || metrics.text(format)).await;
    let Ok(text) = text else {
        return status(StatusCode::INTERNAL_SERVER_ERROR, "the numbers got lost");
    };
    let mut reply = Response::new(text);
    let content_type = http::HeaderValue::from_static(format.content_type());
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

/// Whether a browser that asks here knows whom it asks, and is not led here by a name
/// of somebody else's.
fn is_own_name(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else {
        return true;
    };
    let host = host.to_str().unwrap_or_default();
    let Ok(authority) = host.parse::<http::uri::Authority>() else {
        return false;
    };
    let name = authority.host().trim_matches(['[', ']']);
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok()
}

fn format_for(headers: &HeaderMap) -> MetricsFormat {
    let accepted = headers.get_all(ACCEPT).iter();
    let mut accepted = accepted.filter_map(|value| value.to_str().ok());
    match accepted.any(|value| value.contains("application/openmetrics-text")) {
        true => MetricsFormat::OpenMetrics,
        false => MetricsFormat::Prometheus,
    }
}
