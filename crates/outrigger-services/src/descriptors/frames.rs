//! Messages on the descriptor socket.

use std::io::{self, IoSlice, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use outrigger_wire::descriptors::{FrameBuffer, FrameTooLong, MAX_DESCRIPTORS, put_frame};
use outrigger_wire::proto::host::DescriptorReply;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Sends one message; the descriptors go with its first byte.
pub(crate) fn send(
    stream: &UnixStream,
    buffer: &mut Vec<u8>,
    reply: &DescriptorReply,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    buffer.clear();
    put_frame(reply, buffer).map_err(no_message)?;
    let mut space =
        [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut rest = buffer.as_slice();
    while !rest.is_empty() {
        let parts = [IoSlice::new(rest)];
        match sendmsg(stream, &parts, &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => {
                rest = rest.get(sent..).unwrap_or_default();
                control.clear();
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn no_message(error: FrameTooLong) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Messages of a peer. Descriptors that it sends are dropped by the kernel.
pub(crate) struct Frames<'a> {
    stream: &'a UnixStream,
    buffer: FrameBuffer,
}

impl<'a> Frames<'a> {
    pub(crate) fn new(stream: &'a UnixStream) -> Self {
        let buffer = FrameBuffer::new();
        Self { stream, buffer }
    }

    /// The next message; nothing when the peer is done.
    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        while !self.buffer.is_ready().map_err(no_message)? {
            match (&mut &*self.stream).read(self.buffer.room()) {
                Ok(0) => return Ok(None),
                Ok(read) => self.buffer.filled(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(self.buffer.take()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use outrigger_wire::descriptors::MAX_FRAME;

    use super::*;

    #[test]
    fn messages_are_found_however_they_are_cut_and_an_endless_one_is_refused() {
        let (mut writer, reader) = UnixStream::pair().expect("a pair");
        let mut bytes = Vec::new();
        for length in [0_usize, 1, 5000, MAX_FRAME] {
            bytes.extend_from_slice(&(length as u32).to_be_bytes());
            bytes.extend(std::iter::repeat_n(9, length));
        }
        bytes.extend_from_slice(&(MAX_FRAME as u32 + 1).to_be_bytes());
        let sending = std::thread::spawn(move || {
            for part in bytes.chunks(977) {
                writer.write_all(part).expect("the reader takes it");
            }
        });
        let mut frames = Frames::new(&reader);
        for length in [0, 1, 5000, MAX_FRAME] {
            let frame = frames.next().expect("readable").expect("there");
            assert_eq!(frame.len(), length);
        }
        let refused = frames.next().expect_err("too long");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        sending.join().expect("no panic");
    }
}
