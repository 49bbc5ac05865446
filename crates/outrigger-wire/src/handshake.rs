//! The one line a plugin prints before it serves.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::numbers::{parse_go_bool, parse_go_int};
use crate::{
    Address, AddressError, AllowedTransports, AppProtocolVersion, Coded, Excerpt, Transport,
};

/// The version of go-plugin's own protocol: the first field of every line.
pub const CORE_PROTOCOL_VERSION: u32 = 1;

/// The longest handshake line a host reads, in bytes, including the newline.
pub const MAX_HANDSHAKE_LINE: usize = 65536;

/// A sixth field of at most this many characters is not a certificate: old
/// plugins put 48 characters of something else there.
pub const MIN_CERTIFICATE_FIELD: usize = 50;

/// Lenient where Go is (stray trailing bits), and about padding.
const CERTIFICATE_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A handshake line whose fields have been checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HandshakeLine {
    /// The version both sides will speak.
    pub app_version: AppProtocolVersion,
    /// Where the plugin listens, in its own words.
    pub address: Address,
    /// Which RPC the plugin speaks there.
    pub transport: Transport,
    /// The plugin's certificate as DER, if it sent one. Only the outermost
    /// frame has been checked; whoever speaks TLS parses the rest.
    pub certificate: Option<Vec<u8>>,
    /// The seventh field. In a line that was parsed it is `Some(true)` if the
    /// host asked for multiplexing over gRPC, and `None` otherwise, whatever
    /// the plugin printed.
    pub mux: Option<bool>,
}

/// What a host is prepared to accept.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeRules<'a> {
    /// The versions the host offered.
    pub offered: &'a BTreeSet<AppProtocolVersion>,
    /// The transports the host accepts.
    pub allowed: AllowedTransports,
    /// Whether the host asked for a multiplexed broker. Over net/rpc this
    /// makes no difference.
    pub mux_requested: bool,
}

impl HandshakeLine {
    /// Checks the first line a plugin printed, with or without its newline.
    ///
    /// The fields are judged in the order every go-plugin host judges them, so
    /// that of several faults the same one is reported. Fields after the
    /// seventh are ignored. The address must make sense as text; nothing is
    /// looked up or connected to.
    ///
    /// ```
    /// use std::collections::BTreeSet;
    /// use outrigger_wire::{AllowedTransports, AppProtocolVersion, HandshakeLine, HandshakeRules};
    ///
    /// let offered = BTreeSet::from([AppProtocolVersion(4), AppProtocolVersion(5)]);
    /// let rules = HandshakeRules {
    ///     offered: &offered,
    ///     allowed: AllowedTransports::GRPC,
    ///     mux_requested: false,
    /// };
    /// let error = HandshakeLine::parse(b"1|3|unix|/tmp/p|grpc|", &rules).unwrap_err();
    /// assert_eq!(error.code(), "app-version-mismatch");
    /// assert_eq!(error.to_string(), "plugin speaks app protocol 3, this host accepts 4 and 5");
    /// ```
    ///
    /// # Errors
    /// One kind of [`HandshakeError`] for each rule that can be broken.
    pub fn parse(line: &[u8], rules: &HandshakeRules<'_>) -> Result<HandshakeLine, HandshakeError> {
        let fields = Fields::split(trim(line))?;
        check_core_version(fields.core_version)?;
        let app_version = read_app_version(fields.app_version, rules.offered)?;
        let address = read_address(fields.network, fields.address)?;
        let transport = read_transport(fields.transport, rules.allowed)?;
        let certificate = fields.certificate.map(read_certificate).transpose()?;
        let mux_matters = rules.mux_requested && transport == Transport::Grpc;
        let mux = match mux_matters {
            true => Some(read_mux(fields.mux)?),
            false => None,
        };
        Ok(HandshakeLine {
            app_version,
            address,
            transport,
            certificate: certificate.flatten(),
            mux,
        })
    }

