//! Why a call went nowhere.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use outrigger_wire::{ErrorInfo, HOST_DOMAIN};
use tonic::{Code, Status};

/// A call that reached no plugin, or whose plugin was replaced under it.
///
/// A client of a gRPC service has it as the source of an `UNAVAILABLE` status,
/// whose `ErrorInfo` names the same code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteError {
    code: &'static str,
    why: Arc<str>,
}

impl RouteError {
    /// Calls are refused because of `why`.
    pub(super) fn refused(code: &'static str, why: Arc<str>) -> Self {
        Self { code, why }
    }

    /// No generation came within `waited`.
    pub(super) fn starting(plugin: &str, waited: Duration) -> Self {
        let waited = waited.as_secs_f64();
        let why = format!("{plugin} is not ready yet; the call waited {waited:.1} s for it");
        Self::refused("plugin-starting", why.into())
    }

    /// As many calls wait as may.
    pub(super) fn crowded(plugin: &str, waiting: usize) -> Self {
        let why = format!("{plugin} is not ready yet, and {waiting} calls wait for it already");
        Self::refused("plugin-starting", why.into())
    }

    /// The call was cut off.
    pub(super) fn replaced(plugin: &str) -> Self {
        let why =
            format!("{plugin} was replaced before it had answered; it may have done the work");
        Self::refused("plugin-replaced", why.into())
    }

    /// Nobody routes any more.
    pub(super) fn over(plugin: &str) -> Self {
        let why = format!("{plugin} is not managed any more");
        Self::refused("plugin-stopped", why.into())
    }

    /// The plugin speaks the other protocol.
    #[cfg(feature = "netrpc")]
    pub(super) fn other_protocol(plugin: &str, speaks: &str) -> Self {
        let why =
            format!("{plugin} speaks {speaks} now; this client was made for another protocol");
        Self::refused("plugin-protocol-changed", why.into())
    }

    /// The stable code of this kind of error: `plugin-starting`, `plugin-replaced`,
    /// `plugin-stopped`, `plugin-protocol-changed`, or what
    /// [`Router::refuse`](crate::Router::refuse) was given.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The one behind `error`, if that is why there was no answer.
    ///
    /// # Examples
    /// ```
    /// use outrigger_transport::RouteError;
    ///
    /// let status = tonic::Status::unavailable("the peer refused the call");
    /// assert_eq!(RouteError::behind(&status), None);
    /// ```
    pub fn behind<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut error = Some(error);
        while let Some(this) = error {
            if let Some(found) = this.downcast_ref() {
                return Some(found);
            }
            error = this.source();
        }
        None
    }

    pub(super) fn status(&self) -> Status {
        let info = ErrorInfo {
            reason: self.code.to_owned(),
            domain: HOST_DOMAIN.to_owned(),
            ..ErrorInfo::default()
        };
        let details = info.encode_with(Code::Unavailable as i32, &self.why);
        let mut status = Status::with_details(Code::Unavailable, &*self.why, details.into());
        status.set_source(Arc::new(self.clone()));
        status
    }
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Error for RouteError {}

outrigger_wire::coded!(RouteError);
