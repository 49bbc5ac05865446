//! The services that a list names: the host's, and the application's own.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use thiserror::Error;

use crate::check::{Check, Side};
use crate::choices::HostService;
use crate::keys::Shape;
use crate::message::{nearest, quoted};
use crate::name::{PluginName, is_name, near_name};
use crate::problem::ProblemCode;
use crate::shapes::{Words as _, list};
use crate::tree::Node;

/// The name of a service of an application's own: written as a [`PluginName`], and not nearly one
/// of the [`HostService`]s, for which it would be taken.
///
/// ```
/// use outrigger_manifest::ServiceName;
///
/// assert!("cache".parse::<ServiceName>().is_ok());
/// let error = "filesytem".parse::<ServiceName>().unwrap_err();
/// assert_eq!(error.near_miss().as_deref(), Some("filesystem"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(String);

/// A text that cannot name a service of an application's own.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} is not the name of a service", quoted(.0))]
pub struct ServiceNameError(String);

impl ServiceNameError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "invalid-service-name"
    }

    /// What was probably meant: a service of the host, or a name near to the text.
    #[must_use]
    pub fn near_miss(&self) -> Option<String> {
        match near_host_service(&self.0) {
            Some(service) => Some(service.to_owned()),
            None => near_name(&self.0),
        }
    }

    /// Whether it is (nearly) the name of a service of the host.
    pub(crate) fn is_near_a_host_service(&self) -> bool {
        near_host_service(&self.0).is_some()
    }
}

/// The host's service for which a text would be taken.
fn near_host_service(text: &str) -> Option<&'static str> {
    nearest(text, &HostService::names())
}

impl ServiceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = ServiceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match is_name(text) && near_host_service(text).is_none() {
            true => Ok(ServiceName(text.to_owned())),
            false => Err(ServiceNameError(text.to_owned())),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ServiceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for ServiceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The services that a list names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Services {
    pub(crate) host: Vec<HostService>,
    pub(crate) application: Vec<ServiceName>,
}

impl Services {
    pub(crate) fn is_empty(&self) -> bool {
        self.host.is_empty() && self.application.is_empty()
    }

    /// The names, those of the host before the others.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let host = self.host.iter().map(|service| service.as_str());
        host.chain(self.application.iter().map(ServiceName::as_str))
    }

    /// Adds a service by its name; nothing where no service is called so.
    pub(crate) fn add(&mut self, name: &str) -> Option<()> {
        match HostService::ALL.iter().find(|known| known.word() == name) {
            Some(service) => self.host.push(*service),
            None => self.application.push(name.parse().ok()?),
        }
        Some(())
    }

    /// The same services, each named once and in one order.
    pub(crate) fn sorted(mut self) -> Services {
        self.host.sort_by_key(|service| service.as_str());
        self.host.dedup();
        self.application.sort();
        self.application.dedup();
        self
    }
}

impl Shape for Services {
    type Value = Services;

    fn kind(_: Side) -> String {
        format!(
            "list of {}, names of the application's own",
            HostService::listed()
        )
    }

    fn schema(_: Side) -> Value {
        list(json!({"anyOf": [
            {"enum": HostService::names()},
            {"type": "string", "pattern": PluginName::PATTERN, "maxLength": 64},
        ]}))
    }

    fn read(check: &mut Check, node: &Node, location: &str) -> Option<Services> {
        // A denial of nothing would be a mistake.
        let items = match check.side {
            Side::Deny => check.filled_list(node, location)?,
            Side::Request | Side::Allow => check.list(node, location)?,
        };
        let mut services = Services::default();
        for (location, item) in items {
            let Some(text) = check.text(item, &location) else {
                continue;
            };
            let host = HostService::ALL.iter().find(|known| known.word() == text);
            let named_before = match (host, text.parse::<ServiceName>()) {
                (Some(service), _) => push(&mut services.host, *service),
                (None, Ok(name)) => push(&mut services.application, name),
                (None, Err(error)) if error.is_near_a_host_service() => {
                    // The same words as for any other list of words.
                    check.word(item, &location, HostService::WHAT, HostService::WORDS);
                    continue;
                }
                (None, Err(error)) => {
                    check
                        .report(item.at, ProblemCode::InvalidName, &location, error.to_string())
                        .near(error.near_miss())
                        .help(format!(
                            "name a service of the host ({}), or one of the application's own in lower case",
                            HostService::names().join(", ")
                        ));
                    continue;
                }
            };
            if named_before {
                check.repeated(item.at, &location, text);
            }
        }
        Some(services)
    }
}

/// Adds what is not there; whether it was.
fn push<T: PartialEq>(list: &mut Vec<T>, value: T) -> bool {
    let is_there = list.contains(&value);
    if !is_there {
        list.push(value);
    }
    is_there
}

impl Serialize for Services {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}
