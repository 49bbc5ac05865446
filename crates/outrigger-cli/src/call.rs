//! `outrigger call`: any method of any plugin that describes itself.

use std::io::Read;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::uri::PathAndQuery;
use outrigger_host::{Channel, MAX_MESSAGE, PluginExited, Serving, Transport};
use prost_reflect::ReflectMessage as _;
use prost_reflect::prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::metadata::{BinaryMetadataKey, BinaryMetadataValue, MetadataMap};
use tonic::{Code, Request, Status};

use crate::args::CallArgs;
use crate::codec::DynamicCodec;
use crate::descriptors::{self, guarded};
use crate::establish::{self, Fill};
use crate::failure::{Exit, Failure, printable};
use crate::granting::{self, Granting, Target};
use crate::input::{self, Source};
use crate::launch::{self, Session, Start};
use crate::printer::{Ending, Printer, line};
use crate::status::StatusReport;
use crate::{json, netrpc};

/// How long a unary call may take unless told otherwise.
pub(crate) const UNARY_TIMEOUT: Duration = Duration::from_secs(60);

/// How many requests are read ahead of the plugin.
const READ_AHEAD: usize = 16;

/// Starts the plugin, calls the method, prints the replies, ends the plugin.
///
/// # Errors
/// What kept the plugin from starting, what is wrong with the arguments, or
/// how the call failed.
///
/// # Cancel safety
/// Dropping the future ends the plugin; replies already printed stay printed.
pub(crate) async fn run(args: &CallArgs) -> Result<(), Failure> {
    let mut printer = Printer::new(args);
    let result = match granting::complete(&args.plugin) {
        Ok(target) => {
            let result = with_plugin(args, &target, &mut printer).await;
            report(args, &target.granting, &mut printer);
            result
        }
        Err(failure) => Err(failure),
    };
    printer.finish(&result)?;
    result
}

/// Tells what the host did for the plugin, if it was offered anything.
fn report(args: &CallArgs, granting: &Granting, printer: &mut Printer) {
    printer.notes.extend(granting.audit.finish());
    if granting.manifest.is_none() && granting.audit.counts().refused > 0 {
        let note = "nothing is granted without `--manifest`";
        printer.notes.push(note.to_owned());
    }
    if granting.manifest.is_some() || args.establish.is_some() {
        let counts = granting.audit.counts();
        let client = printer.client_id.take();
        printer.host = Some(json!({"client_id": client, "operations": counts}));
    }
}

async fn with_plugin(
    args: &CallArgs,
    target: &Target,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let metadata = metadata(&args.metadata)?;
    let types = netrpc::Types::new(args)?;
    let input = Source::open(args.input())?;
    match launch::start(target).await? {
        Start::Grpc(session, channel) => {
            let result = match unsupported(args, target, Transport::Grpc) {
                Some(failure) => Err(failure),
                None => {
                    let granting = &target.granting;
                    call(&session, channel, args, granting, metadata, input, printer).await
                }
            };
            session.plugin.stop().await;
            result
        }
        Start::NetRpc(session, control) => {
            printer.method = args.method.dotted();
            let result = match unsupported(args, target, Transport::NetRpc) {
                Some(failure) => Err(failure),
                None => {
                    let granting = &target.granting;
                    netrpc::call(&session, &control, args, granting, &types, input, printer).await
                }
            };
            session.plugin.stop().await;
            result
        }
    }
}

/// Options that mean nothing to the protocol that the plugin speaks.
fn unsupported(args: &CallArgs, target: &Target, protocol: Transport) -> Option<Failure> {
    let option = match protocol {
        Transport::Grpc if args.name.is_some() => "--plugin",
        Transport::Grpc if args.go_type.is_some() => "--type",
        Transport::Grpc if !args.type_defs.is_empty() => "--type-def",
        Transport::NetRpc if !args.metadata.is_empty() => "--metadata",
        Transport::NetRpc if args.descriptors.is_some() => "--descriptors",
        _ => return None,
    };
    Some(launch::option_unsupported(option, protocol, target))
}

