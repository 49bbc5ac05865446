//! go-plugin's own services on the plugin's side.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use outrigger_transport::proto::plugin::grpc_controller_server::{
    GrpcController, GrpcControllerServer,
};
use outrigger_transport::proto::plugin::grpc_stdio_server::{GrpcStdio, GrpcStdioServer};
use outrigger_wire::proto::plugin::{Empty, StdioData};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::stdio::Output;

/// Lets the host ask the plugin to end. The reply leaves before the server stops.
pub(crate) fn controller(stopping: CancellationToken) -> GrpcControllerServer<impl GrpcController> {
    GrpcControllerServer::new(Controller(stopping))
}

struct Controller(CancellationToken);

#[tonic::async_trait]
impl GrpcController for Controller {
    async fn shutdown(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.0.cancel();
        Ok(Response::new(Empty {}))
    }
}

/// Sends the host what the plugin prints.
pub(crate) fn stdio(
    output: Output,
    stopping: CancellationToken,
) -> GrpcStdioServer<impl GrpcStdio> {
    GrpcStdioServer::new(Stdio { output, stopping })
}

struct Stdio {
    output: Output,
    stopping: CancellationToken,
}

#[tonic::async_trait]
impl GrpcStdio for Stdio {
    type StreamStdioStream = BoxStream<'static, Result<StdioData, Status>>;

    async fn stream_stdio(
        &self,
        _: Request<()>,
    ) -> Result<Response<Self::StreamStdioStream>, Status> {
        let chunks = futures_util::stream::unfold(self.output.clone(), |output| async {
            let chunk = output.next().await;
            Some((Ok(chunk), output))
        });
        let stopping = self.stopping.clone().cancelled_owned();
        let output = self.output.clone();
        let rest = futures_util::stream::iter(std::iter::from_fn(move || output.take().map(Ok)));
        Ok(Response::new(
            chunks.take_until(stopping).chain(rest).boxed(),
        ))
    }
}
