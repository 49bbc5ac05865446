//! An operation from its beginning to its one record.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http::{HeaderMap, HeaderName};
use outrigger_manifest::HostService;
use outrigger_transport::TraceContext;
use outrigger_wire::EXCERPT_LIMIT;
use outrigger_wire::text::{printable, shortened};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::arguments::Arguments;
use crate::audit::Verdict;
use crate::fault::Fault;
use crate::operation::{AskedOf, Described, JudgedBy, Operation};
use crate::progress::Progress;
use crate::record::RecordedRequest;
use crate::session::Session;

/// Under which keys a plugin says who it is, and which of its requests a call is for.
const CLIENT: &str = "client";
const REQUEST: &str = "request";

/// Who asks for an operation: what the plugin says about itself, which is recorded
/// and never decides anything.
#[derive(Default)]
pub(crate) struct Caller {
    metadata: MetadataMap,
    begun: Option<Begun>,
}

/// Whether a call has begun an operation, which then leaves a record. It travels
/// with the request, among its extensions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Begun(Arc<AtomicBool>);

impl Begun {
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Caller {
    /// Who made a call, and the call's message.
    pub(crate) fn of<Q>(request: Request<Q>) -> (Self, Q) {
        let (metadata, mut extensions, message) = request.into_parts();
        let begun = extensions.remove();
        (Self { metadata, begun }, message)
    }

    /// Who made a call whose message is not ours to read.
    pub(crate) fn of_call<B>(request: &mut http::Request<B>) -> Self {
        let said = |key: &'static str| {
            let value = request.headers().get(key)?;
            Some((HeaderName::from_static(key), value.clone()))
        };
        let said: HeaderMap = [CLIENT, REQUEST].into_iter().filter_map(said).collect();
        Self {
            metadata: MetadataMap::from_headers(said),
            begun: request.extensions_mut().remove(),
        }
    }

    /// What the plugin says about itself under `key`.
    fn said(&self, key: &'static str) -> String {
        self.metadata.get(key).map_or_else(String::new, |value| {
            let text = String::from_utf8_lossy(value.as_bytes());
            printable(&shortened(text, EXCERPT_LIMIT)).into_owned()
        })
    }
}

/// An operation in hand. It leaves exactly one record: when it ends, or, as
/// cancelled, when it is dropped.
pub(crate) struct Running {
    session: Arc<Session>,
    operation: Operation,
    started: Instant,
    /// Nothing when no one keeps records.
    request: Option<RecordedRequest>,
    progress: Arc<Progress>,
    /// Its service is granted.
    admitted: bool,
    ended: bool,
}

impl Session {
    /// Begins an operation: counts it, checks that its service is granted and
    /// that the plugin is not too fast, and sees to its record. `show` is
    /// called only when someone keeps records.
    ///
    /// # Errors
    /// Why the operation must not happen; that is recorded already.
    pub(crate) fn begin(
        self: &Arc<Self>,
        operation: Operation,
        caller: &Caller,
        show: impl FnOnce(&mut Arguments),
    ) -> Result<Running, Fault> {
        if let Some(Begun(begun)) = &caller.begun {
            begun.store(true, Ordering::Relaxed);
        }
        self.usage().operations.fetch_add(1, Ordering::Relaxed);
        let request = self.recorder().is_on().then(|| {
            let mut shown = Arguments::default();
            show(&mut shown);
            RecordedRequest {
                client: caller.said(CLIENT),
                request: caller.said(REQUEST),
                argument: shown.into_text(),
                trace_id: TraceContext::current().map(|trace| trace.trace_id().to_owned()),
            }
        });
        let mut running = Running {
            session: self.clone(),
            operation,
            started: Instant::now(),
            request,
            progress: Arc::default(),
            admitted: false,
            ended: false,
        };
        match self.admit(operation.asked_of) {
            Ok(()) => {
                running.admitted = true;
                Ok(running)
            }
            Err(fault) => {
                running.end(Some(&fault));
                Err(fault)
            }
        }
    }

    /// [`begin`](Self::begin) for a call of `outrigger.host.v1`, whose status says
    /// what went wrong.
    pub(crate) fn begin_call(
        self: &Arc<Self>,
        operation: Operation,
        caller: &Caller,
        show: impl FnOnce(&mut Arguments),
    ) -> Result<Running, Status> {
        let running = self.begin(operation, caller, show);
        running.map_err(|fault| fault.status(&operation.full_name()))
    }

    /// Begins the operation that a message asks for, does `work` within
    /// `call_timeout`, and answers.
    pub(crate) async fn call<Q: Described, T>(
        self: &Arc<Self>,
        request: Request<Q>,
        work: impl AsyncFnOnce(&Running, Q) -> Result<T, Fault>,
    ) -> Result<Response<T>, Status> {
        let (caller, message) = Caller::of(request);
        let running = self.begin_call(Q::OPERATION, &caller, |shown| message.show(shown))?;
        let work = tokio::time::timeout(self.limits().call_timeout, work(&running, message));
        let outcome = work.await.unwrap_or(Err(Fault::Deadline));
        running.finish(outcome).map(Response::new)
    }
}

