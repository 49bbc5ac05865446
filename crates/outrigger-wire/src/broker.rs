//! The messages by which two brokers tell each other about connections.
//!
//! They agree with `plugin.ConnInfo` of go-plugin v1.8.0.

use std::fmt;

use crate::proto::plugin::{ConnInfo, conn_info::Knock};
use crate::{Address, AddressError};

/// The longest reason for a refused knock that is kept, in bytes; what a peer
/// writes beyond it is cut.
pub const MAX_KNOCK_ERROR: usize = 1024;

/// The number of one brokered connection. Both sides count on their own, so
/// the same number may be in use in both directions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct BrokerId(pub u32);

impl From<u32> for BrokerId {
    fn from(id: u32) -> BrokerId {
        BrokerId(id)
    }
}

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A message of the broker as its fields arrive.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RawConnInfo {
    /// The number of the connection (field 1).
    pub service_id: u32,
    /// The network of the address, or empty (field 2).
    pub network: String,
    /// The address, or empty (field 3).
    pub address: String,
    /// Whether this is a knock, whether it acknowledges one, and why it is
    /// refused, or empty (field 4 and its fields 1 to 3).
    pub knock: Option<(bool, bool, String)>,
}

/// A message of the broker, told apart by whom it is for.
///
/// ```
/// use outrigger_wire::{BrokerId, BrokerMessage, RawConnInfo};
///
/// let message = BrokerMessage::from(RawConnInfo {
///     service_id: 7,
///     knock: Some((true, false, String::new())),
///     ..RawConnInfo::default()
/// });
/// assert_eq!(message, BrokerMessage::Knock { id: BrokerId(7) });
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BrokerMessage {
    /// For the side that dials: where connection `id` is accepted.
    ConnInfo {
        /// The number of the connection.
        id: BrokerId,
        /// The address, or why what was announced is none.
        address: Result<Address, AddressError>,
    },
    /// For the side that accepts: the peer is about to open connection `id`.
    Knock {
        /// The number of the connection.
        id: BrokerId,
    },
    /// For the side that dials: the answer to its knock.
    KnockAck {
        /// The number of the connection.
        id: BrokerId,
        /// Why the knock failed; `None` means the door is open. An answer that
        /// does not acknowledge counts as a failure.
        error: Option<String>,
    },
}

impl BrokerMessage {
    /// The number of the connection the message is about.
    pub fn id(&self) -> BrokerId {
        match self {
            BrokerMessage::ConnInfo { id, .. }
            | BrokerMessage::Knock { id }
            | BrokerMessage::KnockAck { id, .. } => *id,
        }
    }

    /// The fields to send. A [`ConnInfo`](Self::ConnInfo) without an address
    /// has an empty network and address, which no peer dials.
    pub fn to_raw(&self) -> RawConnInfo {
        let empty = RawConnInfo {
            service_id: self.id().0,
            ..RawConnInfo::default()
        };
        match self {
            BrokerMessage::ConnInfo { address, .. } => match address {
                Ok(address) => RawConnInfo {
                    network: address.network.as_str().to_owned(),
                    address: address.text.clone(),
                    ..empty
                },
                Err(_) => empty,
            },
            BrokerMessage::Knock { .. } => RawConnInfo {
                knock: Some((true, false, String::new())),
                ..empty
            },
            BrokerMessage::KnockAck { error, .. } => RawConnInfo {
                knock: Some((true, true, error.clone().unwrap_or_default())),
                ..empty
            },
        }
    }
}

impl From<RawConnInfo> for BrokerMessage {
    fn from(raw: RawConnInfo) -> BrokerMessage {
        let id = BrokerId(raw.service_id);
        match raw.knock {
            None => BrokerMessage::ConnInfo {
                id,
                address: Address::parse(&raw.network, &raw.address),
            },
            Some((true, false, _)) => BrokerMessage::Knock { id },
            Some((knock, ack, error)) => BrokerMessage::KnockAck {
                id,
                error: knock_error(knock && ack, error),
            },
        }
    }
}

impl From<&BrokerMessage> for RawConnInfo {
    fn from(message: &BrokerMessage) -> RawConnInfo {
        message.to_raw()
    }
}

impl From<ConnInfo> for RawConnInfo {
    fn from(message: ConnInfo) -> RawConnInfo {
        RawConnInfo {
            service_id: message.service_id,
            network: message.network,
            address: message.address,
            knock: message
                .knock
                .map(|Knock { knock, ack, error }| (knock, ack, error)),
        }
    }
}

impl From<RawConnInfo> for ConnInfo {
    fn from(raw: RawConnInfo) -> ConnInfo {
        ConnInfo {
            service_id: raw.service_id,
            network: raw.network,
            address: raw.address,
            knock: raw
                .knock
                .map(|(knock, ack, error)| Knock { knock, ack, error }),
        }
    }
}

