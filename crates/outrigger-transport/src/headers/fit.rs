//! What is sent fits into what the peer accepts.

use std::fmt::Write;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use tonic::Status;

/// What each field counts beside its text (RFC 9113, section 6.5.2), in bytes.
const FIELD: usize = 32;
/// `:status` and its value, in bytes.
const RESPONSE: usize = 7 + 3 + FIELD;
/// `:method`, `:scheme`, `:authority` and `:path` without the last two's values,
/// in bytes.
const REQUEST: usize = 7 + 4 + 7 + 4 + 10 + 5 + 4 * FIELD;
/// An error text is not shortened to less than this; other things go first.
const SHORTEST_TEXT: usize = 512;
/// gRPC's C core announces 16 KiB, and turns away at random what is above half of
/// that. A limit up to this is used by half.
const WEAK_LIMIT: usize = 64 << 10;

/// The size of a header list as HTTP/2 counts it, in bytes.
fn size_of(list: &HeaderMap) -> usize {
    list.iter().map(|(name, value)| field(name, value)).sum()
}

fn field(name: &HeaderName, value: &HeaderValue) -> usize {
    name.as_str().len() + value.len() + FIELD
}

/// What a header list takes in memory, in bytes.
pub(super) fn size_in_memory(list: &HeaderMap) -> usize {
    size_of(list) + list.len() * (super::fields::FIELD - FIELD)
}

/// The size of the header list of a request, in bytes.
pub(crate) fn request_size<T>(request: &Request<T>) -> usize {
    let uri = request.uri();
    let authority = uri
        .authority()
        .map_or(0, |authority| authority.as_str().len());
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    REQUEST + authority + path + size_of(request.headers())
}

/// Makes the head of a reply fit into `limit`: one that is an error at once is
/// shortened, in place of another one the call fails.
pub(crate) fn fit_head(
    reply: Response<tonic::body::Body>,
    limit: usize,
) -> Response<tonic::body::Body> {
    let size = RESPONSE + size_of(reply.headers());
    if fits(size, limit) {
        return reply;
    }
    let mut reply = if reply.headers().contains_key(Status::GRPC_STATUS) {
        reply
    } else {
        too_large("the reply's metadata", size, limit).into_http()
    };
    fit(reply.headers_mut(), RESPONSE, limit);
    reply
}

/// Makes the trailers of a reply fit into `limit`.
pub(crate) fn fit_trailers(trailers: &mut HeaderMap, limit: usize) {
    if !fits(size_of(trailers), limit) {
        fit(trailers, 0, limit);
    }
}

/// Whether a list of `size` bytes may be sent to a peer that accepts `limit`. Some
/// peers turn away what is exactly as long as their limit.
pub(crate) fn fits(size: usize, limit: usize) -> bool {
    size < limit
}

/// The error of a call whose metadata is more than the peer accepts.
pub(crate) fn too_large(what: &str, size: usize, limit: usize) -> Status {
    Status::resource_exhausted(format!(
        "{what} takes {size} bytes; the peer accepts {limit} (SETTINGS_MAX_HEADER_LIST_SIZE)"
    ))
}

/// Makes the fields that end a call fit: of an error the code stays; its text is
/// shortened, its details and other metadata are left out where that is not enough.
fn fit(list: &mut HeaderMap, pseudo: usize, limit: usize) {
    let room = if limit > WEAK_LIMIT {
        limit - 1
    } else {
        limit / 2
    };
    let size = pseudo + size_of(list);
    if is_success(list) {
        let status = too_large("the reply's trailing metadata", size, limit);
        list.clear();
        let _ = status.add_header(list);
        return;
    }
    let text = list.remove(Status::GRPC_MESSAGE);
    let full = text.as_ref().map_or(0, HeaderValue::len);
    let wanted = Status::GRPC_MESSAGE.as_str().len() + FIELD + full.min(SHORTEST_TEXT);
    let mut left_out = String::new();
    if pseudo + size_of(list) + wanted > room
        && let Some(details) = list.remove(Status::GRPC_STATUS_DETAILS)
    {
        let _ = write!(left_out, " [left out: details of {} bytes]", details.len());
    }
    if pseudo + size_of(list) + wanted > room {
        let before = size_of(list);
        let kept = [http::header::CONTENT_TYPE, Status::GRPC_STATUS];
        let kept = kept.map(|name| list.remove(&name).map(|value| (name, value)));
        list.clear();
        list.extend(kept.into_iter().flatten());
        let _ = write!(
            left_out,
            " [left out: metadata of {} bytes]",
            before - size_of(list)
        );
    }
    let taken = pseudo + size_of(list) + Status::GRPC_MESSAGE.as_str().len() + FIELD;
    let text = text.as_ref().map_or(&[][..], HeaderValue::as_bytes);
    let text = shortened(text, &left_out, room.saturating_sub(taken));
    if let Ok(text) = HeaderValue::from_bytes(&text)
        && !text.is_empty()
    {
        list.insert(Status::GRPC_MESSAGE, text);
    }
}

fn is_success(list: &HeaderMap) -> bool {
    list.get(Status::GRPC_STATUS)
        .is_some_and(|code| code.as_bytes() == b"0")
}

