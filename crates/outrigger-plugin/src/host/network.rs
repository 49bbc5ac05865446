//! Connections to granted places.

use std::net::IpAddr;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use outrigger_wire::proto::host as messages;
use outrigger_wire::proto::host::descriptor_reply::Reply;
use outrigger_wire::proto::host::descriptor_request::Request;
use outrigger_wire::proto::host::http_stream_response;
use outrigger_wire::proto::host::open_udp_request::Part as Opening;
use tonic::Status;

use super::calls::call;
use super::{Host, HostError, HttpRequest, HttpResponse, Listener, TcpStream, UdpSocket};

/// Connections that the host makes for the plugin.
///
/// # Examples
/// ```no_run
/// # async fn example(host: outrigger_plugin::Host) -> Result<(), Box<dyn std::error::Error>> {
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let network = host.network();
/// let page = network.get("https://example.com/").await?;
/// println!("{} with {} bytes", page.status(), page.body().len());
///
/// let mut stream = network.connect("example.com", 7).await?;
/// stream.write_all(b"hello").await?;
/// stream.shutdown().await?;
/// let mut answer = String::new();
/// stream.read_to_string(&mut answer).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct NetworkAccess(pub(super) Host);

impl NetworkAccess {
    /// The addresses of a granted name that may be dialled.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn resolve(
        &self,
        host: impl Into<String>,
        port: u16,
    ) -> Result<Vec<IpAddr>, HostError> {
        let (host, port) = (host.into(), port.into());
        let found = call!(
            self.0,
            network.resolve,
            messages::ResolveRequest { host, port }
        )?;
        let addresses = found.addresses.iter().map(|text| text.parse());
        let addresses: Result<_, _> = addresses.collect();
        addresses.map_err(|_| HostError::protocol("network.resolve"))
    }

    /// Connects to a granted place.
    ///
    /// # Errors
    /// It is not granted, nobody answers there, or see [`HostError`].
    pub async fn connect(
        &self,
        host: impl Into<String>,
        port: u16,
    ) -> Result<TcpStream, HostError> {
        let target = messages::Target {
            host: host.into(),
            port: port.into(),
            timeout_ms: 0,
        };
        // The host reads along where a name was granted, to see that TLS asks for no
        // other one. So only a connection to an address may come as a socket.
        let by_address = target.host.parse::<IpAddr>().is_ok();
        if let Some(descriptors) = self.0.descriptors().filter(|_| by_address) {
            let operation = "network.connect";
            let asked = Request::Connect(target.clone());
            match descriptors.ask_for_one(operation, asked).await? {
                Some((Reply::Connected(connected), socket)) => {
                    let stream = TcpStream::by_socket(socket, &connected);
                    return stream.map_err(|error| HostError::system(operation, error));
                }
                Some(_) => return Err(HostError::protocol(operation)),
                None => {}
            }
        }
        TcpStream::by_call(&self.0, target).await
    }

    /// Listens on a granted port, at 127.0.0.1 unless another address of the
    /// host is named. Dropping the listener ends that.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn listen(&self, address: Option<IpAddr>, port: u16) -> Result<Listener, HostError> {
        Listener::open(&self.0, at(address, port)).await
    }

    /// A UDP socket that leads to one granted place: what is sent goes there, and
    /// nothing comes from elsewhere.
    ///
    /// # Errors
    /// It is not granted, or see [`HostError`]. Whether anybody is there is known
    /// no earlier than something was sent.
    pub async fn connect_udp(
        &self,
        host: impl Into<String>,
        port: u16,
    ) -> Result<UdpSocket, HostError> {
        let target = messages::Target {
            host: host.into(),
            port: port.into(),
            timeout_ms: 0,
        };
        UdpSocket::open(&self.0, Opening::Connect(target)).await
    }

    /// A UDP socket at a granted port, at 127.0.0.1 unless another address of the
    /// host is named. What comes from allowed origins arrives, and they can be
    /// answered.
    ///
    /// # Errors
    /// It is not granted, the port is taken, or see [`HostError`].
    pub async fn bind_udp(
        &self,
        address: Option<IpAddr>,
        port: u16,
    ) -> Result<UdpSocket, HostError> {
        UdpSocket::open(&self.0, Opening::Bind(at(address, port))).await
    }

    /// A `GET` of an `http://` or `https://` address. Redirects are followed as
    /// far as each of them is granted.
    ///
    /// # Errors
    /// See [`HostError`]. A status of 400 and more is no error.
    pub async fn get(&self, url: impl Into<String>) -> Result<HttpResponse, HostError> {
        self.request(HttpRequest::new("GET", url).follow_redirects(5))
            .await
    }

    /// Makes one HTTP request and collects the reply.
    ///
    /// # Errors
    /// See [`HostError`]. A status of 400 and more is no error.
    pub async fn request(&self, request: HttpRequest) -> Result<HttpResponse, HostError> {
        Ok(HttpResponse(call!(self.0, network.http, request.0)?))
    }

    /// Makes one HTTP request; the body of the reply comes as a stream.
    ///
    /// # Errors
    /// See [`HostError`]. A status of 400 and more is no error.
    pub async fn request_stream(
        &self,
        request: HttpRequest,
    ) -> Result<(HttpResponse, BoxStream<'static, Result<Bytes, HostError>>), HostError> {
        let operation = "network.http_stream";
        let lost = move |status: Status| HostError::status(operation, status);
        let mut reply = call!(self.0, network.http_stream, request.0)?;
        let first = reply.next().await.transpose().map_err(lost)?;
        let Some(http_stream_response::Part::Head(head)) = first.and_then(|r| r.part) else {
            return Err(HostError::protocol(operation));
        };
        let body = reply.map(move |part| match part.map_err(lost)?.part {
            Some(http_stream_response::Part::Data(data)) => Ok(data),
            Some(http_stream_response::Part::Head(_)) | None => Ok(Bytes::new()),
        });
        Ok((HttpResponse(head), body.boxed()))
    }
}

fn at(address: Option<IpAddr>, port: u16) -> messages::ListenRequest {
    messages::ListenRequest {
        port: port.into(),
        address: address
            .map(|address| address.to_string())
            .unwrap_or_default(),
    }
}
