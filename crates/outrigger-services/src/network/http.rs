//! One HTTP/1.1 request over a connection that was judged. The plugin chooses
//! method, path, end-to-end header fields and body; everything that concerns the
//! connection is the host's.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use outrigger_manifest::Host;
use outrigger_wire::Excerpt;
use outrigger_wire::proto::host as proto;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_rustls::client::TlsStream;

use super::egress::{Allowance, Egress};
use super::failure;
use super::settings::NetworkLimits;
use super::url::{Scheme, Url};
use crate::fault::Fault;
use crate::running::Running;

/// Longest name of a method, in bytes.
const MAX_METHOD: usize = 32;
/// What hyper needs at least to read a reply's head.
const MIN_HEAD: usize = 8 << 10;
/// The code of a reply that is too large.
const CODE: &str = "reply-too-large";

/// Fields that belong to one connection, not to the message.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields that follow a redirect to another origin: they say what is wanted, and
/// nothing of who wants it. Any other may be a credential, by whatever name.
const FOR_EVERY_ORIGIN: &[HeaderName] = &[
    header::ACCEPT,
    header::ACCEPT_CHARSET,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::CACHE_CONTROL,
    header::DNT,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::PRAGMA,
    header::RANGE,
    header::USER_AGENT,
];

/// A request that was checked, without where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) method: Method,
    pub(crate) url: Url,
    headers: HeaderMap,
    body: Bytes,
    /// A `Host` field of the plugin's; must agree with where it goes.
    host_field: Option<HeaderValue>,
}

/// The head of a reply, and the rest as it comes.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<proto::Header>,
    pub(crate) body: ReplyBody,
    /// Where a redirect leads, as the server wrote it.
    pub(crate) location: Option<HeaderValue>,
}

/// The body of a reply; dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    incoming: Incoming,
    driver: Driver,
}

impl Prepared {
    /// Checks what a plugin wants to send.
    pub(crate) fn new(request: proto::HttpRequest, limits: &NetworkLimits) -> Result<Self, Fault> {
        let invalid = |text: Cow<'static, str>| Fault::abuse(text);
        let method = match request.method.as_str() {
            "" => Method::GET,
            text if text.eq_ignore_ascii_case("connect") => {
                return Err(Fault::Unsupported(
                    "the method CONNECT is not supported here: `Connect` opens byte streams",
                ));
            }
            text if text.len() > MAX_METHOD => {
                return Err(invalid("the method's name is too long".into()));
            }
            text => Method::from_bytes(text.as_bytes())
                .map_err(|_| invalid(format!("{} is no method", Excerpt::from(text)).into()))?,
        };
        let url = Url::parse(&request.url).map_err(Fault::abuse)?;
        let (headers, host_field) = fields(&request.headers, request.body.len(), limits)?;
        Ok(Self {
            method,
            url,
            headers,
            body: request.body,
            host_field,
        })
    }

