//! What peers write into `:authority`, made acceptable before HTTP/2 is read.

pub(crate) mod huffman;

use http::uri::Authority;

/// The preface of an HTTP/2 client, in bytes (RFC 9113, section 3.4).
const PREFACE: u32 = 24;
/// The header of a frame, in bytes.
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x04;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// The dependency and weight of a stream, in bytes.
const PRIORITY_LENGTH: u32 = 5;

/// The longest authority that is looked at, in bytes as it was sent. The path of
/// a unix socket has 107, three times that when it is percent-encoded.
const MAX_AUTHORITY: u32 = 1024;
/// Names of the static table (RFC 7541, appendix A); the first is `:authority`.
const STATIC_NAMES: u32 = 61;
const NAME: &[u8] = b":authority";
/// The same in its Huffman code, which has only this one form.
const CODED_NAME: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
/// Bytes of an integer beside the one that it begins in; what is longer is refused
/// by everybody who reads it.
const MAX_MORE: u32 = 4;

/// Makes the `:authority` of requests acceptable to readers that insist on a host
/// and port there.
///
/// Clients on gRPC's C core, Java and Swift write the path of the unix socket that
/// they dial into `:authority`, as it stands or percent-encoded
/// (`%2Ftmp%2Fplugin123`). Go's server takes that, as nobody needs the value; a
/// strict HTTP/2 library resets the stream. The filter looks over the bytes of a
/// client's connection and replaces what no authority has. A value that is one
/// stays as it is, and so does everything else.
///
/// A replaced value has the length of the old one, in bytes as sent and in
/// characters: neither frames nor header strings change their length, and both
/// sides still agree on what their tables of headers hold. Bytes that are no
/// HTTP/2 pass as they are; whoever reads them will refuse them.
///
/// # Examples
/// ```
/// use outrigger_wire::AuthorityFilter;
///
/// let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
/// bytes.extend([0, 0, 8, 1, 4, 0, 0, 0, 1]); // a frame with headers, of 8 bytes
/// bytes.extend(b"\x41\x06%2Ftmp"); // `:authority`, 6 bytes
/// let settled = AuthorityFilter::new().pass(&mut bytes);
/// assert_eq!(settled, bytes.len());
/// assert!(bytes.ends_with(b"\x41\x06-2Ftmp"));
/// ```
#[derive(Clone, Debug)]
pub struct AuthorityFilter {
    frames: Frames,
    fields: Fields,
    /// Which entries of the peer's dynamic table have the name `:authority`, the
    /// newest in the lowest bit.
    ///
    /// This is all that has to be known of the table. Its values were looked at
    /// when they were inserted. Entries leave it at its old end only, so what has
    /// been evicted is never named again, and an index counts from the new end.
    /// With the 4096 bytes that it may have unless a server allows more, it holds
    /// at most 128 entries: each takes 32 bytes beside its text.
    named: u128,
    /// Whether the bytes have made no sense, so that nobody reads on.
    lost: bool,
}

impl AuthorityFilter {
    /// The most bytes that [`pass`](Self::pass) leaves unsettled.
    pub const MAX_UNSETTLED: usize = 4096;

    /// The filter of a new connection, whose first bytes are the client's preface.
    pub fn new() -> Self {
        Self {
            frames: Frames {
                at: At::Other(PREFACE),
                open: false,
            },
            fields: Fields::Field,
            named: 0,
            lost: false,
        }
    }

    /// Looks over what came next, changes it where it has to be changed, and says
    /// how many bytes of it are settled.
    ///
    /// That is nearly always all of them. Otherwise they end in the middle of a
    /// header; the rest, at most [`MAX_UNSETTLED`](Self::MAX_UNSETTLED) bytes, must
    /// not be passed on yet but be given again at the beginning of the next call.
    pub fn pass(&mut self, bytes: &mut [u8]) -> usize {
        let end = bytes.len();
        if self.lost {
            return end;
        }
        let mut input = Input {
            bytes,
            at: 0,
            frames: self.frames,
        };
        loop {
            let (at, frames) = match input.seek() {
                Ok(()) => (input.at, input.frames),
                Err(Stop::Starved) => {
                    self.frames = input.frames;
                    return end;
                }
                Err(Stop::BlockEnds) if self.fields == Fields::Field => continue,
                Err(Stop::BlockEnds | Stop::Nonsense) => break,
            };
            match self.part(&mut input) {
                Ok(next) => self.fields = next,
                // A part is read whole or, next time, from its beginning.
                Err(Stop::Starved) if end - at <= Self::MAX_UNSETTLED => {
                    self.frames = frames;
                    return at;
                }
                Err(_) => break,
            }
        }
        self.lost = true;
        end
    }

    /// Reads one part of a block of headers.
    fn part(&mut self, input: &mut Input<'_>) -> Result<Fields, Stop> {
        match self.fields {
            Fields::Field => self.field(input),
            Fields::Name { inserted } => self.name(input, inserted),
            Fields::Value { authority } => value(input, authority),
            Fields::Rest { left, of_name } => {
                let passed = input.run(left as usize)?.len() as u32;
                Ok(Fields::rest(left - passed, of_name))
            }
        }
    }

