//! Metadata of calls, as the command line gives it.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::metadata::{BinaryMetadataKey, BinaryMetadataValue, MetadataMap};

use crate::failure::{Failure, printable};

/// Reads what the command line gives.
///
/// # Errors
/// `metadata-invalid`.
pub(crate) fn read(pairs: &[(String, String)]) -> Result<MetadataMap, Failure> {
    let mut map = MetadataMap::new();
    for (key, value) in pairs {
        let added = if key.ends_with("-bin") {
            binary(key, value).map(|(key, value)| {
                map.append_bin(key, value);
            })
        } else {
            ascii(key, value).map(|(key, value)| {
                map.append(key, value);
            })
        };
        added.ok_or_else(|| {
            Failure::usage(
                "metadata-invalid",
                format!("`{}` cannot be sent as metadata", printable(&format!("{key}={value}"))),
            )
            .help("keys are lower-case ASCII, values printable ASCII, or base64 after a key in `-bin`")
        })?;
    }
    Ok(map)
}

fn ascii(key: &str, value: &str) -> Option<(AsciiMetadataKey, AsciiMetadataValue)> {
    let key = AsciiMetadataKey::from_str(key).ok()?;
    Some((key, AsciiMetadataValue::try_from(value).ok()?))
}

fn binary(key: &str, value: &str) -> Option<(BinaryMetadataKey, BinaryMetadataValue)> {
    let value = STANDARD_NO_PAD.decode(value.trim_end_matches('=')).ok()?;
    Some((
        BinaryMetadataKey::from_str(key).ok()?,
        BinaryMetadataValue::from_bytes(&value),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_takes_text_and_base64() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let map = read(&[pair("client", "x"), pair("trace-bin", "AQI=")]).expect("good");
        assert_eq!(map.get("client").expect("text"), "x");
        assert_eq!(
            map.get_bin("trace-bin")
                .expect("bytes")
                .to_bytes()
                .expect("decoded")[..],
            [1, 2]
        );
        for bad in [
            pair("Key with space", "x"),
            pair("k", "\n"),
            pair("k-bin", "?"),
        ] {
            assert_eq!(read(&[bad]).expect_err("bad").code, "metadata-invalid");
        }
    }
}
