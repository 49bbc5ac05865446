//! The Huffman code of header strings (RFC 7541, section 5.2 and appendix B).

/// The bits of each byte's code. The code is canonical: shorter codes come first,
/// and among codes of one length those of smaller bytes, so the lengths say it all.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
     6, 10, 10, 12, 13,  6,  8, 11, 10, 10,  8, 11,  8,  6,  6,  6,
     5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8, 15,  6, 12, 10,
    13,  6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
     7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8, 13, 19, 13, 14,  6,
    15,  5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,
     6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

const LONGEST: usize = 30;

/// What has one length of code: the first code, and which places of [`ORDER`] have them.
#[derive(Clone, Copy)]
struct Row {
    first: u32,
    codes: u32,
    place: usize,
}

const ROWS: [Row; LONGEST + 1] = rows();
/// All bytes in the order of their codes.
const ORDER: [u8; 256] = order();

const fn rows() -> [Row; LONGEST + 1] {
    let none = Row {
        first: 0,
        codes: 0,
        place: 0,
    };
    let mut rows = [none; LONGEST + 1];
    let mut byte = 0;
    while byte < LENGTHS.len() {
        rows[LENGTHS[byte] as usize].codes += 1;
        byte += 1;
    }
    let mut length = 1;
    while length <= LONGEST {
        let before = rows[length - 1];
        rows[length].first = (before.first + before.codes) << 1;
        rows[length].place = before.place + before.codes as usize;
        length += 1;
    }
    rows
}

const fn order() -> [u8; 256] {
    let mut order = [0; 256];
    let mut place = 0;
    let mut length = 1;
    while length <= LONGEST {
        let mut byte = 0;
        while byte < LENGTHS.len() {
            if LENGTHS[byte] as usize == length {
                order[place] = byte as u8;
                place += 1;
            }
            byte += 1;
        }
        length += 1;
    }
    order
}

/// The text that `coded` stands for; nothing if it stands for none.
pub(super) fn decode(coded: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(coded.len() * 2);
    let (mut code, mut length) = (0, 0);
    for byte in coded {
        for shift in (0..8).rev() {
            code = code << 1 | u32::from(byte >> shift & 1);
            length += 1;
            let row = ROWS.get(length)?;
            if code < row.first + row.codes {
                text.push(ORDER[row.place + (code - row.first) as usize]);
                (code, length) = (0, 0);
            }
        }
    }
    // What is left fills the last byte, with ones.
    (length < 8 && code == (1 << length) - 1).then_some(text)
}

/// Characters that an authority may have anywhere, one for some lengths of code,
/// the longest first.
const FILLING: &[u8] = b"~Xz-a";

/// Makes `coded` stand for another text of as many characters, which any reader
/// accepts as an authority. So neither the string's length changes nor the place
/// that it takes in a table of headers. Not every number of characters fits: then
/// `coded` stays as it is.
pub(super) fn fill(coded: &mut [u8], characters: usize) -> bool {
    let mut bits = Bits::of(coded.len());
    for left in (1..=characters).rev() {
        // The longest code that the average allows: the last one leaves little.
        let fits = |byte: &&u8| usize::from(LENGTHS[usize::from(**byte)]) * left <= bits.left();
        let Some(byte) = FILLING.iter().find(fits) else {
            return false;
        };
        bits.push(*byte);
    }
    if bits.left() >= 8 {
        return false;
    }
    coded.copy_from_slice(&bits.bytes);
    true
}

/// Codes one behind the other, in bytes whose other bits are ones.
struct Bits {
    bytes: Vec<u8>,
    used: usize,
}

impl Bits {
    fn of(bytes: usize) -> Self {
        Self {
            bytes: vec![0xff; bytes],
            used: 0,
        }
    }

    fn left(&self) -> usize {
        self.bytes.len() * 8 - self.used
    }

    /// There must be room for the code of `byte`.
    fn push(&mut self, byte: u8) {
        let length = usize::from(LENGTHS[usize::from(byte)]);
        let row = ROWS[length];
        let place = ORDER[row.place..].iter().position(|other| *other == byte);
        let code = row.first + place.unwrap_or_default() as u32;
        for shift in (0..length).rev() {
            if code >> shift & 1 == 0 {
                self.bytes[self.used / 8] &= !(0x80 >> (self.used % 8));
            }
            self.used += 1;
        }
    }
}

/// The code of `text`, for tests and fuzz targets of whatever reads it.
#[cfg(any(test, feature = "logs"))]
pub(crate) fn encode(text: &[u8]) -> Vec<u8> {
    let bits: usize = text
        .iter()
        .map(|byte| usize::from(LENGTHS[usize::from(*byte)]))
        .sum();
    let mut coded = Bits::of(bits.div_ceil(8));
    text.iter().for_each(|byte| coded.push(*byte));
    coded.bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_specification_are_coded_alike() {
        // RFC 7541, appendices C.4 and C.6.
        for (text, coded) in [
            ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
            ("custom-value", "25a849e95bb8e8b4bf"),
            (
                "Mon, 21 Oct 2013 20:13:21 GMT",
                "d07abe941054d444a8200595040b8166e082a62d1bff",
            ),
            (
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
                "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            ),
        ] {
            let hex: String = encode(text.as_bytes())
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(hex, coded);
        }
    }

    #[test]
    fn the_last_codes_have_the_bits_of_the_specification() {
        // RFC 7541, appendix B: the byte 22 is 30 bits, and only the end mark follows it.
        assert_eq!(encode(&[22]), [0xff, 0xff, 0xff, 0xfb]);
        assert_eq!(encode(&[249]), [0xff, 0xff, 0xff, 0xef]);
        assert_eq!(encode(b"{"), [0xff, 0xfd]);
    }

    #[test]
    fn padding_of_a_whole_byte_or_with_zeros_is_no_text() {
        assert_eq!(decode(&[0xff]), None);
        assert_eq!(decode(&[0b0001_1000]), None);
        assert_eq!(decode(&[0b0001_1111]).as_deref(), Some(b"a".as_slice()));
        // The mark of the end must not stand in a string.
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff]), None);
    }

    proptest! {
        #[test]
        fn what_is_coded_is_read_again(text in proptest::collection::vec(any::<u8>(), 0..99)) {
            assert_eq!(decode(&encode(&text)), Some(text));
        }

        #[test]
        fn a_filling_has_as_many_characters(text in "[ -~]{1,99}") {
            let mut coded = encode(text.as_bytes());
            let length = coded.len();
            // Only texts of rare characters are too long for ours.
            if fill(&mut coded, text.len()) {
                assert_eq!(coded.len(), length);
                let filled = decode(&coded).expect("a text");
                assert_eq!(filled.len(), text.len());
                assert!(filled.iter().all(|byte| FILLING.contains(byte)));
            } else {
                assert!(length * 8 > 13 * text.len() + 7, "{text:?}");
            }
        }
    }
}
