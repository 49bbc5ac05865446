//! The generated server of `hostserve.v1`.
#![allow(missing_docs, unreachable_pub, clippy::all)]

include!("generated/hostserve.v1.rs");
