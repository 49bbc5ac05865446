//! The control socket of `outrigger run`: where it is, who may use it, what is
//! said there. Its protocol is `proto/outrigger/control/v1/control.proto`.

pub(crate) mod client;
mod door;
pub(crate) mod place;
pub(crate) mod proto;
pub(crate) mod recent;
pub(crate) mod service;
pub(crate) mod socket;
pub(crate) mod telling;
pub(crate) mod trouble;
mod usage;
