//! A service of the caller's own: what `--serve` offers the plugin, with
//! replies that were written beforehand.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use outrigger_host::MAX_MESSAGE;
use outrigger_transport::IncomingBody;
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, MethodDescriptor};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::StreamingService;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::codec::{self, DynamicCodec};
use crate::descriptors::{self, Catalogue, guarded, shortened};
use crate::failure::{Failure, printable};
use crate::fill;
use crate::offer::{Offer, Place};
use crate::status;
use crate::texts;
use crate::witness::{Call, Witness};

/// A reply that is an error: `{"@error": {"code": "NOT_FOUND", "message": "…"}}`.
const ERROR: &str = "@error";
/// Replies of a stream that wait for the plugin to read them.
const QUEUE: usize = 16;

/// A service that can be served.
#[derive(Clone)]
pub(crate) struct Canned {
    /// Its full name; one for each `--serve`, for the whole run.
    pub(crate) service: &'static str,
    pub(crate) place: Place,
    methods: Arc<HashMap<String, Answers>>,
}

/// What one method answers.
struct Answers {
    method: MethodDescriptor,
    /// Nothing when the file has no reply for it.
    replies: Option<Vec<Result<DynamicMessage, Status>>>,
    /// How many replies were given.
    given: AtomicUsize,
}

impl Canned {
    /// Reads the replies and the types that they are of.
    ///
    /// # Errors
    /// `serve-unreadable`, `serve-undescribed` and `serve-invalid`.
    pub(crate) fn load(offer: &Offer, catalogue: &Catalogue) -> Result<Self, Failure> {
        let service = descriptors::service(catalogue, &offer.service)?;
        let mut given = offer.read()?;
        let methods = service.methods().map(|method| {
            let replies = given.remove(method.name());
            let replies = replies
                .map(|replies| replies_of(&method, replies))
                .transpose()
                .map_err(|reason| {
                    let what = printable(&format!("{}/{}", offer.service, method.name()));
                    offer.invalid(&format!("the reply of `{what}` does not fit: {reason}"))
                })?;
            let answers = Answers {
                replies,
                given: AtomicUsize::new(0),
                method: method.clone(),
            };
            Ok((method.name().to_owned(), answers))
        });
        let methods: HashMap<String, Answers> = methods.collect::<Result<_, Failure>>()?;
        if let Some(unknown) = given.keys().next() {
            let mut names: Vec<String> = methods.keys().map(|name| printable(name)).collect();
            names.sort();
            let reason = format!(
                "the service has no method `{}`; it has {}",
                printable(unknown),
                shortened(&names, 12)
            );
            return Err(offer.invalid(&reason));
        }
        Ok(Self {
            service: offer.service.clone().leak(),
            place: offer.place.clone(),
            methods: Arc::new(methods),
        })
    }

    /// What answers the calls.
    pub(crate) fn answering(&self, witness: &Witness) -> Answering {
        Answering {
            service: self.service,
            methods: self.methods.clone(),
            witness: witness.clone(),
        }
    }

    /// Which field of `message` carries the broker id of this service, if any.
    ///
    /// # Errors
    /// `serve-ambiguous` where several could.
    pub(crate) fn field(
        &self,
        message: &MessageDescriptor,
        taken: Option<&FieldDescriptor>,
    ) -> Result<Option<Vec<FieldDescriptor>>, Failure> {
        let names = match &self.place {
            Place::Id(_) => return Ok(None),
            Place::Field(names) => return Ok(fill::named(message, names)),
            Place::Guessed => fill::candidates(message),
        };
        let mut telling: Vec<FieldDescriptor> = names
            .into_iter()
            .filter(|field| Some(field) != taken && fill::telling(field))
            .collect();
        match telling.len() {
            0 | 1 => Ok(telling.pop().map(|field| vec![field])),
            _ => Err(self.unplaced("serve-ambiguous", "several fields could carry", message)),
        }
    }

    /// The failure of a run in which no request has room for the broker id.
    pub(crate) fn homeless(&self, message: &MessageDescriptor) -> Failure {
        self.unplaced("serve-unsuitable", "no field is known to carry", message)
    }

