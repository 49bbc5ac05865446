//! For tests of hosts: every way for a plugin to misbehave, and the means to
//! see that nothing is left of it. A development dependency only.
//!
//! The program `misbehaving-plugin` takes the name of a [`Fault`] as its only
//! argument. It shares no code with the protocol crates, so that both ends
//! cannot agree on a mistake.
//!
//! ```
//! use outrigger_testing::Fault;
//!
//! assert_eq!("garbage-line".parse(), Ok(Fault::GarbageLine));
//! assert!(Fault::ALL.contains(&Fault::GarbageLine));
//! ```
//!
//! The program `refusing` runs another one under a filter that refuses newer
//! system calls.
//!
//! This crate deliberately does not know what a host should make of a fault;
//! that is what the tests that use it say.

mod calls;
mod fault;
mod place;
mod processes;

pub use calls::{NEWER_CALLS, refuse};
pub use fault::{Fault, UnknownFault};
pub use place::{TestDir, copy_program, program, write_script};
pub use processes::{Memory, children_of, holds_within, is_gone, kill, memory_of, processes_with};
