//! How files and directories are opened.

use outrigger_wire::proto::host as messages;
use outrigger_wire::proto::host::descriptor_reply::Reply;
use outrigger_wire::proto::host::descriptor_request::Request;

use super::calls::call;
use super::lease::Lease;
use super::{File, Host, HostError};

/// How a file is opened: at first not at all, then in each way that is added.
///
/// ```no_run
/// # async fn example(host: outrigger_plugin::Host) -> Result<(), outrigger_plugin::HostError> {
/// let options = host.fs().options().write(true).create_new(true).mode(0o640);
/// let mut file = options.open("/data/once.txt").await?;
/// file.write_all(b"made by this plugin").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is opened before `open`"]
pub struct OpenOptions {
    host: Host,
    options: messages::OpenOptions,
}

macro_rules! option {
    ($($(#[$doc:meta])* $name:ident: $kind:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $name: $kind) -> Self {
            self.options.$name = $name;
            self
        }
    )*};
}

impl OpenOptions {
    pub(super) fn new(host: Host) -> Self {
        let options = messages::OpenOptions::default();
        Self { host, options }
    }

    option! {
        /// To read.
        read: bool;
        /// To write.
        write: bool;
        /// To write at its end, whatever the position is.
        append: bool;
        /// Emptied.
        truncate: bool;
        /// Made when it is not there.
        create: bool;
        /// Made, and an error when it is there.
        create_new: bool;
        /// Unix permission bits of a file that is made; 0600 without.
        mode: u32;
    }

    /// Opens the file.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn open(self, path: impl Into<String>) -> Result<File, HostError> {
        let (options, path) = (Some(self.options), path.into());
        let request = messages::OpenRequest { path, options };
        let asked = Request::Open(request.clone());
        if let Some(file) = self.by_descriptor("filesystem.open", asked).await? {
            return Ok(file);
        }
        let opened = call!(self.host, filesystem.open, request)?;
        let append = self.options.append;
        Ok(File::from_lease(self.host, opened.lease, append))
    }

    /// Opens a file beneath a directory.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn open_at(self, dir: &Dir, path: impl Into<String>) -> Result<File, HostError> {
        let request = messages::OpenAtRequest {
            lease: dir.0.id.clone(),
            path: path.into(),
            options: Some(self.options),
        };
        let asked = Request::OpenAt(request.clone());
        if let Some(file) = self.by_descriptor("filesystem.open_at", asked).await? {
            return Ok(file);
        }
        let opened = call!(self.host, filesystem.open_at, request)?;
        let append = self.options.append;
        Ok(File::from_lease(self.host, opened.lease, append))
    }

    /// The file as a descriptor; nothing where it has to be asked for by a call.
    async fn by_descriptor(
        &self,
        operation: &'static str,
        request: Request,
    ) -> Result<Option<File>, HostError> {
        let writes = self.options.write || self.options.append;
        let descriptors = match self.host.descriptors() {
            Some(descriptors) if !(writes && self.host.counts_writes()) => descriptors,
            _ => return Ok(None),
        };
        match descriptors.ask_for_one(operation, request).await? {
            Some((Reply::Open(_), file)) => {
                let file = File::from_descriptor(file.into(), self.options.append);
                Ok(Some(file))
            }
            Some(_) => Err(HostError::protocol(operation)),
            None => Ok(None),
        }
    }
}

/// An open directory: files are opened beneath it, even after it was renamed or
/// another one took its path.
#[derive(Debug)]
pub struct Dir(Lease);

impl Dir {
    pub(super) fn new(lease: Lease) -> Self {
        Self(lease)
    }

    /// Opens a file beneath it for reading.
    ///
    /// # Errors
    /// See [`HostError`].
    pub async fn open(&self, path: impl Into<String>) -> Result<File, HostError> {
        let options = OpenOptions::new(self.0.host.clone()).read(true);
        options.open_at(self, path).await
    }
}
