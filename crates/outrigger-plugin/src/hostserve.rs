//! The services that a host offers to its plugin, as if they were local.

use outrigger_transport::{Broker, BrokerError, BrokerId, Channel, MAX_MESSAGE};
use outrigger_wire::proto::hostserve as messages;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};
use uuid::Uuid;

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
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "host-refused",
            Self::Call { .. } => "host-call-failed",
        }
    }
}

/// Tells the host's log which calls belong together. The host takes nothing
/// from it: it knows its plugin by the connection.
#[derive(Clone, Debug)]
pub struct Labels {
    client: MetadataValue<tonic::metadata::Ascii>,
}

impl Interceptor for Labels {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let id = label();
        let metadata = request.metadata_mut();
        metadata.insert("client", self.client.clone());
        metadata.insert("request", id);
        Ok(request)
    }
}

fn label() -> MetadataValue<tonic::metadata::Ascii> {
    let text = Uuid::now_v7().to_string();
    MetadataValue::try_from(text).unwrap_or_else(|_| MetadataValue::from_static("unlabelled"))
}

/// The services of `hostserve.v1`. Clones share the connection.
#[derive(Clone, Debug)]
pub struct HostServices {
    client: HostServiceClient<InterceptedService<Channel, Labels>>,
    label: String,
}

/// Makes one call and turns an error inside its answer into an error.
macro_rules! ask {
    ($self:ident, $method:ident, $request:expr) => {{
        let operation = stringify!($method);
        let answer = $self.client.clone().$method($request).await;
        let answer = answer
            .map_err(|status| HostServeError::Call {
                operation,
                status: Box::new(status),
            })?
            .into_inner();
        match answer.error {
            Some(reason) => return Err(HostServeError::Refused { operation, reason }),
            None => answer,
        }
    }};
}

impl HostServices {
    /// Dials `id` and labels the connection.
    ///
    /// # Errors
    /// The host does not serve `id`, or cannot be reached.
    pub async fn connect(broker: &dyn Broker, id: BrokerId) -> Result<Self, BrokerError> {
        let channel = broker.connect(id).await?;
        let client = label();
        let label = client.to_str().unwrap_or_default().to_owned();
        let client = HostServiceClient::with_interceptor(channel, Labels { client })
            .max_decoding_message_size(MAX_MESSAGE);
        Ok(Self { client, label })
    }

    /// The label of this connection: what `EstablishHostServices` answers.
    pub fn client_id(&self) -> &str {
        &self.label
    }

    /// The generated client, for the operations that have no method here.
    pub fn client(&self) -> HostServiceClient<InterceptedService<Channel, Labels>> {
        self.client.clone()
    }

    /// Lists a directory, sorted by name.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn read_dir(
        &self,
        root: &str,
        path: &str,
    ) -> Result<Vec<messages::DirEntry>, HostServeError> {
        let request = messages::ReadDirRequest {
            root_dir: root.into(),
            path: path.into(),
        };
        Ok(ask!(self, read_dir, request).entries)
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn read_file(&self, root: &str, path: &str) -> Result<bytes::Bytes, HostServeError> {
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
        data: impl Into<bytes::Bytes>,
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

    /// Describes what is at a path, following links beneath the granted directory.
    ///
    /// # Errors
    /// See [`HostServeError`].
    pub async fn stat(&self, root: &str, path: &str) -> Result<messages::FileInfo, HostServeError> {
        let request = messages::StatRequest {
            root_dir: root.into(),
            path: path.into(),
        };
        Ok(ask!(self, stat, request).info.unwrap_or_default())
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
