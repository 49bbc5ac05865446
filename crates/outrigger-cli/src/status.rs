//! How a call failed: status name, message and decoded details.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_wire::{ErrorInfo, Excerpt, RichStatus};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::{Any, Duration};
use serde::Serialize;
use serde_json::{Value, json};
use tonic::{Code, Status};

pub(crate) use outrigger_transport::code_name as name;

use crate::descriptors::{MethodName, guarded};
use crate::failure::{Exit, Failure};

/// Most details that are shown of one status.
const MAX_DETAILS: usize = 64;

/// A gRPC status as the command prints it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct StatusReport {
    /// The number, 0 for success.
    pub(crate) code: i32,
    /// The number's name, such as `NOT_FOUND`.
    pub(crate) name: &'static str,
    pub(crate) message: String,
    /// Each with its type under `@type`; what cannot be decoded is under `@base64`.
    pub(crate) details: Vec<Value>,
}

impl StatusReport {
    pub(crate) fn ok() -> Self {
        Self {
            code: 0,
            name: "OK",
            message: String::new(),
            details: Vec::new(),
        }
    }

    pub(crate) fn new(status: &Status, pool: &DescriptorPool) -> Self {
        Self {
            code: status.code() as i32,
            name: name(status.code()),
            message: status.message().to_owned(),
            details: details(status.details(), pool),
        }
    }

    pub(crate) fn failure(&self, method: &MethodName) -> Failure {
        let failure = Failure::new(
            Exit::Failed,
            "rpc-failed",
            format!(
                "`{method}` failed with {} ({}): {}",
                self.name,
                self.code,
                Excerpt::new(self.message.as_bytes())
            ),
        );
        self.details.iter().fold(failure, |failure, detail| {
            let text = crate::json::line(detail).unwrap_or_default();
            failure.note(format!("detail {text}"))
        })
    }
}

/// The status code with that name.
pub(crate) fn code(wanted: &str) -> Option<Code> {
    let mut codes = (1..=16).map(Code::from_i32);
    codes.find(|code| name(*code) == wanted)
}

fn details(encoded: &[u8], pool: &DescriptorPool) -> Vec<Value> {
    if encoded.is_empty() {
        return Vec::new();
    }
    match RichStatus::decode(encoded) {
        Ok(status) => status
            .details
            .iter()
            .take(MAX_DETAILS)
            .map(|any| detail(any, pool))
            .collect(),
        Err(_) => vec![json!({ "@base64": STANDARD.encode(encoded) })],
    }
}

fn detail(any: &Any, pool: &DescriptorPool) -> Value {
    let full_name = any.type_url.rsplit('/').next().unwrap_or_default();
    let decoded =
        described(full_name, &any.value, pool).or_else(|| well_known(full_name, &any.value));
    let mut object = match decoded {
        Some(Value::Object(fields)) => fields,
        Some(other) => serde_json::Map::from_iter([("value".to_owned(), other)]),
        None => {
            let raw = Value::String(STANDARD.encode(&any.value));
            serde_json::Map::from_iter([("@base64".to_owned(), raw)])
        }
    };
    object.insert("@type".to_owned(), Value::String(any.type_url.clone()));
    Value::Object(object)
}

/// Decodes with a type that the plugin itself describes.
fn described(full_name: &str, value: &[u8], pool: &DescriptorPool) -> Option<Value> {
    let message = pool.get_message_by_name(full_name)?;
    guarded(|| {
        let decoded = DynamicMessage::decode(message, value).ok()?;
        serde_json::to_value(decoded).ok()
    })?
}

/// Decodes the standard error details, which plugins seldom describe.
fn well_known(full_name: &str, value: &[u8]) -> Option<Value> {
    fn read<M: Message + Default + Serialize>(value: &[u8]) -> Option<Value> {
        serde_json::to_value(M::decode(value).ok()?).ok()
    }
    match full_name.strip_prefix("google.rpc.")? {
        "ErrorInfo" => error_info(value),
        "RetryInfo" => read::<RetryInfo>(value),
        "DebugInfo" => read::<DebugInfo>(value),
        "QuotaFailure" => read::<QuotaFailure>(value),
        "PreconditionFailure" => read::<PreconditionFailure>(value),
        "BadRequest" => read::<BadRequest>(value),
        "RequestInfo" => read::<RequestInfo>(value),
        "ResourceInfo" => read::<ResourceInfo>(value),
        "Help" => read::<Help>(value),
        "LocalizedMessage" => read::<LocalizedMessage>(value),
        _ => None,
    }
}

fn error_info(value: &[u8]) -> Option<Value> {
    let info = ErrorInfo::decode(value).ok()?;
    Some(json!({
        "reason": info.reason,
        "domain": info.domain,
        "metadata": info.metadata,
    }))
}

