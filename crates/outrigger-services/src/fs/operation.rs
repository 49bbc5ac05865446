//! How an operation on files is run, whichever contract asks for it.

use std::sync::Arc;

use super::call::{FileCall, SessionFiles};
use crate::fault::Fault;
use crate::operation::Described;
use crate::running::Caller;

/// On which thread an operation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thread {
    /// On the connection's own: it waits for nothing.
    Connection,
    /// On the connection's own, unless it would have to wait there; then on one
    /// that may.
    ConnectionFirst,
    /// On one that may wait for storage.
    Waiting,
}

/// A message that asks for an operation on files.
pub(crate) trait FileOperation: Described + Send + Sync + 'static {
    type Reply: Send + 'static;
    const THREAD: Thread;

    fn run(&self, call: &FileCall) -> Result<Self::Reply, Fault>;
}

/// Runs one operation and records it.
pub(crate) async fn run<Q: FileOperation>(
    files: &Arc<SessionFiles>,
    caller: &Caller,
    message: Q,
) -> Result<Q::Reply, Fault> {
    let session = files.session();
    let running = session.begin(Q::OPERATION, caller, |shown| message.show(shown))?;
    let call = files.call(&running);
    let outcome = match Q::THREAD {
        Thread::Connection => message.run(&call),
        Thread::ConnectionFirst => message.run(&call.at_once()),
        Thread::Waiting => Err(Fault::WouldWait),
    };
    let outcome = match outcome {
        Err(Fault::WouldWait) => session.blocking(move || message.run(&call)).await,
        outcome => outcome,
    };
    running.end(outcome.as_ref().err());
    outcome
}

/// Operations on files, one row each: the service, the name and the thread, the
/// message with the fields that a record shows, the reply, and how it is made.
macro_rules! file_operations {
    ($($service:ident $name:literal on $thread:ident:
        $message:ident { $($field:ident $(as $how:ident)?),* } -> $reply:ident = $run:expr;)*) => {
        $(
            $crate::operation::described! {
                $crate::operation::Operation::new(outrigger_manifest::HostService::$service, $name),
                $message { $($field $(as $how)?),* }
            }

            impl $crate::fs::operation::FileOperation for $message {
                type Reply = $reply;
                const THREAD: $crate::fs::operation::Thread =
                    $crate::fs::operation::Thread::$thread;

                fn run(
                    &self,
                    call: &$crate::fs::call::FileCall,
                ) -> Result<$reply, $crate::fault::Fault> {
                    let run: fn(
                        &$crate::fs::call::FileCall,
                        &$message,
                    ) -> Result<$reply, $crate::fault::Fault> = $run;
                    run(call, self)
                }
            }
        )*

        /// The operations that are calls with one reply.
        pub(crate) const UNARY: &[$crate::operation::Operation] =
            &[$(<$message as $crate::operation::Described>::OPERATION),*];
    };
}

pub(crate) use file_operations;