    fn unplaced(&self, code: &'static str, what: &str, message: &MessageDescriptor) -> Failure {
        let service = printable(self.service);
        let name = printable(message.full_name());
        let text = format!("{what} the broker id of `{service}` (`--serve`) in `{name}`");
        let candidates: Vec<String> = fill::candidates(message)
            .iter()
            .map(|field| printable(field.name()))
            .collect();
        let failure = Failure::usage(code, text).note(format!(
            "its `uint32` fields are {}",
            shortened(&candidates, 24)
        ));
        let example = candidates.first().map_or("FIELD", String::as_str);
        failure
            .help(format!(
                "say which one: `--serve {service}=…@{example}`; one within another is `@OUTER.INNER`"
            ))
            .help("where the plugin dials a fixed id, say that: `@1`")
    }
}

/// One reply, or each of a list.
fn replies_of(
    method: &MethodDescriptor,
    replies: Value,
) -> Result<Vec<Result<DynamicMessage, Status>>, String> {
    let replies = match replies {
        Value::Array(replies) => replies,
        reply => vec![reply],
    };
    replies
        .into_iter()
        .map(|reply| reply_of(method, reply))
        .collect()
}

fn reply_of(
    method: &MethodDescriptor,
    mut reply: Value,
) -> Result<Result<DynamicMessage, Status>, String> {
    let marked = reply.as_object().filter(|object| object.len() == 1);
    if let Some(error) = marked.and_then(|object| object.get(ERROR)) {
        return error_of(error).map(Err);
    }
    texts::unmark(&mut reply, &method.output())?;
    guarded(|| DynamicMessage::deserialize(method.output(), reply))
        .ok_or("its type is not sound")?
        .map(Ok)
        .map_err(|error| printable(&error.to_string()))
}

fn error_of(error: &Value) -> Result<Status, String> {
    let code = match &error["code"] {
        Value::String(name) => status::code(name),
        Value::Number(number) => number
            .as_i64()
            .and_then(|number| i32::try_from(number).ok())
            .filter(|number| (1..=16).contains(number))
            .map(Code::from_i32),
        _ => None,
    };
    let code = code.ok_or("the code of an error is a name such as NOT_FOUND, or its number")?;
    let message = error["message"].as_str().unwrap_or_default();
    Ok(Status::new(code, message))
}

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Replying = ReceiverStream<Result<DynamicMessage, Status>>;

/// Answers the plugin's calls of one service.
#[derive(Clone)]
pub(crate) struct Answering {
    service: &'static str,
    methods: Arc<HashMap<String, Answers>>,
    witness: Witness,
}

impl tower_service::Service<http::Request<IncomingBody>> for Answering {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Later<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<IncomingBody>) -> Self::Future {
        let own = self.clone();
        Box::pin(async move { Ok(own.answer(request).await) })
    }
}

impl Answering {
    async fn answer(self, request: http::Request<IncomingBody>) -> http::Response<Body> {
        let name = request.uri().path().rsplit('/').next().unwrap_or_default();
        let call = self.witness.called(&format!("{}/{name}", self.service));
        let Some(answers) = self.methods.get(name) else {
            let status = Status::unimplemented("the service has no such method");
            return call.failed(status).into_http();
        };
        let codec = DynamicCodec::server(&answers.method);
        let mut server = tonic::server::Grpc::new(codec)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let name = name.to_owned();
        let method = Method {
            methods: self.methods,
            name,
            call,
        };
        // On the wire, every kind of method is a stream of requests and one of replies.
        server.streaming(method, request).await
    }
}

/// One call of one method.
struct Method {
    methods: Arc<HashMap<String, Answers>>,
    name: String,
    call: Call,
}

impl StreamingService<DynamicMessage> for Method {
    type Response = DynamicMessage;
    type ResponseStream = Replying;
    type Future = Later<Result<Response<Replying>, Status>>;

