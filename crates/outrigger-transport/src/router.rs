//! Which plugin process answers: calls go to the current one, while those that are
//! in flight end where they began.

mod error;
mod grpc;
#[cfg(feature = "netrpc")]
mod objects;
mod route;
mod safe;
mod switch;

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "netrpc")]
use std::time::Duration;

pub use self::error::RouteError;
use self::grpc::Routed;
#[cfg(feature = "netrpc")]
use self::objects::Dispensed;
use self::route::{Left, Route};
pub use self::safe::{SafeMethods, SafeToRepeat};
use crate::channel::Channel;
use crate::connection::Connection;
#[cfg(feature = "netrpc")]
use crate::netrpc::Client;
use crate::observe::CallObserver;

/// What `switch.rs` is built on; a model checker brings its own.
mod sync {
    pub(super) use std::sync::atomic::{AtomicUsize, Ordering};
    pub(super) use std::sync::{Arc, PoisonError, RwLock};
}

/// Decides where the calls of its clients go: to one connection after another, each
/// a *generation*. Clones share it; when the last one is dropped, later calls fail
/// with the code `plugin-stopped`.
///
/// A call goes to the generation that is current when it is made, and is in flight
/// there until the end of its reply. At first there is none: calls wait.
///
/// A call whose generation was replaced or died before it answered is made once more
/// in the next one, if it is safe: because nothing of it was sent, because it is
/// marked ([`SafeToRepeat`], [`SafeMethods`]) and its request is one message. It is
/// never made a third time, and never after its deadline.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use outrigger_transport::{Channel, Router};
///
/// /// Sends new calls to `new`, and gives those that are in flight 30 s to end.
/// async fn replace(router: &Router, new: Channel) {
///     if let Some(old) = router.switch(new) {
///         let patience = Duration::from_secs(30);
///         let drained = tokio::time::timeout(patience, old.drained()).await;
///         if drained.is_err() {
///             old.end();
///         }
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Router(Arc<Owner>);

struct Owner(Arc<Route>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.end("its router is gone");
    }
}

impl Router {
    /// A router whose calls wait. Its errors speak of `the plugin`.
    pub fn new() -> Self {
        Self(Arc::new(Owner(Arc::new(Route::new("the plugin".into())))))
    }

    /// A router whose calls wait, for the plugin that is called `name`.
    pub fn for_plugin(name: &str) -> Self {
        let plugin = format!("plugin `{name}`");
        Self(Arc::new(Owner(Arc::new(Route::new(plugin)))))
    }

    fn route(&self) -> &Arc<Route> {
        &self.0.0
    }

    /// What clients call over; it goes on working over all switches.
    pub fn channel(&self) -> Channel {
        Channel::over(Routed(self.route().clone()))
    }

    /// What clients of the net/rpc object called `name` call, which is dispensed anew
    /// in each generation, when it is first called there; a plugin may take `limit` to
    /// make it. It goes on working over all switches.
    ///
    /// Of its calls, those are safe to make again whose method is among the
    /// [`SafeMethods`].
    #[cfg(feature = "netrpc")]
    pub fn object(&self, name: impl Into<String>, limit: Duration) -> Client {
        Client::routed(Dispensed::new(self.route().clone(), name.into(), limit))
    }

    /// Lets new calls go to `to`, with those that wait. Returns the generation
    /// before, if there was one: its calls go on.
    pub fn switch(&self, to: impl Into<Connection>) -> Option<Draining> {
        self.route().to(to.into()).map(Draining)
    }

    /// Lets new calls wait for the next generation: 1024 of them at most, and each
    /// until its own deadline, or 60 s where it has none. Those that wait in vain
    /// fail with `UNAVAILABLE` and the code `plugin-starting`.
    pub fn hold(&self) -> Option<Draining> {
        self.route().nowhere().map(Draining)
    }

    /// Lets new calls fail at once, with those that wait: with `UNAVAILABLE`, the
    /// text `why` and `code`, such as `plugin-failed`.
    pub fn refuse(&self, why: impl Into<Arc<str>>, code: &'static str) -> Option<Draining> {
        let why = RouteError::refused(code, why.into());
        self.route().refuse(why).map(Draining)
    }

    /// Lets `observer` keep account of the calls over gRPC from now on, each from when
    /// it is made to the end of its reply, with what it waits and is made again in
    /// between. There can be one: whoever comes later is not asked.
    pub fn observe(&self, observer: Arc<dyn CallObserver>) {
        let _ = self.route().observer.set(observer);
    }

    /// How many calls were let go to a generation so far.
    pub fn calls(&self) -> u64 {
        self.route().calls()
    }

    /// How many calls of the current generation have not ended.
    pub fn in_flight(&self) -> usize {
        self.route().in_flight()
    }

    /// Waits until a call waits for a generation: then its owner may start one.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn wanted(&self) {
        self.route().wanted().await;
    }

    /// Says which methods are safe to make again, from the next switch on, instead
    /// of those that were before.
    pub fn mark_safe(&self, methods: SafeMethods) {
        self.route().mark_safe(methods);
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Router")
            .field(&self.route().plugin())
            .finish()
    }
}

/// A generation that gets no new calls. When this is dropped, its calls go on.
pub struct Draining(Left);

impl Draining {
    /// Waits until its last call has ended. None begins after that.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn drained(&self) {
        self.0.empty().await;
    }

    /// How many of its calls have not ended.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight()
    }

    /// Ends the calls that are left, streams among them: with `UNAVAILABLE` and the
    /// code `plugin-replaced`. The plugin learns that they are cancelled.
    pub fn end(self) {
        self.0.cut();
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_flight = self.in_flight();
        f.debug_struct("Draining")
            .field("in_flight", &in_flight)
            .finish()
    }
}
