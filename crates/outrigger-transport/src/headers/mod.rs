//! Header lists: what a peer may send, what is kept of it, and what we send.
//!
//! gRPC puts metadata, error texts and error details into HTTP/2 headers. A peer
//! may send as much of them as to a program in Go. What the calls of one
//! connection keep of it is counted, by a reader in front of HTTP/2 that knows
//! which call a header block belongs to, and bounded.

mod fields;
mod fit;
mod reader;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

pub(crate) use fit::{fit_head, fit_trailers, fits, request_size, too_large};
pub(crate) use reader::HeaderReader;

/// Largest header list that we accept, in bytes, and the largest that we send to
/// a peer that names no limit: what gRPC for Go has for both.
pub(crate) const MAX_HEADER_LIST: u32 = 16 << 20;
/// What the header lists of one connection's calls may take in memory together,
/// in bytes. The list that goes beyond it is held back until calls have ended.
const KEPT: usize = 64 << 20;
/// From here on a call that goes on is refused if its own header list is large.
const CROWDED: usize = KEPT / 2;
/// What a call keeps without being counted, in bytes.
const SHORT: usize = 64 << 10;

/// What the calls of one connection keep of header lists, and what its peer accepts.
#[derive(Debug)]
pub(crate) struct Headers {
    /// Whether the peer begins the calls.
    serving: bool,
    /// What the peer said that it accepts.
    peer_limit: AtomicU32,
    account: Mutex<Account>,
}

#[derive(Debug, Default)]
struct Account {
    /// What each call keeps, by its stream. A call that is not here is unknown
    /// yet, or over.
    calls: HashMap<u32, usize>,
    total: usize,
    /// What belongs to calls that a server has not accepted yet.
    arriving: usize,
    /// How often something was given back.
    releases: u64,
    /// The reader, when it waits for room.
    reader: Option<Waker>,
}

impl Headers {
    /// For the calls that the peer makes.
    pub(crate) fn of_server() -> Arc<Self> {
        Self::new(true)
    }

    /// For the calls that are made to the peer.
    pub(crate) fn of_client() -> Arc<Self> {
        Self::new(false)
    }

    fn new(serving: bool) -> Arc<Self> {
        Arc::new(Self {
            serving,
            peer_limit: AtomicU32::new(MAX_HEADER_LIST),
            account: Mutex::default(),
        })
    }

    /// The largest header list that the peer accepts, in bytes.
    pub(crate) fn peer_limit(&self) -> usize {
        self.peer_limit.load(Ordering::Relaxed) as usize
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to count for the call on `stream`.
    pub(crate) fn call(self: &Arc<Self>, stream: u32) -> CountedHeaders {
        self.account().calls.insert(stream, 0);
        let headers = self.clone();
        CountedHeaders { headers, stream }
    }

    /// Begins to count for a call that was accepted with `list`.
    pub(crate) fn accepted(
        self: &Arc<Self>,
        stream: u32,
        list: &http::HeaderMap,
    ) -> CountedHeaders {
        let kept = self.call(stream);
        let size = fit::size_in_memory(list);
        if size > SHORT {
            self.account().add(stream, size);
        }
        kept
    }

    /// Counts a header block for the call on `stream`, if there is room. Otherwise
    /// `reader` is woken when there is more, and how often that was so is returned.
    fn count(&self, stream: u32, size: usize, reader: &Waker) -> Result<(), u64> {
        let mut account = self.account();
        let known = account.calls.contains_key(&stream);
        if !known && !self.serving {
            // The call is over, and HTTP/2 drops the block as it comes.
            return Ok(());
        }
        if known && size <= SHORT {
            return Ok(());
        }
        let used = account.total + account.arriving;
        // One alone may be as large as it is allowed to be.
        if used > 0 && used + size > KEPT {
            account.reader = Some(reader.clone());
            return Err(account.releases);
        }
        if known {
            account.add(stream, size);
        } else {
            account.arriving += size;
        }
        Ok(())
    }

    /// A server has accepted all calls whose header lists arrived.
    pub(crate) fn all_accepted(&self) {
        let mut account = self.account();
        if account.arriving > 0 {
            account.arriving = 0;
            account.released();
        }
    }
}

impl Account {
    fn add(&mut self, stream: u32, size: usize) {
        if let Some(kept) = self.calls.get_mut(&stream) {
            *kept += size;
            self.total += size;
        }
    }

    fn released(&mut self) {
        self.releases += 1;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// What one call keeps of header lists is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct CountedHeaders {
    headers: Arc<Headers>,
    stream: u32,
}

impl CountedHeaders {
    /// Whether a call that goes on would keep a large header list although there
    /// is little room left.
    pub(crate) fn is_too_much(&self) -> bool {
        let account = self.headers.account();
        account.total > CROWDED
            && account
                .calls
                .get(&self.stream)
                .is_some_and(|kept| *kept > 0)
    }
}

impl Drop for CountedHeaders {
    fn drop(&mut self) {
        let mut account = self.headers.account();
        let kept = account.calls.remove(&self.stream).unwrap_or_default();
        if kept > 0 {
            account.total -= kept;
            account.released();
        }
    }
}