    /// The request that a redirect asks for, or nothing where it asks for none, or
    /// for one that only the plugin itself can want: a body, and fields that may be
    /// meant for one server only, go to no other one.
    pub(crate) fn redirected(&self, reply: &Reply) -> Result<Option<Self>, Fault> {
        let Some(location) = &reply.location else {
            return Ok(None);
        };
        let code = reply.status.as_u16();
        if !matches!(code, 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let url = self
            .url
            .join(location.as_bytes())
            .map_err(|why| failure::peer(format!("the redirect cannot be followed: {why}")))?;
        let mut next = Self {
            url,
            host_field: None,
            ..self.clone()
        };
        let becomes_get = match code {
            303 => self.method != Method::HEAD,
            301 | 302 => self.method == Method::POST,
            _ => false,
        };
        if becomes_get {
            next.method = Method::GET;
            next.body = Bytes::new();
            let of_body = |name: &HeaderName| name.as_str().starts_with("content-");
            remove(&mut next.headers, of_body);
        }
        if next.url.origin() != self.url.origin() {
            if !next.body.is_empty() {
                return Ok(None);
            }
            let for_one = |name: &HeaderName| !FOR_EVERY_ORIGIN.contains(name);
            remove(&mut next.headers, for_one);
        }
        Ok(Some(next))
    }

    /// Bytes of the body.
    pub(crate) fn body_len(&self) -> usize {
        self.body.len()
    }

    /// Sends the request where it goes, if the grants cover that, and waits for
    /// the head of the reply. The record of `running` says where it went.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(crate) async fn send(
        &self,
        egress: &Egress,
        allowed: Allowance,
        running: &Running,
    ) -> Result<Reply, Fault> {
        let url = &self.url;
        if url.bracketed && !url.host.contains(':') {
            return Err(Fault::abuse("the URL's brackets hold no IPv6 address"));
        }
        let (host, port, progress) = (&url.host, url.port.into(), running.progress());
        let dialled = egress.connect(host, port, allowed, progress);
        let dialled = dialled.await?;
        running.wrote(self.body_len() as u64);
        // What is asked for is what was matched, in the form that was matched.
        let matched = Url {
            bracketed: matches!(dialled.host, Host::Address(address) if address.is_ipv6()),
            host: dialled.host.to_string(),
            ..url.clone()
        };
        let request = self.request(&matched)?;
        let exchange = async {
            let connection = match url.scheme {
                Scheme::Http => Connection::Plain(dialled.stream),
                Scheme::Https => {
                    let name = server_name(&dialled.host)?;
                    let stream = egress.tls().connect(name, dialled.stream).await?;
                    Connection::Tls(Box::new(stream))
                }
            };
            exchange(connection, request, egress.limits()).await
        };
        allowed.within(exchange).await
    }

    fn request(&self, url: &Url) -> Result<Request<Full<Bytes>>, Fault> {
        let authority = url.authority();
        if let Some(field) = &self.host_field {
            let with_port = format!("{}:{}", authority, url.port);
            let same = [authority.as_bytes(), with_port.as_bytes()]
                .iter()
                .any(|text| field.as_bytes().eq_ignore_ascii_case(text));
            if !same {
                return Err(Fault::abuse(format!(
                    "the field `host` must be {authority}, as in the URL"
                )));
            }
        }
        let broken = |_| failure::broken("a checked request cannot be written");
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        // Only the path: the server is the one that was dialled.
        *request.uri_mut() = http::Uri::from(url.path.clone());
        let headers = request.headers_mut();
        *headers = self.headers.clone();
        let host = HeaderValue::from_str(&authority).map_err(broken)?;
        headers.insert(header::HOST, host);
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let usual = [Method::POST, Method::PUT, Method::PATCH].contains(&self.method);
        if usual || !self.body.is_empty() {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        Ok(request)
    }
}

impl ReplyBody {
    /// How many bytes there will be at least, as far as the server said.
    pub(crate) fn at_least(&self) -> u64 {
        self.incoming.size_hint().lower()
    }

    /// What closes the connection.
    pub(crate) fn cut(&self) -> AbortHandle {
        self.driver.0.abort_handle()
    }

