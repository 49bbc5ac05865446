//! Integers and floats as gob writes them.

use bytes::{BufMut, BytesMut};

/// The longest encoded unsigned integer: one count byte and eight bytes.
pub(crate) const MAX_UINT: usize = 9;

/// How many bytes [`put_uint`] writes.
pub(crate) fn uint_len(value: u64) -> usize {
    if value < 0x80 {
        1
    } else {
        1 + significant(value)
    }
}

/// The number of bytes of `value` without leading zeros.
fn significant(value: u64) -> usize {
    8 - (value.leading_zeros() / 8) as usize
}

/// The encoding of `value`, followed by zeros, and how many bytes it takes.
#[inline]
pub(crate) fn uint_bytes(value: u64) -> ([u8; MAX_UINT], usize) {
    let mut buffer = [0; MAX_UINT];
    if value < 0x80 {
        buffer[0] = value as u8;
        return (buffer, 1);
    }
    let count = significant(value);
    buffer[0] = (count as u8).wrapping_neg();
    buffer[1..].copy_from_slice(&(value << (64 - 8 * count)).to_be_bytes());
    (buffer, count + 1)
}

#[inline]
pub(crate) fn put_uint(value: u64, out: &mut BytesMut) {
    if value < 0x80 {
        out.put_u8(value as u8);
        return;
    }
    // A copy of constant length and a cut are faster than a short copy.
    let (buffer, length) = uint_bytes(value);
    let end = out.len() + length;
    out.extend_from_slice(&buffer);
    out.truncate(end);
}

pub(crate) fn put_int(value: i64, out: &mut BytesMut) {
    put_uint(zigzag(value), out);
}

pub(crate) fn zigzag(value: i64) -> u64 {
    if value < 0 {
        ((!value as u64) << 1) | 1
    } else {
        (value as u64) << 1
    }
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    let half = (value >> 1) as i64;
    if value & 1 == 0 { half } else { !half }
}

pub(crate) fn float_bits(value: f64) -> u64 {
    value.to_bits().swap_bytes()
}

pub(crate) fn float_from_bits(bits: u64) -> f64 {
    f64::from_bits(bits.swap_bytes())
}

/// Why no unsigned integer could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadUint {
    /// The bytes end before the integer does.
    Short,
    /// The integer claims this many bytes, more than eight.
    Long(u8),
}

/// Reads an unsigned integer from the front of `bytes`; returns how many bytes
/// it took too.
pub(crate) fn get_uint(bytes: &[u8]) -> Result<(u64, usize), BadUint> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Err(BadUint::Short);
    };
    if first < 0x80 {
        return Ok((u64::from(first), 1));
    }
    let count = first.wrapping_neg();
    if count > 8 {
        return Err(BadUint::Long(count));
    }
    let count = usize::from(count);
    if let Some(digits) = rest.first_chunk() {
        return Ok((u64::from_be_bytes(*digits) >> (64 - 8 * count), count + 1));
    }
    let digits = rest.get(..count).ok_or(BadUint::Short)?;
    let value = digits
        .iter()
        .fold(0, |value, &digit| value << 8 | u64::from(digit));
    Ok((value, count + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(value: u64) -> Vec<u8> {
        let mut out = BytesMut::new();
        put_uint(value, &mut out);
        out.to_vec()
    }

    #[test]
    fn integers_are_written_in_the_fewest_bytes() {
        assert_eq!(bytes(0), [0]);
        assert_eq!(bytes(127), [127]);
        assert_eq!(bytes(128), [0xff, 0x80]);
        assert_eq!(bytes(256), [0xfe, 1, 0]);
        assert_eq!(bytes(u64::MAX), [&[0xf8][..], &[0xff; 8]].concat());
    }

    #[test]
    fn an_integer_of_more_than_eight_bytes_is_refused() {
        assert_eq!(get_uint(&[0xf7; 20]), Err(BadUint::Long(9)));
        assert_eq!(get_uint(&[0x80; 200]), Err(BadUint::Long(128)));
        assert_eq!(get_uint(&[0xfe, 1]), Err(BadUint::Short));
        assert_eq!(get_uint(&[]), Err(BadUint::Short));
    }

    proptest! {
        #[test]
        fn numbers_survive(value: u64, signed: i64, float: f64) {
            let written = bytes(value);
            prop_assert_eq!(written.len(), uint_len(value));
            prop_assert_eq!(get_uint(&written), Ok((value, written.len())));
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
            prop_assert_eq!(float_from_bits(float_bits(float)).to_bits(), float.to_bits());
        }
    }
}
