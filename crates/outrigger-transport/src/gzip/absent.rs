//! What stands for gzip in a program that was built without it: nothing is sent
//! compressed, no peer is told that it may, and the services and clients that
//! tonic generates answer a compressed message with `UNIMPLEMENTED`.

use bytes::Bytes;
use http::HeaderMap;
use tonic::Status;

#[derive(Clone, Debug)]
pub(crate) struct Room;

impl Room {
    pub(crate) fn new() -> Self {
        Self
    }
}

pub(crate) fn prepare_request(_: &mut http::Request<tonic::body::Body>) {}

pub(crate) fn prepare_reply(_: &mut http::Response<tonic::body::Body>, _peer_takes_it: bool) {}

pub(crate) fn is_taken(_: &HeaderMap) -> bool {
    false
}

pub(crate) fn unpacking(_: &mut HeaderMap, _: &Room) -> Option<Unpacking> {
    None
}

/// No stream is unpacked.
#[derive(Debug)]
pub(crate) enum Unpacking {}

impl Unpacking {
    pub(crate) fn arrived(&mut self, _: &[u8]) {
        match *self {}
    }

    pub(crate) fn is_done(&self) -> bool {
        match *self {}
    }

    pub(crate) fn end(&mut self) -> Result<Option<Bytes>, Status> {
        match *self {}
    }

    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        match *self {}
    }
}