async fn call(
    session: &Session,
    channel: Channel,
    args: &CallArgs,
    granting: &Granting,
    metadata: MetadataMap,
    input: Source,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let patience = args.timeout.filter(|limit| !limit.is_zero());
    let patience = patience.unwrap_or(UNARY_TIMEOUT);
    let description = async {
        match &args.descriptors {
            Some(path) => descriptors::from_file(path),
            None => launch::describe_or_standard(&channel).await,
        }
    };
    let description = tokio::time::timeout(patience, description)
        .await
        .unwrap_or_else(|_| {
            let seconds = patience.as_secs_f64();
            let message =
                format!("the plugin did not describe itself within {seconds} s (`--timeout`)");
            Err(Failure::new(Exit::Failed, "reflection-timeout", message))
        })?;
    let method = descriptors::method(&description, &args.method)?;
    let client = method.is_client_streaming();
    let server = method.is_server_streaming();
    let introduced = match &args.establish {
        Some(name) => {
            let introduced =
                establish::over_grpc(session, &channel, granting, &description, name).await?;
            Some(printer.introduced(introduced))
        }
        None => None,
    };
    let (fill, _serving) = fill(session, args, granting, &method).await?;
    printer.begin(Transport::Grpc, descriptors::kind(client, server))?;
    let timeout = match args.timeout {
        Some(limit) => (!limit.is_zero()).then_some(limit),
        None => (!client && !server).then_some(UNARY_TIMEOUT),
    };
    let (requests, mistakes) = requests(input, &method, fill)?;
    let mut request = Request::new(ReceiverStream::new(requests));
    *request.metadata_mut() = metadata;
    if let Some(limit) = timeout {
        request.set_timeout(limit);
    }
    let exchange = exchange(channel, request, &method, printer);
    let ended = tokio::select! {
        // A mistake in the input ends the call before its stream seems complete.
        biased;
        (failure, _queue) = mistake(mistakes) => {
            session.plugin.stop().await;
            return Err(failure);
        }
        ended = within(timeout, exchange) => ended,
    };
    // The services are there until now.
    drop(introduced);
    match ended {
        Ok(()) => Ok(()),
        Err(Ended::Output(failure)) => Err(failure),
        Err(Ended::Status(status)) => {
            let report = StatusReport::new(&status, method.parent_pool());
            let failure = explained(&status, report.failure(&args.method), session, timeout);
            printer.ending = Ending::Grpc(Some(report));
            Err(failure)
        }
    }
}

/// The broker id for the call's own request, if that has a field for one. It is
/// another one than that of the introduction: each can be dialled once.
async fn fill(
    session: &Session,
    args: &CallArgs,
    granting: &Granting,
    method: &MethodDescriptor,
) -> Result<(Option<Fill>, Option<Serving>), Failure> {
    let wanted = granting.manifest.is_some() || args.establish.is_some();
    let Some(field) = Fill::field(&method.input()).filter(|_| wanted) else {
        return Ok((None, None));
    };
    let serving = establish::offer(session, granting).await?;
    let id = serving.id().0;
    Ok((Some(Fill { field, id }), Some(serving)))
}

/// Why a call ended early.
enum Ended {
    Status(Box<Status>),
    Output(Failure),
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

async fn exchange(
    channel: Channel,
    request: Request<ReceiverStream<DynamicMessage>>,
    method: &MethodDescriptor,
    printer: &mut Printer,
) -> Result<(), Ended> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let path = PathAndQuery::from_str(&path)
        .map_err(|_| Status::internal("the method's name does not fit into a path"))?;
    let mut grpc = Grpc::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    grpc.ready().await?;
    let codec = DynamicCodec::new(method);
    let mut replies = grpc.streaming(request, path, codec).await?.into_inner();
    let mut count = 0_u64;
    while let Some(reply) = replies.message().await? {
        count += 1;
        printer.reply(&reply_text(&reply)).map_err(Ended::Output)?;
    }
    match (
        count,
        descriptors::kind(method.is_client_streaming(), method.is_server_streaming()),
    ) {
        (0, "unary") => {
            return Err(Status::internal("the plugin ended the call without a reply").into());
        }
        // Published plugins do this; what they were sent has arrived.
        (0, "client-stream") => printer
            .notes
            .push("the plugin ended the call without a reply".to_owned()),
        _ => {}
    }
    printer.ending = Ending::Grpc(Some(StatusReport::ok()));
    Ok(())
}

async fn within(
    limit: Option<Duration>,
    exchange: impl Future<Output = Result<(), Ended>>,
) -> Result<(), Ended> {
    let Some(limit) = limit else {
        return exchange.await;
    };
    match tokio::time::timeout(limit, exchange).await {
        Ok(ended) => ended,
        Err(_) => {
            let text = format!(
                "not finished within {} s (`--timeout`)",
                limit.as_secs_f64()
            );
            Err(Status::deadline_exceeded(text).into())
        }
    }
}

/// Adds what is known beyond the status.
fn explained(
    status: &Status,
    failure: Failure,
    session: &Session,
    timeout: Option<Duration>,
) -> Failure {
    if let Some(exited) = PluginExited::behind(status) {
        return session.epitaph(failure, exited);
    }
    match (status.code(), timeout) {
        (Code::DeadlineExceeded, Some(limit)) => failure.note(format!(
            "the call had {} s (`--timeout`)",
            limit.as_secs_f64()
        )),
        (Code::ResourceExhausted, _) => failure.note(
            "a plugin on go-plugin takes requests of up to 4 MiB unless its author raised that",
        ),
        _ => failure,
    }
}

