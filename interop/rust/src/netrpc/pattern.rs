//! The bytes of test streams: number i is the low byte of i.

use anyhow::{Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Digest;

/// Bytes that are written or read at a time.
const PART: usize = 64 << 10;

/// Writes `count` pattern bytes and nothing else; the stream stays open.
///
/// # Errors
/// The peer is gone.
///
/// # Cancel safety
/// When the future is dropped, nobody knows how many bytes were written.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), count: u64) -> std::io::Result<u64> {
    let part: Vec<u8> = (0..PART).map(|n| n.to_le_bytes()[0]).collect();
    let mut left = count;
    while left > 0 {
        let now = left.min(PART as u64) as usize;
        to.write_all(&part[..now]).await?;
        left -= now as u64;
    }
    Ok(count)
}

/// Reads to the end and fails unless exactly `count` pattern bytes came.
///
/// # Errors
/// Others came, or the connection broke.
///
/// # Cancel safety
/// Bytes that were read are lost when the future is dropped.
pub async fn check(from: &mut (impl AsyncRead + Unpin), count: u64) -> Result<()> {
    let mut buffer = vec![0; PART];
    let mut got = 0_u64;
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            ensure!(got == count, "{got} bytes came, not {count}");
            return Ok(());
        }
        for byte in &buffer[..read] {
            ensure!(*byte == got.to_le_bytes()[0], "byte {got} is {byte}");
            got += 1;
        }
        ensure!(got <= count, "more than {count} bytes came");
    }
}

/// The digest of everything up to the end.
///
/// # Errors
/// The connection broke.
///
/// # Cancel safety
/// Bytes that were read are lost when the future is dropped.
pub async fn digest(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Digest> {
    let mut buffer = vec![0; PART];
    let mut digest = Digest::default();
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(digest);
        }
        let sum: u64 = buffer[..read].iter().map(|byte| u64::from(*byte)).sum();
        digest.sum = digest.sum.wrapping_add(sum);
        digest.bytes += read as u64;
    }
}

/// The digest of the first `count` pattern bytes.
pub fn digest_of(count: u64) -> Digest {
    let rest = count % 256;
    let sum = (count / 256 * (255 * 256 / 2)).wrapping_add(rest * rest.saturating_sub(1) / 2);
    Digest { bytes: count, sum }
}