    fn field(&mut self, input: &mut Input<'_>) -> Result<Fields, Stop> {
        let first = input.next()?;
        let (bits, inserted) = match first {
            // A whole header from a table, or the table's size: nothing follows.
            0x80.. => return input.integer(first, 7).map(|_| Fields::Field),
            0x20..=0x3f => return input.integer(first, 5).map(|_| Fields::Field),
            0x40..=0x7f => (6, true),
            0x00..=0x1f => (4, false),
        };
        let index = input.integer(first, bits)?;
        if index == 0 {
            return Ok(Fields::Name { inserted });
        }
        let authority = match index.checked_sub(STATIC_NAMES + 1) {
            None => index == 1,
            Some(newer) => self.named.checked_shr(newer).unwrap_or(0) & 1 == 1,
        };
        self.insert(inserted, authority);
        Ok(Fields::Value { authority })
    }

    fn name(&mut self, input: &mut Input<'_>, inserted: bool) -> Result<Fields, Stop> {
        let (coded, length) = input.length()?;
        let mut wanted = if coded { CODED_NAME } else { NAME };
        if length as usize != wanted.len() {
            self.insert(inserted, false);
            return Ok(Fields::rest(length, true));
        }
        let mut authority = true;
        while !wanted.is_empty() {
            let run = input.run(wanted.len())?;
            let now;
            (now, wanted) = wanted.split_at(run.len());
            authority &= run == now;
        }
        self.insert(inserted, authority);
        Ok(Fields::Value { authority })
    }

    fn insert(&mut self, inserted: bool, authority: bool) {
        if inserted {
            self.named = self.named << 1 | u128::from(authority);
        }
    }
}

impl Default for AuthorityFilter {
    fn default() -> Self {
        Self::new()
    }
}

fn value(input: &mut Input<'_>, authority: bool) -> Result<Fields, Stop> {
    let (coded, length) = input.length()?;
    if !authority || length > MAX_AUTHORITY {
        return Ok(Fields::rest(length, false));
    }
    let begin = (input.at, input.frames);
    let length = length as usize;
    let mut value = Vec::with_capacity(length);
    while value.len() < length {
        value.extend_from_slice(input.run(length - value.len())?);
    }
    if replace(&mut value, coded) {
        (input.at, input.frames) = begin;
        let mut rest = value.as_slice();
        while !rest.is_empty() {
            let run = input.run(rest.len())?;
            let now;
            (now, rest) = rest.split_at(run.len());
            run.copy_from_slice(now);
        }
    }
    Ok(Fields::Field)
}

/// Replaces a value that is no authority, and says whether it did.
fn replace(value: &mut [u8], coded: bool) -> bool {
    if coded {
        return huffman::decode(value)
            .is_some_and(|text| is_refused(&text) && huffman::fill(value, text.len()));
    }
    let refused = is_refused(value);
    if refused {
        let odd = value.iter_mut().filter(|byte| !is_plain(**byte));
        odd.for_each(|byte| *byte = b'-');
    }
    refused
}

fn is_refused(text: &[u8]) -> bool {
    !text.iter().all(|byte| is_plain(*byte)) && Authority::try_from(text).is_err()
}

/// What stands for itself wherever it is in an authority.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// What comes next in a block of headers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fields {
    Field,
    /// The length of a name and the name.
    Name {
        inserted: bool,
    },
    /// The length of a value and the value.
    Value {
        authority: bool,
    },
    /// More of a string that is not looked at.
    Rest {
        left: u32,
        of_name: bool,
    },
}

impl Fields {
    fn rest(left: u32, of_name: bool) -> Self {
        match (left, of_name) {
            (0, true) => Self::Value { authority: false },
            (0, false) => Self::Field,
            _ => Self::Rest { left, of_name },
        }
    }
}

/// Why a part cannot be read.
#[derive(Clone, Copy)]
enum Stop {
    /// More bytes are needed.
    Starved,
    /// The block of headers is over.
    BlockEnds,
    /// Every reader refuses this.
    Nonsense,
}

/// Which frame, and where in it.
#[derive(Clone, Copy, Debug)]
struct Frames {
    at: At,
    /// Whether a block of headers has begun and its last frame is not over.
    open: bool,
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// So many bytes that are not looked at; then a frame begins.
    Other(u32),
    /// The header of a frame, of which so many bytes have come.
    Header([u8; FRAME_HEADER], usize),
    /// The length of the padding, which comes before the rest.
    Padding(Part),
    /// So many bytes of a stream's priority; then headers.
    Priority(u32, Part),
    Headers(Part),
}

/// A frame's part of a block of headers.
#[derive(Clone, Copy, Debug)]
struct Part {
    left: u32,
    padding: u32,
    flags: u8,
}

impl Part {
    /// Takes what is none of the headers off the length of the frame.
    fn without(self, other: u32) -> Result<Self, Stop> {
        let left = self.left.checked_sub(other).ok_or(Stop::Nonsense)?;
        Ok(Self { left, ..self })
    }
}

