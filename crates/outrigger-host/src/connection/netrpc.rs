//! The main connection to a plugin that speaks net/rpc.

use std::io::Write;

use outrigger_transport::netrpc::{Budget, CallError, CallErrorKind, HostSession, SessionError};
use outrigger_transport::{ConnectError, Fate, OwnedTask, Stream};
use tokio::io::AsyncReadExt;

use super::{Connection, Dial, Link, Mirror, copy_to};

/// Bytes of printed output that are copied at a time.
const COPIED: usize = 8 << 10;

impl Dial {
    pub(super) async fn netrpc(
        &self,
        socket: Stream,
        mirror: Mirror,
    ) -> Result<(Link, Vec<OwnedTask>), ConnectError> {
        let stream = self.broker.security.connect(socket).await?;
        let (fate, budget) = (Fate::new(), Budget::new(self.max_value));
        let started = HostSession::start(stream, fate.clone(), budget, self.broker.wait).await;
        let (session, output) = started.map_err(ConnectError::Mux)?;
        let tasks = vec![
            OwnedTask::spawn(mirror_stream(output.stdout, mirror.stdout)),
            OwnedTask::spawn(mirror_stream(output.stderr, mirror.stderr)),
        ];
        let link = Link {
            fate,
            broker: session.broker(),
            connection: Connection::NetRpc(session),
            mux: None,
        };
        Ok((link, tasks))
    }
}

/// Asks the plugin to end, and says whether it could be asked.
pub(super) async fn hears_quit(session: &HostSession) -> bool {
    match session.quit().await {
        Err(SessionError::Call(error)) => !is_unknown_method(&error),
        _ => true,
    }
}

/// Whether the plugin has no such method, in the words of Go's net/rpc.
fn is_unknown_method(error: &CallError) -> bool {
    matches!(error.kind(), CallErrorKind::Failed(text) if text.starts_with("rpc: can't find "))
}

/// Copies what a net/rpc plugin prints, until it is gone.
async fn mirror_stream(mut stream: Stream, mut copy: Option<Box<dyn Write + Send>>) {
    let mut bytes = vec![0; COPIED];
    while let Ok(read @ 1..) = stream.read(&mut bytes).await {
        copy_to(&mut copy, bytes.get(..read).unwrap_or_default());
    }
}
