//! Which calls may be made twice.

use std::collections::HashSet;

use prost_types::FileDescriptorSet;
use prost_types::method_options::IdempotencyLevel;

/// Marks one call as safe to make again: what it does is the same whether it is done
/// once or twice. It is an extension of the request.
///
/// # Examples
/// ```
/// use outrigger_transport::SafeToRepeat;
///
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(SafeToRepeat);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SafeToRepeat;

/// The methods whose calls are all safe to make again, as
/// [`SafeToRepeat`] marks a single one.
///
/// # Examples
/// ```
/// use outrigger_transport::SafeMethods;
///
/// let safe: SafeMethods = ["/kv.v1.Kv/Get", "Plugin.Get"].into_iter().collect();
/// assert!(safe.contains("/kv.v1.Kv/Get"));
/// assert!(!safe.contains("/kv.v1.Kv/Put"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SafeMethods(HashSet<String>);

impl SafeMethods {
    /// The methods whose `.proto` gives them an `idempotency_level`, which says that
    /// they have no side effects or are idempotent.
    ///
    /// # Examples
    /// ```
    /// use outrigger_transport::SafeMethods;
    /// use prost_types::FileDescriptorSet;
    ///
    /// let nothing = SafeMethods::declared_in(&FileDescriptorSet::default());
    /// assert_eq!(nothing, SafeMethods::default());
    /// ```
    pub fn declared_in(files: &FileDescriptorSet) -> Self {
        let mut safe = Self::default();
        for file in &files.file {
            let package = file.package();
            let dot = if package.is_empty() { "" } else { "." };
            for service in &file.service {
                for method in &service.method {
                    let options = method.options.as_ref();
                    let level = options.map(prost_types::MethodOptions::idempotency_level);
                    match level.unwrap_or(IdempotencyLevel::IdempotencyUnknown) {
                        IdempotencyLevel::NoSideEffects | IdempotencyLevel::Idempotent => {
                            let (service, method) = (service.name(), method.name());
                            safe.0.insert(format!("/{package}{dot}{service}/{method}"));
                        }
                        IdempotencyLevel::IdempotencyUnknown => {}
                    }
                }
            }
        }
        safe
    }

    /// Whether it is among them: a path of gRPC such as `/kv.v1.Kv/Get`, or a net/rpc
    /// method such as `Plugin.Get`.
    pub fn contains(&self, method: &str) -> bool {
        !self.0.is_empty() && self.0.contains(method)
    }
}

impl<S: Into<String>> Extend<S> for SafeMethods {
    fn extend<I: IntoIterator<Item = S>>(&mut self, methods: I) {
        self.0.extend(methods.into_iter().map(Into::into));
    }
}

impl<S: Into<String>> FromIterator<S> for SafeMethods {
    fn from_iter<I: IntoIterator<Item = S>>(methods: I) -> Self {
        let mut safe = Self::default();
        safe.extend(methods);
        safe
    }
}
