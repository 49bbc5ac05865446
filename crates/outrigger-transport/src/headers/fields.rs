//! What a header block holds, without decoding it (RFC 7541).

/// What one header field costs in memory beside its text, in bytes.
pub(super) const FIELD: usize = 128;

/// Walks over a header block that arrives in pieces and adds up what it takes
/// in memory once it is decoded. It needs no table: an indexed field refers to
/// text that is there already.
#[derive(Debug, Default)]
pub(super) struct Fields {
    next: Next,
    /// Texts that are still to come for the literal field that was begun.
    texts: u8,
    huffman: bool,
    size: usize,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    #[default]
    Field,
    TextLength,
    /// Further bytes of a number.
    Number {
        of: Number,
        value: usize,
        shift: u32,
    },
    /// The text itself, of which this much is left.
    Text(usize),
}

#[derive(Clone, Copy, Debug)]
enum Number {
    /// An index that stands for a whole field, or the size of the table.
    Whole,
    /// The index of a literal field's name; zero if the name is a text.
    Name,
    TextLength,
}

impl Fields {
    /// What the fields that were seen so far take in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Takes in the next piece of the block.
    pub(super) fn see(&mut self, mut piece: &[u8]) {
        while let Some((&byte, rest)) = piece.split_first() {
            match self.next {
                Next::Text(left) => {
                    let here = left.min(piece.len());
                    piece = piece.get(here..).unwrap_or_default();
                    if here == left {
                        self.text_ended();
                    } else {
                        self.next = Next::Text(left - here);
                    }
                    continue;
                }
                Next::Field => self.begin_field(byte),
                Next::TextLength => {
                    self.huffman = byte & 0x80 != 0;
                    self.number(Number::TextLength, byte, 0x7f);
                }
                Next::Number { of, value, shift } => {
                    let more = usize::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
                    let value = value.saturating_add(more);
                    if byte & 0x80 == 0 {
                        self.number_ended(of, value);
                    } else {
                        let shift = shift.saturating_add(7);
                        self.next = Next::Number { of, value, shift };
                    }
                }
            }
            piece = rest;
        }
    }

    fn begin_field(&mut self, byte: u8) {
        let (of, mask) = match byte {
            0x80.. => (Number::Whole, 0x7f),
            0x40..=0x7f => (Number::Name, 0x3f),
            0x20..=0x3f => (Number::Whole, 0x1f),
            0x00..=0x1f => (Number::Name, 0x0f),
        };
        self.size = self.size.saturating_add(FIELD);
        self.number(of, byte, mask);
    }

    fn number(&mut self, of: Number, byte: u8, mask: u8) {
        let value = usize::from(byte & mask);
        if byte & mask == mask {
            self.next = Next::Number {
                of,
                value,
                shift: 0,
            };
        } else {
            self.number_ended(of, value);
        }
    }

    fn number_ended(&mut self, of: Number, value: usize) {
        match of {
            Number::Whole => self.next = Next::Field,
            Number::Name => {
                self.texts = if value == 0 { 2 } else { 1 };
                self.next = Next::TextLength;
            }
            Number::TextLength => {
                // The shortest Huffman code has five bits.
                let length = if self.huffman {
                    value.saturating_mul(8) / 5
                } else {
                    value
                };
                self.size = self.size.saturating_add(length);
                self.next = Next::Text(value);
                if value == 0 {
                    self.text_ended();
                }
            }
        }
    }

    fn text_ended(&mut self) {
        self.texts -= 1;
        self.next = if self.texts == 0 {
            Next::Field
        } else {
            Next::TextLength
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of a block, however it is cut into pieces.
    fn size_of(block: &[u8]) -> usize {
        let mut whole = Fields::default();
        whole.see(block);
        for piece in 1..block.len() {
            let mut fields = Fields::default();
            block.chunks(piece).for_each(|chunk| fields.see(chunk));
            assert_eq!(fields.size(), whole.size(), "in pieces of {piece}");
        }
        whole.size()
    }

    #[test]
    fn the_size_of_a_block_is_known_however_it_is_written_and_cut() {
        assert_eq!(size_of(b""), 0);
        // Indexed fields, one of them with a long index.
        assert_eq!(size_of(&[0x82, 0x87, 0xff, 0x80, 0x01]), 3 * FIELD);
        // Size updates cost as much as a field, which does no harm.
        assert_eq!(size_of(&[0x3f, 0xe1, 0x1f, 0x82]), 2 * FIELD);
        // A literal with an indexed name, without and with indexing; an empty value.
        assert_eq!(size_of(b"\x04\x03abc\x44\x00\x82"), 3 * FIELD + 3);
        // A literal with a new name; never indexed; in Huffman code.
        assert_eq!(size_of(b"\x10\x02ab\x83xyz"), FIELD + 2 + 4);
        // A value longer than a number's prefix holds.
        let mut long = b"\x00\x01a\x7f\x81\x01".to_vec();
        long.extend(vec![b'v'; 127 + 129]);
        assert_eq!(size_of(&long), FIELD + 1 + 256);
    }

    #[test]
    fn nonsense_is_walked_over_without_a_panic() {
        let mut fields = Fields::default();
        for seed in 0..=255_u8 {
            let bytes: Vec<u8> = (0..999_u32)
                .map(|n| ((n * 167 + u32::from(seed) * 91) >> 3).to_le_bytes()[0])
                .collect();
            fields.see(&bytes);
            fields.see(&[0xff; 64]);
        }
    }
}
