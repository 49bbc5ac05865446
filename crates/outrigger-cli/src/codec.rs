//! Messages whose types are known only at run time, as gRPC carries them.

use bytes::Buf as _;
use prost_reflect::prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::descriptors::guarded;

/// Encodes requests and decodes replies of one method.
#[derive(Clone, Debug)]
pub(crate) struct DynamicCodec {
    reply: MessageDescriptor,
}

impl DynamicCodec {
    pub(crate) fn new(method: &MethodDescriptor) -> Self {
        Self {
            reply: method.output(),
        }
    }
}

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = DynamicEncoder;
    type Decoder = DynamicDecoder;

    fn encoder(&mut self) -> DynamicEncoder {
        DynamicEncoder
    }

    fn decoder(&mut self) -> DynamicDecoder {
        DynamicDecoder {
            message: self.reply.clone(),
        }
    }
}

/// Encodes whatever it is given: messages carry their own type.
#[derive(Debug)]
pub(crate) struct DynamicEncoder;

impl Encoder for DynamicEncoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer)
            .map_err(|error| Status::internal(format!("the request does not encode: {error}")))
    }
}

/// Decodes messages of one type.
#[derive(Debug)]
pub(crate) struct DynamicDecoder {
    message: MessageDescriptor,
}

impl Decoder for DynamicDecoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        let message = self.message.clone();
        let decoded = guarded(|| DynamicMessage::decode(message, bytes))
            .ok_or_else(|| Status::internal("the reply's type is not sound"))?;
        let decoded = decoded
            .map_err(|error| Status::internal(format!("the reply does not decode: {error}")))?;
        Ok(Some(decoded))
    }
}
