//! Server reflection, both roles: what a server says about its own services.
//!
//! The server side answers from descriptor sets compiled into the program and
//! passes each file on byte for byte. The client side collects every file that
//! a peer's services need. A peer controls what it answers, so the client
//! bounds the number of files and services, their size and the time.
//!
//! Descriptors are returned as plain messages: building a pool of types from
//! them is left to those who call dynamically.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use outrigger_wire::Excerpt;
use outrigger_wire::proto::reflection::server_reflection_request::MessageRequest;
use outrigger_wire::proto::reflection::server_reflection_response::MessageResponse;
use outrigger_wire::proto::reflection::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto};
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::GrpcService;
use tonic::codegen::{Body, StdError};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::Channel;
use crate::proto::reflection::server_reflection_client::ServerReflectionClient as ClientV1;
use crate::proto::reflection::server_reflection_server as v1;
use crate::proto::reflection_v1alpha::server_reflection_client::ServerReflectionClient as ClientV1Alpha;
use crate::proto::reflection_v1alpha::server_reflection_server as v1alpha;

/// Most files that [`describe`] accepts from one peer.
pub const MAX_FILES: usize = 2000;
/// Most services that [`describe`] accepts from one peer.
pub const MAX_SERVICES: usize = 2000;
/// Most descriptor bytes, over all files, that [`describe`] accepts from one peer.
pub const MAX_DESCRIPTOR_BYTES: usize = 16 * 1024 * 1024;
/// How long [`describe`] waits altogether.
pub const DESCRIBE_DEADLINE: Duration = Duration::from_secs(30);

/// Room for the framing of one answer beside its descriptors.
const ANSWER_OVERHEAD: usize = 64 * 1024;
/// Largest request the server reads; symbols and file names are short.
const MAX_REQUEST: usize = 64 * 1024;

/// Which of the two reflection services answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReflectionVersion {
    /// `grpc.reflection.v1`.
    V1,
    /// `grpc.reflection.v1alpha`, all that older servers have.
    V1Alpha,
}

impl ReflectionVersion {
    /// The last part of the package name: `v1` or `v1alpha`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1Alpha => "v1alpha",
        }
    }
}

impl fmt::Display for ReflectionVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a peer says about its services.
///
/// Every name and text in it was chosen by the peer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Description {
    /// Which reflection service answered.
    pub version: ReflectionVersion,
    /// Full names of the services, sorted, each once.
    pub services: Vec<String>,
    /// The files those services need, dependencies included as far as the peer has them.
    pub files: FileDescriptorSet,
    /// Services and files the peer named but could not describe.
    pub undescribed: Vec<Undescribed>,
}

/// Something a peer named and could not describe.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Undescribed {
    /// A full service name, or a file name that another file imports.
    pub name: String,
    /// The peer's reason, in its own words.
    pub reason: String,
}

/// Why a peer could not be described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReflectionError {
    /// *Cause:* the peer serves neither version of the reflection service.
    /// *Resolution:* register reflection in the server; go-plugin's own servers do.
    #[error("the peer does not serve reflection")]
    NotServed,
    /// *Cause:* the call failed; the source says how.
    /// *Resolution:* see whether the peer is still alive.
    #[error("the reflection call failed with {:?}: {}", .0.code(), Excerpt::new(.0.message().as_bytes()))]
    Call(#[source] Box<Status>),
    /// *Cause:* the peer described more than this side is willing to hold.
    /// *Resolution:* none here; such a peer is broken or hostile.
    #[error("the peer described more than {limit} {what}")]
    TooLarge {
        /// What there was too much of.
        what: &'static str,
        /// The most that is accepted.
        limit: usize,
    },
    /// *Cause:* an answer that is no answer to the request, or a descriptor that cannot be read.
    /// *Resolution:* repair the peer's reflection service.
    #[error("the peer's reflection answer cannot be used: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// *Cause:* the answers did not come in time.
    /// *Resolution:* see what the peer is busy with.
    #[error("the peer did not describe itself within {} s", .limit.as_secs())]
    Timeout {
        /// How long was waited altogether.
        limit: Duration,
    },
}

impl ReflectionError {
    /// A stable name of the kind of error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotServed => "reflection-not-served",
            Self::Call(_) => "reflection-failed",
            Self::TooLarge { .. } => "reflection-too-large",
            Self::Malformed { .. } => "reflection-malformed",
            Self::Timeout { .. } => "reflection-timeout",
        }
    }
}

