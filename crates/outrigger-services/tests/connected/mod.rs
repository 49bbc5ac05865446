//! A plugin's end of a real connection to granted services.
#![allow(dead_code, reason = "not every test file uses everything")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use outrigger_manifest::{Grants, Manifest, Places, Policy};
use outrigger_services::{AuditLog, AuditRecord, GrantedServices, Limits};
use outrigger_transport::{
    Channel, ChannelOptions, HostServices, PluginIdentity, ServeLimits, serve_connection,
};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

/// What a manifest with these capabilities asks for, all of it granted.
/// `sections` are top-level sections of the manifest.
pub(crate) fn grants(sections: &str) -> Grants {
    let text = format!(
        "plugin: {{name: tester, format: grpc, entrypoint: tester}}\n\
         handshake: {{protocol_version: 1, magic_cookie_key: TESTER, magic_cookie_value: v}}\n\
         {sections}"
    );
    let manifest = Manifest::parse(&text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    let places = Places::new("/plugins/tester", "/data/tester").expect("places");
    let decision = Policy::allow_requested().decide(&manifest, &places);
    decision.grants().clone()
}

/// One plugin, connected.
pub(crate) struct Plugin {
    channel: Channel,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    records: Arc<Mutex<Vec<AuditRecord>>>,
}

impl Plugin {
    pub(crate) async fn new(sections: &str) -> Self {
        Self::with(sections, Limits::default()).await
    }

    pub(crate) async fn with(sections: &str, limits: Limits) -> Self {
        let records: Arc<Mutex<Vec<AuditRecord>>> = Arc::default();
        let kept = records.clone();
        let audit = AuditLog::callback(move |record| {
            kept.lock().expect("not poisoned").push(record.clone());
        });
        let services = GrantedServices::new(grants(sections))
            .limits(limits)
            .audit(audit);
        let bound = services.bind(&PluginIdentity::new("tester", "tester-1", None));
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve_connection(
            Box::new(ours),
            bound,
            ServeLimits::default(),
            stop.clone(),
        ));
        let channel = Channel::connect(Box::new(theirs), ChannelOptions::default())
            .await
            .expect("a connection");
        Self {
            channel,
            stop,
            serving,
            records,
        }
    }

    /// Ends the connection and waits until the host has let go of it.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        drop(self.channel);
        self.serving.await.expect("the host's end finished");
    }

    /// Waits until there is a record of `operation`, and takes all of that name.
    pub(crate) async fn records_of(&self, operation: &str) -> Vec<AuditRecord> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let taken = self.taken(operation);
            if !taken.is_empty() {
                return taken;
            }
            assert!(Instant::now() < deadline, "no record of {operation}");
            tokio::task::yield_now().await;
        }
    }

    fn taken(&self, operation: &str) -> Vec<AuditRecord> {
        let mut records = self.records.lock().expect("not poisoned");
        records
            .extract_if(.., |record| record.operation == operation)
            .collect()
    }

    async fn grpc(&self) -> tonic::client::Grpc<Channel> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(16 << 20)
            .max_encoding_message_size(16 << 20);
        grpc.ready().await.expect("always ready");
        grpc
    }

    /// `method` as `Service/Method`.
    pub(crate) async fn call<Q, R>(&self, method: &str, request: Q) -> Result<R, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, R>::default();
        let reply = self
            .grpc()
            .await
            .unary(Request::new(request), path(method), codec)
            .await?;
        Ok(reply.into_inner())
    }

    pub(crate) async fn download<Q, R>(
        &self,
        method: &str,
        request: Q,
    ) -> Result<Streaming<R>, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, R>::default();
        let reply = self
            .grpc()
            .await
            .server_streaming(Request::new(request), path(method), codec)
            .await?;
        Ok(reply.into_inner())
    }

    pub(crate) async fn upload<Q, R>(
        &self,
        method: &str,
        parts: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<R, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, R>::default();
        let reply = self
            .grpc()
            .await
            .client_streaming(Request::new(parts), path(method), codec)
            .await?;
        Ok(reply.into_inner())
    }

    pub(crate) async fn converse<Q, R>(
        &self,
        method: &str,
        parts: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<R>, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, R>::default();
        let reply = self
            .grpc()
            .await
            .streaming(Request::new(parts), path(method), codec)
            .await?;
        Ok(reply.into_inner())
    }
}

fn path(method: &str) -> http::uri::PathAndQuery {
    format!("/outrigger.host.v1.{method}")
        .parse()
        .expect("a path")
}

/// All messages of a stream.
pub(crate) async fn all<R>(stream: Streaming<R>) -> Result<Vec<R>, Status> {
    let replies: Vec<Result<R, Status>> = stream.collect().await;
    replies.into_iter().collect()
}

/// The code and the reason of a failure.
pub(crate) fn failure<T: std::fmt::Debug>(outcome: Result<T, Status>) -> (Code, String) {
    let status = outcome.expect_err("a failure");
    let info = status.get_details_error_info().expect("details");
    assert_eq!(info.domain, "outrigger.host");
    (status.code(), info.reason)
}

/// Waits until the process `pid` is gone: not even waiting to be reaped.
pub(crate) async fn gone(pid: i32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        assert!(Instant::now() < deadline, "process {pid} remains");
        tokio::task::yield_now().await;
    }
}

/// Waits until the process `pid` does not run: it is gone, or waits for a
/// parent of its own to reap it.
pub(crate) async fn ended(pid: i32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_running(pid) {
        assert!(Instant::now() < deadline, "process {pid} runs");
        tokio::task::yield_now().await;
    }
}

pub(crate) fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match stat.rsplit_once(") ") {
        None => false,
        Some((_, rest)) => !rest.starts_with(['Z', 'X']),
    }
}
