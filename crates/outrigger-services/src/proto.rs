//! The generated servers of the host services.
#![allow(missing_docs, unreachable_pub, clippy::all)]

/// `hostserve.v1`.
pub(crate) mod hostserve {
    include!("generated/hostserve.v1.rs");
}
/// `outrigger.host.v1`.
#[allow(dead_code)]
pub(crate) mod host {
    include!("generated/outrigger.host.v1.rs");
}
