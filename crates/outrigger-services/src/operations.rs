//! All operations, in one place: the page of operations in the documentation and
//! the tests of records come from this list.

use crate::application::APPLICATION_CALL;
use crate::call_limit::CALL;
use crate::descriptors::answers::DESCRIPTORS;
use crate::operation::{AskedOf, JudgedBy, Operation};
use crate::record::TURNED_AWAY;
use crate::{clock, environment, fs, hostserve, log, network, process, session_info};

/// An operation, as records name it.
///
/// # Examples
/// ```
/// let open = outrigger_services::operations().find(|operation| operation.name == "open");
/// let open = open.expect("there");
/// assert_eq!((open.capability, open.judged_by), ("filesystem", "a grant"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationName {
    /// The capability that must be granted; `session` for what every plugin may ask,
    /// `services` for services of the application's own.
    pub capability: &'static str,
    /// The name: that of a call of `outrigger.host.v1` in snake case, that of a call
    /// of `hostserve.v1` as it is.
    pub name: &'static str,
    /// What decides on the operation: a grant, the service or its lease, or nothing.
    pub judged_by: &'static str,
}

impl From<&Operation> for OperationName {
    fn from(operation: &Operation) -> Self {
        Self {
            capability: operation.capability(),
            name: operation.name,
            judged_by: match (operation.judged_by, operation.asked_of) {
                (JudgedBy::Grant, _) => "a grant",
                (JudgedBy::Service, AskedOf::Host(_)) => "its service",
                (JudgedBy::Service, AskedOf::Session) => "every plugin may",
                (JudgedBy::Service, AskedOf::Application) => "the application",
            },
        }
    }
}

/// Every operation that a record can name.
pub fn operations() -> impl Iterator<Item = OperationName> {
    const OTHERS: &[Operation] = &[APPLICATION_CALL, CALL, DESCRIPTORS, TURNED_AWAY];
    let lists = [
        clock::OPERATIONS,
        environment::OPERATIONS,
        fs::operations::UNARY,
        fs::service::STREAMS,
        log::OPERATIONS,
        network::service::OPERATIONS,
        process::service::OPERATIONS,
        session_info::OPERATIONS,
        hostserve::operations::UNARY,
        hostserve::streams::STREAMS,
        OTHERS,
    ];
    lists.into_iter().flatten().map(OperationName::from)
}