    /// The line a plugin prints, without its newline: always six fields, and a
    /// seventh if and only if [`mux`](Self::mux) is set, because old hosts
    /// would take an unexpected seventh for a part of the sixth.
    ///
    /// The address must not contain `|` or a line break;
    /// [`Address::unix`] and [`Address::tcp`] never produce one that does.
    ///
    /// ```
    /// use outrigger_wire::{Address, AppProtocolVersion, HandshakeLine, Transport};
    ///
    /// let mut line = HandshakeLine {
    ///     app_version: AppProtocolVersion(1),
    ///     address: Address::tcp(([127, 0, 0, 1], 10000).into()),
    ///     transport: Transport::Grpc,
    ///     certificate: None,
    ///     mux: None,
    /// };
    /// assert_eq!(line.to_line(), "1|1|tcp|127.0.0.1:10000|grpc|");
    /// line.mux = Some(true);
    /// assert_eq!(line.to_line(), "1|1|tcp|127.0.0.1:10000|grpc||true");
    /// ```
    pub fn to_line(&self) -> String {
        let Address { network, text } = &self.address;
        let certificate = match &self.certificate {
            Some(der) => CERTIFICATE_BASE64.encode(der),
            None => String::new(),
        };
        let mux = match self.mux {
            Some(true) => "|true",
            Some(false) => "|false",
            None => "",
        };
        format!(
            "{CORE_PROTOCOL_VERSION}|{}|{network}|{text}|{}|{certificate}{mux}",
            self.app_version, self.transport
        )
    }
}

/// Why a plugin's first line was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// `handshake-malformed`. *Cause:* the plugin printed something else
    /// before, or instead of, its handshake line. *Resolution:* keep stdout
    /// for the handshake and print everything else to stderr.
    #[error(
        "expected a handshake line of at least 4 fields separated by `|`, found {fields} in {observed}"
    )]
    TooFewFields {
        /// The line as it was found.
        observed: Excerpt,
        /// How many fields it has.
        fields: usize,
    },
    /// `core-version-invalid`. *Cause:* the first field is no number.
    /// *Resolution:* as for a malformed line.
    #[error("core protocol version {observed} is not an integer")]
    CoreVersionNotANumber {
        /// The field as it was found.
        observed: Excerpt,
    },
    /// `core-version-mismatch`. *Cause:* the plugin was built with an
    /// incompatible plugin library. *Resolution:* rebuild it with a current one.
    #[error("plugin speaks core protocol {observed}, this host {CORE_PROTOCOL_VERSION}")]
    CoreVersionMismatch {
        /// The version the plugin printed.
        observed: i64,
    },
    /// `app-version-invalid`. *Cause:* the second field is no number.
    /// *Resolution:* print the negotiated version there.
    #[error("app protocol version {observed} is not an integer")]
    AppVersionNotANumber {
        /// The field as it was found.
        observed: Excerpt,
    },
    /// `app-version-mismatch`. *Cause:* plugin and host have no version of
    /// their interfaces in common. *Resolution:* update the older side.
    #[error(
        "plugin speaks app protocol {observed}, this host accepts {}",
        Listed(offered)
    )]
    AppVersionMismatch {
        /// The version the plugin printed.
        observed: i64,
        /// The versions the host offered, ascending.
        offered: Vec<AppProtocolVersion>,
    },
    /// The code of the [`AddressError`]. *Cause:* the third and fourth field
    /// do not make an address. *Resolution:* see there.
    #[error("handshake line has no usable address")]
    Address(#[from] AddressError),
    /// `transport-not-allowed`. *Cause:* the fifth field is missing (which
    /// means `netrpc`), unknown, or names a transport this host does not
    /// accept. *Resolution:* allow the transport, or rebuild the plugin.
    #[error("plugin speaks {observed}, this host accepts {allowed}")]
    TransportNotAllowed {
        /// The word as it was found; `netrpc` if there was none.
        observed: Excerpt,
        /// What the host accepts.
        allowed: AllowedTransports,
    },
    /// `certificate-invalid`. *Cause:* the sixth field is long enough for a
    /// certificate but holds none. *Resolution:* print the DER form in base64
    /// without padding, or leave the field empty.
    #[error("certificate {observed} is {reason}")]
    CertificateInvalid {
        /// What is wrong with it.
        reason: CertificateProblem,
        /// The field as it was found.
        observed: Excerpt,
    },
    /// `mux-unsupported`. *Cause:* the host asked for a multiplexed broker and
    /// the plugin cannot provide one. *Resolution:* update the plugin's
    /// library, or do not ask.
    #[error("plugin does not support a multiplexed broker: {reason}")]
    MuxUnsupported {
        /// How the plugin said so.
        reason: MuxUnsupported,
    },
    /// `mux-invalid`. *Cause:* the seventh field is no boolean.
    /// *Resolution:* print `true` there, or leave the field out.
    #[error("multiplexing support {observed} is not a boolean")]
    MuxNotABoolean {
        /// The field as it was found.
        observed: Excerpt,
    },
}

