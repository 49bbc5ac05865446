//! Asks a plugin for its services and their descriptors, by the reflection service.
//!
//! A plugin controls what it answers, so the number of files and services, their
//! size and the time are bounded. Descriptors are returned as plain messages;
//! types are built from them in [`descriptors`](crate::descriptors).

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use outrigger_transport::Channel;
use outrigger_transport::proto::reflection::server_reflection_client::ServerReflectionClient as ClientV1;
use outrigger_transport::proto::reflection_v1alpha::server_reflection_client::ServerReflectionClient as ClientV1Alpha;
use outrigger_wire::proto::reflection::server_reflection_request::MessageRequest;
use outrigger_wire::proto::reflection::server_reflection_response::MessageResponse;
use outrigger_wire::proto::reflection::{
    ErrorResponse, ServerReflectionRequest, ServerReflectionResponse,
};
use outrigger_wire::{Coded, Excerpt};
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// Most files that [`describe`] accepts from one peer.
const MAX_FILES: usize = 2000;
/// Most services that [`describe`] accepts from one peer.
const MAX_SERVICES: usize = 2000;
/// Most descriptor bytes, over all files, that [`describe`] accepts from one peer.
const MAX_DESCRIPTOR_BYTES: usize = 16 * 1024 * 1024;
/// How long [`describe`] waits altogether.
const DESCRIBE_DEADLINE: Duration = Duration::from_secs(30);

/// Room for the framing of one answer beside its descriptors.
const ANSWER_OVERHEAD: usize = 64 * 1024;
/// Which of the two reflection services answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReflectionVersion {
    /// `grpc.reflection.v1`.
    V1,
    /// `grpc.reflection.v1alpha`, all that older servers have.
    V1Alpha,
}

impl ReflectionVersion {
    /// The last part of the package name: `v1` or `v1alpha`.
    pub(crate) fn as_str(self) -> &'static str {
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
pub(crate) struct Description {
    /// Which reflection service answered.
    pub(crate) version: ReflectionVersion,
    /// Full names of the services, sorted, each once.
    pub(crate) services: Vec<String>,
    /// The files those services need, dependencies included as far as the peer has them.
    pub(crate) files: FileDescriptorSet,
    /// Services and files the peer named but could not describe.
    pub(crate) undescribed: Vec<Undescribed>,
}

/// Something a peer named and could not describe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Undescribed {
    /// A full service name, or a file name that another file imports.
    pub(crate) name: String,
    /// The peer's reason, in its own words.
    pub(crate) reason: String,
}

/// Why a peer could not be described.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReflectionError {
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

