//! As much of HTTP/1.1 as two ends need that send one request over a stream
//! which is already there.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};

/// The largest body that is read, in bytes.
const MAX_BODY: u64 = 16 << 20;
/// The longest line of a head, in bytes.
const MAX_LINE: u64 = 8 << 10;
/// The most lines of a head.
const MAX_LINES: usize = 100;

/// A request or a response.
#[derive(Debug)]
struct Message {
    first: String,
    body: Vec<u8>,
}

/// A request that came in.
#[derive(Debug)]
pub struct Request {
    /// `GET` or another word.
    pub method: String,
    /// Beginning with a slash.
    pub path: String,
    /// Empty where there is none.
    pub body: Vec<u8>,
}

/// Sends a request and reads the body of a response with status 200.
///
/// # Errors
/// Another status, a response that is too large, or none.
///
/// # Cancel safety
/// When the future is dropped, the stream is of no further use.
pub async fn fetch(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    host: &str,
    body: &[u8],
) -> Result<Vec<u8>> {
    let mut head = format!("{method} / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    if !body.is_empty() {
        write!(head, "Content-Length: {}\r\n", body.len())?;
    }
    head.push_str("\r\n");
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = BufReader::new(reader);
    // A server may answer before it has read everything.
    let send = async {
        writer.write_all(head.as_bytes()).await?;
        writer.write_all(body).await?;
        writer.flush().await?;
        Ok::<_, anyhow::Error>(())
    };
    let received = read(&mut reader, true);
    tokio::pin!(send, received);
    let message = tokio::select! {
        biased;
        // Once it has answered it may read no more.
        message = &mut received => message?,
        sent = &mut send => match (received.await, sent) {
            (Ok(message), _) => message,
            (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
        },
    };
    let status = message.first.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "the answer is {:?}", message.first);
    Ok(message.body)
}

/// Reads one request, sends what `answer` makes of it, and closes the stream.
///
/// # Errors
/// No whole request came, or the peer is gone.
///
/// # Cancel safety
/// When the future is dropped, the stream is of no further use.
pub async fn answer_one(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: impl FnOnce(&Request) -> Vec<u8>,
) -> Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let message = read(&mut BufReader::new(reader), false).await?;
    let mut words = message.first.split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let request = Request {
        method: word(),
        path: word(),
        body: message.body,
    };
    let body = answer(&request);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    writer.write_all(head.as_bytes()).await?;
    writer.write_all(&body).await?;
    writer.shutdown().await?;
    Ok(())
}

/// A message without `Content-Length` and chunks has no body, or one up to the
/// end of the stream where `to_end` says so.
async fn read(from: &mut (impl AsyncBufRead + Unpin), to_end: bool) -> Result<Message> {
    let first = line(from).await?;
    ensure!(!first.is_empty(), "the stream ended before its first line");
    let (mut length, mut chunked) = (None, false);
    for count in 0.. {
        ensure!(count < MAX_LINES, "more than {MAX_LINES} lines of head");
        let line = line(from).await?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').context("a line without a colon")?;
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<u64>()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.trim().eq_ignore_ascii_case("chunked");
        }
    }
    let mut body = Vec::new();
    match length {
        _ if chunked => loop {
            let size = line(from).await?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16)?;
            exactly(from, size, &mut body).await?;
            ensure!(line(from).await?.is_empty(), "a chunk that does not end");
            if size == 0 {
                break;
            }
        },
        Some(length) => exactly(from, length, &mut body).await?,
        None if to_end => {
            from.take(MAX_BODY + 1).read_to_end(&mut body).await?;
            ensure!(body.len() as u64 <= MAX_BODY, "the body is too large");
        }
        None => {}
    }
    Ok(Message { first, body })
}

async fn exactly(
    from: &mut (impl AsyncBufRead + Unpin),
    count: u64,
    into: &mut Vec<u8>,
) -> Result<()> {
    let before = into.len() as u64;
    ensure!(
        before.saturating_add(count) <= MAX_BODY,
        "the body is too large"
    );
    from.take(count).read_to_end(into).await?;
    ensure!(
        into.len() as u64 == before + count,
        "the body ends too early"
    );
    Ok(())
}

async fn line(from: &mut (impl AsyncBufRead + Unpin)) -> Result<String> {
    let mut line = String::new();
    from.take(MAX_LINE).read_line(&mut line).await?;
    if line.len() as u64 == MAX_LINE {
        bail!("a line of more than {MAX_LINE} bytes");
    }
    while line.ends_with(['\r', '\n']) {
        line.pop();
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_comes_early_is_taken() {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let answer = async {
            let mut head = [0; 16];
            far.read_exact(&mut head).await.expect("a request");
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly";
            far.write_all(answer).await.expect("written");
        };
        let body = vec![0; 1 << 20];
        let (fetched, ()) = tokio::join!(fetch(near, "POST", "host", &body), answer);
        assert_eq!(fetched.expect("a body"), b"early");
    }
}
