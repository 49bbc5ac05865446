//! A plugin that works with files, over `hostserve.v1` or `outrigger.host.v1`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use http::uri::PathAndQuery;
use outrigger_manifest::Grants;
use outrigger_services::GrantedServices;
use outrigger_transport::PluginIdentity;
use outrigger_wire::proto::hostserve::*;
use tonic::{Request, Status};

use super::{Connection, grants_with};

/// The grants of a plugin whose manifest asks for `capabilities` (the section of
/// that name, as YAML on one line).
pub(crate) fn grants(capabilities: &str) -> Grants {
    grants_with(&format!("capabilities: {capabilities}"))
}

/// One entry of a `filesystem` section.
pub(crate) fn entry(path: &Path, permissions: &str, recursive: bool) -> String {
    let path = path.to_str().expect("UTF-8");
    format!("{{path: \"{path}\", permissions: [{permissions}], recursive: {recursive}}}")
}

pub(crate) const EVERYTHING: &str = "read, write, list, create, delete";

/// Services under one grant for a whole directory.
pub(crate) fn services(path: &Path, permissions: &str) -> GrantedServices {
    let entry = entry(path, permissions, true);
    GrantedServices::new(grants(&format!("{{filesystem: [{entry}]}}")))
}

/// One plugin, connected.
pub(crate) struct Peer {
    pub(super) connection: Connection,
    called: Arc<Mutex<BTreeSet<String>>>,
}

impl Peer {
    pub(crate) async fn new(services: &GrantedServices, name: &str) -> Self {
        let identity = PluginIdentity::new(name, format!("{name}-1"), None);
        Self {
            connection: Connection::new(services, &identity).await,
            called: Arc::default(),
        }
    }

    /// Ends the connection and waits until the host has let go of it.
    pub(crate) async fn close(self) {
        self.connection.close().await;
    }

    /// `Method` of `hostserve.v1`, or `Service/Method` of `outrigger.host.v1`.
    fn path(&self, method: &str) -> PathAndQuery {
        self.called
            .lock()
            .expect("not poisoned")
            .insert(method.to_owned());
        let path = if method.contains('/') {
            format!("/outrigger.host.v1.{method}")
        } else {
            format!("/hostserve.v1.HostService/{method}")
        };
        path.parse().expect("a path")
    }

    /// The methods called so far.
    pub(crate) fn called(&self) -> BTreeSet<String> {
        self.called.lock().expect("not poisoned").clone()
    }

    pub(crate) async fn call<Q, R>(&self, method: &str, request: Q) -> Result<R, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        self.call_with(method, Request::new(request)).await
    }

    pub(crate) async fn call_with<Q, R>(
        &self,
        method: &str,
        request: Request<Q>,
    ) -> Result<R, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        self.connection.call(self.path(method), request).await
    }

    /// Starts a stream and takes nothing of it.
    pub(crate) async fn start<Q, R>(&self, method: &str, request: Q) -> tonic::Streaming<R>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let reply = self.connection.download(self.path(method), request).await;
        reply.expect("a stream")
    }

    pub(crate) async fn download<Q, R>(&self, method: &str, request: Q) -> Vec<Result<R, Status>>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        match self.connection.download(self.path(method), request).await {
            Ok(reply) => reply.collect().await,
            Err(status) => vec![Err(status)],
        }
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
        self.connection.upload(self.path(method), parts).await
    }

    pub(crate) async fn read(&self, root_dir: &str, path: &str) -> Result<Vec<u8>, String> {
        let request = ReadFileRequest {
            root_dir: root_dir.into(),
            path: path.into(),
        };
        let reply: ReadFileResponse = self.call("ReadFile", request).await.expect("a reply");
        in_band(reply.error, reply.contents.to_vec())
    }

    pub(crate) async fn write(
        &self,
        root_dir: &str,
        path: &str,
        data: &'static [u8],
    ) -> Result<(), String> {
        let request = WriteFileRequest {
            root_dir: root_dir.into(),
            path: path.into(),
            data: data.into(),
            perm: 0o644,
        };
        let reply: WriteFileResponse = self.call("WriteFile", request).await.expect("a reply");
        in_band(reply.error, ())
    }

    pub(crate) async fn open(&self, path: &str, flags: OpenFileFlags) -> Result<String, String> {
        let request = FileOpenRequest {
            root_dir: String::new(),
            path: path.into(),
            flags: flags.into(),
            perm: 0o644,
        };
        let reply: FileOpenResponse = self.call("FileOpen", request).await.expect("a reply");
        in_band(reply.error, reply.handle)
    }

    pub(crate) async fn section(
        &self,
        handle: &str,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>, String> {
        let request = FileReadSectionRequest {
            handle: handle.into(),
            offset,
            length,
        };
        let reply: FileReadSectionResponse = self
            .call("FileReadSection", request)
            .await
            .expect("a reply");
        in_band(reply.error, reply.contents.to_vec())
    }

    pub(crate) async fn temp_dir(&self) -> String {
        let reply: TempDirResponse = self
            .call("TempDir", TempDirRequest {})
            .await
            .expect("a reply");
        in_band(reply.error, reply.dir).expect("a temporary directory")
    }
}

/// The value, or the error that travelled in the reply.
pub(crate) fn in_band<T>(error: Option<String>, value: T) -> Result<T, String> {
    match error {
        None => Ok(value),
        Some(error) => Err(error),
    }
}

/// Waits until `path` is gone.
pub(crate) async fn gone(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while path.exists() {
        assert!(Instant::now() < deadline, "{} remains", path.display());
        tokio::task::yield_now().await;
    }
}
