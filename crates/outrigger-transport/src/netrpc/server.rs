//! The answering end.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use outrigger_gob::{
    DecodeErrorKind, Decoder, Encode, EncodeError, Encoded, Encoder, GoString, Gob,
};
use tokio::io::{AsyncReadExt, ReadHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::budget::{Budget, Room};
use super::outgoing::{Outgoing, SendError};
use super::{LARGE, Request, Response, SERVICE_NAME};
use crate::server::ServeLimits;
use crate::stream::Stream;

/// Bytes that are read at a time.
const READ: usize = 16 << 10;

/// The most bytes of what precedes an argument: the method's name.
const MAX_HEADER: usize = 64 << 10;

/// Something that methods answer with: any value that can be sent as gob.
trait Answer: Send + Sync {
    fn encode(
        &self,
        header: &Response,
        encoder: &mut Encoder,
        bytes: &mut BytesMut,
    ) -> Result<(), EncodeError>;
}

impl<T: Encode + Send + Sync> Answer for T {
    fn encode(
        &self,
        header: &Response,
        encoder: &mut Encoder,
        bytes: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        encoder.encode_pair(header, self, bytes)
    }
}

type Outcome = Result<Box<dyn Answer>, String>;

/// One method of a net/rpc service.
#[derive(Clone)]
pub struct Method(Arc<dyn Fn(Encoded) -> BoxFuture<'static, Outcome> + Send + Sync>);

impl Method {
    /// A method that takes an `A` and answers with an `R`. The text of an error
    /// is all that callers learn of it.
    pub fn new<A, R, E, F>(call: impl Fn(A) -> F + Send + Sync + 'static) -> Self
    where
        A: Gob,
        R: Encode + Send + Sync + 'static,
        E: fmt::Display,
        F: Future<Output = Result<R, E>> + Send + 'static,
    {
        Self(Arc::new(move |argument| match argument.decode::<A>() {
            Ok(argument) => {
                let running = call(argument);
                Box::pin(async move {
                    match running.await {
                        Ok(reply) => Ok(Box::new(reply) as Box<dyn Answer>),
                        Err(error) => Err(error.to_string()),
                    }
                })
            }
            Err(error) => {
                let text = format!("gob: {error}");
                Box::pin(std::future::ready(Err(text)))
            }
        }))
    }
}

/// The methods of net/rpc services, found by their full names. Clones share them.
///
/// # Examples
/// ```
/// use outrigger_transport::netrpc::Methods;
///
/// let methods = Methods::new().method("Double", |n: i64| async move {
///     n.checked_mul(2).ok_or("out of range")
/// });
/// assert_eq!(methods.names().collect::<Vec<_>>(), ["Plugin.Double"]);
/// ```
#[derive(Clone, Default)]
pub struct Methods {
    methods: Arc<BTreeMap<String, Method>>,
}

impl Methods {
    /// No method: every call is answered with an error.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a method of the service `Plugin`, the one that go-plugin's hosts and
    /// plugins call; one of the same name is replaced.
    #[must_use]
    pub fn method<A, R, E, F>(
        self,
        name: &str,
        call: impl Fn(A) -> F + Send + Sync + 'static,
    ) -> Self
    where
        A: Gob,
        R: Encode + Send + Sync + 'static,
        E: fmt::Display,
        F: Future<Output = Result<R, E>> + Send + 'static,
    {
        self.with(SERVICE_NAME, name, Method::new(call))
    }

    /// Adds a method of any service; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, service: &str, name: &str, method: Method) -> Self {
        Arc::make_mut(&mut self.methods).insert(format!("{service}.{name}"), method);
        self
    }

    /// The full names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.methods.keys().map(String::as_str)
    }

    /// The method, or what Go's server says when there is none.
    fn find(&self, full: &str) -> Result<&Method, String> {
        if let Some(method) = self.methods.get(full) {
            return Ok(method);
        }
        let Some((service, _)) = full.rsplit_once('.') else {
            return Err(format!("rpc: service/method request ill-formed: {full}"));
        };
        let known = self.names().any(|name| {
            name.rsplit_once('.')
                .is_some_and(|(known, _)| known == service)
        });
        let missing = if known { "method" } else { "service" };
        Err(format!("rpc: can't find {missing} {full}"))
    }
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// Answers calls on `stream` until the peer closes it or sends what is no
/// net/rpc, or until `stop` fires; running calls then have `limits.drain` to
/// finish.
///
/// # Cancel safety
/// When the future is dropped, running methods are dropped with it.
pub async fn serve(stream: Stream, methods: Methods, limits: ServeLimits, stop: CancellationToken) {
    serve_within(stream, methods, limits, Budget::new(limits.max_value), stop).await;
}

/// [`serve`] with a budget that others use too.
pub(crate) async fn serve_within(
    stream: Stream,
    methods: Methods,
    limits: ServeLimits,
    budget: Budget,
    stop: CancellationToken,
) {
    let (reader, writer) = tokio::io::split(stream);
    let (outgoing, _writing) = Outgoing::start(writer, budget.max_value());
    let mut running = JoinSet::new();
    let mut server = Server {
        reader,
        methods,
        outgoing: outgoing.clone(),
        places: Arc::new(Semaphore::new(limits.concurrent_calls as usize)),
        decoder: Decoder::new(budget.limits()),
        bytes: BytesMut::with_capacity(READ),
        budget,
    };
    let stopped = tokio::select! {
        biased;
        () = stop.cancelled() => true,
        () = server.answer(&mut running) => false,
    };
    let finish = async {
        while running.join_next().await.is_some() {}
        outgoing.finish().await;
    };
    tokio::pin!(finish);
    if !stopped {
        tokio::select! {
            () = &mut finish => return,
            () = stop.cancelled() => {}
        }
    }
    let _ = tokio::time::timeout(limits.drain, finish).await;
}

struct Server {
    reader: ReadHalf<Stream>,
    methods: Methods,
    outgoing: Arc<Outgoing>,
    places: Arc<Semaphore>,
    decoder: Decoder,
    bytes: BytesMut,
    budget: Budget,
}

impl Server {
    async fn answer(&mut self, running: &mut JoinSet<()>) {
        while let Some(header) = self.header().await {
            let request = match header.decode::<Request>() {
                Ok(request) => request,
                Err(error) => {
                    tracing::debug!(%error, "a caller sent no request");
                    return;
                }
            };
            let Some((argument, held)) = self.argument(header.len()).await else {
                return;
            };
            // A peer that sends more than it may is not read for a while.
            let Ok(place) = self.places.clone().acquire_owned().await else {
                return;
            };
            while running.try_join_next().is_some() {}
            let call = Call {
                response: Response {
                    service_method: request.service_method,
                    seq: request.seq,
                    error: GoString::default(),
                },
                outgoing: self.outgoing.clone(),
                _place: place,
                _held: held,
            };
            match self.methods.find(&call.response.service_method) {
                Ok(method) => {
                    running.spawn(call.run(method.clone(), argument));
                }
                Err(text) => call.refuse(text).await,
            }
        }
    }

    /// The first half of the next call; nothing when there will be none.
    async fn header(&mut self) -> Option<Encoded> {
        loop {
            if let Some(value) = self.received()? {
                return Some(value);
            }
            if self.decoder.pending(&self.bytes) > MAX_HEADER {
                tracing::warn!(limit = MAX_HEADER, "a caller's method has too long a name");
                return None;
            }
            self.read().await?;
        }
    }

    /// The second half, and the room for both; nothing when there will be none.
    async fn argument(&mut self, header: usize) -> Option<(Encoded, Room)> {
        let mut held = Room::default();
        loop {
            let value = self.received()?;
            let bytes = match &value {
                Some(value) => value.len(),
                None => self.decoder.pending(&self.bytes),
            };
            if !self.budget.cover(&mut held, header + bytes).await {
                tracing::warn!("a caller's argument found no room beside others of its session");
                return None;
            }
            if let Some(value) = value {
                if value.len() >= LARGE {
                    tokio::task::yield_now().await;
                }
                return Some((value, held));
            }
            self.read().await?;
        }
    }

    /// A value, if all of it is there; nothing when there will be none.
    fn received(&mut self) -> Option<Option<Encoded>> {
        match self.decoder.next(&mut self.bytes) {
            Ok(value) => Some(value),
            Err(error) => {
                let text = match error.kind() {
                    DecodeErrorKind::Limit { .. } => "a caller sent more than is read",
                    _ => "a caller does not speak net/rpc",
                };
                tracing::warn!(%error, "{text}");
                None
            }
        }
    }

    async fn read(&mut self) -> Option<()> {
        self.bytes.reserve(READ);
        match self.reader.read_buf(&mut self.bytes).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }
}

/// One call that is being answered.
struct Call {
    response: Response,
    outgoing: Arc<Outgoing>,
    _place: OwnedSemaphorePermit,
    _held: Room,
}

impl Call {
    async fn run(self, method: Method, argument: Encoded) {
        let called = AssertUnwindSafe(async { (method.0)(argument).await }).catch_unwind();
        match called.await {
            Ok(Ok(reply)) => self.reply(reply).await,
            Ok(Err(text)) => self.refuse(text).await,
            // The panic hook has said more.
            Err(_) => self.refuse("the method panicked".to_owned()).await,
        }
    }

    async fn reply(self, reply: Box<dyn Answer>) {
        let sent = self
            .outgoing
            .send(|encoder, bytes| reply.encode(&self.response, encoder, bytes));
        if let Err(SendError::Encode(error)) = sent.await {
            self.refuse(format!("the reply cannot be sent as gob: {error}"))
                .await;
        }
    }

    async fn refuse(mut self, text: String) {
        // An error without a text would read as success.
        self.response.error = match text.is_empty() {
            true => "unknown error".into(),
            false => text.into(),
        };
        let response = &self.response;
        // Strings always encode, and a caller that is gone needs no answer.
        let _ = self
            .outgoing
            .send(|encoder, bytes| encoder.encode_pair(response, &(), bytes))
            .await;
    }
}
