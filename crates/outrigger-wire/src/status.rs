//! Why a call failed, as gRPC's trailers carry it: `google.rpc.Status` with its
//! `google.rpc.ErrorInfo`.

use std::collections::BTreeMap;

use prost::Message;
use prost_types::Any;

/// The domain of the reasons that a host gives: its plugins, and those who call its
/// plugins.
pub const HOST_DOMAIN: &str = "outrigger.host";

const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// `google.rpc.Status`, as it travels in `grpc-status-details-bin`.
#[derive(Clone, PartialEq, Message)]
pub struct RichStatus {
    /// The number of the status.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The message of the status.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Messages of any type.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `google.rpc.ErrorInfo`: a reason that a program can act on.
#[derive(Clone, PartialEq, Message)]
pub struct ErrorInfo {
    /// The stable code, such as `not-granted`.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// Whose code it is.
    #[prost(string, tag = "2")]
    pub domain: String,
    /// What more is known.
    #[prost(btree_map = "string, string", tag = "3")]
    pub metadata: BTreeMap<String, String>,
}

impl ErrorInfo {
    /// The details of a status with this as its only one.
    pub fn encode_with(&self, code: i32, message: &str) -> Vec<u8> {
        let detail = Any {
            type_url: ERROR_INFO.to_owned(),
            value: self.encode_to_vec(),
        };
        let status = RichStatus {
            code,
            message: message.to_owned(),
            details: vec![detail],
        };
        status.encode_to_vec()
    }

    /// The first one of `domain` in the details of a status; none where there is
    /// no such one, or what there is cannot be read.
    ///
    /// # Examples
    /// ```
    /// use outrigger_wire::{ErrorInfo, HOST_DOMAIN};
    ///
    /// let info = ErrorInfo {
    ///     reason: "not-granted".into(),
    ///     domain: HOST_DOMAIN.into(),
    ///     ..ErrorInfo::default()
    /// };
    /// let details = info.encode_with(7, "filesystem.open: not permitted by the host");
    /// assert_eq!(ErrorInfo::find(&details, HOST_DOMAIN), Some(info));
    /// assert_eq!(ErrorInfo::find(b"\xff", HOST_DOMAIN), None);
    /// ```
    pub fn find(details: &[u8], domain: &str) -> Option<Self> {
        let status = RichStatus::decode(details).ok()?;
        status
            .details
            .iter()
            .filter(|detail| detail.type_url == ERROR_INFO)
            .filter_map(|detail| Self::decode(detail.value.as_slice()).ok())
            .find(|info| info.domain == domain)
    }
}