/// Asks the peer at the other end of `channel` for its services and their descriptors.
///
/// `v1` is asked first, and `v1alpha` when the peer does not know it.
///
/// # Errors
/// [`ReflectionError::NotServed`] when the peer has no reflection service; the
/// other kinds when it answers wrongly, too much or too late ([`MAX_FILES`],
/// [`MAX_SERVICES`], [`MAX_DESCRIPTOR_BYTES`], [`DESCRIBE_DEADLINE`]). A single
/// service or file that the peer cannot describe is no error: it is listed in
/// [`Description::undescribed`].
///
/// # Cancel safety
/// Dropping the future cancels the call; nothing is kept.
pub async fn describe(channel: &Channel) -> Result<Description, ReflectionError> {
    describe_with(channel, &[]).await
}

/// [`describe`], and the files of services that the peer may know without
/// serving them, such as those that it calls. What it does not know of them is
/// left out.
///
/// # Errors
/// As [`describe`].
///
/// # Cancel safety
/// As [`describe`].
pub async fn describe_with(
    channel: &Channel,
    others: &[String],
) -> Result<Description, ReflectionError> {
    describe_over(channel.clone(), others, &Limits::DEFAULT).await
}

/// What the client accepts; tests use smaller ones.
struct Limits {
    files: usize,
    services: usize,
    bytes: usize,
    deadline: Duration,
}

impl Limits {
    const DEFAULT: Self = Self {
        files: MAX_FILES,
        services: MAX_SERVICES,
        bytes: MAX_DESCRIPTOR_BYTES,
        deadline: DESCRIBE_DEADLINE,
    };
}

async fn describe_over<T>(
    peer: T,
    others: &[String],
    limits: &Limits,
) -> Result<Description, ReflectionError>
where
    T: GrpcService<tonic::body::Body> + Clone,
    T::Error: Into<StdError>,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    let all = async {
        for version in [ReflectionVersion::V1, ReflectionVersion::V1Alpha] {
            match Session::open(peer.clone(), version, limits).await {
                Ok((session, services)) => return session.collect(services, others).await,
                Err(ReflectionError::Call(status)) if status.code() == Code::Unimplemented => {}
                Err(error) => return Err(error),
            }
        }
        Err(ReflectionError::NotServed)
    };
    match tokio::time::timeout(limits.deadline, all).await {
        Ok(result) => result,
        Err(_) => Err(ReflectionError::Timeout {
            limit: limits.deadline,
        }),
    }
}

/// One reflection stream to a peer, and what has been collected over it.
struct Session<'a> {
    version: ReflectionVersion,
    requests: mpsc::Sender<ServerReflectionRequest>,
    answers: Streaming<ServerReflectionResponse>,
    limits: &'a Limits,
    bytes: usize,
    files: Vec<FileDescriptorProto>,
    names: HashSet<String>,
    /// What collected files import, in the order seen.
    imports: VecDeque<String>,
    defined: HashSet<String>,
    undescribed: Vec<Undescribed>,
}