impl Running {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Notes which rule allowed the operation.
    pub(crate) fn allowed_by(&self, rule: &str) {
        self.progress.allowed_by(rule);
    }

    /// Shows more in the record than was known when the operation began.
    pub(crate) fn show(&mut self, show: impl FnOnce(&mut Arguments)) {
        if let Some(request) = &mut self.request {
            let mut more = Arguments::default();
            show(&mut more);
            let more = more.into_text();
            if !request.argument.is_empty() && !more.is_empty() {
                request.argument.push(' ');
            }
            request.argument.push_str(&more);
        }
    }

    /// Counts contents that the plugin got.
    pub(crate) fn read(&self, bytes: u64) {
        self.progress.moved(bytes);
        self.session.count_read(bytes);
    }

    /// Counts contents that came from the plugin; what is written to files is
    /// reserved beforehand and not counted again.
    pub(crate) fn wrote(&self, bytes: u64) {
        self.progress.moved(bytes);
    }

    /// Records the end and makes the answer.
    pub(crate) fn finish<T>(self, outcome: Result<T, Fault>) -> Result<T, Status> {
        match outcome {
            Ok(value) => {
                self.end(None);
                Ok(value)
            }
            Err(fault) => Err(self.fail(&fault)),
        }
    }

    /// Records why the operation failed, and says it to the plugin.
    pub(crate) fn fail(self, fault: &Fault) -> Status {
        let status = fault.status(&self.operation.full_name());
        self.end(Some(fault));
        status
    }

    /// Records the end.
    pub(crate) fn end(mut self, fault: Option<&Fault>) {
        self.record(fault);
    }

    fn record(&mut self, fault: Option<&Fault>) {
        self.ended = true;
        let moved = self.progress.end();
        let refused = fault.is_some_and(Fault::is_refusal);
        if refused {
            self.session.usage().refused.fetch_add(1, Ordering::Relaxed);
        }
        let on_decision = self.session.on_decision();
        if self.request.is_none() && on_decision.is_none() {
            return;
        }
        let judged = match fault {
            Some(fault) if refused => (Verdict::Refused, fault.rule()),
            fault => self.allowed(fault.is_none()),
        };
        if let Some(each) = on_decision {
            each(self.operation.capability(), judged.0);
        }
        let Some(request) = self.request.take() else {
            return;
        };
        let spent = (moved, self.started.elapsed());
        let recorder = self.session.recorder();
        recorder.record(self.operation, request, judged, fault, spent);
    }

    /// Whether the operation was allowed when it ended, and by which rule.
    fn allowed(&self, done: bool) -> (Verdict, String) {
        let rule = self.progress.take_rule();
        if !rule.is_empty() {
            return (Verdict::Allowed, rule);
        }
        let by_service = self.operation.judged_by == JudgedBy::Service;
        if !self.admitted || !(done || by_service) {
            return (Verdict::Undecided, String::new());
        }
        let grants = self.session.grants();
        let rule = |service: HostService| grants.service(service).map(|rule| rule.to_string());
        let rule = match self.operation.asked_of {
            AskedOf::Session => "every plugin may".to_owned(),
            AskedOf::Host(service) => rule(service).unwrap_or_default(),
            // Noted when the operation begins.
            AskedOf::Application => String::new(),
        };
        (Verdict::Allowed, rule)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.record(Some(&Fault::Cancelled));
        }
    }
}

/// The calls of a service of `outrigger.host.v1` that have one message and one reply,
/// one row each: the name, which is that of the operation, too; the message, with the
/// fields that a record shows; the reply; and the work on it, which has the service, the
/// operation and the message. `operation` makes an operation of a name, and `session`
/// is a method of the service. What is no such call follows the rows.
macro_rules! calls {
    (
        $service:ident as $server:path;
        $(#[$doc:meta])*
        pub(crate) const $list:ident $(and [$($other:expr),* $(,)?])?;
        $($method:ident $($on_lease:ident)?:
            $message:ident { $($field:ident $(as $how:ident)?),* } -> $reply:ident =
            |$this:pat_param, $running:pat_param, $request:pat_param| $work:expr;)*
        $({ $($more:tt)* })?
    ) => {
        $crate::operation::described! {
            $(#[$doc])*
            pub(crate) const $list $(and [$($other),*])?;
            $(operation(stringify!($method)) $(.$on_lease())?,
                $message { $($field $(as $how)?),* })*
        }

        #[tonic::async_trait]
        impl $server for $service {
            $(
                async fn $method(
                    &self,
                    request: tonic::Request<$message>,
                ) -> Result<tonic::Response<$reply>, tonic::Status> {
                    let work = async |$running: &$crate::running::Running, $request: $message| {
                        let $this = self;
                        $work
                    };
                    self.session().call(request, work).await
                }
            )*

            $($($more)*)?
        }
    };
}

pub(crate) use calls;