// Field names and numbers are those of `google/rpc/error_details.proto`.

#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    #[serde(serialize_with = "seconds")]
    retry_delay: Option<Duration>,
}

fn seconds<S: serde::Serializer>(delay: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    match delay {
        Some(delay) => to.collect_str(delay),
        None => to.serialize_none(),
    }
}

#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
struct DebugInfo {
    #[prost(string, repeated, tag = "1")]
    stack_entries: Vec<String>,
    #[prost(string, tag = "2")]
    detail: String,
}

#[derive(Clone, PartialEq, Message, Serialize)]
struct QuotaFailure {
    #[prost(message, repeated, tag = "1")]
    violations: Vec<QuotaViolation>,
}

#[derive(Clone, PartialEq, Message, Serialize)]
struct QuotaViolation {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, tag = "2")]
    description: String,
}

#[derive(Clone, PartialEq, Message, Serialize)]
struct PreconditionFailure {
    #[prost(message, repeated, tag = "1")]
    violations: Vec<PreconditionViolation>,
}

#[derive(Clone, PartialEq, Message, Serialize)]
struct PreconditionViolation {
    #[prost(string, tag = "1")]
    r#type: String,
    #[prost(string, tag = "2")]
    subject: String,
    #[prost(string, tag = "3")]
    description: String,
}

#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<FieldViolation>,
}

#[derive(Clone, PartialEq, Message, Serialize)]
struct FieldViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
    #[prost(string, tag = "3")]
    reason: String,
}

#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestInfo {
    #[prost(string, tag = "1")]
    request_id: String,
    #[prost(string, tag = "2")]
    serving_data: String,
}

#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceInfo {
    #[prost(string, tag = "1")]
    resource_type: String,
    #[prost(string, tag = "2")]
    resource_name: String,
    #[prost(string, tag = "3")]
    owner: String,
    #[prost(string, tag = "4")]
    description: String,
}

#[derive(Clone, PartialEq, Message, Serialize)]
struct Help {
    #[prost(message, repeated, tag = "1")]
    links: Vec<Link>,
}

#[derive(Clone, PartialEq, Message, Serialize)]
struct Link {
    #[prost(string, tag = "1")]
    description: String,
    #[prost(string, tag = "2")]
    url: String,
}

#[derive(Clone, PartialEq, Message, Serialize)]
struct LocalizedMessage {
    #[prost(string, tag = "1")]
    locale: String,
    #[prost(string, tag = "2")]
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(full_name: &str, value: Vec<u8>) -> Any {
        Any {
            type_url: format!("type.googleapis.com/{full_name}"),
            value,
        }
    }

    fn report(details: Vec<Any>) -> StatusReport {
        let rich = RichStatus {
            code: 5,
            message: "gone".into(),
            details,
        };
        let status = Status::with_details(Code::NotFound, "gone", rich.encode_to_vec().into());
        StatusReport::new(&status, &DescriptorPool::global())
    }

    #[test]
    fn standard_details_are_decoded_and_foreign_ones_kept_as_base64() {
        let retry = RetryInfo {
            retry_delay: Some(Duration {
                seconds: 1,
                nanos: 500_000_000,
            }),
        };
        let report = report(vec![
            any("google.rpc.RetryInfo", retry.encode_to_vec()),
            any(
                "google.protobuf.Duration",
                Duration {
                    seconds: 2,
                    nanos: 0,
                }
                .encode_to_vec(),
            ),
            any(
                "google.rpc.ErrorInfo",
                ErrorInfo {
                    reason: "gone".into(),
                    domain: "example.com".into(),
                    metadata: [("name".into(), "x".into())].into(),
                }
                .encode_to_vec(),
            ),
            any("my.Type", vec![1, 2, 3]),
        ]);
        assert_eq!(
            report.details,
            [
                json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.500s"}),
                json!({"@type": "type.googleapis.com/google.protobuf.Duration", "value": "2s"}),
                json!({
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "gone", "domain": "example.com", "metadata": {"name": "x"},
                }),
                json!({"@type": "type.googleapis.com/my.Type", "@base64": "AQID"}),
            ]
        );
    }

    #[test]
    fn details_that_are_no_status_are_kept_as_base64() {
        let status = Status::with_details(Code::Internal, "x", vec![0xff].into());
        let report = StatusReport::new(&status, &DescriptorPool::global());
        assert_eq!(report.details, [json!({"@base64": "/w=="})]);
    }

    #[test]
    fn a_failed_call_names_the_status_and_quotes_the_message() {
        let method = "a.B/C".parse().expect("a name");
        let failure = report(vec![any("my.Type", vec![])]).failure(&method);
        assert_eq!(
            &*failure.message,
            "`a.B/C` failed with NOT_FOUND (5): \"gone\""
        );
        assert_eq!(failure.notes.len(), 1);
    }
}