impl<'a> Session<'a> {
    /// Opens the stream and asks for the list of services.
    ///
    /// The first request is queued before the call: some servers send no
    /// headers until they have something to answer.
    async fn open<T>(
        peer: T,
        version: ReflectionVersion,
        limits: &'a Limits,
    ) -> Result<(Session<'a>, BTreeSet<String>), ReflectionError>
    where
        T: GrpcService<tonic::body::Body>,
        T::Error: Into<StdError>,
        T::ResponseBody: Body<Data = Bytes> + Send + 'static,
        <T::ResponseBody as Body>::Error: Into<StdError> + Send,
    {
        let (requests, queue) = mpsc::channel(1);
        let list = request(MessageRequest::ListServices("*".into()));
        requests.try_send(list).map_err(|_| ended())?;
        let queue = ReceiverStream::new(queue);
        let room = limits.bytes + ANSWER_OVERHEAD;
        let answers = match version {
            ReflectionVersion::V1 => {
                let mut client = ClientV1::new(peer).max_decoding_message_size(room);
                client.server_reflection_info(queue).await
            }
            ReflectionVersion::V1Alpha => {
                let mut client = ClientV1Alpha::new(peer).max_decoding_message_size(room);
                client.server_reflection_info(queue).await
            }
        };
        let mut session = Session {
            version,
            requests,
            answers: answers.map_err(call)?.into_inner(),
            limits,
            bytes: 0,
            files: Vec::new(),
            names: HashSet::new(),
            imports: VecDeque::new(),
            defined: HashSet::new(),
            undescribed: Vec::new(),
        };
        let services = session.services().await?;
        Ok((session, services))
    }

    async fn services(&mut self) -> Result<BTreeSet<String>, ReflectionError> {
        match self.answer().await? {
            MessageResponse::ListServicesResponse(list) => {
                if list.service.len() > self.limits.services {
                    return Err(self.too_many_services());
                }
                Ok(list
                    .service
                    .into_iter()
                    .map(|service| service.name)
                    .collect())
            }
            MessageResponse::ErrorResponse(error) => Err(refused("listing services", &error)),
            other => Err(unexpected("listing services", &other)),
        }
    }

    fn too_many_services(&self) -> ReflectionError {
        ReflectionError::TooLarge {
            what: "services",
            limit: self.limits.services,
        }
    }

    /// Fetches the files of `services` and then whatever those import.
    async fn collect(
        mut self,
        services: BTreeSet<String>,
        others: &[String],
    ) -> Result<Description, ReflectionError> {
        for service in &services {
            self.define(service).await?;
        }
        let undescribed = self.undescribed.len();
        for other in others {
            self.define(other).await?;
        }
        self.undescribed.truncate(undescribed);
        let mut asked = HashSet::new();
        while let Some(import) = self.imports.pop_front() {
            // Every import costs the peer bytes, yet little: bound the questions as well.
            if asked.len() >= self.limits.files {
                break;
            }
            if !self.names.contains(&import) && asked.insert(import.clone()) {
                let wanted = MessageRequest::FileByFilename(import.clone());
                self.fetch(wanted, &import).await?;
            }
        }
        Ok(Description {
            version: self.version,
            services: services.into_iter().collect(),
            files: FileDescriptorSet { file: self.files },
            undescribed: self.undescribed,
        })
    }

    /// Fetches the file that defines `service`, unless it is there.
    async fn define(&mut self, service: &str) -> Result<(), ReflectionError> {
        if self.defined.contains(service) {
            return Ok(());
        }
        let wanted = MessageRequest::FileContainingSymbol(service.to_owned());
        self.fetch(wanted, service).await
    }

    async fn fetch(&mut self, wanted: MessageRequest, name: &str) -> Result<(), ReflectionError> {
        self.requests
            .send(request(wanted))
            .await
            .map_err(|_| ended())?;
        match self.answer().await? {
            MessageResponse::FileDescriptorResponse(answer) => answer
                .file_descriptor_proto
                .iter()
                .try_for_each(|file| self.add(file)),
            MessageResponse::ErrorResponse(error) => {
                let reason = Excerpt::new(error.error_message.as_bytes()).to_string();
                self.undescribed.push(Undescribed {
                    name: name.to_owned(),
                    reason,
                });
                Ok(())
            }
            other => Err(unexpected("fetching a file", &other)),
        }
    }

    fn add(&mut self, raw: &Bytes) -> Result<(), ReflectionError> {
        self.bytes = self.bytes.saturating_add(raw.len());
        if self.bytes > self.limits.bytes {
            let limit = self.limits.bytes;
            return Err(ReflectionError::TooLarge {
                what: "descriptor bytes",
                limit,
            });
        }
        let file =
            FileDescriptorProto::decode(&raw[..]).map_err(|error| ReflectionError::Malformed {
                reason: format!("a file descriptor does not decode: {error}"),
            })?;
        if !self.names.insert(file.name().to_owned()) {
            return Ok(());
        }
        if self.files.len() >= self.limits.files {
            return Err(ReflectionError::TooLarge {
                what: "files",
                limit: self.limits.files,
            });
        }
        self.defined
            .extend(file.service.iter().map(|s| join(file.package(), s.name())));
        self.imports.extend(file.dependency.iter().cloned());
        self.files.push(file);
        Ok(())
    }

    async fn answer(&mut self) -> Result<MessageResponse, ReflectionError> {
        let answer = self
            .answers
            .message()
            .await
            .map_err(call)?
            .ok_or_else(ended)?;
        answer
            .message_response
            .ok_or_else(|| ReflectionError::Malformed {
                reason: "an answer holds nothing this side knows".into(),
            })
    }
}

fn request(wanted: MessageRequest) -> ServerReflectionRequest {
    ServerReflectionRequest {
        host: String::new(),
        message_request: Some(wanted),
    }
}

fn call(status: Status) -> ReflectionError {
    ReflectionError::Call(Box::new(status))
}

fn ended() -> ReflectionError {
    ReflectionError::Malformed {
        reason: "the stream ended before every request was answered".into(),
    }
}

fn refused(what: &str, error: &ErrorResponse) -> ReflectionError {
    let text = Excerpt::new(error.error_message.as_bytes());
    ReflectionError::Malformed {
        reason: format!("{what} was refused with code {}: {text}", error.error_code),
    }
}

fn unexpected(what: &str, answer: &MessageResponse) -> ReflectionError {
    let kind = match answer {
        MessageResponse::FileDescriptorResponse(_) => "files",
        MessageResponse::AllExtensionNumbersResponse(_) => "extension numbers",
        MessageResponse::ListServicesResponse(_) => "a list of services",
        MessageResponse::ErrorResponse(_) => "an error",
    };
    ReflectionError::Malformed {
        reason: format!("{what} was answered with {kind}"),
    }
}

/// The two reflection services of a server that has the services `names`.
///
/// `descriptor_sets` are encoded `FileDescriptorSet`s; of two files with one
/// name the first is used. Services without a descriptor are listed all the same.
pub(crate) fn services(
    names: Vec<String>,
    descriptor_sets: &[&'static [u8]],
) -> (
    v1::ServerReflectionServer<Reflection>,
    v1alpha::ServerReflectionServer<Reflection>,
) {
    let reflection = Arc::new(Reflection {
        names: names.into_iter().collect(),
        sets: descriptor_sets.to_vec(),
        index: OnceLock::new(),
    });
    (
        v1::ServerReflectionServer::from_arc(reflection.clone())
            .max_decoding_message_size(MAX_REQUEST),
        v1alpha::ServerReflectionServer::from_arc(reflection)
            .max_decoding_message_size(MAX_REQUEST),
    )
}

/// Answers both versions of the reflection service.
#[derive(Debug)]
pub(crate) struct Reflection {
    names: BTreeSet<String>,
    sets: Vec<&'static [u8]>,
    /// Made by the first request: most connections never ask, and starting must stay fast.
    index: OnceLock<Arc<Index>>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

impl Reflection {
    fn answers(&self, requests: Streaming<ServerReflectionRequest>) -> Answers {
        let index = self
            .index
            .get_or_init(|| Arc::new(Index::new(&self.sets)))
            .clone();
        let names: Vec<String> = self.names.iter().cloned().collect();
        let mut sent = HashSet::new();
        Box::pin(requests.map(move |request| {
            let request = request?;
            let answer = index.answer(&names, &request, &mut sent)?;
            Ok(ServerReflectionResponse {
                valid_host: request.host.clone(),
                original_request: Some(request),
                message_response: Some(answer),
            })
        }))
    }
}

#[tonic::async_trait]
impl v1::ServerReflection for Reflection {
    type ServerReflectionInfoStream = Answers;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Answers>, Status> {
        Ok(Response::new(self.answers(request.into_inner())))
    }
}

#[tonic::async_trait]
impl v1alpha::ServerReflection for Reflection {
    type ServerReflectionInfoStream = Answers;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Answers>, Status> {
        Ok(Response::new(self.answers(request.into_inner())))
    }
}

/// A descriptor set whose files stay encoded, so that they are passed on unchanged.
#[derive(Clone, PartialEq, Message)]
struct EncodedSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

#[derive(Debug)]
struct IndexedFile {
    name: String,
    encoded: Bytes,
    imports: Vec<String>,
}

/// Where each name is defined.
#[derive(Debug, Default)]
struct Index {
    files: Vec<IndexedFile>,
    by_name: HashMap<String, usize>,
    by_symbol: HashMap<String, usize>,
    /// Extended message → extension number → file.
    extensions: HashMap<String, HashMap<i32, usize>>,
}

impl Index {
    fn new(sets: &[&'static [u8]]) -> Self {
        let mut index = Self::default();
        for set in sets {
            match EncodedSet::decode(Bytes::from_static(set)) {
                Ok(set) => set.file.into_iter().for_each(|file| index.add_file(file)),
                Err(error) => tracing::warn!(%error, "a descriptor set is left out of reflection"),
            }
        }
        index
    }

    fn add_file(&mut self, encoded: Bytes) {
        let file = match FileDescriptorProto::decode(&encoded[..]) {
            Ok(file) => file,
            Err(error) => {
                tracing::warn!(%error, "a file descriptor is left out of reflection");
                return;
            }
        };
        if self.by_name.contains_key(file.name()) {
            return;
        }
        let at = self.files.len();
        self.by_name.insert(file.name().to_owned(), at);
        let package = file.package();
        for message in &file.message_type {
            self.add_message(package, message, at);
        }
        for enumeration in &file.enum_type {
            self.add_enum(package, enumeration, at);
        }
        for extension in &file.extension {
            self.add_extension(package, extension, at);
        }
        for service in &file.service {
            let service_name = join(package, service.name());
            for method in &service.method {
                self.add_symbol(join(&service_name, method.name()), at);
            }
            self.add_symbol(service_name, at);
        }
        let (name, imports) = (file.name().to_owned(), file.dependency);
        self.files.push(IndexedFile {
            name,
            encoded,
            imports,
        });
    }

    fn add_symbol(&mut self, symbol: String, at: usize) {
        self.by_symbol.entry(symbol).or_insert(at);
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto, at: usize) {
        let name = join(scope, message.name());
        for field in &message.field {
            self.add_symbol(join(&name, field.name()), at);
        }
        for oneof in &message.oneof_decl {
            self.add_symbol(join(&name, oneof.name()), at);
        }
        for nested in &message.nested_type {
            self.add_message(&name, nested, at);
        }
        for enumeration in &message.enum_type {
            self.add_enum(&name, enumeration, at);
        }
        for extension in &message.extension {
            self.add_extension(&name, extension, at);
        }
        self.add_symbol(name, at);
    }

    /// Enum values are siblings of their enum, as in C++.
    fn add_enum(&mut self, scope: &str, enumeration: &EnumDescriptorProto, at: usize) {
        for value in &enumeration.value {
            self.add_symbol(join(scope, value.name()), at);
        }
        self.add_symbol(join(scope, enumeration.name()), at);
    }

    fn add_extension(&mut self, scope: &str, extension: &FieldDescriptorProto, at: usize) {
        self.add_symbol(join(scope, extension.name()), at);
        let extended = extension.extendee().trim_start_matches('.').to_owned();
        self.extensions
            .entry(extended)
            .or_default()
            .entry(extension.number())
            .or_insert(at);
    }

    /// The answer to one request; an unknown name is an answer too and keeps the stream.
    fn answer(
        &self,
        services: &[String],
        request: &ServerReflectionRequest,
        sent: &mut HashSet<usize>,
    ) -> Result<MessageResponse, Status> {
        let Some(wanted) = &request.message_request else {
            return Err(Status::invalid_argument("the request asks for nothing"));
        };
        Ok(match wanted {
            MessageRequest::FileByFilename(name) => {
                self.file_answer(self.by_name.get(name), sent, || {
                    format!("file {}", quote(name))
                })
            }
            MessageRequest::FileContainingSymbol(symbol) => {
                self.file_answer(self.by_symbol.get(symbol), sent, || {
                    format!("symbol {}", quote(symbol))
                })
            }
            MessageRequest::FileContainingExtension(extension) => {
                let (message, number) = (&extension.containing_type, extension.extension_number);
                let at = self
                    .extensions
                    .get(message)
                    .and_then(|known| known.get(&number));
                self.file_answer(at, sent, || {
                    format!("extension {number} of {}", quote(message))
                })
            }
            MessageRequest::AllExtensionNumbersOfType(message) => self.numbers_answer(message),
            MessageRequest::ListServices(_) => {
                let service = services
                    .iter()
                    .map(|name| ServiceResponse { name: name.clone() })
                    .collect();
                MessageResponse::ListServicesResponse(ListServiceResponse { service })
            }
        })
    }

    /// The file `at` and, after it, those it needs that this stream has not carried yet.
    fn file_answer(
        &self,
        at: Option<&usize>,
        sent: &mut HashSet<usize>,
        what: impl FnOnce() -> String,
    ) -> MessageResponse {
        let Some(&wanted) = at else {
            return not_found(&what());
        };
        let mut seen = HashSet::from([wanted]);
        let mut queue = VecDeque::from([wanted]);
        let mut file_descriptor_proto = Vec::new();
        while let Some(at) = queue.pop_front() {
            let file = &self.files[at];
            if sent.insert(at) || at == wanted {
                file_descriptor_proto.push(file.encoded.clone());
            }
            for import in &file.imports {
                match self.by_name.get(import) {
                    Some(&next) if seen.insert(next) => queue.push_back(next),
                    Some(_) => {}
                    None => tracing::debug!(file = file.name, import, "import has no descriptor"),
                }
            }
        }
        MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
            file_descriptor_proto,
        })
    }

    fn numbers_answer(&self, message: &str) -> MessageResponse {
        let known = self.extensions.get(message);
        if known.is_none() && !self.by_symbol.contains_key(message) {
            return not_found(&format!("message {}", quote(message)));
        }
        let mut numbers: Vec<i32> = known.into_iter().flat_map(|k| k.keys().copied()).collect();
        numbers.sort_unstable();
        MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
            base_type_name: message.to_owned(),
            extension_number: numbers,
        })
    }
}

