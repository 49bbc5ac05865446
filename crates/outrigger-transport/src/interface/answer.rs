//! The answering end: the methods of one gRPC service.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use prost::Message;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::describe::InterfaceDescription;
use super::error::MethodError;
use super::streaming::Streaming;
use crate::body::IncomingBody;
use crate::server::ServiceSet;

type Reply = BoxFuture<'static, http::Response<Body>>;
type Answer = Arc<dyn Fn(http::Request<IncomingBody>) -> Reply + Send + Sync>;

/// The methods of one gRPC service, found by name. Clones share them.
#[derive(Clone)]
pub struct GrpcMethods {
    description: &'static InterfaceDescription,
    methods: Arc<BTreeMap<&'static str, Answer>>,
}

impl GrpcMethods {
    /// No method yet: every call is answered with `UNIMPLEMENTED`.
    pub fn new(description: &'static InterfaceDescription) -> Self {
        Self {
            description,
            methods: Arc::default(),
        }
    }

    /// Adds a method that answers with one message.
    #[must_use]
    pub fn unary<Q, R, F>(
        self,
        name: &'static str,
        call: impl Fn(Q) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
        F: Future<Output = Result<R, MethodError>> + Send + 'static,
    {
        self.with(name, move |request| {
            let method = Method(call.clone());
            async move {
                Grpc::new(ProstCodec::default())
                    .unary(method, request)
                    .await
            }
            .boxed()
        })
    }

    /// Adds a method that answers with a stream of messages.
    #[must_use]
    pub fn server_streaming<Q, R, F>(
        self,
        name: &'static str,
        call: impl Fn(Q) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        Q: Message + Default + 'static,
        R: Message + 'static,
        F: Future<Output = Result<Streaming<R>, MethodError>> + Send + 'static,
    {
        self.with(name, move |request| {
            let call = call.clone();
            let method = Method(move |request| {
                let running = call(request);
                async { Ok(running.await?.map_err(Status::from).boxed()) }
            });
            let mut grpc = Grpc::new(ProstCodec::default());
            async move { grpc.server_streaming(method, request).await }.boxed()
        })
    }

    fn with(
        mut self,
        name: &'static str,
        answer: impl Fn(http::Request<IncomingBody>) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.methods).insert(name, Arc::new(answer));
        self
    }

    /// The service, described for reflection.
    ///
    /// # Panics
    /// As [`InterfaceDescription::proto`].
    pub fn services(self) -> ServiceSet {
        let description = self.description;
        let mut services = ServiceSet::new().describe(description.file_descriptor_set());
        services.add_named(description.service(), self);
        services
    }
}

impl fmt::Debug for GrpcMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.methods.keys()).finish()
    }
}

impl Service<http::Request<IncomingBody>> for GrpcMethods {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<IncomingBody>) -> Self::Future {
        let name = request.uri().path().rsplit('/').next().unwrap_or_default();
        match self.methods.get(name) {
            Some(answer) => answer(request).map(Ok).boxed(),
            None => std::future::ready(Ok(Status::unimplemented("").into_http())).boxed(),
        }
    }
}

/// A method as tonic calls it.
struct Method<C>(C);

impl<C, Q, R, F> Service<Request<Q>> for Method<C>
where
    C: Fn(Q) -> F,
    F: Future<Output = Result<R, MethodError>> + Send + 'static,
{
    type Response = Response<R>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<R>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let running = (self.0)(request.into_inner());
        async { Ok(Response::new(running.await?)) }.boxed()
    }
}
