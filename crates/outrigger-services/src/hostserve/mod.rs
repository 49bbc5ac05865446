//! `hostserve.v1` over the same grants and operations: its own way to name
//! files, and its errors inside replies.

mod failed;
pub(crate) mod operations;
pub(crate) mod service;
pub(crate) mod streams;
mod translate;
