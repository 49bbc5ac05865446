//! The requests of a call over gRPC: read as JSON while the call takes them.

use std::io::Read;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::descriptors::{self, guarded};
use crate::failure::{Failure, printable};
use crate::fill::Fill;
use crate::input::{self, Source};
use crate::texts;

/// How many requests are read ahead of the plugin.
const READ_AHEAD: usize = 16;

/// A mistake in the input, together with the queue: while that exists, the
/// plugin cannot take what it got for everything.
pub(crate) type Mistake = (Failure, mpsc::Sender<DynamicMessage>);

/// The request messages, and the mistake that ends them early.
pub(crate) fn requests(
    input: Source,
    method: &MethodDescriptor,
    fills: Vec<Fill>,
) -> Result<(mpsc::Receiver<DynamicMessage>, oneshot::Receiver<Mistake>), Failure> {
    let (queue, requests) = mpsc::channel(READ_AHEAD);
    let (report, mistakes) = oneshot::channel();
    let message = Wanted {
        message: method.input(),
        fills,
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
    fills: Vec<Fill>,
}

impl Wanted {
    fn empty(&self) -> DynamicMessage {
        let mut request = DynamicMessage::new(self.message.clone());
        for fill in &self.fills {
            fill.apply(&Value::Null, &mut request);
        }
        request
    }

    /// A request of JSON, or why it is none.
    fn read(&self, mut value: Value) -> Result<DynamicMessage, String> {
        texts::unmark(&mut value, &self.message)?;
        let said = (!self.fills.is_empty()).then(|| value.clone());
        let read = guarded(|| DynamicMessage::deserialize(self.message.clone(), value))
            .ok_or_else(|| "its type is not sound".to_owned())?;
        let mut request = read.map_err(|error| printable(&error.to_string()))?;
        if let Some(said) = said {
            for fill in &self.fills {
                fill.apply(&said, &mut request);
            }
        }
        Ok(request)
    }
}

/// Waits for a mistake; for ever when there is none.
pub(crate) async fn mistake(mistakes: oneshot::Receiver<Mistake>) -> Mistake {
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
pub(crate) fn field_type(field: &FieldDescriptor) -> String {
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

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;
    use crate::failure::Exit;

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
        let (mut requests, mistakes) = requests(source, method, Vec::new()).expect("a reader");
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
            (requests.len(), &*failure.expect("a failure").code),
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
            &*failure.message,
            "request message 1 is no `grpc.health.v1.HealthCheckRequest`"
        );
        assert_eq!(failure.help, ["its fields are `service: string`"]);
        let failure = read("{\"service\": ", &check).1.expect("a failure");
        assert_eq!(&*failure.message, "request message 1 is not JSON");
    }
}