/// A percent-encoded text and what is to be said behind it, within `room` bytes.
fn shortened(text: &[u8], behind: &str, room: usize) -> Vec<u8> {
    if text.len() + behind.len() <= room {
        return [text, behind.as_bytes()].concat();
    }
    let behind = format!(" [shortened from {} bytes]{behind}", text.len());
    let cut = room.saturating_sub(behind.len());
    let mut kept = text
        .get(..whole_characters(text, cut))
        .unwrap_or_default()
        .to_vec();
    kept.extend_from_slice(behind.as_bytes());
    kept
}

/// The greatest length up to `length` at which a percent-encoded text may be cut.
fn whole_characters(text: &[u8], length: usize) -> usize {
    let mut cut = length.min(text.len());
    // Not inside an escape …
    for back in 1..=2 {
        if cut >= back && text.get(cut - back) == Some(&b'%') {
            cut -= back;
            break;
        }
    }
    // … and not in front of one that continues a character.
    while let Some([b'%', b'8' | b'9' | b'A' | b'B' | b'a' | b'b', ..]) = text.get(cut..)
        && cut >= 3
    {
        cut -= 3;
    }
    cut
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tonic::metadata::MetadataMap;
    use tonic::{Code, Status};

    use super::*;

    const C_CORE: usize = 16 << 10;

    fn failing(text: &str, details: usize, metadata: usize) -> HeaderMap {
        let mut more = MetadataMap::new();
        if metadata > 0 {
            more.insert("more", "m".repeat(metadata).parse().expect("a value"));
        }
        let details = Bytes::from(vec![7; details]);
        let status =
            Status::with_details_and_metadata(Code::FailedPrecondition, text, details, more);
        let mut list = HeaderMap::new();
        status.add_header(&mut list).expect("headers");
        list
    }

    fn arrives(mut list: HeaderMap, limit: usize) -> Status {
        fit_trailers(&mut list, limit);
        assert!(size_of(&list) <= limit, "{} bytes", size_of(&list));
        Status::from_header_map(&list).expect("a status")
    }

    #[test]
    fn what_fits_is_left_as_it_is() {
        let status = arrives(failing("no", 100, 100), C_CORE);
        assert_eq!(status.message(), "no");
        assert_eq!(status.details().len(), 100);
        assert!(status.metadata().contains_key("more"));
        let long = "long ".repeat(80_000);
        assert_eq!(arrives(failing(&long, 0, 0), 16 << 20).message(), long);
    }

    #[test]
    fn a_long_text_is_shortened_at_a_character_and_says_so() {
        for unit in ["a", "ä", "€", "😀", "%", "a€", "ab€", "abc€%"] {
            let long = unit.repeat(400_000 / unit.len());
            for limit in C_CORE..C_CORE + 24 {
                let status = arrives(failing(&long, 0, 0), limit);
                assert_eq!(status.code(), Code::FailedPrecondition, "{unit}");
                let (text, mark) = status.message().split_once(" [").expect("a mark");
                assert!(long.starts_with(text) && text.len() > 1000, "{unit} {text}");
                assert!(mark.starts_with("shortened from "), "{mark}");
            }
        }
    }

    #[test]
    fn of_an_error_that_is_too_large_the_code_stays_and_details_go_before_the_text() {
        let status = arrives(failing("short", 20_000, 10), C_CORE);
        assert_eq!(status.message(), "short [left out: details of 26667 bytes]");
        assert!(status.details().is_empty());
        assert!(status.metadata().contains_key("more"));
        let status = arrives(failing(&"x".repeat(90_000), 100, 10), C_CORE);
        assert_eq!(status.details().len(), 100);
        let status = arrives(failing("short", 20_000, 90_000), C_CORE);
        assert!(
            status.message().contains("metadata of 90036 bytes"),
            "{status}"
        );
        for limit in [0, 10, 100, 200] {
            let mut list = failing(&"x".repeat(90_000), 20_000, 90_000);
            fit_trailers(&mut list, limit);
            let status = Status::from_header_map(&list).expect("a status");
            assert_eq!(status.code(), Code::FailedPrecondition, "{limit}");
        }
    }

    #[test]
    fn a_success_whose_metadata_does_not_fit_becomes_an_error() {
        let mut list = failing("", 0, 90_000);
        list.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
        let status = arrives(list, C_CORE);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(
            status.message().contains("the peer accepts 16384"),
            "{status}"
        );
    }

    #[test]
    fn a_reply_whose_metadata_does_not_fit_fails_its_call() {
        let mut reply = Response::new(tonic::body::Body::empty());
        let much = HeaderValue::from_bytes(&[b'v'; 90_000]).expect("a value");
        reply.headers_mut().insert("much", much);
        assert!(
            !fit_head(reply.map(|_| tonic::body::Body::empty()), 1 << 20)
                .headers()
                .contains_key("grpc-status")
        );
        let mut reply = Response::new(tonic::body::Body::empty());
        reply.headers_mut().insert(
            "much",
            HeaderValue::from_bytes(&[b'v'; 90_000]).expect("a value"),
        );
        let reply = fit_head(reply, C_CORE);
        let status = Status::from_header_map(reply.headers()).expect("a status");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(reply.headers()["content-type"], "application/grpc");
    }
}
