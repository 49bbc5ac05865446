//! From the model to code, which stands on `outrigger_transport::interface`.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Path, TraitItem, parse_quote};

use crate::model::{
    Carried, Declared, Field, Interface, Kind, Label, Message, Method, Proto, Scalar,
};

/// The trait, its client and its server.
pub(crate) fn interface(interface: &Interface) -> TokenStream {
    let Interface { krate, item, .. } = interface;
    let (vis, name) = (&item.vis, &item.ident);
    let client = format_ident!("{name}Client");
    let server = format_ident!("{name}Server");
    let caller = caller(interface);
    let declaration = declaration(interface);
    let messages = interface.made().into_iter().map(|m| made(interface, m));
    let description = interface
        .service
        .as_ref()
        .map(|s| description(interface, s));
    let described = interface.service.as_ref().map(|_| {
        quote! {
            /// The interface as data, from which comes the `.proto` file for other languages.
            pub fn description() -> &'static #krate::interface::InterfaceDescription {
                &DESCRIPTION
            }
        }
    });
    let makers = makers(interface);
    let dispensed = interface.dispense.as_ref().map(|name| {
        quote! {
            const NAME: ::core::option::Option<&'static str> = ::core::option::Option::Some(#name);
        }
    });
    let calls = interface.methods.iter().map(|m| call(interface, m));
    let servers = servers(interface);
    let client_doc = format!("Calls a [`{name}`] in another process. Clones share the connection.");
    let server_doc = format!("Serves a [`{name}`] to other processes.");
    quote! {
        #declaration

        #[doc = #client_doc]
        #[derive(Clone, Debug)]
        #[allow(dead_code)] // One program has one side.
        #vis struct #client(#krate::interface::#caller);

        #[doc = #server_doc]
        #[derive(Debug)]
        #[allow(dead_code)] // One program has one side.
        #vis struct #server<T>(::std::sync::Arc<T>);

        #[allow(dead_code)]
        const _: () = {
            #(#messages)*

            #description

            impl #client {
                #described

                /// Waits no longer than `limit` for each reply.
                #[must_use]
                pub fn with_timeout(self, limit: ::core::time::Duration) -> Self {
                    Self(self.0.with_timeout(limit))
                }

                /// Opens further connections to the other process.
                pub fn broker(&self) -> &::std::sync::Arc<dyn #krate::interface::libraries::Broker> {
                    self.0.broker()
                }
            }

            impl #krate::interface::Interface for #client {
                type Client = Self;
                #dispensed
                #makers
            }

            impl #name for #client {
                #(#calls)*
            }

            impl<T> ::core::clone::Clone for #server<T> {
                fn clone(&self) -> Self {
                    Self(::std::sync::Arc::clone(&self.0))
                }
            }

            impl<T: #name> #server<T> {
                /// Calls are answered by `served`.
                pub fn new(served: T) -> Self {
                    Self(::std::sync::Arc::new(served))
                }

                #servers
            }
        };
    }
}

/// What makes one call, over the protocols that there are.
fn caller(interface: &Interface) -> Ident {
    let name = match (&interface.service, interface.netrpc) {
        (Some(_), true) => "AnyCaller",
        (Some(_), false) => "GrpcCaller",
        (None, _) => "NetRpcCaller",
    };
    Ident::new(name, Span::call_site())
}