/// What is wrong with the certificate in the sixth field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// It is not base64 in the standard alphabet.
    NotBase64,
    /// It does not decode to exactly one DER sequence.
    NotDer,
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CertificateProblem::NotBase64 => "not base64",
            CertificateProblem::NotDer => "not a DER sequence",
        })
    }
}

/// How a plugin let a host know that it has no multiplexed broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MuxUnsupported {
    /// The line has fewer than seven fields: the plugin's library is older
    /// than multiplexing.
    FieldMissing,
    /// The seventh field says no.
    Declined,
}

impl fmt::Display for MuxUnsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MuxUnsupported::FieldMissing => "its handshake line has no seventh field",
            MuxUnsupported::Declined => "the seventh field of its handshake line says no",
        })
    }
}

impl Coded for HandshakeError {
    fn code(&self) -> &'static str {
        match self {
            HandshakeError::TooFewFields { .. } => "handshake-malformed",
            HandshakeError::CoreVersionNotANumber { .. } => "core-version-invalid",
            HandshakeError::CoreVersionMismatch { .. } => "core-version-mismatch",
            HandshakeError::AppVersionNotANumber { .. } => "app-version-invalid",
            HandshakeError::AppVersionMismatch { .. } => "app-version-mismatch",
            HandshakeError::Address(error) => error.code(),
            HandshakeError::TransportNotAllowed { .. } => "transport-not-allowed",
            HandshakeError::CertificateInvalid { .. } => "certificate-invalid",
            HandshakeError::MuxUnsupported { .. } => "mux-unsupported",
            HandshakeError::MuxNotABoolean { .. } => "mux-invalid",
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        let hint = match self {
            HandshakeError::TooFewFields { .. } | HandshakeError::CoreVersionNotANumber { .. } => {
                "keep stdout for the handshake; print everything else to stderr".into()
            }
            HandshakeError::CoreVersionMismatch { .. } => {
                "rebuild the plugin with a current plugin library".into()
            }
            HandshakeError::AppVersionMismatch { observed, offered } => {
                version_hint(*observed, offered)?.into()
            }
            HandshakeError::TransportNotAllowed { observed, allowed } => {
                let refused = AllowedTransports::ALL
                    .iter()
                    .filter(|transport| !allowed.contains(*transport))
                    .find(|transport| *observed == Excerpt::from(transport.as_str()))?;
                format!("allow `{refused}` if the host can speak it").into()
            }
            HandshakeError::CertificateInvalid { .. } => {
                "print the DER certificate in base64 without padding".into()
            }
            HandshakeError::MuxUnsupported {
                reason: MuxUnsupported::FieldMissing,
            } => "update the plugin's library, or do not ask for a multiplexed broker".into(),
            HandshakeError::MuxUnsupported {
                reason: MuxUnsupported::Declined,
            } => "do not ask for a multiplexed broker".into(),
            HandshakeError::AppVersionNotANumber { .. }
            | HandshakeError::Address(_)
            | HandshakeError::MuxNotABoolean { .. } => return None,
        };
        Some(hint)
    }
}

