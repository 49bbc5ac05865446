//! Serving hosts over net/rpc.

use outrigger_transport::netrpc::{MirroredStreams, PluginSession};
use outrigger_transport::{OwnedTask, Stream};
use outrigger_wire::proto::plugin::stdio_data::Channel;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Prepared, refused};
use crate::context::PluginContext;
use crate::stdio::Output;

impl Prepared {
    pub(super) async fn serve_netrpc(mut self) {
        let mut connections = JoinSet::new();
        while let Some(stream) = self.next_connection(None, &mut connections).await {
            connections.spawn(self.converse(stream));
        }
        self.listener.unlink();
        self.drain(connections).await;
    }

    /// Everything that one host's connection asks for, over net/rpc.
    fn converse(&self, stream: Stream) -> impl Future<Output = ()> + Send + 'static {
        let (security, set, limits) = (self.security.clone(), self.set.clone(), self.limits);
        let (output, stopping) = (self.output.clone(), self.stopping.clone());
        async move {
            let stream = match security.accept(stream).await {
                Ok(stream) => stream,
                Err(error) => return refused(&error),
            };
            let (session, mirror) = match PluginSession::accept(stream, limits).await {
                Ok(accepted) => accepted,
                // A host that only looks whether the plugin listens says nothing.
                Err(error) => {
                    tracing::debug!(%error, "a connection began without the host's streams");
                    return;
                }
            };
            let context = PluginContext::new(session.broker(), stopping.clone());
            let looking = OwnedTask::spawn(context.clone().connect_early());
            let dispense = move |name: &str| set.object(name, &context);
            let copying = copy_to(output, mirror, stopping.clone());
            let mirroring = tokio::spawn(copying);
            let abort = mirroring.abort_handle();
            let last = async {
                let _ = mirroring.await;
            };
            session.serve(dispense, limits, stopping, last).await;
            drop(looking);
            abort.abort();
        }
    }
}

/// Copies what the plugin prints to its host until `stopping` fires, and then
/// what is left.
async fn copy_to(output: Output, host: MirroredStreams, stopping: CancellationToken) {
    tokio::join!(
        copy_channel(&output, Channel::Stdout, host.stdout, &stopping),
        copy_channel(&output, Channel::Stderr, host.stderr, &stopping),
    );
}

async fn copy_channel(
    output: &Output,
    channel: Channel,
    mut host: Stream,
    stopping: &CancellationToken,
) {
    loop {
        let chunk = tokio::select! {
            chunk = output.next_of(channel) => chunk,
            () = stopping.cancelled() => break,
        };
        if host.write_all(&chunk.data).await.is_err() {
            return;
        }
    }
    while let Some(chunk) = output.take_of(channel) {
        if host.write_all(&chunk.data).await.is_err() {
            return;
        }
    }
    let _ = host.flush().await;
}