impl Coded for ReflectionError {
    fn code(&self) -> &'static str {
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
pub(crate) async fn describe(channel: &Channel) -> Result<Description, ReflectionError> {
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
pub(crate) async fn describe_with(
    channel: &Channel,
    others: &[String],
) -> Result<Description, ReflectionError> {
    describe_within(&Limits::DEFAULT, channel, others).await
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

async fn describe_within(
    limits: &Limits,
    channel: &Channel,
    others: &[String],
) -> Result<Description, ReflectionError> {
    let all = async {
        for version in [ReflectionVersion::V1, ReflectionVersion::V1Alpha] {
            match Session::open(channel.clone(), version, limits).await {
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
    async fn open(
        channel: Channel,
        version: ReflectionVersion,
        limits: &'a Limits,
    ) -> Result<(Session<'a>, BTreeSet<String>), ReflectionError> {
        let (requests, queue) = mpsc::channel(1);
        let list = request(MessageRequest::ListServices("*".into()));
        requests.try_send(list).map_err(|_| ended())?;
        let queue = ReceiverStream::new(queue);
        let room = limits.bytes + ANSWER_OVERHEAD;
        let answers = match version {
            ReflectionVersion::V1 => {
                let mut client = ClientV1::new(channel).max_decoding_message_size(room);
                client.server_reflection_info(queue).await
            }
            ReflectionVersion::V1Alpha => {
                let mut client = ClientV1Alpha::new(channel).max_decoding_message_size(room);
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

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::{Stream, StreamExt as _};
    use outrigger_transport::proto::reflection::server_reflection_server as v1;
    use outrigger_transport::{ChannelOptions, ServeLimits, ServiceSet, health, serve_connection};
    use outrigger_wire::proto::reflection::{
        FileDescriptorResponse, ListServiceResponse, ServiceResponse,
    };
    use prost_types::{DescriptorProto, ServiceDescriptorProto};
    use tokio_util::sync::CancellationToken;
    use tonic::{Request, Response};

    use super::*;

    /// Reaches a server of `services` over a stream in memory.
    async fn reach(services: ServiceSet) -> Channel {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let limits = ServeLimits::default();
        let stop = CancellationToken::new();
        tokio::spawn(serve_connection(Box::new(theirs), services, limits, stop));
        let connected = Channel::connect(Box::new(ours), ChannelOptions::default()).await;
        connected.expect("a connection")
    }

    /// Gives the same answer to whatever is asked after the list of services.
    #[derive(Debug)]
    struct Scripted {
        services: usize,
        answer: Option<MessageResponse>,
    }

    #[tonic::async_trait]
    impl v1::ServerReflection for Scripted {
        type ServerReflectionInfoStream =
            Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

        async fn server_reflection_info(
            &self,
            request: Request<Streaming<ServerReflectionRequest>>,
        ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
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

    async fn scripted(services: usize, answer: Option<MessageResponse>) -> Channel {
        let script = Scripted { services, answer };
        reach(ServiceSet::new().with(v1::ServerReflectionServer::new(script))).await
    }

    /// What a server with reflection serves beside the rest.
    const REFLECTION: [&str; 2] = [
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];

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

    fn service(name: &str) -> ServiceDescriptorProto {
        ServiceDescriptorProto {
            name: Some(name.into()),
            ..Default::default()
        }
    }

    fn sample() -> &'static [u8] {
        let mut base = file("base.proto", &[]);
        base.message_type.push(DescriptorProto {
            name: Some("Outer".into()),
            ..Default::default()
        });
        let mut api = file("api.proto", &["base.proto", "absent.proto"]);
        api.service.push(service("Api"));
        leak(&FileDescriptorSet {
            file: vec![api, base],
        })
    }

    /// A server that has reflection and the services `names`, none of which answers.
    fn reflecting(names: &[&'static str]) -> ServiceSet {
        let mut services = ServiceSet::new().describe(sample());
        for name in names {
            services.add_named(name, health::service());
        }
        services
    }

    #[tokio::test]
    async fn describing_collects_all_services_and_files_over_either_version() {
        let new = reflecting(&["p.Api", "bare.Service"]).with_reflection();
        let mut old = new.clone();
        // It answers calls to services that it is not with `UNIMPLEMENTED`.
        old.add_named("grpc.reflection.v1.ServerReflection", health::service());
        for (services, version) in [
            (new, ReflectionVersion::V1),
            (old, ReflectionVersion::V1Alpha),
        ] {
            let found = describe(&reach(services).await).await;
            let found = found.expect("a description");
            assert_eq!(found.version, version);
            let expected = [&["bare.Service"], &REFLECTION[..], &["p.Api"]].concat();
            assert_eq!(found.services, expected);
            let files: Vec<_> = found.files.file.iter().map(|f| f.name()).collect();
            assert_eq!(files, ["api.proto", "base.proto"]);
            let undescribed: Vec<_> = found.undescribed.iter().map(|u| u.name.as_str()).collect();
            let expected = [&["bare.Service"], &REFLECTION[..], &["absent.proto"]].concat();
            assert_eq!(undescribed, expected);
        }
    }

    #[tokio::test]
    async fn what_a_peer_knows_and_does_not_serve_is_described_when_it_is_asked_for() {
        let mut other = file("other.proto", &["base.proto"]);
        other.service.push(service("Host"));
        let other = leak(&FileDescriptorSet { file: vec![other] });
        let services = reflecting(&["p.Api"]).describe(other).with_reflection();
        let channel = reach(services).await;
        let others = ["p.Host".to_owned(), "p.Absent".to_owned()];
        let found = describe_with(&channel, &others)
            .await
            .expect("a description");
        assert!(!found.services.contains(&others[0]));
        let files: Vec<_> = found.files.file.iter().map(|f| f.name()).collect();
        assert_eq!(files, ["api.proto", "base.proto", "other.proto"]);
        let undescribed = |name: &str| found.undescribed.iter().any(|u| u.name == name);
        assert!(undescribed("absent.proto") && !undescribed("p.Absent"));
    }

    #[tokio::test]
    async fn a_peer_without_reflection_says_so() {
        let channel = reach(ServiceSet::new().with(health::service())).await;
        let error = describe(&channel).await.expect_err("not served");
        assert_eq!(error.code(), "reflection-not-served");
    }

    #[tokio::test]
    async fn too_many_services_are_refused() {
        let error = describe_within(&small(), &scripted(4, None).await, &[])
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
            let peer = scripted(1, Some(MessageResponse::FileDescriptorResponse(answer))).await;
            let error = describe_within(&small(), &peer, &[])
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
            let error = describe_within(&small(), &scripted(1, Some(answer)).await, &[])
                .await
                .expect_err("bad");
            assert_eq!(error.code(), "reflection-malformed", "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_answers_is_given_up_on() {
        let error = describe_within(&small(), &scripted(1, None).await, &[])
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
        let peer = scripted(1, Some(MessageResponse::FileDescriptorResponse(answer))).await;
        let found = describe_within(&small(), &peer, &[])
            .await
            .expect("a description");
        assert_eq!(found.files.file.len(), 1);
    }
}
