//! The way over one HTTP/2 connection.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
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

use super::way::{Calling, Failure, Life, ResponseBody, Way};
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

/// The message limit of a go-plugin host in both directions, in bytes.
///
/// Generated clients decode up to 4 MiB unless told otherwise; a client for a
/// trusted plugin may raise that with `max_decoding_message_size(MAX_MESSAGE)`.
pub const MAX_MESSAGE: usize = 2_147_483_647;

/// How a [`Channel`](crate::Channel) presents itself and explains its end.
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

/// The calling end of one HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct Socket {
    send: SendRequest<Bytes>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    authority: Authority,
    life: Life,
    closing: CancellationToken,
    headers: Arc<Headers>,
    room: gzip::Room,
    _connection: OwnedTask,
}

impl Socket {
    /// As [`Channel::connect`](crate::Channel::connect).
    pub(crate) async fn connect(
        stream: Stream,
        options: ChannelOptions,
    ) -> Result<Self, ConnectError> {
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
        let life = Life::new(options.fate);
        let (over, ending) = (life.end_with(), life.clone());
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
            ending.explain_end(reason);
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
            life,
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
    async fn explain(self: Arc<Self>, error: h2::Error) -> Failure {
        if let Some(status) = status_of_reset(&error) {
            return status.into();
        }
        let mut status = Status::unavailable("the connection to the peer is gone");
        match self.life.fate().known(Fate::PATIENCE).await {
            Some(reason) => {
                status = Status::unavailable(reason.to_string());
                status.set_source(reason);
            }
            None => {
                status.set_source(Arc::new(error));
            }
        }
        Failure::lost(status)
    }

    async fn call(
        self: Arc<Self>,
        send: SendRequest<Bytes>,
        mut request: Request<tonic::body::Body>,
    ) -> Result<Response<Live>, Failure> {
        let mut send = match send.ready().await {
            Ok(send) => send,
            Err(error) => return Err(self.explain(error).await.unsent(request)),
        };
        gzip::prepare_request(&mut request);
        let (size, limit) = (request_size(&request), self.headers.peer_limit());
        if !fits(size, limit) {
            return Err(too_large("the call's metadata", size, limit).into());
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
            return Err(Status::resource_exhausted(error).into());
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
        Ok(Response::from_parts(head, body))
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

impl Way for Socket {
    fn call(&self, mut request: Request<tonic::body::Body>) -> Calling {
        match self.shared.address(request.uri()) {
            Ok(uri) => *request.uri_mut() = uri,
            Err(status) => return std::future::ready(Err(status.into())).boxed(),
        }
        let deadline = timeout_of(request.headers());
        let call = self.shared.clone().call(self.send.clone(), request);
        match deadline {
            None => async { Ok(call.await?.map(ResponseBody::new)) }.boxed(),
            Some(after) => with_deadline(call, after).boxed(),
        }
    }

    fn life(&self) -> &Life {
        &self.shared.life
    }

    fn close(&self) {
        self.shared.closing.cancel();
    }
}

/// A deadline holds for the whole call: its reply and the body of that.
async fn with_deadline(
    call: impl Future<Output = Result<Response<Live>, Failure>>,
    after: Duration,
) -> Result<Response<ResponseBody>, Failure> {
    let mut deadline = Box::pin(tokio::time::sleep(after));
    let mut reply = tokio::select! {
        biased;
        reply = call => reply?,
        () = &mut deadline => return Err(expired().into()),
    };
    reply.body_mut().deadline = Some(deadline);
    Ok(reply.map(ResponseBody::new))
}

fn expired() -> Status {
    Status::deadline_exceeded("the call's deadline passed")
}

/// The body of a reply on its way.
struct Live {
    incoming: IncomingBody,
    shared: Arc<Shared>,
    deadline: Option<Pin<Box<Sleep>>>,
    failing: Option<BoxFuture<'static, Status>>,
    _kept: CountedHeaders,
    /// What is still sent of the request; the call ends with it.
    _sending: Option<OwnedTask>,
}

impl Body for Live {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Some(Err(expired())));
        }
        if this.failing.is_none() {
            match Pin::new(&mut this.incoming).poll_frame(context) {
                Poll::Ready(Some(Err(error))) => match error.downcast() {
                    Ok(error) => {
                        let explained = this.shared.clone().explain(*error);
                        this.failing = Some(explained.map(|failure| failure.status).boxed());
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
        match &mut this.failing {
            Some(failing) => failing
                .as_mut()
                .poll(context)
                .map(|status| Some(Err(status))),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failing.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
