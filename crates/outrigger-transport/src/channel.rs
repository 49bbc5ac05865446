//! What the clients of an interface call over.

mod socket;
mod way;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;

use self::socket::Socket;
pub use self::socket::{ChannelOptions, MAX_MESSAGE};
pub use self::way::ResponseBody;
pub(crate) use self::way::{Calling, Failure, Life, Way};
use crate::connect_error::ConnectError;
use crate::fate::Fate;
use crate::stream::Stream;
use crate::trace::TraceContext;

/// What clients call over. Clones share it. Any client that tonic generates takes
/// it.
///
/// [`connect`](Self::connect) makes one of a connection. It never dials again: when
/// the connection is gone, every pending and later call fails at once, with the
/// reason as source where it is known.
///
/// [`Router::channel`](crate::Router::channel) gives one whose calls go where the
/// router says at that time: it outlives the connections behind it, and is over
/// when the router is.
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
pub struct Channel(Arc<dyn Way>);

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
        Ok(Self::over(Socket::connect(stream, options).await?))
    }

    /// A channel whose calls go over `way`.
    pub(crate) fn over(way: impl Way + 'static) -> Self {
        Self(Arc::new(way))
    }

    /// Makes a call, and says of one that failed whether it can be made again.
    pub(crate) fn carry(&self, request: Request<tonic::body::Body>) -> Calling {
        self.0.call(request)
    }

    /// Whether the connection is gone, or the router.
    pub fn is_closed(&self) -> bool {
        self.0.life().is_over()
    }

    /// Ends the connection or the routing, for all clones. Pending and later calls
    /// fail. The connections behind a router stay.
    pub fn close(&self) {
        self.0.close();
    }

    /// Waits until the connection is gone, or the router.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn closed(&self) {
        self.0.life().over().await;
    }

    /// Why the connection is gone, or the router, as far as this end of it knows.
    pub fn end(&self) -> Option<&str> {
        self.0.life().end()
    }

    /// Where this connection's end is explained. Nobody explains a router's.
    pub fn fate(&self) -> &Fate {
        self.0.life().fate()
    }
}

impl tower_service::Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // What is over is explained by the call, which can wait for the reason.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<tonic::body::Body>) -> ResponseFuture {
        TraceContext::pass_on(request.headers_mut());
        ResponseFuture(self.carry(request))
    }
}

/// A call that has not been answered yet; dropping it cancels the call.
pub struct ResponseFuture(Calling);

impl std::fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Status>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = self.0.as_mut().poll(context);
        reply.map_err(|failure| failure.status)
    }
}
