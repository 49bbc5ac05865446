//! The network service, as a plugin meets it.

mod egress;
mod http;
mod listen;
mod streams;
mod support;
mod udp;
