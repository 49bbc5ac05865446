//! The least that a plugin does: listen, print a line, answer one byte. The
//! floor that the start measures are compared with.
#![allow(clippy::print_stdout)]

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

fn main() -> std::io::Result<()> {
    let path = std::env::temp_dir().join(format!("bench-empty-{}", std::process::id()));
    let listener = UnixListener::bind(&path)?;
    println!("{}", path.display());
    std::io::stdout().flush()?;
    let (mut socket, _) = listener.accept()?;
    std::fs::remove_file(&path)?;
    let mut byte = [0];
    socket.read_exact(&mut byte)?;
    socket.write_all(&byte)
}
