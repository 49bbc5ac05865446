//! The calling end of one HTTP/2 connection.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use h2::client::SendRequest;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::body::{IncomingBody, Outgoing};
use crate::connect_error::ConnectError;
use crate::fate::Fate;
use crate::first_frame::FirstFrame;
use crate::gzip;
use crate::headers::{
    CountedHeaders, HeaderReader, Headers, MAX_HEADER_LIST, fits, request_size, too_large,
};
use crate::http2::{
    MAX_FRAME, SEND_BUFFER, SMALL_FRAMES, STREAM_WINDOW, UNREAD_STREAMS, connection_window,
    timeout_of,
};
use crate::stream::Stream;
use crate::task::OwnedTask;
use crate::trace::TraceContext;

/// The message limit of a go-plugin host in both directions, in bytes.
///
/// Generated clients decode up to 4 MiB unless told otherwise; a client for a
/// trusted plugin may raise that with `max_decoding_message_size(MAX_MESSAGE)`.
pub const MAX_MESSAGE: usize = 2_147_483_647;

/// How a [`Channel`] presents itself and explains its end.
#[derive(Clone, Debug)]
pub struct ChannelOptions {
    /// The `:authority` of each request; go-plugin peers ignore it.
    pub authority: Authority,
    /// Where to learn why the peer is gone.
    pub fate: Fate,
    /// How long connecting may take, from the preface to the peer's settings.
    pub connect_timeout: Duration,
    /// Whether connecting waits for the peer's first frame. A brokered peer may
    /// begin to serve only after the call that carried its id was answered.
    pub await_peer: bool,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            authority: Authority::from_static("localhost"),
            fate: Fate::new(),
            connect_timeout: Duration::from_secs(20),
            await_peer: true,
        }
    }
}

/// The calling end of one HTTP/2 connection. Clones share it.
///
/// It never dials again: when the connection is gone, every pending and later
/// call fails at once, with the reason as source where it is known. Any client
/// that tonic generates takes it.
///
/// # Examples
/// ```
/// use outrigger_transport::{Channel, ChannelOptions, Stream};
/// # async fn example(stream: Stream) -> Result<(), Box<dyn std::error::Error>> {
/// let channel = Channel::connect(stream, ChannelOptions::default()).await?;
/// assert!(!channel.is_closed());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Channel {
    send: SendRequest<Bytes>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    authority: Authority,
    fate: Fate,
    gone: CancellationToken,
    /// Why it is gone, once it is.
    end: Arc<OnceLock<String>>,
    closing: CancellationToken,
    headers: Arc<Headers>,
    room: gzip::Room,
    _connection: OwnedTask,
}

impl Channel {
    /// Starts HTTP/2 on `stream` and, if asked to, waits for the peer's first
    /// frame, which a server sends as soon as it accepts: so a peer that is
    /// silent, speaks something else or closes is an error here and not of the
    /// first call.
    ///
    /// # Errors
    /// See [`ConnectError`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the stream.
    pub async fn connect(stream: Stream, options: ChannelOptions) -> Result<Self, ConnectError> {
        let deadline = Instant::now() + options.connect_timeout;
        let late = |_| ConnectError::TimedOut(options.connect_timeout);
        let (stream, first) = FirstFrame::watch(stream);
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(connection_window(UNREAD_STREAMS))
            .data_frame_budget(SMALL_FRAMES)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_send_buffer_size(SEND_BUFFER)
            // What a peer does wrong in a reply costs the call that we made, and no more.
            .max_local_error_reset_streams(None)
            .enable_push(false);
        let headers = Headers::of_client();
        let stream = HeaderReader::of_client(stream, headers.clone());
        let (send, connection) = tokio::time::timeout_at(deadline, builder.handshake(stream))
            .await
            .map_err(late)?
            .map_err(not_started)?;
        let gone = CancellationToken::new();
        let end = Arc::new(OnceLock::new());
        let (over, why) = (gone.clone().drop_guard(), end.clone());
        let closing = CancellationToken::new();
        let closed = closing.clone();
        let connection = OwnedTask::spawn(async move {
            let reason = tokio::select! {
                ended = connection => match ended {
                    Ok(()) => "the peer closed it".to_owned(),
                    Err(error) => {
                        tracing::debug!(error = &error as &dyn StdError, "connection ended");
                        error.to_string()
                    }
                },
                () = closed.cancelled() => "this side closed it".to_owned(),
            };
            let _ = why.set(reason);
            drop(over);
        });
        if options.await_peer {
            let first = tokio::time::timeout_at(deadline, first)
                .await
                .map_err(late)?;
            first.unwrap_or(Err(ConnectError::ClosedAtOnce))?;
        }
        let shared = Shared {
            authority: options.authority,
            fate: options.fate,
            gone,
            end,
            closing,
            headers,
            room: gzip::Room::new(),
            _connection: connection,
        };
        Ok(Self {
            send,
            shared: Arc::new(shared),
        })
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.gone.is_cancelled()
    }

