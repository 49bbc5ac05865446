//! Message bodies on HTTP/2 streams, both directions.
//!
//! A body that is ready at once is queued together with its head and its
//! trailers, so that a small call is one write to the socket and wakes the peer
//! once. A longer one waits for the peer's windows.

use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::gzip::{self, Room, Unpacking};
use crate::headers::{fit_head, fit_trailers};
use crate::task::OwnedTask;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Data that is queued without asking whether the peer has room, in bytes; once a stream.
const AT_ONCE: usize = 64 << 10;

/// The body of a request or a reply as it arrives. Messages that are compressed
/// with gzip come out of it plain.
#[derive(Debug)]
pub struct IncomingBody {
    stream: RecvStream,
    unpacking: Option<Unpacking>,
    data_done: bool,
}

impl IncomingBody {
    /// The body that belongs to `headers`.
    pub(crate) fn new(stream: RecvStream, headers: &mut HeaderMap, room: &Room) -> Self {
        Self {
            stream,
            unpacking: gzip::unpacking(headers, room),
            data_done: false,
        }
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        loop {
            if let Some(unpacking) = &mut self.unpacking
                && let Some(data) = unpacking.next()?
            {
                return Poll::Ready(Some(Ok(data)));
            }
            if self.data_done {
                return Poll::Ready(None);
            }
            match ready!(self.stream.poll_data(context)) {
                Some(Ok(data)) => {
                    self.stream.flow_control().release_capacity(data.len())?;
                    match &mut self.unpacking {
                        Some(unpacking) => unpacking.arrived(&data),
                        None => return Poll::Ready(Some(Ok(data))),
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => {
                    self.data_done = true;
                    if let Some(unpacking) = &mut self.unpacking
                        && let Some(rest) = unpacking.end()?
                    {
                        return Poll::Ready(Some(Ok(rest)));
                    }
                }
            }
        }
    }
}

/// Whether the peer has answered and does not want the rest.
fn is_enough(error: &BoxError) -> bool {
    let error = error.downcast_ref::<h2::Error>();
    error.and_then(h2::Error::reason) == Some(Reason::NO_ERROR)
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match ready!(self.poll_data(context)) {
            Some(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Err(error)) if is_enough(&error) => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => {}
        }
        let trailers = ready!(self.stream.poll_trailers(context));
        Poll::Ready(trailers.transpose().map(|trailers| {
            let trailers = trailers.map(Frame::trailers);
            trailers.map_err(BoxError::from)
        }))
    }

    fn is_end_stream(&self) -> bool {
        let unpacked = self.unpacking.as_ref().is_none_or(Unpacking::is_done);
        self.stream.is_end_stream() && unpacked
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A request's body, of which the first frame has been looked at.
pub(crate) enum Outgoing {
    Empty,
    /// All of it.
    Whole(Bytes),
    /// Its beginning, if there is one yet, and the rest.
    Begun(Option<Bytes>, tonic::body::Body),
}

impl Outgoing {
    /// Takes what is ready of `body`; does not wait for more.
    pub(crate) async fn look(mut body: tonic::body::Body) -> Result<Self, Status> {
        let Some(first) = next(&mut body).now_or_never() else {
            return Ok(Self::Begun(None, body));
        };
        let first = match first.transpose()? {
            None => return Ok(Self::Empty),
            Some(frame) => frame.into_data().ok(),
        };
        match next(&mut body).now_or_never() {
            Some(None) => Ok(first.map_or(Self::Empty, Self::Whole)),
            None => Ok(Self::Begun(first, body)),
            Some(Some(second)) => {
                // Small messages of a stream that is ready at once go out together.
                let second = second?.into_data().unwrap_or_default();
                let mut both = bytes::BytesMut::from(first.unwrap_or_default());
                both.extend_from_slice(&second);
                Ok(Self::Begun(Some(both.freeze()), body))
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// All of it, where that is here already.
    pub(crate) fn whole(&self) -> Option<Bytes> {
        match self {
            Self::Empty => Some(Bytes::new()),
            Self::Whole(data) => Some(data.clone()),
            Self::Begun(..) => None,
        }
    }

    /// The body as it was before it was looked at.
    pub(crate) fn into_body(self) -> tonic::body::Body {
        let (first, rest) = match self {
            Self::Empty => return tonic::body::Body::empty(),
            Self::Whole(data) => return whole_body(data),
            Self::Begun(first, rest) => (first, rest),
        };
        tonic::body::Body::new(Resumed { first, rest })
    }

    /// Sends all that can be sent at once, and the rest in a task.
    pub(crate) fn send(self, mut stream: SendStream<Bytes>) -> Option<OwnedTask> {
        match self {
            Self::Empty => None,
            // A stream that the peer has reset tells so by its reply.
            Self::Whole(data) if data.len() <= AT_ONCE => {
                let _ = stream.send_data(data, true);
                None
            }
            Self::Whole(data) => Some(OwnedTask::spawn(async move {
                let _ = send_data(&mut stream, data, true).await;
            })),
            Self::Begun(first, body) => {
                let mut first = first;
                if let Some(data) = first.take_if(|data| data.len() <= AT_ONCE)
                    && stream.send_data(data, false).is_err()
                {
                    return None;
                }
                Some(OwnedTask::spawn(async move {
                    if let Some(data) = first
                        && send_data(&mut stream, data, false).await.is_err()
                    {
                        return;
                    }
                    // A request has no trailers.
                    let _ = send_rest(&mut stream, body, usize::MAX).await;
                }))
            }
        }
    }
}

/// A body that is `data` and no more.
pub(crate) fn whole_body(data: Bytes) -> tonic::body::Body {
    tonic::body::Body::new(Resumed {
        first: (!data.is_empty()).then_some(data),
        rest: tonic::body::Body::empty(),
    })
}

/// A body of which the first part has been taken and put back.
struct Resumed {
    first: Option<Bytes>,
    rest: tonic::body::Body,
}

impl Body for Resumed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.first.take() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }
}

/// The peer does not want more of a stream.
#[derive(Debug)]
pub(crate) struct Unwanted;

impl From<h2::Error> for Unwanted {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

async fn next(body: &mut tonic::body::Body) -> Option<Result<Frame<Bytes>, Status>> {
    std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

/// Like [`next`], but gives up when the peer resets the stream.
async fn next_wanted(
    stream: &mut SendStream<Bytes>,
    body: &mut tonic::body::Body,
) -> Result<Option<Result<Frame<Bytes>, Status>>, Unwanted> {
    std::future::poll_fn(|context| {
        if stream.poll_reset(context).is_ready() {
            return Poll::Ready(Err(Unwanted));
        }
        Pin::new(&mut *body).poll_frame(context).map(Ok)
    })
    .await
}

/// Sends `data` as the peer's window allows.
async fn send_data(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    end: bool,
) -> Result<(), Unwanted> {
    loop {
        stream.reserve_capacity(data.len());
        let mut room = stream.capacity();
        if room == 0 && !data.is_empty() {
            let granted = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
            room = granted.ok_or(Unwanted)??;
        }
        let part = data.split_to(room.min(data.len()));
        let last = data.is_empty();
        stream.send_data(part, end && last)?;
        if last {
            return Ok(());
        }
    }
}

/// Sends what is left of `body`, with its trailers, which are made to fit into
/// `limit`, and ends the stream.
async fn send_rest(
    stream: &mut SendStream<Bytes>,
    mut body: tonic::body::Body,
    limit: usize,
) -> Result<(), Unwanted> {
    loop {
        match next_wanted(stream, &mut body).await? {
            None => {
                stream.send_data(Bytes::new(), true)?;
                return Ok(());
            }
            Some(Err(_)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Err(Unwanted);
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => send_data(stream, data, false).await?,
                Err(frame) => return send_trailers(stream, frame, limit),
            },
        }
    }
}

fn send_trailers(
    stream: &mut SendStream<Bytes>,
    frame: Frame<Bytes>,
    limit: usize,
) -> Result<(), Unwanted> {
    let mut trailers = frame.into_trailers().unwrap_or_else(|_| HeaderMap::new());
    fit_trailers(&mut trailers, limit);
    Ok(stream.send_trailers(trailers)?)
}

/// Sends a reply: head, data and trailers in one go where they are ready. The
/// peer accepts header lists up to `limit`.
pub(crate) async fn send_reply(
    mut respond: h2::server::SendResponse<Bytes>,
    reply: http::Response<tonic::body::Body>,
    limit: usize,
) -> Result<(), Unwanted> {
    let (parts, mut body) = fit_head(reply, limit).into_parts();
    let head = http::Response::from_parts(parts, ());
    if body.is_end_stream() {
        respond.send_response(head, true)?;
        return Ok(());
    }
    let mut stream = respond.send_response(head, false)?;
    match next_wanted(&mut stream, &mut body).await? {
        Some(Ok(frame)) => match frame.into_data() {
            Ok(data) if data.len() <= AT_ONCE => stream.send_data(data, false)?,
            Ok(data) => send_data(&mut stream, data, false).await?,
            Err(frame) => return send_trailers(&mut stream, frame, limit),
        },
        Some(Err(_)) => {
            stream.send_reset(Reason::INTERNAL_ERROR);
            return Err(Unwanted);
        }
        None => {
            stream.send_data(Bytes::new(), true)?;
            return Ok(());
        }
    }
    send_rest(&mut stream, body, limit).await
}
