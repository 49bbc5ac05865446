//! The entries of a directory.

use std::collections::VecDeque;

use futures_util::Stream;
use outrigger_wire::proto::host as messages;

use super::calls::call;
use super::{DirEntry, FileKind, Host, HostError};

/// The entries of a directory.
#[derive(Debug)]
pub struct ReadDir {
    host: Host,
    /// How to ask for the next page; nothing behind the last one.
    request: Option<messages::ListRequest>,
    page: VecDeque<DirEntry>,
    unreadable: u32,
}

impl ReadDir {
    pub(super) fn new(host: Host, path: String) -> Self {
        let request = messages::ListRequest {
            path,
            ..messages::ListRequest::default()
        };
        Self {
            host,
            request: Some(request),
            page: VecDeque::new(),
            unreadable: 0,
        }
    }

    /// The next entry; nothing after the last one.
    ///
    /// # Errors
    /// See [`HostError`].
    ///
    /// # Cancel safety
    /// No entry is lost when the future is dropped: its page is fetched again.
    pub async fn next(&mut self) -> Result<Option<DirEntry>, HostError> {
        while self.page.is_empty() {
            let Some(request) = &self.request else {
                return Ok(None);
            };
            let page = call!(self.host, filesystem.list, request.clone())?;
            let entries = page.entries.into_iter().map(|entry| DirEntry {
                kind: FileKind::from_wire(entry.kind()),
                name: entry.name,
            });
            self.page.extend(entries);
            self.unreadable += page.unreadable;
            match &mut self.request {
                Some(request) if !page.next.is_empty() => request.cookie = page.next,
                request => *request = None,
            }
        }
        Ok(self.page.pop_front())
    }

    /// How many entries were left out so far because their names are not UTF-8.
    pub fn unreadable(&self) -> u32 {
        self.unreadable
    }

    /// The entries as a stream.
    pub fn stream(self) -> impl Stream<Item = Result<DirEntry, HostError>> + Send {
        futures_util::stream::try_unfold(self, |mut entries| async {
            Ok(entries.next().await?.map(|entry| (entry, entries)))
        })
    }
}
