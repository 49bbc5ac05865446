//! Which services a plugin has that does not describe itself: it is tried
//! whether it has those that are known.

use std::str::FromStr as _;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use http::uri::PathAndQuery;
use outrigger_host::Channel;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

use crate::descriptors::{self, Catalogue, ListedService};

/// How long the plugin may take to answer for one service. One that takes longer is
/// asked for no other.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many services are tried.
const MOST_TRIED: usize = 256;

/// Bytes that are no message of any type: the beginning of a number without its end.
/// A server refuses them before a method sees anything.
const NO_MESSAGE: u8 = 0xff;

/// The services of `known` that the plugin has.
///
/// # Cancel safety
/// Dropping the future cancels the call that is tried.
pub(crate) async fn served(channel: &Channel, known: &Catalogue) -> Vec<ListedService> {
    let mut found = Vec::new();
    for service in descriptors::list(known).into_iter().take(MOST_TRIED) {
        // Methods that take a stream begin before they read it.
        let mut methods = service.methods.iter();
        let Some(method) = methods.find(|method| matches!(method.kind, "unary" | "server-stream"))
        else {
            continue;
        };
        let path = format!("/{}/{}", service.name, method.name);
        let answer = tokio::time::timeout(PATIENCE, refusal(channel, &path));
        match answer.await {
            Ok(Some(Code::Unimplemented)) => {}
            // It would not answer for the others.
            Ok(Some(Code::Unavailable | Code::DeadlineExceeded)) | Err(_) => break,
            Ok(_) => found.push(service),
        }
    }
    found
}

/// How a call is refused that carries no message.
async fn refusal(channel: &Channel, path: &str) -> Option<Code> {
    let path = PathAndQuery::from_str(path).ok()?;
    let mut grpc = Grpc::new(channel.clone());
    if let Err(error) = grpc.ready().await {
        return Some(error.code());
    }
    let mut request = Request::new(());
    request.set_timeout(PATIENCE);
    match grpc.unary(request, path, NoMessage).await {
        Ok(_) => None,
        Err(status) => Some(status.code()),
    }
}

/// Sends [`NO_MESSAGE`] and reads nothing.
struct NoMessage;

impl Codec for NoMessage {
    type Encode = ();
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for NoMessage {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_u8(NO_MESSAGE);
        Ok(())
    }
}

impl Decoder for NoMessage {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}