impl Frames {
    /// What follows the header of a frame.
    fn begin(&mut self, header: [u8; FRAME_HEADER]) -> Result<At, Stop> {
        let [a, b, c, kind, flags, ..] = header;
        let part = Part {
            left: u32::from_be_bytes([0, a, b, c]),
            padding: 0,
            flags,
        };
        match (kind, self.open) {
            (HEADERS, false) => self.open = true,
            (CONTINUATION, true) => return Ok(At::Headers(part)),
            // Nothing may stand between the frames of a block, and nothing continues none.
            (_, true) | (CONTINUATION, _) => return Err(Stop::Nonsense),
            _ => return Ok(At::Other(part.left)),
        }
        if flags & PADDED == 0 {
            return after_padding(part);
        }
        Ok(At::Padding(part.without(1)?))
    }
}

fn after_padding(part: Part) -> Result<At, Stop> {
    if part.flags & PRIORITY == 0 {
        return Ok(At::Headers(part));
    }
    Ok(At::Priority(
        PRIORITY_LENGTH,
        part.without(PRIORITY_LENGTH)?,
    ))
}

/// The bytes at hand, and the next one to look at.
struct Input<'a> {
    bytes: &'a mut [u8],
    at: usize,
    frames: Frames,
}

impl Input<'_> {
    /// Goes on by at most `most` bytes, and says by how many.
    fn pass_over(&mut self, most: u32) -> Result<u32, Stop> {
        let available = u32::try_from(self.bytes.len() - self.at).unwrap_or(u32::MAX);
        let passed = available.min(most);
        if passed == 0 {
            return Err(Stop::Starved);
        }
        self.at += passed as usize;
        Ok(passed)
    }

    /// Goes to the next byte of a block of headers.
    #[inline]
    fn seek(&mut self) -> Result<(), Stop> {
        match self.frames.at {
            At::Headers(Part { left: 1.., .. }) if self.at < self.bytes.len() => Ok(()),
            _ => self.find(),
        }
    }

    /// Goes to the next byte of a block of headers, which is not the next one.
    fn find(&mut self) -> Result<(), Stop> {
        loop {
            match self.frames.at {
                At::Headers(Part { left: 1.., .. }) if self.at < self.bytes.len() => return Ok(()),
                At::Headers(Part { left: 1.., .. }) => return Err(Stop::Starved),
                At::Headers(Part { padding, flags, .. }) => {
                    self.frames.at = At::Other(padding);
                    if flags & END_HEADERS != 0 {
                        self.frames.open = false;
                        return Err(Stop::BlockEnds);
                    }
                }
                at => self.frames.at = self.outside(at)?,
            }
        }
    }

    /// Goes on outside of a block of headers.
    fn outside(&mut self, at: At) -> Result<At, Stop> {
        Ok(match at {
            At::Other(0) => match self.bytes[self.at..].first_chunk() {
                Some(header) => {
                    self.at += FRAME_HEADER;
                    self.frames.begin(*header)?
                }
                None => At::Header([0; FRAME_HEADER], 0),
            },
            At::Other(left) => At::Other(left - self.pass_over(left)?),
            At::Header(header, FRAME_HEADER) => self.frames.begin(header)?,
            At::Header(mut seen, length) => {
                self.pass_over(1)?;
                seen[length] = self.bytes[self.at - 1];
                At::Header(seen, length + 1)
            }
            At::Padding(part) => {
                self.pass_over(1)?;
                let padding = u32::from(self.bytes[self.at - 1]);
                let part = part.without(padding)?;
                after_padding(Part { padding, ..part })?
            }
            At::Priority(0, part) | At::Headers(part) => At::Headers(part),
            At::Priority(left, part) => At::Priority(left - self.pass_over(left)?, part),
        })
    }

    /// What is at hand of the next `most` bytes of the block of headers: one at
    /// least, and no more than its frame has.
    fn run(&mut self, most: usize) -> Result<&mut [u8], Stop> {
        self.seek()?;
        let begin = self.at;
        if let At::Headers(part) = &mut self.frames.at {
            let passed = most.min(part.left as usize).min(self.bytes.len() - begin);
            part.left -= passed as u32;
            self.at += passed;
        }
        Ok(&mut self.bytes[begin..self.at])
    }

    /// The next byte of the block of headers.
    fn next(&mut self) -> Result<u8, Stop> {
        Ok(self.run(1)?[0])
    }

    /// An integer that begins in the lower `bits` of `first` (RFC 7541, section 5.1).
    #[inline]
    fn integer(&mut self, first: u8, bits: u32) -> Result<u32, Stop> {
        let full = (1 << bits) - 1;
        let mut value = u32::from(first) & full;
        if value < full {
            return Ok(value);
        }
        for place in 0..MAX_MORE {
            let byte = self.next()?;
            value += u32::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Stop::Nonsense)
    }

    /// Whether a string is in Huffman code, and how many bytes it has.
    fn length(&mut self) -> Result<(bool, u32), Stop> {
        let first = self.next()?;
        Ok((first & 0x80 != 0, self.integer(first, 7)?))
    }
}

#[cfg(test)]
mod tests;
