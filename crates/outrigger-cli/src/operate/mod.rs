//! What an operator asks of a running `outrigger run`.

mod act;
mod answer;
mod follow;
mod list;
mod progress;

pub(crate) use act::{Action, act};
pub(crate) use follow::{audit, events};
pub(crate) use list::{list, show};
