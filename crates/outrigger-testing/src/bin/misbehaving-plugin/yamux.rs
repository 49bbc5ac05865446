//! The one stream of a yamux session that a host opens, by hand.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

const DATA: u8 = 0;
const WINDOW: u8 = 1;
const PING: u8 = 2;
const SYN: u16 = 1;
const ACK: u16 = 2;
const FIRST: u32 = 1;

/// The stream that carries the plugin's own services.
pub(crate) struct FirstStream {
    socket: UnixStream,
    arrived: VecDeque<u8>,
    window: u32,
}

impl FirstStream {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            arrived: VecDeque::new(),
            window: 256 << 10,
        }
    }

    fn send(&mut self, kind: u8, flags: u16, id: u32, length: u32) -> io::Result<()> {
        let mut header = vec![0, kind];
        header.extend(flags.to_be_bytes());
        header.extend(id.to_be_bytes());
        header.extend(length.to_be_bytes());
        self.socket.write_all(&header)
    }

    fn take_frame(&mut self) -> io::Result<()> {
        let mut header = [0; 12];
        self.socket.read_exact(&mut header)?;
        let [_, kind, f0, f1, i0, i1, i2, i3, l0, l1, l2, l3] = header;
        let (flags, id) = (
            u16::from_be_bytes([f0, f1]),
            u32::from_be_bytes([i0, i1, i2, i3]),
        );
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        match kind {
            PING if flags & SYN != 0 => return self.send(PING, ACK, 0, length),
            DATA | WINDOW if id == FIRST => {}
            _ => return Ok(()),
        }
        if flags & SYN != 0 {
            self.send(WINDOW, ACK, FIRST, 0)?;
        }
        if kind == WINDOW {
            self.window += length;
            return Ok(());
        }
        let mut data = vec![0; length as usize];
        self.socket.read_exact(&mut data)?;
        self.arrived.extend(data);
        self.send(WINDOW, 0, FIRST, length)
    }
}

impl Read for FirstStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.arrived.is_empty() {
            self.take_frame()?;
        }
        self.arrived.read(buffer)
    }
}

impl Write for FirstStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while self.window == 0 {
            self.take_frame()?;
        }
        let now = bytes.len().min(self.window as usize).min(32 << 10);
        self.window -= now as u32;
        self.send(DATA, 0, FIRST, now as u32)?;
        self.socket.write_all(&bytes[..now])?;
        Ok(now)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