/// A reply as JSON; base64 when it holds what JSON cannot say, such as an unknown type.
fn reply_text(reply: &DynamicMessage) -> String {
    if let Some(Ok(text)) = guarded(|| json::line(reply)) {
        return text;
    }
    let raw = STANDARD.encode(reply.encode_to_vec());
    line(&json!({"@type": reply.descriptor().full_name(), "@base64": raw}))
}

/// A mistake in the input, together with the queue: while that exists, the
/// plugin cannot take what it got for everything.
type Mistake = (Failure, mpsc::Sender<DynamicMessage>);

/// The request messages, and the mistake that ends them early.
fn requests(
    input: Source,
    method: &MethodDescriptor,
    fill: Option<Fill>,
) -> Result<(mpsc::Receiver<DynamicMessage>, oneshot::Receiver<Mistake>), Failure> {
    let (queue, requests) = mpsc::channel(READ_AHEAD);
    let (report, mistakes) = oneshot::channel();
    let message = Wanted {
        message: method.input(),
        fill,
    };
    let many = method.is_client_streaming();
    let reader: Box<dyn Read + Send> = match input {
        Source::Read(reader) => reader,
        Source::Absent => {
            if !many {
                // The queue is new and has room.
                let _ = queue.try_send(message.empty());
            }
            return Ok((requests, mistakes));
        }
    };
    input::beside(move || {
        let fed = if many {
            feed(reader, &message, &queue)
        } else {
            one(reader, &message, &queue)
        };
        if let Err(failure) = fed {
            let _ = report.send((failure, queue));
        }
    })?;
    Ok((requests, mistakes))
}

/// What each request is to be.
struct Wanted {
    message: MessageDescriptor,
    fill: Option<Fill>,
}

impl Wanted {
    fn empty(&self) -> DynamicMessage {
        let mut request = DynamicMessage::new(self.message.clone());
        if let Some(fill) = &self.fill {
            fill.apply(&Value::Null, &mut request);
        }
        request
    }

    /// A request of JSON, or why it is none.
    fn read(&self, value: Value) -> Result<DynamicMessage, String> {
        let said = self.fill.as_ref().map(|fill| (fill, value.clone()));
        let read = guarded(|| DynamicMessage::deserialize(self.message.clone(), value))
            .ok_or_else(|| "its type is not sound".to_owned())?;
        let mut request = read.map_err(|error| printable(&error.to_string()))?;
        if let Some((fill, value)) = said {
            fill.apply(&value, &mut request);
        }
        Ok(request)
    }
}

/// Waits for a mistake; for ever when there is none.
async fn mistake(mistakes: oneshot::Receiver<Mistake>) -> Mistake {
    match mistakes.await {
        Ok(mistake) => mistake,
        Err(_) => std::future::pending().await,
    }
}

/// Queues every message until the input or the call ends.
fn feed(
    input: Box<dyn Read + Send>,
    message: &Wanted,
    queue: &mpsc::Sender<DynamicMessage>,
) -> Result<(), Failure> {
    for request in messages(input, message) {
        if queue.blocking_send(request?).is_err() {
            break;
        }
    }
    Ok(())
}

/// Queues the only message of the input.
fn one(
    input: Box<dyn Read + Send>,
    message: &Wanted,
    queue: &mpsc::Sender<DynamicMessage>,
) -> Result<(), Failure> {
    let mut messages = messages(input, message);
    let request = messages.next().unwrap_or_else(|| Ok(message.empty()))?;
    if let Some(second) = messages.next() {
        second?;
        return Err(input::too_much());
    }
    // Only a call that is over has no room for it.
    let _ = queue.try_send(request);
    Ok(())
}

/// Reads JSON values that follow each other, one per line or not.
fn messages<'a>(
    input: Box<dyn Read + Send>,
    message: &'a Wanted,
) -> impl Iterator<Item = Result<DynamicMessage, Failure>> + 'a {
    let values = serde_json::Deserializer::from_reader(input).into_iter::<Value>();
    values.enumerate().map(|(at, value)| {
        let value = input::parsed(at + 1, value)?;
        message
            .read(value)
            .map_err(|reason| misfit(at + 1, &message.message, &reason))
    })
}

fn misfit(number: usize, message: &MessageDescriptor, reason: &str) -> Failure {
    let fields: Vec<String> = message
        .fields()
        .map(|field| printable(&format!("{}: {}", field.json_name(), field_type(&field))))
        .collect();
    Failure::usage(
        "data-invalid",
        format!(
            "request message {number} is no `{}`",
            printable(message.full_name())
        ),
    )
    .note(reason.to_owned())
    .help(format!(
        "its fields are {}",
        descriptors::shortened(&fields, 24)
    ))
}

