//! A client of `hostserve.v1`, the services of a well-known example of go-plugin.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use outrigger_transport::{Channel, MAX_MESSAGE};
use outrigger_wire::proto::hostserve as messages;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;

use crate::host::{DirEntry, FileKind, Metadata};
use crate::labels::Labels;
use crate::proto::hostserve::host_service_client::HostServiceClient;

/// A host service failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostServeError {
    /// The host did not do it, and says why in the words it has for a plugin.
    #[error("the host refused {operation}: {reason}")]
    Refused {
        /// What was asked for.
        operation: &'static str,
        /// The host's words.
        reason: String,
    },
    /// The call itself failed.
    #[error("could not ask the host for {operation}")]
    Call {
        /// What was asked for.
        operation: &'static str,
        /// The status of the call.
        #[source]
        status: Box<Status>,
    },
}

impl HostServeError {
    fn call(operation: &'static str, status: Status) -> Self {
        let status = Box::new(status);
        Self::Call { operation, status }
    }

    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "host-refused",
            Self::Call { .. } => "host-call-failed",
        }
    }
}

outrigger_wire::coded!(HostServeError);

/// The services of a host that speaks `hostserve.v1`: what
/// [`PluginContext::host_serve`](crate::PluginContext::host_serve) gives. Clones
/// share the connection.
///
/// Paths are beneath `root`, a granted directory; where that is empty they are
/// beneath the host's own.
///
/// ```no_run
/// # async fn example(ctx: outrigger_plugin::PluginContext, id: u32) -> Result<(), Box<dyn std::error::Error>> {
/// // `id` came from the host, in a call of your interface.
/// let host = ctx.host_serve(id).await?;
/// for entry in host.read_dir("/data", ".").await? {
///     println!("{}", entry.name);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct HostServe {
    client: HostServiceClient<InterceptedService<Channel, Labels>>,
    label: String,
}

/// Makes one call and turns an error inside its answer into an error.
macro_rules! ask {
    ($self:expr, $method:ident, $request:expr) => {{
        let operation = stringify!($method);
        let answer = $self.client.clone().$method($request).await;
        let answer = answer
            .map_err(|status| HostServeError::call(operation, status))?
            .into_inner();
        match answer.error {
            Some(reason) => return Err(HostServeError::Refused { operation, reason }),
            None => answer,
        }
    }};
}

impl HostServe {
    /// The services at the other end of `channel`.
    pub fn over(channel: Channel) -> Self {
        let labels = Labels::unique();
        let label = labels.client().to_owned();
        let client = HostServiceClient::with_interceptor(channel, labels)
            .max_decoding_message_size(MAX_MESSAGE);
        Self { client, label }
    }

    /// The label of this connection: what `EstablishHostServices` answers.
    pub fn client_id(&self) -> &str {
        &self.label
    }

    /// The generated client, for the operations that have no method here. Its
    /// messages are in [`proto::hostserve`](crate::proto::hostserve).
    pub fn client(&self) -> HostServiceClient<InterceptedService<Channel, Labels>> {
        self.client.clone()
    }

    /// Lists a directory, sorted by name.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn read_dir(&self, root: &str, path: &str) -> Result<Vec<DirEntry>, HostServeError> {
        let request = messages::ReadDirRequest {
            root_dir: root.into(),
            path: path.into(),
        };
        let entries = ask!(self, read_dir, request).entries.into_iter();
        let entries = entries.map(|entry| DirEntry {
            name: entry.name,
            kind: match entry.is_dir {
                true => FileKind::Directory,
                false => FileKind::File,
            },
        });
        Ok(entries.collect())
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn read_file(&self, root: &str, path: &str) -> Result<Bytes, HostServeError> {
        let request = messages::ReadFileRequest {
            root_dir: root.into(),
            path: path.into(),
        };
        Ok(ask!(self, read_file, request).contents)
    }

