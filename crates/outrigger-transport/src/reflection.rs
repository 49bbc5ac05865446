//! The reflection service: what a server says about its own services.
//!
//! It answers from descriptor sets that are compiled into the program, and
//! passes each file on byte for byte.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use outrigger_wire::Excerpt;
use outrigger_wire::proto::reflection::server_reflection_request::MessageRequest;
use outrigger_wire::proto::reflection::server_reflection_response::MessageResponse;
use outrigger_wire::proto::reflection::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};
use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::proto::reflection::server_reflection_server as v1;
use crate::proto::reflection_v1alpha::server_reflection_server as v1alpha;

/// Largest request the server reads; symbols and file names are short.
const MAX_REQUEST: usize = 64 * 1024;

/// The two reflection services of a server that has the services `names`.
///
/// `descriptor_sets` are encoded `FileDescriptorSet`s; of two files with one
/// name the first is used. Services without a descriptor are listed all the same.
pub(crate) fn services(
    names: Vec<String>,
    descriptor_sets: &[&'static [u8]],
) -> (
    v1::ServerReflectionServer<Reflection>,
    v1alpha::ServerReflectionServer<Reflection>,
) {
    let reflection = Arc::new(Reflection {
        names: names.into_iter().collect(),
        sets: descriptor_sets.to_vec(),
        index: OnceLock::new(),
    });
    (
        v1::ServerReflectionServer::from_arc(reflection.clone())
            .max_decoding_message_size(MAX_REQUEST),
        v1alpha::ServerReflectionServer::from_arc(reflection)
            .max_decoding_message_size(MAX_REQUEST),
    )
}

/// Answers both versions of the reflection service.
#[derive(Debug)]
pub(crate) struct Reflection {
    names: BTreeSet<String>,
    sets: Vec<&'static [u8]>,
    /// Made by the first request: most connections never ask, and starting must stay fast.
    index: OnceLock<Arc<Index>>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

impl Reflection {
    fn answers(&self, requests: Streaming<ServerReflectionRequest>) -> Answers {
        let index = self
            .index
            .get_or_init(|| Arc::new(Index::new(&self.sets)))
            .clone();
        let names: Vec<String> = self.names.iter().cloned().collect();
        let mut sent = HashSet::new();
        Box::pin(requests.map(move |request| {
            let request = request?;
            let answer = index.answer(&names, &request, &mut sent)?;
            Ok(ServerReflectionResponse {
                valid_host: request.host.clone(),
                original_request: Some(request),
                message_response: Some(answer),
            })
        }))
    }
}

#[tonic::async_trait]
impl v1::ServerReflection for Reflection {
    type ServerReflectionInfoStream = Answers;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Answers>, Status> {
        Ok(Response::new(self.answers(request.into_inner())))
    }
}

#[tonic::async_trait]
impl v1alpha::ServerReflection for Reflection {
    type ServerReflectionInfoStream = Answers;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Answers>, Status> {
        Ok(Response::new(self.answers(request.into_inner())))
    }
}

/// A descriptor set whose files stay encoded, so that they are passed on unchanged.
#[derive(Clone, PartialEq, Message)]
struct EncodedSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

#[derive(Debug)]
struct IndexedFile {
    name: String,
    encoded: Bytes,
    imports: Vec<String>,
}

/// Where each name is defined.
#[derive(Debug, Default)]
struct Index {
    files: Vec<IndexedFile>,
    by_name: HashMap<String, usize>,
    by_symbol: HashMap<String, usize>,
    /// Extended message → extension number → file.
    extensions: HashMap<String, HashMap<i32, usize>>,
}

impl Index {
    fn new(sets: &[&'static [u8]]) -> Self {
        let mut index = Self::default();
        for set in sets {
            match EncodedSet::decode(Bytes::from_static(set)) {
                Ok(set) => set.file.into_iter().for_each(|file| index.add_file(file)),
                Err(error) => tracing::warn!(%error, "a descriptor set is left out of reflection"),
            }
        }
        index
    }

    fn add_file(&mut self, encoded: Bytes) {
        let file = match FileDescriptorProto::decode(&encoded[..]) {
            Ok(file) => file,
            Err(error) => {
                tracing::warn!(%error, "a file descriptor is left out of reflection");
                return;
            }
        };
        if self.by_name.contains_key(file.name()) {
            return;
        }
        let at = self.files.len();
        self.by_name.insert(file.name().to_owned(), at);
        let package = file.package();
        for message in &file.message_type {
            self.add_message(package, message, at);
        }
        for enumeration in &file.enum_type {
            self.add_enum(package, enumeration, at);
        }
        for extension in &file.extension {
            self.add_extension(package, extension, at);
        }
        for service in &file.service {
            let service_name = join(package, service.name());
            for method in &service.method {
                self.add_symbol(join(&service_name, method.name()), at);
            }
            self.add_symbol(service_name, at);
        }
        let (name, imports) = (file.name().to_owned(), file.dependency);
        self.files.push(IndexedFile {
            name,
            encoded,
            imports,
        });
    }

    fn add_symbol(&mut self, symbol: String, at: usize) {
        self.by_symbol.entry(symbol).or_insert(at);
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto, at: usize) {
        let name = join(scope, message.name());
        for field in &message.field {
            self.add_symbol(join(&name, field.name()), at);
        }
        for oneof in &message.oneof_decl {
            self.add_symbol(join(&name, oneof.name()), at);
        }
        for nested in &message.nested_type {
            self.add_message(&name, nested, at);
        }
        for enumeration in &message.enum_type {
            self.add_enum(&name, enumeration, at);
        }
        for extension in &message.extension {
            self.add_extension(&name, extension, at);
        }
        self.add_symbol(name, at);
    }

    /// Enum values are siblings of their enum, as in C++.
    fn add_enum(&mut self, scope: &str, enumeration: &EnumDescriptorProto, at: usize) {
        for value in &enumeration.value {
            self.add_symbol(join(scope, value.name()), at);
        }
        self.add_symbol(join(scope, enumeration.name()), at);
    }

    fn add_extension(&mut self, scope: &str, extension: &FieldDescriptorProto, at: usize) {
        self.add_symbol(join(scope, extension.name()), at);
        let extended = extension.extendee().trim_start_matches('.').to_owned();
        self.extensions
            .entry(extended)
            .or_default()
            .entry(extension.number())
            .or_insert(at);
    }

    /// The answer to one request; an unknown name is an answer too and keeps the stream.
    fn answer(
        &self,
        services: &[String],
        request: &ServerReflectionRequest,
        sent: &mut HashSet<usize>,
    ) -> Result<MessageResponse, Status> {
        let Some(wanted) = &request.message_request else {
            return Err(Status::invalid_argument("the request asks for nothing"));
        };
        Ok(match wanted {
            MessageRequest::FileByFilename(name) => {
                self.file_answer(self.by_name.get(name), sent, || {
                    format!("file {}", quote(name))
                })
            }
            MessageRequest::FileContainingSymbol(symbol) => {
                self.file_answer(self.by_symbol.get(symbol), sent, || {
                    format!("symbol {}", quote(symbol))
                })
            }
            MessageRequest::FileContainingExtension(extension) => {
                let (message, number) = (&extension.containing_type, extension.extension_number);
                let at = self
                    .extensions
                    .get(message)
                    .and_then(|known| known.get(&number));
                self.file_answer(at, sent, || {
                    format!("extension {number} of {}", quote(message))
                })
            }
            MessageRequest::AllExtensionNumbersOfType(message) => self.numbers_answer(message),
            MessageRequest::ListServices(_) => {
                let service = services
                    .iter()
                    .map(|name| ServiceResponse { name: name.clone() })
                    .collect();
                MessageResponse::ListServicesResponse(ListServiceResponse { service })
            }
        })
    }

    /// The file `at` and, after it, those it needs that this stream has not carried yet.
    fn file_answer(
        &self,
        at: Option<&usize>,
        sent: &mut HashSet<usize>,
        what: impl FnOnce() -> String,
    ) -> MessageResponse {
        let Some(&wanted) = at else {
            return not_found(&what());
        };
        let mut seen = HashSet::from([wanted]);
        let mut queue = VecDeque::from([wanted]);
        let mut file_descriptor_proto = Vec::new();
        while let Some(at) = queue.pop_front() {
            let file = &self.files[at];
            if sent.insert(at) || at == wanted {
                file_descriptor_proto.push(file.encoded.clone());
            }
            for import in &file.imports {
                match self.by_name.get(import) {
                    Some(&next) if seen.insert(next) => queue.push_back(next),
                    Some(_) => {}
                    None => tracing::debug!(file = file.name, import, "import has no descriptor"),
                }
            }
        }
        MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
            file_descriptor_proto,
        })
    }

    fn numbers_answer(&self, message: &str) -> MessageResponse {
        let known = self.extensions.get(message);
        if known.is_none() && !self.by_symbol.contains_key(message) {
            return not_found(&format!("message {}", quote(message)));
        }
        let mut numbers: Vec<i32> = known.into_iter().flat_map(|k| k.keys().copied()).collect();
        numbers.sort_unstable();
        MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
            base_type_name: message.to_owned(),
            extension_number: numbers,
        })
    }
}

