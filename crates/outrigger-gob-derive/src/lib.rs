//! The derive macro of `outrigger-gob`, which re-exports and describes it.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Data, DeriveInput, Error, Field, Fields, Generics, LitStr, Path, Result};

/// Implements `Encode` and `Gob`, and `Named` if a name is given; see the
/// documentation of `outrigger-gob`.
#[proc_macro_derive(Gob, attributes(gob))]
pub fn derive_gob(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    expand(&input)
        .unwrap_or_else(Error::into_compile_error)
        .into()
}

/// What `#[gob(…)]` on the struct says.
struct Container {
    krate: Path,
    type_name: Option<String>,
    name: Option<LitStr>,
    opaque: bool,
}

impl Container {
    fn read(input: &DeriveInput) -> Result<Container> {
        let mut container = Container {
            krate: syn::parse_quote!(::outrigger_gob),
            type_name: None,
            name: None,
            opaque: false,
        };
        for attribute in input.attrs.iter().filter(|a| a.path().is_ident("gob")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("type_name") {
                    container.type_name = Some(meta.value()?.parse::<LitStr>()?.value());
                } else if meta.path.is_ident("name") {
                    let name: LitStr = meta.value()?.parse()?;
                    if name.value().is_empty() || name.value().len() > 1024 {
                        let problem = "a registered name has 1 to 1024 bytes";
                        return Err(Error::new_spanned(name, problem));
                    }
                    container.name = Some(name);
                } else if meta.path.is_ident("crate") {
                    container.krate = meta.value()?.parse::<LitStr>()?.parse()?;
                } else if meta.path.is_ident("opaque") {
                    container.opaque = true;
                } else {
                    return Err(meta.error(
                        "unknown; a struct can have `type_name`, `name`, `opaque` and `crate`",
                    ));
                }
                Ok(())
            })?;
        }
        Ok(container)
    }
}

/// A field that is sent.
struct Sent<'a> {
    field: &'a Field,
    member: syn::Member,
    name: String,
}

/// What `#[gob(…)]` on a field says: another name, or that it is left out.
fn read_field(field: &Field) -> Result<(Option<String>, bool)> {
    let (mut rename, mut skip) = (None, false);
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("gob")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("rename") {
                let name: LitStr = meta.value()?.parse()?;
                if !name.value().chars().next().is_some_and(char::is_uppercase) {
                    let problem = "Go sends only fields that begin with a capital letter";
                    return Err(Error::new_spanned(name, problem));
                }
                rename = Some(name.value());
            } else if meta.path.is_ident("skip") {
                skip = true;
            } else {
                return Err(meta.error("unknown; a field can have `rename` and `skip`"));
            }
            Ok(())
        })?;
    }
    Ok((rename, skip))
}

fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let container = Container::read(input)?;
    if let Some(lifetime) = input.generics.lifetimes().next() {
        let problem = "a type that is received cannot borrow";
        return Err(Error::new_spanned(lifetime, problem));
    }
    let body = if container.opaque {
        opaque(&container)
    } else {
        let Data::Struct(data) = &input.data else {
            let problem = "gob has no enums; derive it for structs, or use `#[gob(opaque)]`";
            return Err(Error::new_spanned(&input.ident, problem));
        };
        match &data.fields {
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                let inner = fields.unnamed.first().map(|field| &field.ty);
                transparent(&container, inner)
            }
            Fields::Unnamed(fields) if !fields.unnamed.is_empty() => {
                let problem = "fields need names, by which gob knows them";
                return Err(Error::new_spanned(fields, problem));
            }
            fields => structure(input, &container, fields)?,
        }
    };
    Ok(assemble(input, &container, &body))
}

/// The methods of both traits.
struct Body {
    encode: TokenStream,
    decode: TokenStream,
}