/// The trait, whose futures may run on any thread.
fn declaration(interface: &Interface) -> TokenStream {
    let mut item = interface.item.clone();
    for bound in [
        parse_quote!(::core::marker::Send),
        parse_quote!(::core::marker::Sync),
        parse_quote!('static),
    ] {
        item.supertraits.push(bound);
    }
    item.colon_token.get_or_insert_default();
    for item in &mut item.items {
        if let TraitItem::Fn(function) = item
            && let syn::ReturnType::Type(_, output) = &function.sig.output
        {
            function.sig.asyncness = None;
            function.sig.output = parse_quote! {
                -> impl ::core::future::Future<Output = #output> + ::core::marker::Send
            };
        }
    }
    item.into_token_stream()
}

/// How a host makes the client.
fn makers(interface: &Interface) -> TokenStream {
    let krate = &interface.krate;
    let maker = |method: &str, connection: TokenStream, caller: &str| {
        let (method, caller) = (ident(method), ident(caller));
        let made = quote!(#krate::interface::#caller::new(connection, broker));
        let made = match (&interface.service, interface.netrpc) {
            (Some(_), true) if caller == "GrpcCaller" => {
                quote!(#krate::interface::AnyCaller::Grpc(#made))
            }
            (Some(_), true) => quote!(#krate::interface::AnyCaller::NetRpc(#made)),
            _ => made,
        };
        quote! {
            fn #method(
                connection: #connection,
                broker: ::std::sync::Arc<dyn #krate::interface::libraries::Broker>,
            ) -> ::core::result::Result<Self, #krate::interface::UnsupportedTransport> {
                ::core::result::Result::Ok(Self(#made))
            }
        }
    };
    let grpc = interface.service.as_ref().map(|_| {
        maker(
            "grpc",
            quote!(#krate::interface::libraries::Channel),
            "GrpcCaller",
        )
    });
    let netrpc = interface.netrpc.then(|| {
        maker(
            "netrpc",
            quote!(#krate::interface::libraries::netrpc::Client),
            "NetRpcCaller",
        )
    });
    quote!(#grpc #netrpc)
}

/// One method of the client.
fn call(interface: &Interface, method: &Method) -> TokenStream {
    let krate = &interface.krate;
    let function = interface.item.items.iter().find_map(|item| match item {
        TraitItem::Fn(function) if function.sig.ident == method.ident => Some(function),
        _ => None,
    });
    let signature = function.map(|function| &function.sig);
    // Arguments may have any name.
    let caller = Ident::new("caller", Span::mixed_site());
    let grpc = interface
        .service
        .as_ref()
        .map(|service| grpc_call(interface, service, method, &caller));
    let netrpc = interface
        .netrpc
        .then(|| netrpc_call(interface, method, &caller));
    let body = match (grpc, netrpc) {
        (Some(grpc), Some(netrpc)) => quote! {
            match &self.0 {
                #krate::interface::AnyCaller::Grpc(#caller) => #grpc,
                #krate::interface::AnyCaller::NetRpc(#caller) => #netrpc,
            }
        },
        (grpc, netrpc) => quote! {
            let #caller = &self.0;
            #grpc #netrpc
        },
    };
    quote!(#signature { #body })
}

fn grpc_call(interface: &Interface, service: &str, method: &Method, caller: &Ident) -> TokenStream {
    let krate = &interface.krate;
    let path = format!("/{service}/{}", method.name);
    let names = method.arguments.iter().map(|argument| &argument.ident);
    let request = match &method.request {
        Carried::Own(_) => quote!(#(#names)*),
        Carried::Made(Message { ident, .. }) => quote!(#ident { #(#names),* }),
    };
    let reply = Ident::new("reply", Span::mixed_site());
    let (received, value) = match &method.reply {
        Carried::Own(ty) => (quote!(#ty), quote!(#reply)),
        Carried::Made(Message { ident, fields, .. }) => {
            let value = match fields.first() {
                Some(Field { ident, .. }) => quote!(#reply.#ident),
                None => quote!({ let _ = #reply; }),
            };
            (quote!(#ident), value)
        }
    };
    if method.streams {
        return quote!({
            let #reply = #caller.server_streaming::<_, #received>(#path, #request).await?;
            ::core::result::Result::Ok(#krate::interface::map_stream(#reply, |#reply| #value))
        });
    }
    quote!({
        let #reply = #caller.unary::<_, #received>(#path, #request).await?;
        ::core::result::Result::Ok(#value)
    })
}

fn netrpc_call(interface: &Interface, method: &Method, caller: &Ident) -> TokenStream {
    let krate = &interface.krate;
    let names: Vec<_> = method.arguments.iter().map(|a| &a.ident).collect();
    if method.streams {
        let problem = format!(
            "`{}` answers with a stream, which net/rpc cannot carry",
            method.ident
        );
        return quote!({
            let _ = (#caller, #(#names),*);
            let unsupported = #krate::interface::Code::Unimplemented;
            ::core::result::Result::Err(
                #krate::interface::MethodError::new(unsupported, #problem).into(),
            )
        });
    }
    let gob = gob(krate);
    let name = format!("Plugin.{}", method.name);
    let argument = match (names.as_slice(), &method.request) {
        // As go-plugin's own examples call a method that needs nothing.
        ([], _) => quote!(#gob::Interface::nil()),
        ([only], _) => quote!(#only),
        (names, Carried::Made(Message { ident, .. })) => quote!(#ident { #(#names),* }),
        (_, Carried::Own(_)) => unreachable!("a message is the only argument"),
    };
    if is_unit(method) {
        return quote!({
            // Whatever the plugin answers with.
            let _: #gob::Value = #caller.call(#name, &#argument).await?;
            ::core::result::Result::Ok(())
        });
    }
    quote!(::core::result::Result::Ok(#caller.call(#name, &#argument).await?))
}

/// The methods that make what a plugin serves.
fn servers(interface: &Interface) -> TokenStream {
    let krate = &interface.krate;
    let grpc = interface.service.as_ref().map(|_| {
        let methods = interface.methods.iter().map(|m| grpc_answer(interface, m));
        quote! {
            /// The gRPC service, described for reflection.
            pub fn grpc(self) -> #krate::interface::libraries::ServiceSet {
                #krate::interface::GrpcMethods::new(&DESCRIPTION)
                    #(#methods)*
                    .services()
            }
        }
    });
    let netrpc = interface.netrpc.then(|| {
        let methods = interface.methods.iter().filter(|method| !method.streams);
        let methods = methods.map(|m| netrpc_answer(interface, m));
        quote! {
            /// The net/rpc object.
            pub fn netrpc(self) -> #krate::interface::libraries::netrpc::Methods {
                #krate::interface::libraries::netrpc::Methods::new()
                    #(#methods)*
            }
        }
    });
    quote!(#grpc #netrpc)
}

fn grpc_answer(interface: &Interface, method: &Method) -> TokenStream {
    let krate = &interface.krate;
    let trait_name = &interface.item.ident;
    let (name, function) = (&method.name, &method.ident);
    let names = method.arguments.iter().map(|argument| &argument.ident);
    let (request, arguments) = match &method.request {
        Carried::Own(ty) => (quote!(#ty), quote!(request)),
        Carried::Made(Message { ident, .. }) => (quote!(#ident), quote!(#(request.#names),*)),
    };
    let (reply, wrapped) = match &method.reply {
        Carried::Own(ty) => (quote!(#ty), quote!(value)),
        Carried::Made(Message { ident, fields, .. }) => match fields.first() {
            Some(Field { ident: field, .. }) => (quote!(#ident), quote!(#ident { #field: value })),
            None => (quote!(#ident), quote!({ let () = value; #ident {} })),
        },
    };
    let (kind, reply, wrapped) = match method.streams {
        true => (
            ident("server_streaming"),
            quote!(#krate::interface::Streaming<#reply>),
            quote!(#krate::interface::map_stream(value, |value| #wrapped)),
        ),
        false => (ident("unary"), reply, wrapped),
    };
    quote! {
        .#kind(#name, {
            let served = ::std::sync::Arc::clone(&self.0);
            move |request: #request| {
                let served = ::std::sync::Arc::clone(&served);
                async move {
                    let _ = &request;
                    let value = <T as #trait_name>::#function(&*served, #arguments).await?;
                    ::core::result::Result::Ok::<#reply, #krate::interface::MethodError>(#wrapped)
                }
            }
        })
    }
}

fn netrpc_answer(interface: &Interface, method: &Method) -> TokenStream {
    let krate = &interface.krate;
    let gob = gob(krate);
    let trait_name = &interface.item.ident;
    let (name, function) = (&method.name, &method.ident);
    let names = method.arguments.iter().map(|argument| &argument.ident);
    let (request, arguments) = match (method.arguments.as_slice(), &method.request) {
        // Whatever the host sends where nothing is needed.
        ([], _) => (quote!(#gob::Value), quote!()),
        ([Field { ty, .. }], _) => (quote!(#ty), quote!(request)),
        (_, Carried::Made(Message { ident, .. })) => (quote!(#ident), quote!(#(request.#names),*)),
        (_, Carried::Own(_)) => unreachable!("a message is the only argument"),
    };
    let value = match is_unit(method) {
        true => quote!({ let () = value; #gob::Interface::nil() }),
        false => quote!(value),
    };
    quote! {
        .method(#name, {
            let served = ::std::sync::Arc::clone(&self.0);
            move |request: #request| {
                let served = ::std::sync::Arc::clone(&served);
                async move {
                    let _ = &request;
                    match <T as #trait_name>::#function(&*served, #arguments).await {
                        ::core::result::Result::Ok(value) => ::core::result::Result::Ok(#value),
                        ::core::result::Result::Err(error) => ::core::result::Result::Err(
                            ::std::string::String::from(
                                #krate::interface::MethodError::from(error),
                            ),
                        ),
                    }
                }
            }
        })
    }
}

fn is_unit(method: &Method) -> bool {
    matches!(&method.value, syn::Type::Tuple(tuple) if tuple.elems.is_empty())
}

/// A message that is made for a method, as far as a protocol needs it.
fn made(interface: &Interface, message: &Message) -> Option<TokenStream> {
    let is_request = |method: &&Method| match &method.request {
        Carried::Made(made) => made.ident == message.ident && method.arguments.len() > 1,
        Carried::Own(_) => false,
    };
    let grpc = interface.service.is_some();
    let netrpc = interface.netrpc && interface.methods.iter().any(|m| is_request(&m));
    if !grpc && !netrpc {
        return None;
    }
    let ident = &message.ident;
    let fields = message.fields.iter().map(|field| {
        let (ident, ty) = (&field.ident, &field.ty);
        let prost = prost_attribute(field);
        let gob = netrpc.then_some(&field.gob).into_iter().flatten();
        quote!(#prost #(#gob)* #ident: #ty)
    });
    let derives = derives(&interface.krate, grpc, netrpc);
    let implementation = grpc.then(|| message_impl(&interface.krate, message));
    Some(quote! {
        #derives
        struct #ident { #(#fields),* }
        #implementation
    })
}

/// A struct that its author declared as a message.
pub(crate) fn message(declared: &Declared) -> TokenStream {
    let mut item = declared.item.clone();
    for (field, read) in item.fields.iter_mut().zip(&declared.message.fields) {
        if let Some(attribute) = prost_attribute(read) {
            field.attrs.push(parse_quote!(#attribute));
        }
    }
    let derives = derives(&declared.krate, true, declared.netrpc);
    let implementation = message_impl(&declared.krate, &declared.message);
    quote!(#derives #item #implementation)
}

fn derives(krate: &Path, grpc: bool, netrpc: bool) -> TokenStream {
    let libraries = quote!(#krate::interface::libraries);
    let prost = grpc.then(|| {
        let path = quote!(#libraries::prost).to_string();
        quote! {
            #[derive(::core::clone::Clone, ::core::cmp::PartialEq, #libraries::prost::Message)]
            #[prost(prost_path = #path)]
        }
    });
    let gob = netrpc.then(|| {
        let path = gob(krate);
        let text = path.to_string();
        quote! {
            #[derive(#path::Gob)]
            #[gob(crate = #text)]
        }
    });
    quote!(#prost #gob)
}

fn gob(krate: &Path) -> TokenStream {
    quote!(#krate::interface::libraries::gob)
}

/// How prost's derive is told of a field.
fn prost_attribute(field: &Field) -> Option<TokenStream> {
    let Proto { label, kind } = field.proto.as_ref()?;
    let number = field.number.to_string();
    let kind_name = ident(match kind {
        Kind::Message(_) => "message",
        Kind::Scalar(scalar) => scalar_names(*scalar).0,
    });
    let kind = match (kind, label) {
        (_, Label::Map { key, sorted }) => {
            let map = ident(if *sorted { "btree_map" } else { "map" });
            let types = format!("{}, {kind_name}", scalar_names(*key).0);
            quote!(#map = #types)
        }
        (Kind::Scalar(Scalar::Bytes { shared }), _) => {
            let how = if *shared { "bytes" } else { "vec" };
            quote!(bytes = #how)
        }
        _ => quote!(#kind_name),
    };
    let label = match (label, &field.proto.as_ref()?.kind) {
        (Label::One, Kind::Message(_)) => quote!(, required),
        (Label::One, Kind::Scalar(_)) | (Label::Map { .. }, _) => quote!(),
        (Label::Optional { boxed: false }, _) => quote!(, optional),
        (Label::Optional { boxed: true }, _) => quote!(, optional, boxed),
        (Label::Repeated, _) => quote!(, repeated),
    };
    Some(quote!(#[prost(#kind #label, tag = #number)]))
}

/// A scalar for prost's derive, and in our description.
fn scalar_names(scalar: Scalar) -> (&'static str, &'static str) {
    match scalar {
        Scalar::Bool => ("bool", "Bool"),
        Scalar::Int32 => ("int32", "Int32"),
        Scalar::Int64 => ("int64", "Int64"),
        Scalar::Uint32 => ("uint32", "Uint32"),
        Scalar::Uint64 => ("uint64", "Uint64"),
        Scalar::Float => ("float", "Float"),
        Scalar::Double => ("double", "Double"),
        Scalar::String => ("string", "String"),
        Scalar::Bytes { .. } => ("bytes", "Bytes"),
    }
}

/// What a message says of itself.
fn message_impl(krate: &Path, message: &Message) -> TokenStream {
    let Message { ident, doc, fields } = message;
    let name = ident.unraw().to_string();
    let fields = fields.iter().filter_map(|f| field_description(krate, f));
    quote! {
        impl #krate::interface::Message for #ident {
            fn description() -> &'static #krate::interface::MessageDescription {
                const DESCRIPTION: &#krate::interface::MessageDescription =
                    &#krate::interface::MessageDescription {
                        name: #name,
                        doc: #doc,
                        fields: &[#(#fields),*],
                    };
                DESCRIPTION
            }
        }
    }
}

fn field_description(krate: &Path, field: &Field) -> Option<TokenStream> {
    let Proto { label, kind } = field.proto.as_ref()?;
    let described = quote!(#krate::interface);
    let scalar = |scalar: Scalar| {
        let name = ident(scalar_names(scalar).1);
        quote!(#described::Scalar::#name)
    };
    let label = match label {
        Label::One => quote!(One),
        Label::Optional { .. } => quote!(Optional),
        Label::Repeated => quote!(Repeated),
        Label::Map { key, .. } => {
            let key = scalar(*key);
            quote!(Map(#key))
        }
    };
    let kind = match kind {
        Kind::Scalar(kind) => {
            let kind = scalar(*kind);
            quote!(Scalar(#kind))
        }
        Kind::Message(ty) => {
            let message = description_of(krate, ty);
            quote!(Message(#message))
        }
    };
    let (name, doc, number) = (field.ident.unraw().to_string(), &field.doc, field.number);
    Some(quote! {
        #described::FieldDescription {
            name: #name,
            doc: #doc,
            number: #number,
            label: #described::Label::#label,
            kind: #described::Kind::#kind,
        }
    })
}

/// The function that describes a message; an error points at the type.
fn description_of(krate: &Path, ty: &impl ToTokens) -> TokenStream {
    let ty = ty.to_token_stream();
    quote_spanned!(ty.span()=> <#ty as #krate::interface::Message>::description)
}

/// The service with its methods.
fn description(interface: &Interface, service: &str) -> TokenStream {
    let krate = &interface.krate;
    let doc = &interface.doc;
    let methods = interface.methods.iter().map(|method| {
        let of = |carried: &Carried| match carried {
            Carried::Own(ty) => description_of(krate, ty),
            Carried::Made(message) => description_of(krate, &message.ident),
        };
        let (name, doc, streams) = (&method.name, &method.doc, method.streams);
        let (request, reply) = (of(&method.request), of(&method.reply));
        quote! {
            #krate::interface::MethodDescription {
                name: #name,
                doc: #doc,
                request: #request,
                reply: #reply,
                streams: #streams,
            }
        }
    });
    quote! {
        static DESCRIPTION: #krate::interface::InterfaceDescription =
            #krate::interface::InterfaceDescription::new(#service, #doc, &[#(#methods),*]);
    }
}

fn ident(name: &str) -> Ident {
    Ident::new(name, Span::call_site())
}
