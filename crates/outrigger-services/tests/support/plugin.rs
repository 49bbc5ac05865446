//! A plugin that uses `outrigger.host.v1`, with the records of what it did.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use outrigger_services::{AuditLog, AuditRecord, GrantedServices, Limits};
use outrigger_transport::PluginIdentity;
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt;

use super::{Connection, grants_with};

/// One plugin, connected.
pub(crate) struct Plugin {
    connection: Connection,
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
        let services = GrantedServices::new(grants_with(sections))
            .limits(limits)
            .audit(audit);
        let identity = PluginIdentity::new("tester", "tester-1", None);
        Self {
            connection: Connection::new(&services, &identity).await,
            records,
        }
    }

    /// Ends the connection and waits until the host has let go of it.
    pub(crate) async fn close(self) {
        self.connection.close().await;
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

    /// `method` as `Service/Method`.
    pub(crate) async fn call<Q, R>(&self, method: &str, request: Q) -> Result<R, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        self.connection
            .call(path(method), Request::new(request))
            .await
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
        self.connection.download(path(method), request).await
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
        self.connection.upload(path(method), parts).await
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
        self.connection.converse(path(method), parts).await
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