fn assemble(input: &DeriveInput, container: &Container, body: &Body) -> TokenStream {
    let Container { krate, name, .. } = container;
    let ident = &input.ident;
    let Body { encode, decode } = body;
    let bounded = |bound: TokenStream| {
        let mut generics: Generics = input.generics.clone();
        if !container.opaque {
            let parameters: Vec<_> = input.generics.type_params().map(|p| &p.ident).collect();
            let clause = generics.make_where_clause();
            for parameter in parameters {
                clause
                    .predicates
                    .push(syn::parse_quote!(#parameter: #bound));
            }
        }
        generics
    };
    let (_, types, _) = input.generics.split_for_impl();
    let encode_generics = bounded(quote!(#krate::Encode + 'static));
    let (encode_impl, _, encode_where) = encode_generics.split_for_impl();
    let gob_generics = bounded(quote!(#krate::Gob));
    let (gob_impl, _, gob_where) = gob_generics.split_for_impl();
    let named = name.as_ref().map(|name| {
        quote! {
            #[automatically_derived]
            impl #gob_impl #krate::Named for #ident #types #gob_where {
                const NAME: &'static str = #name;
            }
        }
    });
    quote! {
        #[automatically_derived]
        impl #encode_impl #krate::Encode for #ident #types #encode_where {
            #encode
        }

        #[automatically_derived]
        impl #gob_impl #krate::Gob for #ident #types #gob_where {
            #decode
        }

        #named
    }
}

fn opaque(container: &Container) -> Body {
    let krate = &container.krate;
    let result = quote!(::core::result::Result);
    Body {
        encode: quote! {
            fn identity() -> ::core::any::TypeId {
                ::core::any::TypeId::of::<Self>()
            }

            fn describe(types: &mut #krate::derive::Describe) -> #krate::derive::Ref {
                #krate::derive::describe::<Self>(types)
            }

            fn is_zero(&self) -> bool {
                #krate::Opaque::is_zero(self)
            }

            fn is_zero_behind_pointer(&self) -> bool {
                false
            }

            fn encode(&self, to: &mut #krate::derive::Writer<'_>) -> #result<(), #krate::EncodeError> {
                #krate::derive::encode(self, to)
            }
        },
        decode: quote! {
            fn check(
                types: &mut #krate::derive::Checker<'_>,
                received: #krate::derive::Ref,
            ) -> #result<#krate::derive::Fit, #krate::DecodeError> {
                #krate::derive::check::<Self>(types, received)
            }

            fn decode(
                from: &mut #krate::derive::Reader<'_>,
                _: #krate::derive::Ref,
            ) -> #result<Self, #krate::DecodeError> {
                #krate::derive::decode(from)
            }

            fn zero() -> Self {
                #krate::Opaque::zero()
            }
        },
    }
}

fn transparent(container: &Container, inner: Option<&syn::Type>) -> Body {
    let krate = &container.krate;
    let result = quote!(::core::result::Result);
    let encode = quote!(<#inner as #krate::Encode>);
    let gob = quote!(<#inner as #krate::Gob>);
    Body {
        encode: quote! {
            fn identity() -> ::core::any::TypeId {
                #encode::identity()
            }

            fn describe(types: &mut #krate::derive::Describe) -> #krate::derive::Ref {
                #encode::describe(types)
            }

            fn is_zero(&self) -> bool {
                #encode::is_zero(&self.0)
            }

            fn is_zero_behind_pointer(&self) -> bool {
                #encode::is_zero_behind_pointer(&self.0)
            }

            fn encode(&self, to: &mut #krate::derive::Writer<'_>) -> #result<(), #krate::EncodeError> {
                #encode::encode(&self.0, to)
            }

            fn size_hint(&self) -> usize {
                #encode::size_hint(&self.0)
            }

            fn dynamic(&self) -> ::core::option::Option<#krate::Type> {
                #encode::dynamic(&self.0)
            }
        },
        decode: quote! {
            fn check(
                types: &mut #krate::derive::Checker<'_>,
                received: #krate::derive::Ref,
            ) -> #result<#krate::derive::Fit, #krate::DecodeError> {
                #gob::check(types, received)
            }

            fn decode(
                from: &mut #krate::derive::Reader<'_>,
                received: #krate::derive::Ref,
            ) -> #result<Self, #krate::DecodeError> {
                #result::Ok(Self(#gob::decode(from, received)?))
            }

            fn zero() -> Self {
                Self(#gob::zero())
            }
        },
    }
}

fn structure(input: &DeriveInput, container: &Container, fields: &Fields) -> Result<Body> {
    let mut sent: Vec<Sent<'_>> = Vec::new();
    let mut skipped = Vec::new();
    for (field, member) in fields.iter().zip(fields.members()) {
        let (rename, skip) = read_field(field)?;
        if skip {
            skipped.push(member);
            continue;
        }
        let name = match (rename, &field.ident) {
            (Some(name), _) => name,
            (None, Some(ident)) => pascal_case(ident)?,
            (None, None) => continue,
        };
        if sent.iter().any(|other| other.name == name) {
            let problem = format!("two fields are called {name}");
            return Err(Error::new_spanned(field, problem));
        }
        sent.push(Sent {
            field,
            member,
            name,
        });
    }
    let type_name = container
        .type_name
        .clone()
        .unwrap_or_else(|| plain(&input.ident));
    let printed = match &container.name {
        Some(name) => printed_name(&name.value(), &type_name),
        None => type_name.clone(),
    };
    Ok(structure_body(
        container,
        &sent,
        &skipped,
        (&type_name, &printed),
    ))
}

fn structure_body(
    container: &Container,
    sent: &[Sent<'_>],
    skipped: &[syn::Member],
    (type_name, printed): (&str, &str),
) -> Body {
    let krate = &container.krate;
    let result = quote!(::core::result::Result);
    let types: Vec<_> = sent.iter().map(|sent| &sent.field.ty).collect();
    let members: Vec<_> = sent.iter().map(|sent| &sent.member).collect();
    let names: Vec<_> = sent.iter().map(|sent| &sent.name).collect();
    let places: Vec<_> = (0..sent.len() as u32).collect();
    let locals: Vec<_> = (0..sent.len())
        .map(|at| syn::Ident::new(&format!("field{at}"), Span::call_site()))
        .collect();
    let fields_pattern = match sent.is_empty() {
        true => quote!(_),
        false => quote!(fields),
    };
    Body {
        encode: quote! {
            fn identity() -> ::core::any::TypeId {
                ::core::any::TypeId::of::<Self>()
            }

            fn describe(types: &mut #krate::derive::Describe) -> #krate::derive::Ref {
                types.structure(
                    ::core::any::TypeId::of::<Self>(),
                    #printed,
                    &[#((#names, <#types as #krate::Encode>::describe as #krate::derive::DescribeFn)),*],
                )
            }

            fn is_zero(&self) -> bool {
                false
            }

            fn encode(&self, to: &mut #krate::derive::Writer<'_>) -> #result<(), #krate::EncodeError> {
                to.structure(#type_name, |#fields_pattern| {
                    #(fields.field(#names, &self.#members)?;)*
                    #result::Ok(())
                })
            }

            fn size_hint(&self) -> usize {
                1 #(+ 1 + #krate::Encode::size_hint(&self.#members))*
            }
        },
        decode: quote! {
            fn check(
                types: &mut #krate::derive::Checker<'_>,
                received: #krate::derive::Ref,
            ) -> #result<#krate::derive::Fit, #krate::DecodeError> {
                types.structure(
                    ::core::any::TypeId::of::<Self>(),
                    #type_name,
                    &[#((#names, <#types as #krate::Gob>::check as #krate::derive::CheckFn)),*],
                    received,
                )
            }

            fn decode(
                from: &mut #krate::derive::Reader<'_>,
                received: #krate::derive::Ref,
            ) -> #result<Self, #krate::DecodeError> {
                #(let mut #locals: ::core::option::Option<#types> = ::core::option::Option::None;)*
                from.structure::<Self>(received, |from, place, received| {
                    match place {
                        #(#places => {
                            #locals = ::core::option::Option::Some(
                                <#types as #krate::Gob>::decode(from, received)
                                    .map_err(|error| error.within(#type_name, #names))?,
                            );
                        })*
                        _ => {
                            let _ = (from, received);
                        }
                    }
                    #result::Ok(())
                })?;
                #result::Ok(Self {
                    #(#members: #locals.unwrap_or_else(<#types as #krate::Gob>::zero),)*
                    #(#skipped: ::core::default::Default::default(),)*
                })
            }

            fn zero() -> Self {
                Self {
                    #(#members: <#types as #krate::Gob>::zero(),)*
                    #(#skipped: ::core::default::Default::default(),)*
                }
            }
        },
    }
}

/// How Go prints a type that is registered as `name`: the last part of its
/// package, and its own name.
fn printed_name(name: &str, type_name: &str) -> String {
    let name = name.trim_start_matches('*');
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once('.') {
        Some((package, _)) if !package.is_empty() => format!("{package}.{type_name}"),
        _ => type_name.to_owned(),
    }
}

/// An identifier without the mark of a raw one.
fn plain(ident: &syn::Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map(str::to_owned).unwrap_or(text)
}

/// `service_method` as `ServiceMethod`.
fn pascal_case(ident: &syn::Ident) -> Result<String> {
    let name: String = plain(ident)
        .split('_')
        .flat_map(|word| {
            let mut letters = word.chars();
            let first = letters.next().into_iter().flat_map(char::to_uppercase);
            first.chain(letters).collect::<Vec<_>>()
        })
        .collect();
    if name.chars().next().is_some_and(char::is_uppercase) {
        Ok(name)
    } else {
        let problem = "Go sends only fields that begin with a capital letter; use `rename`";
        Err(Error::new_spanned(ident, problem))
    }
}
