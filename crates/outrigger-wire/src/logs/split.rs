//! Bytes to lines, without ever holding more than one buffer.

use std::io::BufRead;

/// How many bytes of a line a host keeps together unless told otherwise.
pub const DEFAULT_LINE_BUFFER: usize = 65536;

/// The smallest buffer that has an effect; less is taken as this.
pub const MIN_LINE_BUFFER: usize = 16;

/// A line without its line ending, or a part of a line that is too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece<'a> {
    /// The text. It ends neither in `\n` nor, if a `\n` followed, in `\r\n`.
    pub bytes: &'a [u8],
    /// Whether the line ends here. A raw copy adds a `\n` after this piece.
    pub complete: bool,
    /// Whether this is part of a line that did not fit the buffer, be it the
    /// first part or the last.
    pub long: bool,
}

/// Cuts a stream of bytes into lines.
///
/// A line must fit the buffer together with its line ending. One that does
/// not is handed out in pieces as long as the buffer, as soon as each is full.
/// A `\r` at the end of a full buffer waits for the next piece, because the
/// `\n` that makes it a line ending may follow.
///
/// ```
/// use outrigger_wire::logs::LineSplitter;
///
/// let mut splitter = LineSplitter::new(16);
/// let mut raw = Vec::new();
/// let mut copy = |piece: outrigger_wire::logs::Piece<'_>| {
///     raw.extend_from_slice(piece.bytes);
///     if piece.complete {
///         raw.push(b'\n');
///     }
/// };
/// splitter.push(b"short\r\nthis is longer than the ", &mut copy);
/// splitter.push(b"buffer", &mut copy);
/// splitter.finish(&mut copy);
/// assert_eq!(raw, b"short\nthis is longer than the buffer\n");
/// ```
#[derive(Clone, Debug)]
pub struct LineSplitter {
    /// The beginning of the current line or piece: without `\n`, and shorter
    /// than `capacity`.
    held: Vec<u8>,
    capacity: usize,
    /// Whether pieces of the current line have been handed out already.
    continued: bool,
}

impl LineSplitter {
    /// A splitter that holds up to `buffer` bytes, but at least
    /// [`MIN_LINE_BUFFER`].
    pub fn new(buffer: usize) -> LineSplitter {
        LineSplitter {
            held: Vec::new(),
            capacity: buffer.max(MIN_LINE_BUFFER),
            continued: false,
        }
    }

    /// Takes in what was read and hands out every piece it completes.
    pub fn push(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            let room = self.capacity - self.held.len();
            let window = &bytes[..room.min(bytes.len())];
            match line_end(window) {
                Some(newline) => {
                    self.end_line(&window[..newline], sink);
                    bytes = &bytes[newline + 1..];
                }
                None => {
                    self.held.extend_from_slice(window);
                    bytes = &bytes[window.len()..];
                    if self.held.len() == self.capacity {
                        self.end_piece(sink);
                    }
                }
            }
        }
    }

    /// Hands out what is left at the end of the stream, if anything is. The
    /// splitter is then ready for another stream.
    ///
    /// As in Go, nothing is left of an unterminated line whose last piece
    /// filled the buffer, so that no piece of it is
    /// [`complete`](Piece::complete).
    pub fn finish(&mut self, sink: &mut impl FnMut(Piece<'_>)) {
        let long = std::mem::take(&mut self.continued);
        if !self.held.is_empty() {
            sink(Piece {
                bytes: &self.held,
                complete: true,
                long,
            });
            self.held.clear();
        }
    }

    fn end_line(&mut self, tail: &[u8], sink: &mut impl FnMut(Piece<'_>)) {
        let long = std::mem::take(&mut self.continued);
        // Most lines arrive whole and need not be copied.
        let line = if self.held.is_empty() {
            tail
        } else {
            self.held.extend_from_slice(tail);
            &self.held
        };
        sink(Piece {
            bytes: line.strip_suffix(b"\r").unwrap_or(line),
            complete: true,
            long,
        });
        self.held.clear();
    }

    fn end_piece(&mut self, sink: &mut impl FnMut(Piece<'_>)) {
        let kept_back = self.held.pop_if(|byte| *byte == b'\r');
        sink(Piece {
            bytes: &self.held,
            complete: false,
            long: true,
        });
        self.held.clear();
        self.held.extend(kept_back);
        self.continued = true;
    }
}

/// Where the first line end is. The standard library searches many bytes at a
/// time, which matters when a plugin floods its stderr.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    // Reading from memory does not fail.
    let passed = rest.skip_until(b'\n').unwrap_or_default();
    let end = passed.checked_sub(1)?;
    (bytes[end] == b'\n').then_some(end)
}

impl Default for LineSplitter {
    /// A splitter that holds up to [`DEFAULT_LINE_BUFFER`] bytes.
    fn default() -> LineSplitter {
        LineSplitter::new(DEFAULT_LINE_BUFFER)
    }
}

#[cfg(test)]
mod tests;