    /// Ends the connection, for all clones. Pending and later calls fail.
    pub fn close(&self) {
        self.shared.closing.cancel();
    }

    /// Waits until the connection is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn closed(&self) {
        self.shared.gone.cancelled().await;
    }

    /// Why the connection is gone, as far as this end of it knows.
    pub fn end(&self) -> Option<&str> {
        self.shared.end.get().map(String::as_str)
    }

    /// Where this connection's end is explained.
    pub fn fate(&self) -> &Fate {
        &self.shared.fate
    }
}

/// Why HTTP/2 could not even be begun.
fn not_started(error: h2::Error) -> ConnectError {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match error.get_io().map(std::io::Error::kind) {
        Some(BrokenPipe | ConnectionReset | UnexpectedEof) => ConnectError::ClosedAtOnce,
        _ => ConnectError::Http2(error.into()),
    }
}

impl Shared {
    fn address(&self, uri: &Uri) -> Result<Uri, Status> {
        let path = uri
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|error| Status::internal(error.to_string()))
    }

    /// What a caller is told when the connection fails under its call.
    async fn explain(self: Arc<Self>, error: h2::Error) -> Status {
        if let Some(status) = status_of_reset(&error) {
            return status;
        }
        let mut status = Status::unavailable("the connection to the peer is gone");
        match self.fate.known(Fate::PATIENCE).await {
            Some(reason) => {
                status = Status::unavailable(reason.to_string());
                status.set_source(reason);
            }
            None => {
                status.set_source(Arc::new(error));
            }
        }
        status
    }

    async fn call(
        self: Arc<Self>,
        send: SendRequest<Bytes>,
        mut request: Request<tonic::body::Body>,
    ) -> Result<Response<ResponseBody>, Status> {
        gzip::prepare_request(&mut request);
        let mut send = match send.ready().await {
            Ok(send) => send,
            Err(error) => return Err(self.explain(error).await),
        };
        let (size, limit) = (request_size(&request), self.headers.peer_limit());
        if !fits(size, limit) {
            return Err(too_large("the call's metadata", size, limit));
        }
        let (parts, body) = request.into_parts();
        let outgoing = Outgoing::look(body).await?;
        let head = Request::from_parts(parts, ());
        let sent = send.send_request(head, outgoing.is_empty());
        let (reply, stream) = match sent {
            Ok(sent) => sent,
            Err(error) => return Err(self.explain(error).await),
        };
        let kept = self.headers.call(reply.stream_id().as_u32());
        let sending = outgoing.send(stream);
        let reply = match reply.await {
            Ok(reply) => reply,
            Err(error) => return Err(self.explain(error).await),
        };
        if !reply.body().is_end_stream() && kept.is_too_much() {
            let error = "the reply's metadata finds no room beside that of other calls";
            return Err(Status::resource_exhausted(error));
        }
        let (mut head, incoming) = reply.into_parts();
        let incoming = IncomingBody::new(incoming, &mut head.headers, &self.room);
        let body = Live {
            incoming,
            shared: self,
            deadline: None,
            failing: None,
            _kept: kept,
            _sending: sending,
        };
        Ok(Response::from_parts(head, ResponseBody(Some(body))))
    }
}