fn not_found(what: &str) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse {
        error_code: Code::NotFound as i32,
        error_message: format!("{what} is not known here"),
    })
}

fn quote(text: &str) -> String {
    Excerpt::new(text.as_bytes()).to_string()
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use prost_types::FileDescriptorSet;

    use super::*;

    fn request(wanted: MessageRequest) -> ServerReflectionRequest {
        ServerReflectionRequest {
            host: String::new(),
            message_request: Some(wanted),
        }
    }

    fn leak(set: &FileDescriptorSet) -> &'static [u8] {
        set.encode_to_vec().leak()
    }

    fn file(name: &str, imports: &[&str]) -> FileDescriptorProto {
        FileDescriptorProto {
            name: Some(name.into()),
            package: Some("p".into()),
            dependency: imports.iter().map(|i| (*i).to_owned()).collect(),
            ..Default::default()
        }
    }

    fn sample() -> &'static [u8] {
        let mut base = file("base.proto", &[]);
        base.message_type.push(DescriptorProto {
            name: Some("Outer".into()),
            field: vec![FieldDescriptorProto {
                name: Some("field".into()),
                ..Default::default()
            }],
            nested_type: vec![DescriptorProto {
                name: Some("Inner".into()),
                ..Default::default()
            }],
            enum_type: vec![EnumDescriptorProto {
                name: Some("Kind".into()),
                value: vec![prost_types::EnumValueDescriptorProto {
                    name: Some("BIG".into()),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        });
        let mut api = file("api.proto", &["base.proto", "absent.proto"]);
        api.service.push(prost_types::ServiceDescriptorProto {
            name: Some("Api".into()),
            method: vec![prost_types::MethodDescriptorProto {
                name: Some("Do".into()),
                ..Default::default()
            }],
            ..Default::default()
        });
        api.extension.push(FieldDescriptorProto {
            name: Some("extra".into()),
            extendee: Some(".p.Outer".into()),
            number: Some(100),
            ..Default::default()
        });
        leak(&FileDescriptorSet {
            file: vec![api, base],
        })
    }

    fn names() -> Vec<String> {
        vec!["p.Api".into(), "bare.Service".into()]
    }

    fn ask(index: &Index, wanted: MessageRequest) -> MessageResponse {
        index
            .answer(&names(), &request(wanted), &mut HashSet::new())
            .expect("an answer")
    }

    fn files_of(answer: MessageResponse) -> Vec<String> {
        let MessageResponse::FileDescriptorResponse(files) = answer else {
            panic!("expected files, got {answer:?}")
        };
        let decode = |raw: &Bytes| FileDescriptorProto::decode(&raw[..]).expect("a file");
        files
            .file_descriptor_proto
            .iter()
            .map(|raw| decode(raw).name().to_owned())
            .collect()
    }

    #[test]
    fn every_kind_of_symbol_leads_to_its_file() {
        let index = Index::new(&[sample()]);
        for symbol in [
            "p.Outer",
            "p.Outer.Inner",
            "p.Outer.field",
            "p.Outer.Kind",
            "p.Outer.BIG",
        ] {
            let answer = ask(&index, MessageRequest::FileContainingSymbol(symbol.into()));
            assert_eq!(files_of(answer), ["base.proto"], "{symbol}");
        }
        for symbol in ["p.Api", "p.Api.Do", "p.extra"] {
            let answer = ask(&index, MessageRequest::FileContainingSymbol(symbol.into()));
            assert_eq!(files_of(answer), ["api.proto", "base.proto"], "{symbol}");
        }
    }

    #[test]
    fn files_are_passed_on_byte_for_byte() {
        // Field 999 is unknown to every descriptor type and must survive.
        let mut raw = file("odd.proto", &[]).encode_to_vec();
        raw.extend([0xb8, 0x3e, 0x07]);
        let set = EncodedSet {
            file: vec![raw.clone().into()],
        }
        .encode_to_vec()
        .leak();
        let index = Index::new(&[set]);
        let answer = ask(&index, MessageRequest::FileByFilename("odd.proto".into()));
        let MessageResponse::FileDescriptorResponse(files) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(files.file_descriptor_proto, [raw]);
    }

    #[test]
    fn a_stream_carries_each_dependency_once_but_what_was_asked_for_always() {
        let index = Index::new(&[sample()]);
        let mut sent = HashSet::new();
        let mut ask = |name: &str| {
            let wanted = request(MessageRequest::FileByFilename(name.into()));
            files_of(index.answer(&[], &wanted, &mut sent).expect("an answer"))
        };
        assert_eq!(ask("api.proto"), ["api.proto", "base.proto"]);
        assert_eq!(ask("api.proto"), ["api.proto"]);
        assert_eq!(ask("base.proto"), ["base.proto"]);
    }

    #[test]
    fn unknown_names_are_answered_with_not_found() {
        let index = Index::new(&[sample()]);
        for wanted in [
            MessageRequest::FileByFilename("no.proto".into()),
            MessageRequest::FileContainingSymbol("p.No\u{1b}[2J".into()),
            MessageRequest::AllExtensionNumbersOfType("p.No".into()),
            MessageRequest::FileContainingExtension(
                outrigger_wire::proto::reflection::ExtensionRequest {
                    containing_type: "p.Outer".into(),
                    extension_number: 7,
                },
            ),
        ] {
            let answer = ask(&index, wanted);
            let MessageResponse::ErrorResponse(error) = answer else {
                panic!("{answer:?}")
            };
            assert_eq!(error.error_code, 5);
            assert!(!error.error_message.contains('\u{1b}'));
        }
    }

    #[test]
    fn extensions_are_found_by_the_message_they_extend() {
        let index = Index::new(&[sample()]);
        let numbers = ask(
            &index,
            MessageRequest::AllExtensionNumbersOfType("p.Outer".into()),
        );
        let MessageResponse::AllExtensionNumbersResponse(numbers) = numbers else {
            panic!("{numbers:?}")
        };
        assert_eq!(numbers.extension_number, [100]);
        let none = ask(
            &index,
            MessageRequest::AllExtensionNumbersOfType("p.Outer.Inner".into()),
        );
        assert!(
            matches!(none, MessageResponse::AllExtensionNumbersResponse(n) if n.extension_number.is_empty())
        );
    }

    #[test]
    fn the_first_of_two_files_with_one_name_is_served() {
        let other = leak(&FileDescriptorSet {
            file: vec![file("base.proto", &[])],
        });
        let index = Index::new(&[sample(), other]);
        assert!(index.by_symbol.contains_key("p.Outer"));
        assert_eq!(index.files.len(), 2);
    }
}