fn knock_error(acknowledged: bool, mut error: String) -> Option<String> {
    if error.is_empty() {
        return (!acknowledged).then(|| "knock was answered without an acknowledgement".to_owned());
    }
    if error.len() > MAX_KNOCK_ERROR {
        // Give the memory back too: messages wait to be picked up.
        error.truncate(error.floor_char_boundary(MAX_KNOCK_ERROR));
        error.shrink_to_fit();
    }
    Some(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Coded as _;
    use proptest::prelude::*;
    use prost::Message as _;

    fn raw(network: &str, address: &str, knock: Option<(bool, bool, &str)>) -> RawConnInfo {
        RawConnInfo {
            service_id: 1,
            network: network.to_owned(),
            address: address.to_owned(),
            knock: knock.map(|(knock, ack, error)| (knock, ack, error.to_owned())),
        }
    }

    #[test]
    fn messages_are_routed_by_their_knock() {
        let id = BrokerId(1);
        let ack = |error: Option<&str>| BrokerMessage::KnockAck {
            id,
            error: error.map(str::to_owned),
        };
        let unacknowledged = ack(Some("knock was answered without an acknowledgement"));
        for (fields, expected) in [
            (
                raw("unix", "/tmp/plugin3730400858", None),
                BrokerMessage::ConnInfo {
                    id,
                    address: Address::parse("unix", "/tmp/plugin3730400858"),
                },
            ),
            (
                raw("", "", Some((true, false, ""))),
                BrokerMessage::Knock { id },
            ),
            (
                raw("unix", "/ignored", Some((true, false, "ignored"))),
                BrokerMessage::Knock { id },
            ),
            (raw("", "", Some((true, true, ""))), ack(None)),
            (raw("", "", Some((true, true, "e"))), ack(Some("e"))),
            (
                raw("", "", Some((false, false, ""))),
                unacknowledged.clone(),
            ),
            (raw("", "", Some((false, true, ""))), unacknowledged),
            (raw("", "", Some((false, false, "e"))), ack(Some("e"))),
        ] {
            assert_eq!(BrokerMessage::from(fields.clone()), expected, "{fields:?}");
        }
    }

    #[test]
    fn messages_have_the_bytes_go_plugin_gives_them() {
        let id = BrokerId(1);
        let announcement = BrokerMessage::ConnInfo {
            id,
            address: Address::parse("unix", "/tmp/plugin3730400858"),
        };
        let ack = |error: Option<&str>| BrokerMessage::KnockAck {
            id,
            error: error.map(str::to_owned),
        };
        for (message, bytes) in [
            (
                announcement,
                &b"\x08\x01\x12\x04unix\x1a\x15/tmp/plugin3730400858"[..],
            ),
            (BrokerMessage::Knock { id }, b"\x08\x01\x22\x02\x08\x01"),
            (ack(None), b"\x08\x01\x22\x04\x08\x01\x10\x01"),
            (ack(Some("e")), b"\x08\x01\x22\x07\x08\x01\x10\x01\x1a\x01e"),
        ] {
            assert_eq!(ConnInfo::from(message.to_raw()).encode_to_vec(), bytes);
            let decoded = RawConnInfo::from(ConnInfo::decode(bytes).unwrap());
            assert_eq!(BrokerMessage::from(decoded), message);
        }
    }

    #[test]
    fn an_announcement_without_a_network_says_so() {
        let BrokerMessage::ConnInfo {
            address: Err(error),
            ..
        } = raw("", "/tmp/plugin1", None).into()
        else {
            panic!("expected an announcement without an address");
        };
        assert_eq!(error.code(), "address-unknown-network");
        insta::assert_snapshot!(
            error,
            @r#""" is not a network (`unix` or `tcp`), given with the address "/tmp/plugin1""#
        );
    }

    #[test]
    fn a_peer_cannot_make_us_keep_a_long_reason() {
        let long = "€".repeat(1000);
        let message = BrokerMessage::from(raw("", "", Some((true, true, &long))));
        let BrokerMessage::KnockAck {
            error: Some(error), ..
        } = message
        else {
            panic!("expected a refusal");
        };
        assert_eq!(error, "€".repeat(MAX_KNOCK_ERROR / 3));
    }

    proptest! {
        #[test]
        fn messages_survive_the_wire(
            number: u32,
            which in 0..4,
            network in "unix|tcp",
            text in ".{0,40}",
            reason in ".{1,40}",
        ) {
            let id = BrokerId(number);
            let message = match which {
                0 => BrokerMessage::ConnInfo { id, address: Address::parse(&network, &text) },
                1 => BrokerMessage::Knock { id },
                2 => BrokerMessage::KnockAck { id, error: None },
                _ => BrokerMessage::KnockAck { id, error: Some(reason) },
            };
            prop_assert_eq!(BrokerMessage::from(message.to_raw()), message);
        }
    }
}
