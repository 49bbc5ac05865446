//! What an interface is made of, as far as code is written from it.

use proc_macro2::Ident;
use quote::ToTokens;
use syn::{Attribute, ItemStruct, ItemTrait, Path, Type};

/// A trait that both sides know.
pub(crate) struct Interface {
    pub(crate) krate: Path,
    /// As the author wrote it, without our attributes.
    pub(crate) item: ItemTrait,
    pub(crate) doc: String,
    /// The gRPC service, such as `greeter.v1.Greeter`, if it is served over gRPC.
    pub(crate) service: Option<String>,
    /// The name that hosts dispense it by, if all plugins have the same.
    pub(crate) dispense: Option<String>,
    /// Whether it is served over net/rpc.
    pub(crate) netrpc: bool,
    pub(crate) methods: Vec<Method>,
}

pub(crate) struct Method {
    pub(crate) ident: Ident,
    /// Its name on the wire, such as `Greet`.
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) arguments: Vec<Field>,
    /// The request: the message that is the only argument, or one made of the arguments.
    pub(crate) request: Carried,
    /// What it answers with, or what its stream consists of.
    pub(crate) value: Type,
    pub(crate) reply: Carried,
    pub(crate) streams: bool,
}

/// What crosses in one direction over gRPC.
pub(crate) enum Carried {
    /// A message that the author declared.
    Own(Type),
    /// A message that is made for this method.
    Made(Message),
}

/// A message with its fields.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) ident: Ident,
    pub(crate) doc: String,
    pub(crate) fields: Vec<Field>,
}

/// A struct that the author declared as a message.
pub(crate) struct Declared {
    pub(crate) krate: Path,
    pub(crate) item: ItemStruct,
    pub(crate) netrpc: bool,
    pub(crate) message: Message,
}

#[derive(Clone)]
pub(crate) struct Field {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) doc: String,
    pub(crate) number: i32,
    /// What gob's derive is told of it.
    pub(crate) gob: Vec<Attribute>,
    /// What it is in protobuf; nothing where only gob carries it.
    pub(crate) proto: Option<Proto>,
}

/// A type of protobuf.
#[derive(Clone)]
pub(crate) struct Proto {
    pub(crate) label: Label,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Label {
    One,
    Optional { boxed: bool },
    Repeated,
    Map { key: Scalar, sorted: bool },
}

#[derive(Clone)]
#[allow(clippy::large_enum_variant)] // There are few, and each only once.
pub(crate) enum Kind {
    Scalar(Scalar),
    Message(Type),
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scalar {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Float,
    Double,
    String,
    /// `Vec<u8>`, or `Bytes` where it is shared.
    Bytes {
        shared: bool,
    },
}

impl Message {
    /// Whether `other` is the same message, so that one will do for both.
    pub(crate) fn equals(&self, other: &Message) -> bool {
        let shape = |message: &Message| {
            let fields = message.fields.iter();
            let field = |f: &Field| {
                (
                    f.ident.clone(),
                    f.ty.to_token_stream().to_string(),
                    f.number,
                )
            };
            fields.map(field).collect::<Vec<_>>()
        };
        shape(self) == shape(other)
    }
}

impl Interface {
    /// The messages that are made for its methods, each once.
    pub(crate) fn made(&self) -> Vec<&Message> {
        let mut made: Vec<&Message> = Vec::new();
        for carried in self.methods.iter().flat_map(|m| [&m.request, &m.reply]) {
            if let Carried::Made(message) = carried
                && !made.iter().any(|known| known.ident == message.ident)
            {
                made.push(message);
            }
        }
        made
    }
}