    fn call(&mut self, request: Request<Streaming<DynamicMessage>>) -> Self::Future {
        let (methods, name, call) = (self.methods.clone(), self.name.clone(), self.call.clone());
        Box::pin(async move {
            let answers = methods.get(&name).ok_or_else(|| Status::internal("lost"))?;
            let (client, server) = (
                answers.method.is_client_streaming(),
                answers.method.is_server_streaming(),
            );
            let mut requests = request.into_inner();
            if client && server {
                return Ok(converse(methods, name, requests, call));
            }
            while let Some(request) = requests.message().await? {
                call.request(codec::text(&request));
            }
            let replies = match server {
                true => answers.all(),
                false => vec![answers.next()],
            };
            let (queue, stream) = mpsc::channel(replies.len().max(1));
            for reply in replies {
                let reply = call.reply(reply);
                // An error before any reply is the whole answer.
                if let (Err(status), true) = (&reply, queue.capacity() == queue.max_capacity()) {
                    return Err(status.clone());
                }
                // The queue has room for all of them.
                let _ = queue.try_send(reply);
            }
            Ok(Response::new(ReceiverStream::new(stream)))
        })
    }
}

/// Answers each request of a stream with the next reply. The task ends when
/// either side ends its stream, or goes away.
fn converse(
    methods: Arc<HashMap<String, Answers>>,
    name: String,
    mut requests: Streaming<DynamicMessage>,
    call: Call,
) -> Response<Replying> {
    let (queue, stream) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Some(answers) = methods.get(&name) {
            let reply = match requests.message().await {
                Ok(Some(request)) => {
                    call.request(codec::text(&request));
                    call.reply(answers.next())
                }
                Ok(None) => return,
                Err(status) => call.reply(Err(status)),
            };
            let last = reply.is_err();
            if queue.send(reply).await.is_err() || last {
                return;
            }
        }
    });
    Response::new(ReceiverStream::new(stream))
}

impl Answers {
    /// The reply of the next call; the last one is that of all further calls.
    fn next(&self) -> Result<DynamicMessage, Status> {
        let replies = self.replies.as_deref().unwrap_or_default();
        let at = self.given.fetch_add(1, Ordering::Relaxed);
        let reply = replies.get(at).or(replies.last());
        reply.cloned().unwrap_or_else(|| Err(unanswered()))
    }

    /// All replies, for a stream.
    fn all(&self) -> Vec<Result<DynamicMessage, Status>> {
        match &self.replies {
            Some(replies) => replies.clone(),
            None => vec![Err(unanswered())],
        }
    }
}

fn unanswered() -> Status {
    Status::unimplemented("no reply was written for this method (`--serve`)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(text: &str) -> Offer {
        text.parse().expect("an offer")
    }

    fn health() -> Catalogue {
        use prost::Message as _;
        let files =
            prost_types::FileDescriptorSet::decode(outrigger_transport::GO_PLUGIN_DESCRIPTORS);
        Catalogue::standard(files.expect("sound descriptors"))
    }

    #[test]
    fn replies_follow_each_other_and_the_last_one_stays() {
        let text = "grpc.health.v1.Health={\"Check\": [{\"status\": \"SERVING\"}, \
                    {\"@error\": {\"code\": \"NOT_FOUND\", \"message\": \"gone\"}}], \"List\": {}}";
        let canned = Canned::load(&offer(text), &health()).expect("good");
        let check = &canned.methods["Check"];
        assert!(check.next().is_ok());
        for _ in 0..2 {
            let status = check.next().expect_err("an error");
            assert_eq!((status.code(), status.message()), (Code::NotFound, "gone"));
        }
        assert!(canned.methods["List"].next().is_ok());
        assert_eq!(
            canned.methods["Watch"].next().expect_err("none").code(),
            Code::Unimplemented
        );
    }

    #[test]
    fn replies_that_do_not_fit_are_refused_with_the_method() {
        for (replies, reason) in [
            (
                "{\"Check\": {\"stats\": 1}}",
                "the reply of `grpc.health.v1.Health/Check` does not fit",
            ),
            (
                "{\"Check\": {\"@error\": {\"code\": \"NOPE\"}}}",
                "the code of an error",
            ),
            (
                "{\"Check\": {\"@error\": {\"code\": 0}}}",
                "the code of an error",
            ),
            (
                "{\"Chek\": {}}",
                "the service has no method `Chek`; it has `Check`, ",
            ),
            ("{", "EOF"),
        ] {
            let text = format!("grpc.health.v1.Health={replies}");
            let failure = Canned::load(&offer(&text), &health()).err().expect(replies);
            assert_eq!(failure.code, "serve-invalid");
            assert!(failure.notes[0].contains(reason), "{failure:?}");
        }
    }
}