/// The type of a field in the words of a proto file.
fn field_type(field: &FieldDescriptor) -> String {
    let name = match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(values) => values.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    if field.is_map() {
        "map".to_owned()
    } else if field.is_list() {
        format!("repeated {name}")
    } else {
        name
    }
}

/// Metadata as given on the command line.
fn metadata(pairs: &[(String, String)]) -> Result<MetadataMap, Failure> {
    let mut map = MetadataMap::new();
    for (key, value) in pairs {
        let added = if key.ends_with("-bin") {
            binary(key, value).map(|(key, value)| {
                map.append_bin(key, value);
            })
        } else {
            ascii(key, value).map(|(key, value)| {
                map.append(key, value);
            })
        };
        added.ok_or_else(|| {
            Failure::usage(
                "metadata-invalid",
                format!("`{}` cannot be sent as metadata", printable(&format!("{key}={value}"))),
            )
            .help("keys are lower-case ASCII, values printable ASCII, or base64 after a key in `-bin`")
        })?;
    }
    Ok(map)
}

fn ascii(key: &str, value: &str) -> Option<(AsciiMetadataKey, AsciiMetadataValue)> {
    let key = AsciiMetadataKey::from_str(key).ok()?;
    Some((key, AsciiMetadataValue::try_from(value).ok()?))
}

fn binary(key: &str, value: &str) -> Option<(BinaryMetadataKey, BinaryMetadataValue)> {
    let value = STANDARD_NO_PAD.decode(value.trim_end_matches('=')).ok()?;
    Some((
        BinaryMetadataKey::from_str(key).ok()?,
        BinaryMetadataValue::from_bytes(&value),
    ))
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    fn method(service: &str, method: &str) -> MethodDescriptor {
        let mut pool = DescriptorPool::global();
        pool.decode_file_descriptor_set(outrigger_transport::GO_PLUGIN_DESCRIPTORS)
            .expect("sound descriptors");
        let service = pool.get_service_by_name(service).expect("the service");
        service
            .methods()
            .find(|m| m.name() == method)
            .expect("the method")
    }

    fn read(text: &str, method: &MethodDescriptor) -> (Vec<DynamicMessage>, Option<Failure>) {
        let source = Source::Read(Box::new(std::io::Cursor::new(text.to_owned())));
        let (mut requests, mistakes) = requests(source, method, None).expect("a reader");
        let mistake = mistakes.blocking_recv().ok();
        let mut all = Vec::new();
        while let Ok(request) = requests.try_recv() {
            all.push(request);
        }
        (all, mistake.map(|(failure, _)| failure))
    }

    #[test]
    fn a_unary_method_takes_one_message_and_none_means_an_empty_one() {
        let check = method("grpc.health.v1.Health", "Check");
        for text in [
            "{\"service\": \"plugin\"}\n",
            "{\n  \"service\":\n \"plugin\"}",
            "",
            " \n",
        ] {
            let (requests, failure) = read(text, &check);
            assert_eq!((requests.len(), failure), (1, None), "{text:?}");
        }
        let (requests, failure) = read("{}{}", &check);
        assert_eq!(
            (requests.len(), failure.expect("a failure").code),
            (0, "data-too-much")
        );
    }

    #[test]
    fn a_stream_of_requests_takes_a_message_per_line_or_none() {
        let start = method("plugin.GRPCBroker", "StartStream");
        for (text, count) in [
            ("", 0),
            ("{}\n{}\n", 2),
            ("{\"serviceId\":1}\n\n{\"service_id\":2}", 2),
        ] {
            assert_eq!(read(text, &start).0.len(), count, "{text:?}");
        }
    }

    #[test]
    fn a_message_that_does_not_fit_is_explained_with_the_fields_there_are() {
        let check = method("grpc.health.v1.Health", "Check");
        let failure = read("{\"srevice\": 1}", &check).1.expect("a failure");
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(
            failure.message,
            "request message 1 is no `grpc.health.v1.HealthCheckRequest`"
        );
        assert_eq!(failure.help, ["its fields are `service: string`"]);
        let failure = read("{\"service\": ", &check).1.expect("a failure");
        assert_eq!(failure.message, "request message 1 is not JSON");
    }

    #[test]
    fn metadata_takes_text_and_base64() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let map = metadata(&[pair("client", "x"), pair("trace-bin", "AQI=")]).expect("good");
        assert_eq!(map.get("client").expect("text"), "x");
        assert_eq!(
            map.get_bin("trace-bin")
                .expect("bytes")
                .to_bytes()
                .expect("decoded")[..],
            [1, 2]
        );
        for bad in [
            pair("Key with space", "x"),
            pair("k", "\n"),
            pair("k-bin", "?"),
        ] {
            assert_eq!(metadata(&[bad]).expect_err("bad").code, "metadata-invalid");
        }
    }
}
