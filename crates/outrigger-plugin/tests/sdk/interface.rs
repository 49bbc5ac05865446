//! `filelister.v1.FileLister/List`, by which a test tells a plugin in any language
//! what to try: the path of a request names it, an error says what went wrong.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;
use outrigger_host::{Interface, UnsupportedTransport};
use outrigger_plugin::{Broker, Channel};
use tonic::body::Body;
use tonic::server::{NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

const METHOD: &str = "/filelister.v1.FileLister/List";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FileListRequest {
    #[prost(string, tag = "2")]
    pub(crate) path: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FileListResponse {
    #[prost(string, repeated, tag = "1")]
    pub(crate) entry: Vec<String>,
    #[prost(string, optional, tag = "2")]
    pub(crate) error: Option<String>,
}

/// The host's side.
pub(crate) struct Lister;

#[derive(Clone)]
pub(crate) struct ListerClient(Channel);

impl Interface for Lister {
    type Client = ListerClient;

    fn grpc(
        connection: Channel,
        _broker: Arc<dyn Broker>,
    ) -> Result<ListerClient, UnsupportedTransport> {
        Ok(ListerClient(connection))
    }
}

impl ListerClient {
    pub(crate) async fn list(&self, path: &str) -> Result<FileListResponse, Status> {
        let mut client = tonic::client::Grpc::new(self.0.clone());
        let ready = client.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = path.to_owned();
        let request = Request::new(FileListRequest { path });
        let codec = ProstCodec::<_, FileListResponse>::default();
        let method = PathAndQuery::from_static(METHOD);
        client
            .unary(request, method, codec)
            .await
            .map(Response::into_inner)
    }
}

/// What the plugin does for a path; an error is the plugin's word for a failure.
pub(crate) type Work = Arc<dyn Fn(String) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The plugin's side.
#[derive(Clone)]
pub(crate) struct ListerServer(pub(crate) Work);

impl NamedService for ListerServer {
    const NAME: &'static str = "filelister.v1.FileLister";
}

impl UnaryService<FileListRequest> for ListerServer {
    type Response = FileListResponse;
    type Future = BoxFuture<'static, Result<Response<FileListResponse>, Status>>;

    fn call(&mut self, request: Request<FileListRequest>) -> Self::Future {
        let work = (self.0)(request.into_inner().path);
        let reply = work.map(|done| FileListResponse {
            entry: Vec::new(),
            error: done.err(),
        });
        reply.map(|reply| Ok(Response::new(reply))).boxed()
    }
}

impl<B> tonic::codegen::Service<http::Request<B>> for ListerServer
where
    B: tonic::codegen::Body + Send + 'static,
    B::Error: Into<tonic::codegen::StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("not here").into_http());
            }
            let codec = ProstCodec::<FileListResponse, FileListRequest>::default();
            Ok(tonic::server::Grpc::new(codec)
                .unary(service, request)
                .await)
        }
        .boxed()
    }
}
