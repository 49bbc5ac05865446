//! Sockets at which the services of one plugin are called, whatever happens to its
//! process meanwhile.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use outrigger::{Broker, Channel, Error, Host, Interface, UnsupportedTransport};
use outrigger_transport::{IncomingBody, ServiceSet};
use tonic::Status;
use tonic::body::Body;

use crate::control::trouble;

/// What a host alone may use: the broker's control stream, the controller, and
/// what the plugin prints.
const OF_THE_HOST: &str = "plugin.";

/// Any interface of a plugin that speaks gRPC: calls as they are.
struct AnyGrpc;

impl Interface for AnyGrpc {
    type Client = Channel;

    fn grpc(channel: Channel, _: Arc<dyn Broker>) -> Result<Channel, UnsupportedTransport> {
        Ok(channel)
    }
}

/// The way to a plugin, which is started if nobody has stopped it.
///
/// # Errors
/// Why it cannot be called.
pub(crate) async fn reach(host: &Host, plugin: &str) -> Result<Channel, Error> {
    host.client::<AnyGrpc>(plugin).await
}

/// All services of a plugin, which each call reaches anew.
pub(crate) fn services(host: Host, plugin: String) -> ServiceSet {
    ServiceSet::new().otherwise(Through {
        host,
        plugin: plugin.into(),
    })
}

#[derive(Clone)]
struct Through {
    host: Host,
    plugin: Arc<str>,
}

impl tower_service::Service<Request<IncomingBody>> for Through {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<IncomingBody>) -> Self::Future {
        let path = request.uri().path().trim_start_matches('/');
        if path.starts_with(OF_THE_HOST) {
            let status = Status::unimplemented("only the plugin's own host may use this service");
            return std::future::ready(Ok(status.into_http())).boxed();
        }
        let Self { host, plugin } = self.clone();
        async move {
            let mut channel = match reach(&host, &plugin).await {
                Ok(channel) => channel,
                Err(error) => return Ok(trouble::of_plugin(&error).into_http()),
            };
            Ok(match channel.call(request.map(Body::new)).await {
                Ok(reply) => reply.map(Body::new),
                Err(status) => status.into_http(),
            })
        }
        .boxed()
    }
}