fn version_hint(observed: i64, offered: &[AppProtocolVersion]) -> Option<String> {
    let (lowest, highest) = (offered.first()?.0, offered.last()?.0);
    if observed < i64::from(lowest) {
        Some(format!(
            "update the plugin (its side is older), or serve version {observed} from the host"
        ))
    } else if observed > i64::from(highest) {
        Some(format!(
            "update the host (its side is older), or build the plugin for version {highest}"
        ))
    } else {
        None
    }
}

/// Versions as a phrase: `none`, `4`, `4 and 5`, `3, 4 and 5`, `0 to 99`.
struct Listed<'a>(&'a [AppProtocolVersion]);

impl Listed<'_> {
    /// Neighbours from this many on are told by their ends.
    const RUN: usize = 4;

    fn phrases(&self) -> Vec<String> {
        let runs = self
            .0
            .chunk_by(|one, next| one.0.checked_add(1) == Some(next.0));
        runs.flat_map(|run| match run {
            [first, .., last] if run.len() >= Self::RUN => vec![format!("{first} to {last}")],
            few => few.iter().map(ToString::to_string).collect(),
        })
        .collect()
    }
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phrases = self.phrases();
        let Some((last, init)) = phrases.split_last() else {
            return f.write_str("none");
        };
        f.write_str(&init.join(", "))?;
        let joint = if init.is_empty() { "" } else { " and " };
        write!(f, "{joint}{last}")
    }
}

/// The fields of a line, still as the plugin wrote them.
struct Fields<'a> {
    core_version: &'a [u8],
    app_version: &'a [u8],
    network: &'a [u8],
    address: &'a [u8],
    transport: Option<&'a [u8]>,
    certificate: Option<&'a [u8]>,
    mux: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn split(line: &'a [u8]) -> Result<Fields<'a>, HandshakeError> {
        let mut fields = line.split(|byte| *byte == b'|');
        let mut found = 0;
        let mut required = || {
            let field = fields.next();
            found += usize::from(field.is_some());
            field
        };
        let (Some(core_version), Some(app_version), Some(network), Some(address)) =
            (required(), required(), required(), required())
        else {
            return Err(HandshakeError::TooFewFields {
                observed: Excerpt::new(line),
                fields: found,
            });
        };
        Ok(Fields {
            core_version,
            app_version,
            network,
            address,
            transport: fields.next(),
            certificate: fields.next(),
            mux: fields.next(),
        })
    }
}

/// Removes white space from both ends, as Unicode defines it. In a line that
/// is not UTF-8 only ASCII white space is recognised.
fn trim(line: &[u8]) -> &[u8] {
    match std::str::from_utf8(line) {
        Ok(text) => text.trim().as_bytes(),
        Err(_) => {
            let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'\x0b';
            let start = line.iter().position(|byte| !is_space(byte));
            let end = line.iter().rposition(|byte| !is_space(byte));
            match (start, end) {
                (Some(start), Some(end)) => &line[start..=end],
                _ => &[],
            }
        }
    }
}

fn integer(field: &[u8]) -> Option<i64> {
    parse_go_int(std::str::from_utf8(field).ok()?)
}

fn check_core_version(field: &[u8]) -> Result<(), HandshakeError> {
    match integer(field) {
        Some(version) if version == i64::from(CORE_PROTOCOL_VERSION) => Ok(()),
        Some(observed) => Err(HandshakeError::CoreVersionMismatch { observed }),
        None => Err(HandshakeError::CoreVersionNotANumber {
            observed: Excerpt::new(field),
        }),
    }
}

