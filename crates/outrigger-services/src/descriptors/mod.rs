//! The descriptor socket: open files, connections and pipes handed to a plugin
//! as descriptors, under the same grants, limits and records as its calls.

pub(crate) mod answers;
mod frames;
pub(crate) mod socket;
