//! Files beneath what was granted. From below: what a granted part of the tree is
//! (`area`, `place`, `kernel`), where a requested path leads and whether that is
//! granted (`resolve`, `rights`), what happens there (`open`, `contents`,
//! `attributes`, `entries`, `listing`, `watch`, `stream`), and the operations that
//! plugins ask for (`service`).

pub(crate) mod area;
pub(crate) mod areas;
pub(crate) mod attributes;
pub(crate) mod call;
pub(crate) mod contents;
mod entries;
mod fallbacks;
pub(crate) mod io;
pub(crate) mod kernel;
mod list;
pub(crate) mod listing;
pub(crate) mod mode;
mod moving;
pub(crate) mod open;
pub(crate) mod open_file;
pub(crate) mod operation;
pub(crate) mod operations;
pub(crate) mod paths;
pub(crate) mod place;
mod quotas;
#[cfg(test)]
mod races;
pub(crate) mod requested_path;
pub(crate) mod resolve;
mod rights;
pub(crate) mod service;
#[cfg(test)]
mod spellings;
pub(crate) mod stream;
pub(crate) mod temp;
mod watch;