/// A reset of one stream says something about the call, not the connection.
fn status_of_reset(error: &h2::Error) -> Option<Status> {
    if !error.is_reset() {
        return None;
    }
    if error.is_library() {
        let limit = MAX_HEADER_LIST >> 20;
        return Some(Status::internal(format!(
            "the peer's reply breaks HTTP/2, or its metadata is more than {limit} MiB: {error}"
        )));
    }
    Some(match error.reason()? {
        h2::Reason::CANCEL => Status::cancelled("the peer cancelled the call"),
        h2::Reason::REFUSED_STREAM => Status::unavailable("the peer refused the call"),
        h2::Reason::ENHANCE_YOUR_CALM => {
            Status::resource_exhausted("the peer asks for fewer calls")
        }
        h2::Reason::INADEQUATE_SECURITY => {
            Status::permission_denied("the peer asks for more security")
        }
        other => Status::internal(format!("the peer reset the call: {other}")),
    })
}

impl tower_service::Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // A closed connection is explained by the call, which can wait for the reason.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<tonic::body::Body>) -> Self::Future {
        match self.shared.address(request.uri()) {
            Ok(uri) => *request.uri_mut() = uri,
            Err(status) => return std::future::ready(Err(status)).boxed(),
        }
        TraceContext::pass_on(request.headers_mut());
        let deadline = timeout_of(request.headers());
        let call = self.shared.clone().call(self.send.clone(), request);
        match deadline {
            None => call.boxed(),
            Some(after) => with_deadline(call, after).boxed(),
        }
    }
}

/// A deadline holds for the whole call: its reply and the body of that.
async fn with_deadline(
    call: impl Future<Output = Result<Response<ResponseBody>, Status>>,
    after: Duration,
) -> Result<Response<ResponseBody>, Status> {
    let mut deadline = Box::pin(tokio::time::sleep(after));
    let mut reply = tokio::select! {
        biased;
        reply = call => reply?,
        () = &mut deadline => return Err(expired()),
    };
    if let Some(live) = &mut reply.body_mut().0 {
        live.deadline = Some(deadline);
    }
    Ok(reply)
}

fn expired() -> Status {
    Status::deadline_exceeded("the call's deadline passed")
}

/// The body of a reply. It keeps its connection open. The default one is empty.
#[derive(Default)]
pub struct ResponseBody(Option<Live>);

struct Live {
    incoming: IncomingBody,
    shared: Arc<Shared>,
    deadline: Option<Pin<Box<Sleep>>>,
    failing: Option<BoxFuture<'static, Status>>,
    _kept: CountedHeaders,
    /// What is still sent of the request; the call ends with it.
    _sending: Option<OwnedTask>,
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

impl Live {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Some(Err(expired())));
        }
        if self.failing.is_none() {
            match Pin::new(&mut self.incoming).poll_frame(context) {
                Poll::Ready(Some(Err(error))) => match error.downcast() {
                    Ok(error) => {
                        self.failing = Some(Box::pin(self.shared.clone().explain(*error)));
                    }
                    Err(error) => {
                        return Poll::Ready(Some(Err(Status::from_error(error))));
                    }
                },
                Poll::Ready(Some(Ok(frame))) => return Poll::Ready(Some(Ok(frame))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
        match &mut self.failing {
            Some(failing) => failing
                .as_mut()
                .poll(context)
                .map(|status| Some(Err(status))),
            None => Poll::Pending,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut self.0 {
            Some(live) => live.poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Some(live) => live.failing.is_none() && live.incoming.is_end_stream(),
            None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Some(live) => live.incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}
