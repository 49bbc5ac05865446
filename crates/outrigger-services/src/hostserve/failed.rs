//! How a failure reaches a plugin that speaks `hostserve.v1`.

use outrigger_wire::Excerpt;
use tonic::Status;

use super::operations::Reply;
use crate::fault::{Delivery, Fault};

/// How `fault` reaches the plugin: in the reply, or as the call's status.
pub(super) fn failed<R: Reply>(operation: &str, subject: &str, fault: &Fault) -> Result<R, Status> {
    match fault.delivery() {
        Delivery::Status(status) => Err(status),
        Delivery::InReply(text) if subject.is_empty() => {
            Ok(R::failed(format!("{operation}: {text}")))
        }
        Delivery::InReply(text) => Ok(R::failed(format!(
            "{operation} {}: {text}",
            Excerpt::from(subject)
        ))),
    }
}
