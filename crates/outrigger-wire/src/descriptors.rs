//! The framing of the descriptor socket, as both of its ends have it: a message
//! of `proto/outrigger/host/v1/descriptors.proto` after its length in four bytes,
//! the most significant first.

use prost::Message;

use crate::Coded;

/// The longest message in either direction, in bytes, without its length.
pub const MAX_FRAME: usize = 64 << 10;
/// The most descriptors that come with one reply: a command's three pipes.
pub const MAX_DESCRIPTORS: usize = 3;

/// Bytes of the length before each message.
const HEAD: usize = 4;
/// Bytes that are read at a time where no longer message is known to come.
const READ: usize = 4 << 10;

/// A message is longer than any may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a message of {length} bytes, where one has at most {MAX_FRAME}")]
pub struct FrameTooLong {
    /// What its length says.
    pub length: usize,
}

impl Coded for FrameTooLong {
    fn code(&self) -> &'static str {
        "frame-too-long"
    }
}

impl FrameTooLong {
    fn check(length: usize) -> Result<usize, Self> {
        if length > MAX_FRAME {
            return Err(Self { length });
        }
        Ok(length)
    }
}

/// Appends `message` and its length to `to`.
///
/// # Errors
/// It is longer than [`MAX_FRAME`]; nothing is appended then.
pub fn put_frame(message: &impl Message, to: &mut Vec<u8>) -> Result<(), FrameTooLong> {
    let length = FrameTooLong::check(message.encoded_len())?;
    // In range, because `MAX_FRAME` is.
    to.extend_from_slice(&(length as u32).to_be_bytes());
    // A vector always has room.
    message.encode(to).map_err(|_| FrameTooLong { length })
}

/// What has arrived and was not taken yet: less than one message and what was
/// read together with it, and never more memory than the longest one takes.
///
/// # Examples
/// ```
/// use outrigger_wire::descriptors::{FrameBuffer, put_frame};
/// use outrigger_wire::proto::host::DescriptorHello;
/// use prost::Message;
///
/// let hello = DescriptorHello { token: vec![7; 32].into() };
/// let mut bytes = Vec::new();
/// put_frame(&hello, &mut bytes)?;
///
/// let mut frames = FrameBuffer::new();
/// for byte in bytes {
///     assert!(!frames.is_ready()?);
///     frames.room()[0] = byte;
///     frames.filled(1);
/// }
/// assert!(frames.is_ready()?);
/// assert_eq!(DescriptorHello::decode(frames.take()), Ok(hello));
/// # Ok::<(), outrigger_wire::descriptors::FrameTooLong>(())
/// ```
#[derive(Debug, Default)]
pub struct FrameBuffer {
    buffer: Vec<u8>,
    /// Where what arrived and was not taken begins, and where it ends.
    start: usize,
    end: usize,
}

impl FrameBuffer {
    /// Nothing has arrived.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a whole message is there to be taken.
    ///
    /// # Errors
    /// The next one is longer than [`MAX_FRAME`].
    pub fn is_ready(&self) -> Result<bool, FrameTooLong> {
        let length = self.length().map(FrameTooLong::check).transpose()?;
        Ok(length.is_some_and(|length| self.arrived().len() >= HEAD + length))
    }

    /// Takes the message that is ready; empty where none is.
    pub fn take(&mut self) -> &[u8] {
        let Some(length) = self.length() else {
            return &[];
        };
        let from = self.start + HEAD;
        let to = from.saturating_add(length);
        if to > self.end {
            return &[];
        }
        self.start = to;
        self.buffer.get(from..to).unwrap_or_default()
    }

    /// Whether nothing has arrived that was not taken.
    pub fn is_empty(&self) -> bool {
        self.arrived().is_empty()
    }

    /// Where to read on; never empty where no message is ready.
    pub fn room(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= std::mem::take(&mut self.start);
        let length = self.length().unwrap_or(0).min(MAX_FRAME);
        let wanted = (HEAD + length).max(READ);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// So many bytes of [`room`](Self::room) were read.
    pub fn filled(&mut self, bytes: usize) {
        self.end = self.buffer.len().min(self.end + bytes);
    }

    fn arrived(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    fn length(&self) -> Option<usize> {
        let (length, _) = self.arrived().split_first_chunk::<HEAD>()?;
        usize::try_from(u32::from_be_bytes(*length)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::host::DescriptorHello;

    fn hello(length: usize) -> DescriptorHello {
        DescriptorHello {
            token: vec![7; length].into(),
        }
    }

    #[test]
    fn the_longest_message_is_framed_and_one_byte_more_is_not() {
        // The tag and length of the only field take four bytes.
        let longest = hello(MAX_FRAME - 4);
        let mut bytes = Vec::new();
        put_frame(&longest, &mut bytes).expect("it fits");
        assert_eq!(bytes.len(), HEAD + MAX_FRAME);
        assert_eq!(bytes.get(..HEAD), Some(&[0, 1, 0, 0][..]));
        bytes.clear();
        let refused = put_frame(&hello(MAX_FRAME - 3), &mut bytes).expect_err("too long");
        assert_eq!(refused.code(), "frame-too-long");
        assert_eq!(
            refused.to_string(),
            "a message of 65537 bytes, where one has at most 65536"
        );
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_length_that_no_message_may_have_is_refused_before_anything_is_kept_for_it() {
        for length in [MAX_FRAME as u32 + 1, u32::MAX] {
            let mut frames = FrameBuffer::new();
            frames.room()[..HEAD].copy_from_slice(&length.to_be_bytes());
            frames.filled(HEAD);
            let refused = frames.is_ready().expect_err("too long");
            assert_eq!(refused.length, length as usize);
            assert!(frames.take().is_empty());
            assert!(frames.room().len() <= HEAD + MAX_FRAME);
        }
    }

    #[test]
    fn nothing_is_taken_before_it_is_whole() {
        let mut frames = FrameBuffer::new();
        assert!(frames.take().is_empty());
        frames.room()[..6].copy_from_slice(&[0, 0, 0, 3, 1, 2]);
        frames.filled(6);
        assert_eq!(frames.is_ready(), Ok(false));
        assert!(frames.take().is_empty() && !frames.is_empty());
        frames.room()[..2].copy_from_slice(&[3, 0]);
        frames.filled(2);
        assert_eq!(frames.is_ready(), Ok(true));
        assert_eq!(frames.take(), [1, 2, 3]);
        assert!(!frames.is_empty());
    }
}
