//! Messages whose types are known only at run time, as gRPC carries them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Buf as _;
use prost_reflect::prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor, ReflectMessage as _};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::descriptors::guarded;
use crate::json;

/// Encodes what one side of a method sends, and decodes what it receives.
#[derive(Clone, Debug)]
pub(crate) struct DynamicCodec {
    received: MessageDescriptor,
}

impl DynamicCodec {
    /// For the side that calls.
    pub(crate) fn caller(method: &MethodDescriptor) -> Self {
        Self {
            received: method.output(),
        }
    }

    /// For the side that answers.
    pub(crate) fn server(method: &MethodDescriptor) -> Self {
        Self {
            received: method.input(),
        }
    }
}

/// A message as JSON on one line; base64 when it holds what JSON cannot say,
/// such as an unknown type.
pub(crate) fn text(message: &DynamicMessage) -> String {
    if let Some(Ok(text)) = guarded(|| json::line(message)) {
        return text;
    }
    let raw = STANDARD.encode(message.encode_to_vec());
    let name = message.descriptor();
    let object = serde_json::json!({"@type": name.full_name(), "@base64": raw});
    json::line(&object).unwrap_or_default()
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
            message: self.received.clone(),
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
            .map_err(|error| Status::internal(format!("the message does not encode: {error}")))
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
            .ok_or_else(|| Status::internal("the message's type is not sound"))?;
        let decoded = decoded
            .map_err(|error| Status::internal(format!("the message does not decode: {error}")))?;
        Ok(Some(decoded))
    }
}
