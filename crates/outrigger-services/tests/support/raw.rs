//! Every operation of the host's services as their descriptors have it, called
//! with messages that are put together field by field.

use bytes::{Buf, BufMut, Bytes};
use futures_util::StreamExt;
use outrigger_services::HOST_SERVICES_DESCRIPTORS;
use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};

use super::peer::Peer;

/// Field names that stand for a place in the file tree.
const PATHS: [&str; 9] = [
    "path", "from", "to", "existing", "new", "old_name", "new_name", "old_path", "new_path",
];

/// One operation and the fields of its request.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) streamed_requests: bool,
    pub(crate) streamed_replies: bool,
    /// Names and numbers of the fields that are texts.
    pub(crate) texts: Vec<(String, u32)>,
    /// The number of the field that says how it failed, in the reply.
    error: Option<u32>,
}

/// All operations of all services.
pub(crate) fn operations() -> Vec<Operation> {
    let set = FileDescriptorSet::decode(HOST_SERVICES_DESCRIPTORS).expect("descriptors");
    let message = |full: &str| -> DescriptorProto {
        let file = set.file.iter().find_map(|file| {
            let name = full.strip_prefix(&format!(".{}.", file.package()))?;
            file.message_type.iter().find(|of| of.name() == name)
        });
        file.unwrap_or_else(|| panic!("{full}")).clone()
    };
    let mut all = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let fields = message(method.input_type()).field;
                let texts = fields.iter().filter(|field| field.r#type() == Type::String);
                let reply = message(method.output_type()).field;
                let error = reply.iter().find(|field| field.name() == "error");
                all.push(Operation {
                    service: format!("{}.{}", file.package(), service.name()),
                    name: method.name().to_owned(),
                    streamed_requests: method.client_streaming(),
                    streamed_replies: method.server_streaming(),
                    texts: texts
                        .map(|field| (field.name().to_owned(), field.number().unsigned_abs()))
                        .collect(),
                    error: error.map(|field| field.number().unsigned_abs()),
                });
            }
        }
    }
    all
}

impl Operation {
    /// The fields that name places. The text of a link is none.
    pub(crate) fn paths(&self) -> Vec<String> {
        let names = self.texts.iter().map(|(name, _)| name.as_str());
        let places = names.filter(|name| PATHS.contains(name));
        let places = places.filter(|name| self.name != "Symlink" || *name != "old_path");
        places.map(str::to_owned).collect()
    }

    pub(crate) fn takes(&self, field: &str) -> bool {
        self.texts.iter().any(|(name, _)| name == field)
    }

    /// A request with these texts.
    pub(crate) fn request(&self, texts: &[(&str, &str)]) -> Bytes {
        let mut message = Vec::new();
        for (name, text) in texts {
            let field = self.texts.iter().find(|(field, _)| field == name);
            let (_, number) = field.unwrap_or_else(|| panic!("{} has no {name}", self.name));
            prost::encoding::string::encode(*number, &(*text).to_owned(), &mut message);
        }
        message.into()
    }

    /// What came of a call: a reply, or in which words it failed.
    pub(crate) async fn call(&self, peer: &Peer, request: Bytes) -> Result<Bytes, String> {
        let reply = self.reply(peer, request).await;
        let reply = reply.map_err(|status| status.message().to_owned())?;
        match self.error.and_then(|error| text_of(reply.clone(), error)) {
            Some(error) => Err(error),
            None => Ok(reply),
        }
    }

    /// The first reply.
    async fn reply(&self, peer: &Peer, request: Bytes) -> Result<Bytes, Status> {
        let mut grpc = peer.connection.grpc().await;
        let path = format!("/{}/{}", self.service, self.name);
        let path = path.parse().expect("a path");
        if !self.streamed_replies {
            let reply = grpc.unary(Request::new(request), path, Raw).await?;
            return Ok(reply.into_inner());
        }
        let reply = grpc
            .server_streaming(Request::new(request), path, Raw)
            .await?;
        reply.into_inner().next().await.unwrap_or(Ok(Bytes::new()))
    }
}

/// The text of one field of a message.
fn text_of(mut message: Bytes, wanted: u32) -> Option<String> {
    use prost::encoding::{DecodeContext, WireType, decode_key, skip_field, string};

    let mut text = None;
    while message.has_remaining() {
        let (number, kind) = decode_key(&mut message).expect("a field");
        if number == wanted && kind == WireType::LengthDelimited {
            let mut found = String::new();
            string::merge(kind, &mut found, &mut message, DecodeContext::default())
                .expect("a text");
            text = Some(found);
        } else {
            skip_field(kind, number, &mut message, DecodeContext::default()).expect("a field");
        }
    }
    text
}

/// Messages as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
