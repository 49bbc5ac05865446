//! What a plugin holds at its host.

use bytes::Bytes;
use outrigger_wire::proto::host as messages;

use super::calls::call;
use super::{Host, HostError};

/// The name of a file or directory that the host keeps open for the plugin.
/// Dropping it lets the host close that.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) host: Host,
    pub(super) id: String,
}

impl Lease {
    pub(super) async fn close(mut self) -> Result<(), HostError> {
        let lease = std::mem::take(&mut self.id);
        call!(
            self.host,
            filesystem.close,
            messages::CloseRequest { lease }
        )?;
        Ok(())
    }

    /// At most `length` bytes from `offset` on, and at most what fits into a message.
    pub(super) async fn read(&self, offset: u64, length: usize) -> Result<Bytes, HostError> {
        let length = length.min(self.host.payload());
        let request = messages::ReadRequest {
            lease: self.id.clone(),
            offset,
            length: u32::try_from(length).unwrap_or(u32::MAX),
        };
        Ok(call!(self.host, filesystem.read, request)?.data)
    }

    /// Writes all of `data` at `offset`; an empty write is asked for too.
    pub(super) async fn write(&self, mut data: Bytes, mut offset: u64) -> Result<(), HostError> {
        loop {
            let part = data.split_to(data.len().min(self.host.payload()));
            let length = part.len() as u64;
            let request = messages::WriteRequest {
                lease: self.id.clone(),
                offset,
                data: part,
            };
            call!(self.host, filesystem.write, request)?;
            offset += length;
            if data.is_empty() {
                return Ok(());
            }
        }
    }

    /// Writes all of `data` at the end of the file.
    pub(super) async fn append(&self, mut data: Bytes) -> Result<(), HostError> {
        loop {
            let part = data.split_to(data.len().min(self.host.payload()));
            let request = messages::WriteNextRequest {
                lease: self.id.clone(),
                data: part,
            };
            call!(self.host, filesystem.write_next, request)?;
            if data.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let lease = std::mem::take(&mut self.id);
        if lease.is_empty() {
            return;
        }
        // Outside a runtime nobody tells the host, which closes what is not used for long.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let host = self.host.clone();
            // Ends with the call.
            runtime.spawn(async move {
                let _ = call!(host, filesystem.close, messages::CloseRequest { lease });
            });
        }
    }
}
