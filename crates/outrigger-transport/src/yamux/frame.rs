//! The twelve bytes in front of every frame.

/// Length of a frame header, in bytes.
pub(super) const HEADER_LEN: usize = 12;

/// The only version of the protocol.
const VERSION: u8 = 0;

/// What a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Carries payload of one stream.
    Data,
    /// Grants credit to the peer's side of one stream, and carries flags.
    WindowUpdate,
    /// Asks for, or gives, a sign of life.
    Ping,
    /// Announces the end of the session.
    GoAway,
}

/// The flags of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Flags(u16);

impl Flags {
    pub(super) const NONE: Flags = Flags(0);
    pub(super) const SYN: Flags = Flags(1);
    pub(super) const ACK: Flags = Flags(2);
    pub(super) const FIN: Flags = Flags(4);
    pub(super) const RST: Flags = Flags(8);

    /// Whether every flag of `other` is set here.
    pub(super) const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags and those of `other`.
    #[cfg(test)]
    pub(super) const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// Why a peer says that it ends the session.
pub(super) mod go_away {
    pub(in super::super) const NORMAL: u32 = 0;
    pub(in super::super) const PROTOCOL_ERROR: u32 = 1;
}

/// A decoded frame header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) flags: Flags,
    /// Zero for [`Kind::Ping`] and [`Kind::GoAway`].
    pub(super) stream: u32,
    /// Payload length, credit, ping number or reason, by [`Kind`].
    pub(super) length: u32,
}

/// Why twelve bytes are not a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeaderError {
    Version(u8),
    Kind(u8),
}

impl Header {
    pub(super) const fn data(stream: u32, length: u32) -> Header {
        Header {
            kind: Kind::Data,
            flags: Flags::NONE,
            stream,
            length,
        }
    }

    pub(super) const fn window_update(flags: Flags, stream: u32, credit: u32) -> Header {
        Header {
            kind: Kind::WindowUpdate,
            flags,
            stream,
            length: credit,
        }
    }

    pub(super) const fn ping(flags: Flags, number: u32) -> Header {
        Header {
            kind: Kind::Ping,
            flags,
            stream: 0,
            length: number,
        }
    }

    pub(super) const fn go_away(code: u32) -> Header {
        Header {
            kind: Kind::GoAway,
            flags: Flags::NONE,
            stream: 0,
            length: code,
        }
    }

    /// The header as it stands on the wire.
    pub(super) fn encode(self) -> [u8; HEADER_LEN] {
        let kind = match self.kind {
            Kind::Data => 0,
            Kind::WindowUpdate => 1,
            Kind::Ping => 2,
            Kind::GoAway => 3,
        };
        let [f0, f1] = self.flags.0.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        [VERSION, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3]
    }

    /// Reads a header. Unknown flags are kept and mean nothing.
    pub(super) fn decode(bytes: [u8; HEADER_LEN]) -> Result<Header, HeaderError> {
        let [version, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = bytes;
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::WindowUpdate,
            2 => Kind::Ping,
            3 => Kind::GoAway,
            other => return Err(HeaderError::Kind(other)),
        };
        Ok(Header {
            kind,
            flags: Flags(u16::from_be_bytes([f0, f1])),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        })
    }
}