    /// The next bytes of the body, or nothing at its end.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        while let Some(frame) = self.incoming.frame().await {
            match frame {
                Ok(frame) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    // Trailers belong to the connection; nothing is an empty part.
                    Ok(_) | Err(_) => {}
                },
                Err(error) => return Err(hyper_failure(&error)),
            }
        }
        Ok(None)
    }

    /// The whole body, of at most `limit` bytes.
    pub(crate) async fn whole(&mut self, limit: usize) -> Result<Bytes, Fault> {
        let too_large = || {
            Fault::exhausted(
                CODE,
                format!(
                    "the reply is larger than {limit} bytes (`message`); `HttpStream` takes any size"
                ),
            )
        };
        if self.at_least() > limit as u64 {
            return Err(too_large());
        }
        let mut whole = BytesMut::new();
        while let Some(data) = self.next().await? {
            if whole.len() + data.len() > limit {
                return Err(too_large());
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }
}

fn remove(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| unwanted(name))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

fn fields(
    fields: &[proto::Header],
    body: usize,
    limits: &NetworkLimits,
) -> Result<(HeaderMap, Option<HeaderValue>), Fault> {
    let bytes: usize = fields
        .iter()
        .map(|field| field.name.len() + field.value.len())
        .sum();
    if fields.len() > limits.headers || bytes > limits.header_bytes {
        return Err(Fault::abuse(format!(
            "more than {} header fields (`headers`) or {} bytes of them (`header_bytes`)",
            limits.headers, limits.header_bytes
        )));
    }
    let mut headers = HeaderMap::new();
    let mut host = None;
    for field in fields {
        let quoted = Excerpt::from(&*field.name);
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| Fault::abuse(format!("{quoted} is no name of a header field")))?;
        let value = HeaderValue::from_bytes(&field.value).map_err(|_| {
            let text = "has a line break or another control character";
            Fault::abuse(format!("the header field {quoted} {text}"))
        })?;
        if name == header::UPGRADE {
            return Err(Fault::Unsupported(
                "upgrading an HTTP connection is not supported: `Connect` opens byte streams",
            ));
        } else if name == header::HOST {
            if host.replace(value).is_some() {
                return Err(Fault::abuse("the field `host` is given twice"));
            }
        } else if name == header::CONTENT_LENGTH {
            if value.as_bytes() != body.to_string().as_bytes() {
                return Err(Fault::abuse(
                    "the field `content-length` is not the body's length",
                ));
            }
        } else if name == header::EXPECT || HOP_BY_HOP.contains(&name.as_str()) {
            return Err(Fault::abuse(format!(
                "the header field {quoted} is the host's to set"
            )));
        } else {
            headers.append(name, value);
        }
    }
    Ok((headers, host))
}

/// The name that the server's certificate must be for.
fn server_name(host: &Host) -> Result<ServerName<'static>, Fault> {
    match host {
        Host::Address(address) => Ok(ServerName::IpAddress((*address).into())),
        Host::Name(name) => ServerName::try_from(name.as_str().to_owned())
            .map_err(|_| Fault::abuse("no certificate can be for a name with this form")),
    }
}

async fn exchange(
    connection: Connection,
    request: Request<Full<Bytes>>,
    limits: &NetworkLimits,
) -> Result<Reply, Fault> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(limits.headers)
        .max_buf_size(limits.header_bytes.max(MIN_HEAD))
        // Old servers write a long field on several lines, which are one value.
        .allow_obsolete_multiline_headers_in_responses(true)
        .handshake(TokioIo::new(connection))
        .await
        .map_err(|error| hyper_failure(&error))?;
    let driver = Driver(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection for HTTP ended early");
        }
    }));
    let reply = sender
        .send_request(request)
        .await
        .map_err(|error| hyper_failure(&error))?;
    let (head, incoming) = reply.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(failure::peer("the server switched protocols unasked"));
    }
    let location = head.headers.get(header::LOCATION).cloned();
    let headers = head
        .headers
        .iter()
        .filter(|(name, _)| !HOP_BY_HOP.contains(&name.as_str()))
        .map(|(name, value)| proto::Header {
            name: name.as_str().to_owned(),
            value: Bytes::copy_from_slice(value.as_bytes()),
        })
        .collect();
    Ok(Reply {
        status: head.status,
        headers,
        body: ReplyBody { incoming, driver },
        location,
    })
}

fn hyper_failure(error: &hyper::Error) -> Fault {
    if error.is_parse() {
        // Also for a head that is too large (`headers`, `header_bytes`).
        return failure::peer(format!("the reply's head cannot be read: {error}"));
    }
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        // Those without a number are hyper's or rustls's own: the peer's doing.
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && io.raw_os_error().is_some()
        {
            return failure::io(io);
        }
        source = inner.source();
    }
    failure::peer(format!("the reply is not HTTP, or incomplete: {error}"))
}

/// The task that moves a connection; gone with its reply.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection with or without TLS.
enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, data),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