    /// Writes a whole file; `mode` holds for a new one.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn write_file(
        &self,
        root: &str,
        path: &str,
        data: impl Into<Bytes>,
        mode: u32,
    ) -> Result<(), HostServeError> {
        let request = messages::WriteFileRequest {
            root_dir: root.into(),
            path: path.into(),
            data: data.into(),
            perm: mode,
        };
        ask!(self, write_file, request);
        Ok(())
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn open(&self, root: &str, path: &str) -> Result<HostServeFile, HostServeError> {
        let request = messages::FileOpenRequest {
            root_dir: root.into(),
            path: path.into(),
            flags: messages::OpenFileFlags::ReadOnly.into(),
            perm: 0,
        };
        let handle = ask!(self, file_open, request).handle;
        let host = self.clone();
        Ok(HostServeFile { host, handle })
    }

    /// What is at a path, following links beneath the granted directory.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn metadata(&self, root: &str, path: &str) -> Result<Metadata, HostServeError> {
        let request = messages::StatRequest {
            root_dir: root.into(),
            path: path.into(),
        };
        let info = ask!(self, stat, request).info;
        Ok(Metadata::from_host_serve(info))
    }

    /// What is at a path, a link standing for itself.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn symlink_metadata(
        &self,
        root: &str,
        path: &str,
    ) -> Result<Metadata, HostServeError> {
        let request = messages::LstatRequest {
            root_dir: root.into(),
            path: path.into(),
        };
        let info = ask!(self, lstat, request).info;
        Ok(Metadata::from_host_serve(info))
    }

    /// The target of a link.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn read_link(&self, root: &str, path: &str) -> Result<String, HostServeError> {
        let request = messages::ReadlinkRequest {
            root_dir: root.into(),
            path: path.into(),
        };
        Ok(ask!(self, readlink, request).destination)
    }

    /// Makes a directory and those above it.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn create_dir_all(
        &self,
        root: &str,
        path: &str,
        mode: u32,
    ) -> Result<(), HostServeError> {
        let request = messages::MkdirAllRequest {
            root_dir: root.into(),
            path: path.into(),
            perm: mode,
        };
        ask!(self, mkdir_all, request);
        Ok(())
    }

    /// Removes a file or an empty directory.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn remove(&self, root: &str, path: &str) -> Result<(), HostServeError> {
        let request = messages::RemoveRequest {
            root_dir: root.into(),
            path: path.into(),
        };
        ask!(self, remove, request);
        Ok(())
    }

    /// Makes a directory that the host removes when the plugin disconnects.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn create_temp_dir(&self, pattern: &str) -> Result<String, HostServeError> {
        let request = messages::MkdirTempRequest {
            root_dir: String::new(),
            pattern: pattern.into(),
        };
        Ok(ask!(self, mkdir_temp, request).path)
    }

    /// Reads a variable of the host's environment.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn env(&self, key: &str) -> Result<String, HostServeError> {
        Ok(ask!(self, get_env, messages::GetEnvRequest { key: key.into() }).val)
    }

    /// The host's directory for temporary files, as this plugin may use it.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn temp_dir(&self) -> Result<String, HostServeError> {
        Ok(ask!(self, temp_dir, messages::TempDirRequest {}).dir)
    }

    /// The home directory of the host's user.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn home_dir(&self) -> Result<String, HostServeError> {
        Ok(ask!(self, user_home_dir, messages::UserHomeDirRequest {}).dir)
    }

    /// The user id of the host.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn uid(&self) -> Result<i32, HostServeError> {
        Ok(ask!(self, getuid, messages::GetuidRequest {}).uid)
    }

    /// The process id of the host.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn pid(&self) -> Result<i32, HostServeError> {
        Ok(ask!(self, getpid, messages::GetpidRequest {}).pid)
    }
}

/// A file that a host keeps open for reading. Dropping it lets the host close it;
/// [`close`](Self::close) also says whether that worked.
#[derive(Debug)]
pub struct HostServeFile {
    host: HostServe,
    handle: String,
}

impl HostServeFile {
    /// The rest of the file in parts of `length` bytes. The host keeps the
    /// position, which these parts share.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn parts(
        &self,
        length: u32,
    ) -> Result<impl Stream<Item = Result<Bytes, HostServeError>> + Send + use<>, HostServeError>
    {
        let operation = "file_reader";
        let request = messages::FileReadRequest {
            handle: self.handle.clone(),
            chunk_size: length,
        };
        let parts = self.host.client().file_reader(request).await;
        let parts = parts.map_err(|status| HostServeError::call(operation, status))?;
        Ok(parts.into_inner().map(move |part| {
            let part = part.map_err(|status| HostServeError::call(operation, status))?;
            match part.error {
                Some(reason) => Err(HostServeError::Refused { operation, reason }),
                None => Ok(part.chunk.unwrap_or_default().data),
            }
        }))
    }

    /// Closes the file.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn close(mut self) -> Result<(), HostServeError> {
        let handle = std::mem::take(&mut self.handle);
        let request = messages::FileCloseRequest { handle };
        ask!(self.host, file_close, request);
        Ok(())
    }
}

impl Drop for HostServeFile {
    fn drop(&mut self) {
        let handle = std::mem::take(&mut self.handle);
        if handle.is_empty() {
            return;
        }
        // Outside a runtime the host closes it when the connection ends.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let mut client = self.host.client();
            // Ends with the call.
            runtime.spawn(async move {
                let _ = client
                    .file_close(messages::FileCloseRequest { handle })
                    .await;
            });
        }
    }
}
