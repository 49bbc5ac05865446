//! What every test of the services needs: the grants of a manifest, and a plugin's
//! end of a real connection to them.
#![allow(dead_code, reason = "not every test program uses everything")]

pub(crate) mod peer;
pub(crate) mod plugin;
pub(crate) mod raw;

use futures_util::Stream;
use http::uri::PathAndQuery;
use outrigger_manifest::{Decision, Grants, Manifest, Places, Policy};
use outrigger_services::GrantedServices;
use outrigger_transport::{
    Channel, ChannelOptions, HostServices, PluginIdentity, ServeLimits, serve_connection,
};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// What `policy` decides of a manifest with these top-level sections.
pub(crate) fn decision(sections: &str, policy: &Policy) -> Decision {
    let text = format!(
        "plugin: {{name: tested, format: grpc, entrypoint: tested}}\n\
         handshake: {{protocol_version: 1, magic_cookie_key: K, magic_cookie_value: v}}\n\
         {sections}\n"
    );
    let manifest = Manifest::parse(&text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    let places = Places::new("/nowhere/plugin", "/nowhere/data").expect("places");
    policy.decide(&manifest, &places)
}

/// The grants of a plugin whose manifest has these sections, under a policy that
/// grants it all.
pub(crate) fn grants_with(sections: &str) -> Grants {
    let decision = decision(sections, &Policy::allow_requested());
    assert!(decision.is_complete(), "{:?}", decision.refused());
    decision.grants()
}

/// A plugin's end of a connection to its services.
pub(crate) struct Connection {
    channel: Channel,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Connection {
    pub(crate) async fn new(services: &GrantedServices, identity: &PluginIdentity) -> Self {
        let bound = services.bind(identity);
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve_connection(
            Box::new(ours),
            bound,
            ServeLimits::default(),
            stop.clone(),
        ));
        let channel = Channel::connect(Box::new(theirs), ChannelOptions::default());
        Self {
            channel: channel.await.expect("a connection"),
            stop,
            serving,
        }
    }

    /// Ends the connection and waits until the host has let go of it.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        drop(self.channel);
        self.serving.await.expect("the host's end finished");
    }

    pub(crate) async fn grpc(&self) -> tonic::client::Grpc<Channel> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(16 << 20)
            .max_encoding_message_size(16 << 20);
        grpc.ready().await.expect("always ready");
        grpc
    }

    pub(crate) async fn call<Q, R>(
        &self,
        path: PathAndQuery,
        request: Request<Q>,
    ) -> Result<R, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, R>::default();
        let reply = self.grpc().await.unary(request, path, codec).await?;
        Ok(reply.into_inner())
    }

    /// A call that is answered with a stream.
    pub(crate) async fn download<Q, R>(
        &self,
        path: PathAndQuery,
        request: Q,
    ) -> Result<Streaming<R>, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, R>::default();
        let mut grpc = self.grpc().await;
        let reply = grpc.server_streaming(Request::new(request), path, codec);
        Ok(reply.await?.into_inner())
    }

    /// A call whose request is a stream.
    pub(crate) async fn upload<Q, R>(
        &self,
        path: PathAndQuery,
        parts: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<R, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, R>::default();
        let mut grpc = self.grpc().await;
        let reply = grpc.client_streaming(Request::new(parts), path, codec);
        Ok(reply.await?.into_inner())
    }

    /// A call with a stream each way.
    pub(crate) async fn converse<Q, R>(
        &self,
        path: PathAndQuery,
        parts: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<R>, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, R>::default();
        let mut grpc = self.grpc().await;
        let reply = grpc.streaming(Request::new(parts), path, codec);
        Ok(reply.await?.into_inner())
    }
}
