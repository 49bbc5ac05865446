//! What a process prints, read at the pace of whoever takes it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustix::io::Errno;
use tokio::net::unix::pipe;

use super::child::Child;

/// The most bytes of one part; what a pipe holds unless somebody enlarged it.
pub(crate) const CHUNK: usize = 64 << 10;
/// A part that fills less of its buffer than this is copied out of it.
const SMALL: usize = CHUNK / 4;

/// A part of what a process printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Output(Bytes),
    Error(Bytes),
}

/// The host's ends of a process's stdout and stderr.
///
/// Nothing is read ahead: a process that nobody reads from fills its pipe and
/// waits.
#[derive(Debug)]
pub(crate) struct Outputs {
    stdout: Option<Pipe>,
    stderr: Option<Pipe>,
    ended: bool,
}

#[derive(Debug)]
struct Pipe {
    receiver: pipe::Receiver,
    buffer: BytesMut,
    /// How much is still taken once the process has ended: what the pipe can
    /// hold. Somebody who escaped the process's end may write for ever.
    left: usize,
}

impl Outputs {
    /// Nothing to read: somebody else does.
    pub(crate) fn none() -> Self {
        Self {
            stdout: None,
            stderr: None,
            ended: false,
        }
    }

    pub(crate) fn new(stdout: pipe::Receiver, stderr: pipe::Receiver) -> Self {
        Self {
            stdout: Some(Pipe::new(stdout)),
            stderr: Some(Pipe::new(stderr)),
            ended: false,
        }
    }

    /// Both pipes, for somebody else to read.
    pub(crate) fn into_fds(self) -> io::Result<[OwnedFd; 2]> {
        let fd = |pipe: Option<Pipe>| {
            let pipe = pipe.ok_or(io::ErrorKind::BrokenPipe)?;
            pipe.receiver.into_blocking_fd()
        };
        Ok([fd(self.stdout)?, fd(self.stderr)?])
    }

    /// The next part, of at most [`CHUNK`] bytes; nothing once both pipes are
    /// closed, or the process has ended and what it printed was taken.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn next(&mut self, child: &Arc<Child>) -> io::Result<Option<Part>> {
        loop {
            if self.ended {
                return self.rest();
            }
            if self.stdout.is_none() && self.stderr.is_none() {
                return Ok(None);
            }
            tokio::select! {
                read = read(&mut self.stdout) => match read? {
                    Some(bytes) => return Ok(Some(Part::Output(bytes))),
                    None => self.stdout = None,
                },
                read = read(&mut self.stderr) => match read? {
                    Some(bytes) => return Ok(Some(Part::Error(bytes))),
                    None => self.stderr = None,
                },
                _ = child.ended() => self.end()?,
            }
        }
    }

    /// From now on only what is in the pipes is taken.
    fn end(&mut self) -> io::Result<()> {
        self.ended = true;
        for pipe in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            pipe.left = rustix::pipe::fcntl_getpipe_size(&pipe.receiver)?;
        }
        Ok(())
    }

    fn rest(&mut self) -> io::Result<Option<Part>> {
        if let Some(bytes) = rest(&mut self.stdout)? {
            return Ok(Some(Part::Output(bytes)));
        }
        Ok(rest(&mut self.stderr)?.map(Part::Error))
    }
}

/// What one of the pipes has, or nothing at its end.
async fn read(pipe: &mut Option<Pipe>) -> io::Result<Option<Bytes>> {
    match pipe {
        Some(pipe) => pipe.read().await,
        None => std::future::pending().await,
    }
}

/// What one of the pipes has at once.
fn rest(pipe: &mut Option<Pipe>) -> io::Result<Option<Bytes>> {
    let Some(open) = pipe else {
        return Ok(None);
    };
    let rest = open.rest()?;
    if rest.is_none() {
        *pipe = None;
    }
    Ok(rest)
}

impl Pipe {
    fn new(receiver: pipe::Receiver) -> Self {
        Self {
            receiver,
            buffer: BytesMut::new(),
            left: 0,
        }
    }

    async fn read(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            self.receiver.readable().await?;
            self.buffer.resize(CHUNK, 0);
            match self.receiver.try_read(&mut self.buffer) {
                Ok(read) => return Ok(self.take(read)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads past the runtime, which may not know yet what the pipe has.
    fn rest(&mut self) -> io::Result<Option<Bytes>> {
        self.buffer.resize(CHUNK.min(self.left), 0);
        if self.buffer.is_empty() {
            return Ok(None);
        }
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.receiver, &mut self.buffer[..])) {
            Ok(read) => {
                self.left -= read;
                Ok(self.take(read))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn take(&mut self, read: usize) -> Option<Bytes> {
        match read {
            0 => None,
            1..SMALL => Some(Bytes::copy_from_slice(&self.buffer[..read])),
            _ => Some(self.buffer.split_to(read).freeze()),
        }
    }
}
