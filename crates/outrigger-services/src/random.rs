//! Bytes from the kernel's generator.

use std::fs::File;
use std::io::{self, Read};

use rustix::io::{Errno, retry_on_intr};
use rustix::rand::{GetRandomFlags, getrandom};

/// Fills `bytes` with random ones.
pub(crate) fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match retry_on_intr(|| getrandom(&mut *rest, GetRandomFlags::empty())) {
            Ok(filled) => rest = &mut rest[filled..],
            // A kernel or a filter without the call has the device.
            Err(Errno::NOSYS | Errno::PERM) => {
                return File::open("/dev/urandom")?.read_exact(rest);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_filled_to_the_last() {
        for length in [0, 1, 300, 70_000] {
            let mut bytes = vec![0; length];
            fill(&mut bytes).expect("random bytes");
            let zeros = bytes.iter().filter(|byte| **byte == 0).count();
            assert!(zeros < 2 + length / 64, "{zeros} of {length}");
        }
    }
}