fn not_found(what: &str) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse {
        error_code: Code::NotFound as i32,
        error_message: format!("{what} is not known here"),
    })
}

fn quote(text: &str) -> String {
    Excerpt::new(text.as_bytes()).to_string()
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use tower_service::Service;

    use super::*;

    /// A server without a network: one service, called directly.
    #[derive(Clone)]
    enum Direct {
        V1(v1::ServerReflectionServer<Reflection>),
        V1Alpha(v1alpha::ServerReflectionServer<Reflection>),
        Scripted(v1::ServerReflectionServer<Scripted>),
    }

    impl Service<http::Request<tonic::body::Body>> for Direct {
        type Response = http::Response<tonic::body::Body>;
        type Error = Infallible;
        type Future = tonic::codegen::BoxFuture<Self::Response, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
            match self {
                Self::V1(server) => Service::call(server, request),
                Self::V1Alpha(server) => Service::call(server, request),
                Self::Scripted(server) => Service::call(server, request),
            }
        }
    }

    /// Gives the same answer to whatever is asked after the list of services.
    #[derive(Debug)]
    struct Scripted {
        services: usize,
        answer: Option<MessageResponse>,
    }

    #[tonic::async_trait]
    impl v1::ServerReflection for Scripted {
        type ServerReflectionInfoStream = Answers;

        async fn server_reflection_info(
            &self,
            request: Request<Streaming<ServerReflectionRequest>>,
        ) -> Result<Response<Answers>, Status> {
            let service = (0..self.services)
                .map(|n| ServiceResponse {
                    name: format!("s.S{n}"),
                })
                .collect();
            let list = MessageResponse::ListServicesResponse(ListServiceResponse { service });
            let answer = self.answer.clone();
            let mut first = true;
            Ok(Response::new(Box::pin(request.into_inner().filter_map(
                move |_| {
                    let reply = if std::mem::take(&mut first) {
                        Some(list.clone())
                    } else {
                        answer.clone()
                    };
                    std::future::ready(reply.map(|message| {
                        Ok(ServerReflectionResponse {
                            message_response: Some(message),
                            ..Default::default()
                        })
                    }))
                },
            ))))
        }
    }

    fn scripted(services: usize, answer: Option<MessageResponse>) -> Direct {
        Direct::Scripted(v1::ServerReflectionServer::new(Scripted {
            services,
            answer,
        }))
    }

    fn small() -> Limits {
        Limits {
            files: 3,
            services: 3,
            bytes: 4096,
            deadline: Duration::from_secs(10),
        }
    }

    fn leak(set: &FileDescriptorSet) -> &'static [u8] {
        set.encode_to_vec().leak()
    }

    fn file(name: &str, imports: &[&str]) -> FileDescriptorProto {
        FileDescriptorProto {
            name: Some(name.into()),
            package: Some("p".into()),
            dependency: imports.iter().map(|i| (*i).to_owned()).collect(),
            ..Default::default()
        }
    }

    fn sample() -> &'static [u8] {
        let mut base = file("base.proto", &[]);
        base.message_type.push(DescriptorProto {
            name: Some("Outer".into()),
            field: vec![FieldDescriptorProto {
                name: Some("field".into()),
                ..Default::default()
            }],
            nested_type: vec![DescriptorProto {
                name: Some("Inner".into()),
                ..Default::default()
            }],
            enum_type: vec![EnumDescriptorProto {
                name: Some("Kind".into()),
                value: vec![prost_types::EnumValueDescriptorProto {
                    name: Some("BIG".into()),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        });
        let mut api = file("api.proto", &["base.proto", "absent.proto"]);
        api.service.push(prost_types::ServiceDescriptorProto {
            name: Some("Api".into()),
            method: vec![prost_types::MethodDescriptorProto {
                name: Some("Do".into()),
                ..Default::default()
            }],
            ..Default::default()
        });
        api.extension.push(FieldDescriptorProto {
            name: Some("extra".into()),
            extendee: Some(".p.Outer".into()),
            number: Some(100),
            ..Default::default()
        });
        leak(&FileDescriptorSet {
            file: vec![api, base],
        })
    }

    fn names() -> Vec<String> {
        vec!["p.Api".into(), "bare.Service".into()]
    }

    fn ask(index: &Index, wanted: MessageRequest) -> MessageResponse {
        index
            .answer(&names(), &request(wanted), &mut HashSet::new())
            .expect("an answer")
    }

    fn files_of(answer: MessageResponse) -> Vec<String> {
        let MessageResponse::FileDescriptorResponse(files) = answer else {
            panic!("expected files, got {answer:?}")
        };
        let decode = |raw: &Bytes| FileDescriptorProto::decode(&raw[..]).expect("a file");
        files
            .file_descriptor_proto
            .iter()
            .map(|raw| decode(raw).name().to_owned())
            .collect()
    }

    #[test]
    fn every_kind_of_symbol_leads_to_its_file() {
        let index = Index::new(&[sample()]);
        for symbol in [
            "p.Outer",
            "p.Outer.Inner",
            "p.Outer.field",
            "p.Outer.Kind",
            "p.Outer.BIG",
        ] {
            let answer = ask(&index, MessageRequest::FileContainingSymbol(symbol.into()));
            assert_eq!(files_of(answer), ["base.proto"], "{symbol}");
        }
        for symbol in ["p.Api", "p.Api.Do", "p.extra"] {
            let answer = ask(&index, MessageRequest::FileContainingSymbol(symbol.into()));
            assert_eq!(files_of(answer), ["api.proto", "base.proto"], "{symbol}");
        }
    }

    #[test]
    fn files_are_passed_on_byte_for_byte() {
        // Field 999 is unknown to every descriptor type and must survive.
        let mut raw = file("odd.proto", &[]).encode_to_vec();
        raw.extend([0xb8, 0x3e, 0x07]);
        let set = EncodedSet {
            file: vec![raw.clone().into()],
        }
        .encode_to_vec()
        .leak();
        let index = Index::new(&[set]);
        let answer = ask(&index, MessageRequest::FileByFilename("odd.proto".into()));
        let MessageResponse::FileDescriptorResponse(files) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(files.file_descriptor_proto, [raw]);
    }

    #[test]
    fn a_stream_carries_each_dependency_once_but_what_was_asked_for_always() {
        let index = Index::new(&[sample()]);
        let mut sent = HashSet::new();
        let mut ask = |name: &str| {
            let wanted = request(MessageRequest::FileByFilename(name.into()));
            files_of(index.answer(&[], &wanted, &mut sent).expect("an answer"))
        };
        assert_eq!(ask("api.proto"), ["api.proto", "base.proto"]);
        assert_eq!(ask("api.proto"), ["api.proto"]);
        assert_eq!(ask("base.proto"), ["base.proto"]);
    }

    #[test]
    fn unknown_names_are_answered_with_not_found() {
        let index = Index::new(&[sample()]);
        for wanted in [
            MessageRequest::FileByFilename("no.proto".into()),
            MessageRequest::FileContainingSymbol("p.No\u{1b}[2J".into()),
            MessageRequest::AllExtensionNumbersOfType("p.No".into()),
            MessageRequest::FileContainingExtension(
                outrigger_wire::proto::reflection::ExtensionRequest {
                    containing_type: "p.Outer".into(),
                    extension_number: 7,
                },
            ),
        ] {
            let answer = ask(&index, wanted);
            let MessageResponse::ErrorResponse(error) = answer else {
                panic!("{answer:?}")
            };
            assert_eq!(error.error_code, 5);
            assert!(!error.error_message.contains('\u{1b}'));
        }
    }

    #[test]
    fn extensions_are_found_by_the_message_they_extend() {
        let index = Index::new(&[sample()]);
        let numbers = ask(
            &index,
            MessageRequest::AllExtensionNumbersOfType("p.Outer".into()),
        );
        let MessageResponse::AllExtensionNumbersResponse(numbers) = numbers else {
            panic!("{numbers:?}")
        };
        assert_eq!(numbers.extension_number, [100]);
        let none = ask(
            &index,
            MessageRequest::AllExtensionNumbersOfType("p.Outer.Inner".into()),
        );
        assert!(
            matches!(none, MessageResponse::AllExtensionNumbersResponse(n) if n.extension_number.is_empty())
        );
    }

    #[test]
    fn the_first_of_two_files_with_one_name_is_served() {
        let other = leak(&FileDescriptorSet {
            file: vec![file("base.proto", &[])],
        });
        let index = Index::new(&[sample(), other]);
        assert!(index.by_symbol.contains_key("p.Outer"));
        assert_eq!(index.files.len(), 2);
    }

    #[tokio::test]
    async fn describing_collects_all_services_and_files_over_either_version() {
        let (new, old) = services(names(), &[sample()]);
        for (peer, version) in [
            (Direct::V1(new), ReflectionVersion::V1),
            (Direct::V1Alpha(old), ReflectionVersion::V1Alpha),
        ] {
            let found = describe_over(peer, &[], &Limits::DEFAULT)
                .await
                .expect("a description");
            assert_eq!(found.version, version);
            assert_eq!(found.services, ["bare.Service", "p.Api"]);
            let files: Vec<_> = found.files.file.iter().map(|f| f.name()).collect();
            assert_eq!(files, ["api.proto", "base.proto"]);
            let undescribed: Vec<_> = found.undescribed.iter().map(|u| u.name.as_str()).collect();
            assert_eq!(undescribed, ["bare.Service", "absent.proto"]);
        }
    }

    #[tokio::test]
    async fn what_a_peer_knows_and_does_not_serve_is_described_when_it_is_asked_for() {
        let mut other = file("other.proto", &["base.proto"]);
        other.service.push(prost_types::ServiceDescriptorProto {
            name: Some("Host".into()),
            ..Default::default()
        });
        let other = leak(&FileDescriptorSet { file: vec![other] });
        let (new, _) = services(vec!["p.Api".into()], &[sample(), other]);
        let others = ["p.Host".to_owned(), "p.Absent".to_owned()];
        let found = describe_over(Direct::V1(new), &others, &Limits::DEFAULT)
            .await
            .expect("a description");
        assert_eq!(found.services, ["p.Api"]);
        let files: Vec<_> = found.files.file.iter().map(|f| f.name()).collect();
        assert_eq!(files, ["api.proto", "base.proto", "other.proto"]);
        let undescribed: Vec<_> = found.undescribed.iter().map(|u| u.name.as_str()).collect();
        assert_eq!(undescribed, ["absent.proto"]);
    }

    #[tokio::test]
    async fn too_many_services_are_refused() {
        let error = describe_over(scripted(4, None), &[], &small())
            .await
            .expect_err("too many");
        assert_eq!(error.code(), "reflection-too-large");
        assert_eq!(error.to_string(), "the peer described more than 3 services");
    }

    #[tokio::test]
    async fn too_many_files_and_too_many_bytes_are_refused() {
        let many = (0..4)
            .map(|n| file(&format!("{n}"), &[]).encode_to_vec().into())
            .collect();
        let big = vec![file(&"n".repeat(3000), &[]).encode_to_vec().into(); 2];
        for (files, what) in [(many, "3 files"), (big, "4096 descriptor bytes")] {
            let answer = FileDescriptorResponse {
                file_descriptor_proto: files,
            };
            let peer = scripted(1, Some(MessageResponse::FileDescriptorResponse(answer)));
            let error = describe_over(peer, &[], &small())
                .await
                .expect_err("too large");
            assert_eq!(
                error.to_string(),
                format!("the peer described more than {what}")
            );
        }
    }

    #[tokio::test]
    async fn descriptors_that_do_not_decode_and_foreign_answers_are_malformed() {
        let garbage = FileDescriptorResponse {
            file_descriptor_proto: vec![Bytes::from_static(&[0xff; 9])],
        };
        for answer in [
            MessageResponse::FileDescriptorResponse(garbage),
            MessageResponse::ListServicesResponse(ListServiceResponse::default()),
        ] {
            let error = describe_over(scripted(1, Some(answer)), &[], &small())
                .await
                .expect_err("bad");
            assert_eq!(error.code(), "reflection-malformed", "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_answers_is_given_up_on() {
        let error = describe_over(scripted(1, None), &[], &small())
            .await
            .expect_err("silent");
        assert_eq!(error.code(), "reflection-timeout");
        assert_eq!(
            error.to_string(),
            "the peer did not describe itself within 10 s"
        );
    }

    #[tokio::test]
    async fn endless_imports_end() {
        let file = file("a", &["b", "c", "d", "e", "f", "g"])
            .encode_to_vec()
            .into();
        let answer = FileDescriptorResponse {
            file_descriptor_proto: vec![file],
        };
        let peer = scripted(1, Some(MessageResponse::FileDescriptorResponse(answer)));
        let found = describe_over(peer, &[], &small())
            .await
            .expect("a description");
        assert_eq!(found.files.file.len(), 1);
    }
}
