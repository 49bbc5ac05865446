//! The calling end: one call over either protocol.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use http::uri::PathAndQuery;
use outrigger_gob::{Encode, Gob};
use prost::Message;
use tonic::client::Grpc;
use tonic::{GrpcMethod, Request, Status};
use tonic_prost::ProstCodec;

use super::error::MethodError;
use super::streaming::Streaming;
use crate::broker::Broker;
use crate::channel::{Channel, MAX_MESSAGE};
use crate::netrpc::Client;

/// Calls the methods of a gRPC service. Clones share the connection.
#[derive(Clone, Debug)]
pub struct GrpcCaller {
    channel: Channel,
    broker: Arc<dyn Broker>,
    timeout: Option<Duration>,
}

impl GrpcCaller {
    /// Calls over `channel`, and waits for replies as long as it lives.
    pub fn new(channel: Channel, broker: Arc<dyn Broker>) -> Self {
        Self {
            channel,
            broker,
            timeout: None,
        }
    }

    /// Waits no longer than `limit` for each reply; the peer is told of the
    /// deadline. A stream may last longer once it has begun.
    #[must_use]
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Opens further connections to the peer.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// Calls the method at `path`, such as `/greeter.v1.Greeter/Greet`.
    ///
    /// # Errors
    /// The peer's own, or why there is no reply.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub async fn unary<Q, R>(&self, path: &'static str, request: Q) -> Result<R, MethodError>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        let mut grpc = self.ready().await?;
        let name = method_of(path);
        let path = PathAndQuery::from_static(path);
        let reply = grpc.unary(self.request(name, request), path, ProstCodec::default());
        Ok(reply.await?.into_inner())
    }

    /// Calls a method that answers with a stream.
    ///
    /// # Errors
    /// As [`unary`](Self::unary); the stream can end with an error as well.
    ///
    /// # Cancel safety
    /// Dropping the future, or the stream, cancels the call.
    pub async fn server_streaming<Q, R>(
        &self,
        path: &'static str,
        request: Q,
    ) -> Result<Streaming<R>, MethodError>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        let mut grpc = self.ready().await?;
        let name = method_of(path);
        let path = PathAndQuery::from_static(path);
        let reply = grpc.server_streaming(self.request(name, request), path, ProstCodec::default());
        Ok(Box::pin(reply.await?.into_inner().map_err(Into::into)))
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        grpc.ready().await?;
        Ok(grpc)
    }

    fn request<Q>(&self, method: Option<GrpcMethod<'static>>, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        if let Some(method) = method {
            request.extensions_mut().insert(method);
        }
        if let Some(limit) = self.timeout {
            request.set_timeout(limit);
        }
        request
    }
}

/// How the generated clients of tonic name a method.
fn method_of(path: &'static str) -> Option<GrpcMethod<'static>> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    Some(GrpcMethod::new(service, method))
}

/// Calls the methods of a net/rpc object. Clones share the connection.
#[derive(Clone, Debug)]
pub struct NetRpcCaller {
    client: Client,
    broker: Arc<dyn Broker>,
    timeout: Option<Duration>,
}

impl NetRpcCaller {
    /// Calls over `client`, and waits for replies as long as it lives.
    pub fn new(client: Client, broker: Arc<dyn Broker>) -> Self {
        Self {
            client,
            broker,
            timeout: None,
        }
    }

    /// Waits no longer than `limit` for each reply. The method may still be running
    /// then: net/rpc knows no deadlines.
    #[must_use]
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Opens further streams to the peer.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// Calls `method`, such as `Plugin.Greet`.
    ///
    /// # Errors
    /// The peer's own, or why there is no reply.
    ///
    /// # Cancel safety
    /// When the future is dropped the method may still run; its reply is dropped.
    pub async fn call<A, R>(&self, method: &str, argument: &A) -> Result<R, MethodError>
    where
        A: Encode + ?Sized,
        R: Gob,
    {
        let reply = match self.timeout {
            None => self.client.call(method, argument).await,
            Some(limit) => self.client.call_within(limit, method, argument).await,
        };
        Ok(reply?)
    }
}

/// Calls over the protocol that the plugin speaks.
#[derive(Clone, Debug)]
pub enum AnyCaller {
    /// The plugin speaks gRPC.
    Grpc(GrpcCaller),
    /// The plugin speaks net/rpc.
    NetRpc(NetRpcCaller),
}

impl AnyCaller {
    /// [`GrpcCaller::with_timeout`] or [`NetRpcCaller::with_timeout`].
    #[must_use]
    pub fn with_timeout(self, limit: Duration) -> Self {
        match self {
            Self::Grpc(caller) => Self::Grpc(caller.with_timeout(limit)),
            Self::NetRpc(caller) => Self::NetRpc(caller.with_timeout(limit)),
        }
    }

    /// Opens further connections to the peer.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        match self {
            Self::Grpc(caller) => caller.broker(),
            Self::NetRpc(caller) => caller.broker(),
        }
    }
}
