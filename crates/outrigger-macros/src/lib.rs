//! `#[interface]` makes both sides of an interface from one Rust trait, and
//! `#[message]` makes a struct that the interface carries.
//!
//! `outrigger`, `outrigger-host` and `outrigger-plugin` re-export the two; each has
//! its own pair here, which names that crate in what it writes. A trait is read (`parse`) into what crosses (`model`), and from
//! that the code is written (`generate`), which stands on
//! `outrigger_transport::interface`.

mod generate;
mod model;
mod parse;

use proc_macro::TokenStream;
use quote::ToTokens;

macro_rules! attributes {
    ($krate:literal: $interface:ident, $message:ident) => {
        #[doc = include_str!("interface.md")]
        #[proc_macro_attribute]
        pub fn $interface(options: TokenStream, item: TokenStream) -> TokenStream {
            let mut item = syn::parse_macro_input!(item as syn::ItemTrait);
            let read = parse::interface($krate, options.into(), &mut item);
            finish(&item, read.map(|read| generate::interface(&read)))
        }

        #[doc = include_str!("message.md")]
        #[proc_macro_attribute]
        pub fn $message(options: TokenStream, item: TokenStream) -> TokenStream {
            let mut item = syn::parse_macro_input!(item as syn::ItemStruct);
            let read = parse::message($krate, options.into(), &mut item);
            finish(&item, read.map(|read| generate::message(&read)))
        }
    };
}

attributes!("::outrigger": interface, message);
attributes!("::outrigger_host": host_interface, host_message);
attributes!("::outrigger_plugin": plugin_interface, plugin_message);

/// The code, or the mistake beside the item itself, so that whoever uses the item
/// does not get errors of its own.
fn finish(item: &impl ToTokens, written: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    match written {
        Ok(code) => code.into(),
        Err(mistake) => {
            let mut tokens = item.to_token_stream();
            tokens.extend(mistake.into_compile_error());
            tokens.into()
        }
    }
}
