//! Network on a plugin's behalf: names, connections, datagrams, HTTP, and ports to
//! listen on.

pub(crate) mod account;
mod datagrams;
mod deadline;
pub(crate) mod dial;
pub(crate) mod egress;
mod failure;
mod hello;
mod http;
mod listen;
mod origins;
pub(crate) mod packets;
mod pump;
pub(crate) mod relay;
pub(crate) mod resolve;
mod rules;
pub(crate) mod service;
pub(crate) mod settings;
pub(crate) mod tls;
pub(crate) mod udp;
mod url;
