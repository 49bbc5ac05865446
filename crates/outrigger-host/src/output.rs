//! A plugin's stdout: one handshake line, then nothing that anyone reads.

use outrigger_wire::MAX_HANDSHAKE_LINE;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::oneshot;

/// What came on stdout before the first line end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FirstLine {
    /// A line, or what stood there when stdout ended.
    Line(Vec<u8>),
    /// Stdout ended and nothing had come.
    Nothing,
    /// More bytes than a handshake line has, without a line end; the start of them.
    TooLong(Vec<u8>),
}

/// Reads `stdout` to its end, so that the plugin never blocks on it, and
/// reports its first line.
pub(crate) async fn drain(mut stdout: impl AsyncRead + Unpin, first: oneshot::Sender<FirstLine>) {
    let mut chunk = vec![0; 8 << 10];
    let mut line = Vec::new();
    let found = loop {
        match stdout.read(&mut chunk).await {
            Ok(0) | Err(_) if line.is_empty() => break FirstLine::Nothing,
            Ok(0) | Err(_) => break FirstLine::Line(std::mem::take(&mut line)),
            Ok(read) => {
                let end = chunk[..read].iter().position(|byte| *byte == b'\n');
                line.extend_from_slice(&chunk[..end.unwrap_or(read)]);
                if line.len() >= MAX_HANDSHAKE_LINE {
                    line.truncate(MAX_HANDSHAKE_LINE);
                    break FirstLine::TooLong(std::mem::take(&mut line));
                }
                if end.is_some() {
                    break FirstLine::Line(std::mem::take(&mut line));
                }
            }
        }
    };
    // Nobody waits any more when the launch was given up.
    let _ = first.send(found);
    drop(line);
    while matches!(stdout.read(&mut chunk).await, Ok(1..)) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn first_of(stdout: &[u8]) -> FirstLine {
        let (sender, receiver) = oneshot::channel();
        drain(stdout, sender).await;
        receiver.await.expect("a report")
    }

    #[tokio::test]
    async fn the_first_line_is_found_whole_or_unterminated_and_bounded() {
        assert_eq!(
            first_of(b"1|2\nmore\n").await,
            FirstLine::Line(b"1|2".to_vec())
        );
        assert_eq!(first_of(b"1|2").await, FirstLine::Line(b"1|2".to_vec()));
        assert_eq!(first_of(b"\n1|2\n").await, FirstLine::Line(Vec::new()));
        assert_eq!(first_of(b"").await, FirstLine::Nothing);
        let endless = vec![b'x'; MAX_HANDSHAKE_LINE * 3];
        assert!(
            matches!(first_of(&endless).await, FirstLine::TooLong(l) if l.len() == MAX_HANDSHAKE_LINE)
        );
    }
}
