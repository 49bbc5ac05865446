//! The network service, as a plugin meets it.

mod egress;
mod http;
mod listen;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod udp;
mod world;