fn read_app_version(
    field: &[u8],
    offered: &BTreeSet<AppProtocolVersion>,
) -> Result<AppProtocolVersion, HandshakeError> {
    let observed = integer(field).ok_or_else(|| HandshakeError::AppVersionNotANumber {
        observed: Excerpt::new(field),
    })?;
    u32::try_from(observed)
        .ok()
        .map(AppProtocolVersion)
        .filter(|version| offered.contains(version))
        .ok_or_else(|| HandshakeError::AppVersionMismatch {
            observed,
            offered: offered.iter().copied().collect(),
        })
}

fn read_address(network: &[u8], address: &[u8]) -> Result<Address, AddressError> {
    let network = String::from_utf8_lossy(network);
    // A network that is unknown is reported before an address that is no text.
    let address = match std::str::from_utf8(address) {
        Ok(text) => Address::parse(&network, text)?,
        Err(_) => {
            Address::parse(&network, "").map_err(|error| match error {
                AddressError::UnknownNetwork { network, .. } => AddressError::UnknownNetwork {
                    network,
                    address: Excerpt::new(address),
                },
                other => other,
            })?;
            return Err(AddressError::NotUtf8 {
                address: Excerpt::new(address),
            });
        }
    };
    address.resolve()?;
    Ok(address)
}

fn read_transport(
    field: Option<&[u8]>,
    allowed: AllowedTransports,
) -> Result<Transport, HandshakeError> {
    let field = field.unwrap_or(b"netrpc");
    std::str::from_utf8(field)
        .ok()
        .and_then(|word| word.parse().ok())
        .filter(|transport| allowed.contains(*transport))
        .ok_or_else(|| HandshakeError::TransportNotAllowed {
            observed: Excerpt::new(field),
            allowed,
        })
}

/// `None` for a field too short to be a certificate.
fn read_certificate(field: &[u8]) -> Result<Option<Vec<u8>>, HandshakeError> {
    let padding = field
        .iter()
        .rev()
        .take(2)
        .take_while(|byte| **byte == b'=')
        .count();
    if field.len() - padding <= MIN_CERTIFICATE_FIELD {
        return Ok(None);
    }
    let invalid = |reason| HandshakeError::CertificateInvalid {
        reason,
        observed: Excerpt::new(field),
    };
    let der = CERTIFICATE_BASE64
        .decode(field)
        .map_err(|_| invalid(CertificateProblem::NotBase64))?;
    if is_one_der_sequence(&der) {
        Ok(Some(der))
    } else {
        Err(invalid(CertificateProblem::NotDer))
    }
}

/// Whether the outermost tag is SEQUENCE and its length ends with the data.
fn is_one_der_sequence(der: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30;
    const LONG_FORM: u8 = 0x80;
    let [SEQUENCE, first, rest @ ..] = der else {
        return false;
    };
    if first & LONG_FORM == 0 {
        return rest.len() == usize::from(*first);
    }
    let length_bytes = usize::from(first & !LONG_FORM);
    // A line holds less than 64 KiB, so three bytes of length are plenty.
    if !(1..=3).contains(&length_bytes) || rest.len() < length_bytes {
        return false;
    }
    let (length, content) = rest.split_at(length_bytes);
    let length = length
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    content.len() == length
}

fn read_mux(field: Option<&[u8]>) -> Result<bool, HandshakeError> {
    let field = field.ok_or(HandshakeError::MuxUnsupported {
        reason: MuxUnsupported::FieldMissing,
    })?;
    match std::str::from_utf8(field).ok().and_then(parse_go_bool) {
        Some(true) => Ok(true),
        Some(false) => Err(HandshakeError::MuxUnsupported {
            reason: MuxUnsupported::Declined,
        }),
        None => Err(HandshakeError::MuxNotABoolean {
            observed: Excerpt::new(field),
        }),
    }
}

#[cfg(test)]
mod tests;
