//! A plugin's stderr, as `tracing` events of the host.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use outrigger_transport::plugin_log;
use outrigger_wire::logs::{Level, LineSplitter, Piece, StderrClassifier};
use outrigger_wire::{EXCERPT_LIMIT, Excerpt};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How many of the last lines are kept to explain an end.
const TAIL_LINES: usize = 20;
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// How much of such a line is kept, in bytes: more than an excerpt shows.
const TAIL_LINE: usize = EXCERPT_LIMIT + 8;

/// The last lines of a plugin's stderr. They are escaped and cut when somebody
/// asks for them, because most are never asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<TailLine>>>);

#[derive(Debug, Default)]
struct TailLine {
    head: Vec<u8>,
    length: usize,
}

impl Tail {
    fn push(&self, line: &[u8]) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = if lines.len() == TAIL_LINES {
            lines.pop_front()
        } else {
            None
        };
        let mut kept = oldest.unwrap_or_default();
        kept.head.clear();
        kept.head
            .extend_from_slice(&line[..line.len().min(TAIL_LINE)]);
        kept.length = line.len();
        lines.push_back(kept);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .map(|kept| Excerpt::beginning(&kept.head, kept.length).to_string())
            .collect()
    }
}

/// Reads `stderr` to its end: raw bytes to `copy`, parsed lines to `tracing`
/// under `plugin`, the last lines to `tail`.
pub(crate) async fn pump(
    mut stderr: impl AsyncRead + Unpin,
    plugin: String,
    buffer: usize,
    mut copy: Option<Box<dyn Write + Send>>,
    tail: Tail,
) {
    let mut splitter = LineSplitter::new(buffer);
    let mut classifier = StderrClassifier::new();
    let mut chunk = vec![0; CHUNK];
    let mut sink = |piece: Piece<'_>| {
        if let Some(copy) = &mut copy {
            let end: &[u8] = if piece.complete { b"\n" } else { b"" };
            if let Err(error) = copy
                .write_all(piece.bytes)
                .and_then(|()| copy.write_all(end))
            {
                tracing::warn!(plugin, %error, "could not copy a line of the plugin's stderr");
            }
        }
        if !piece.bytes.is_empty() {
            tail.push(piece.bytes);
        }
        if plugin_log::is_kept(Level::Error) {
            plugin_log::emit(&plugin, &classifier.classify(&piece));
        }
    };
    loop {
        match stderr.read(&mut chunk).await {
            Ok(0) => break,
            Ok(read) => splitter.push(&chunk[..read], &mut sink),
            Err(error) => {
                tracing::warn!(%error, "could not read a plugin's stderr");
                break;
            }
        }
    }
    splitter.finish(&mut sink);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn raw_bytes_are_copied_and_the_last_lines_kept() {
        #[derive(Clone, Default)]
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().expect("lock").extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (copy, tail) = (Shared::default(), Tail::default());
        let text: String = (0..30).map(|n| format!("line {n}\n")).collect();
        let stderr = std::io::Cursor::new(format!("{text}\x1b[2J end").into_bytes());
        pump(
            stderr,
            "p".into(),
            65536,
            Some(Box::new(copy.clone())),
            tail.clone(),
        )
        .await;
        let expected = format!("{text}\x1b[2J end\n");
        assert_eq!(
            String::from_utf8_lossy(&copy.0.lock().expect("lock")),
            expected
        );
        let lines = tail.lines();
        assert_eq!(lines.len(), TAIL_LINES);
        assert!(!lines.last().expect("a line").contains('\x1b'), "{lines:?}");
    }
}
