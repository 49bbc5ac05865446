//! The bodies of the fuzz targets, as plain functions so that tests call them
//! too. Each takes arbitrary bytes and panics if a promise is broken.

use std::collections::BTreeSet;

use prost::Message;

use crate::authority::huffman;
use crate::descriptors::{FrameBuffer, FrameTooLong, MAX_FRAME, put_frame};
use crate::logs::{Entry, LineSplitter, Piece, Record, StderrClassifier, write_hclog};
use crate::proto::host::{DescriptorReply, DescriptorRequest};
use crate::proto::plugin::ConnInfo;
use crate::{
    Address, AllowedTransports, AppProtocolVersion, AuthorityFilter, BrokerMessage, Coded,
    EXCERPT_LIMIT, HandshakeLine, HandshakeRules, MAX_KNOCK_ERROR, RawConnInfo,
};

/// No error may print more than this, whatever a peer wrote: two excerpts in
/// which every byte takes ten, and the words around them.
const LONGEST_ERROR: usize = 2 * 10 * EXCERPT_LIMIT + 512;

/// A line is refused with a short message, or survives being printed again.
pub fn handshake_line(bytes: &[u8]) {
    let offered: BTreeSet<_> = [1, 2, 3].map(AppProtocolVersion).into();
    for mux_requested in [false, true] {
        let rules = HandshakeRules {
            offered: &offered,
            allowed: AllowedTransports::ALL,
            mux_requested,
        };
        match HandshakeLine::parse(bytes, &rules) {
            Ok(line) => {
                let printed = line.to_line();
                assert_eq!(
                    HandshakeLine::parse(printed.as_bytes(), &rules).as_ref(),
                    Ok(&line),
                    "printed as {printed:?}"
                );
            }
            Err(error) => {
                check_message(&error.to_string());
                assert!(!error.code().is_empty());
                let _ = error.hint();
            }
        }
    }
}

/// Lines are cut the same way however the bytes arrive, nothing is lost, and
/// a record survives being written again. The first byte chooses the buffer.
pub fn hclog_lines(bytes: &[u8]) {
    let Some((first, stream)) = bytes.split_first() else {
        return;
    };
    let buffer = 16 + usize::from(*first) * 4;
    let whole = pieces(buffer, stream, usize::MAX);
    for step in [1, 7] {
        assert_eq!(whole, pieces(buffer, stream, step), "{step} at a time");
    }
    check_nothing_is_lost(stream, &whole);

    let mut classifier = StderrClassifier::new();
    for (bytes, complete, long) in &whole {
        assert!(bytes.len() <= buffer);
        let entry = classifier.classify(&Piece {
            bytes,
            complete: *complete,
            long: *long,
        });
        match entry {
            Entry::Text { text, .. } => assert_eq!(text, String::from_utf8_lossy(bytes)),
            Entry::Json(record) => check_record(record),
        }
    }
}

/// A message of the broker is understood or refused, keeps little, and says
/// the same thing again.
pub fn conn_info(bytes: &[u8]) {
    let Ok(raw) = ConnInfo::decode(bytes).map(RawConnInfo::from) else {
        return;
    };
    let message = BrokerMessage::from(raw.clone());
    assert_eq!(message.id().0, raw.service_id);
    match &message {
        BrokerMessage::ConnInfo { address, .. } => {
            assert!(raw.knock.is_none());
            match address {
                Ok(address) => check_address(address),
                Err(error) => check_message(&error.to_string()),
            }
        }
        BrokerMessage::Knock { .. } => assert!(matches!(raw.knock, Some((true, false, _)))),
        BrokerMessage::KnockAck { error, .. } => match error {
            Some(error) => assert!(!error.is_empty() && error.len() <= MAX_KNOCK_ERROR),
            None => assert_eq!(raw.knock, Some((true, true, String::new()))),
        },
    }
    let has_no_address = matches!(
        message,
        BrokerMessage::ConnInfo {
            address: Err(_),
            ..
        }
    );
    if !has_no_address {
        let sent = ConnInfo::from(message.to_raw()).encode_to_vec();
        let again = ConnInfo::decode(sent.as_slice()).map(RawConnInfo::from);
        assert_eq!(again.map(BrokerMessage::from), Ok(message));
    }
}

/// A connection's bytes come out in the same number and the same way however they
/// arrive, with a bounded part held back, and nothing is left to replace.
pub fn authorities(bytes: &[u8]) {
    let whole = filtered(bytes, usize::MAX);
    assert_eq!(whole.len(), bytes.len());
    for step in [1, 7] {
        assert_eq!(whole, filtered(bytes, step), "{step} at a time");
    }
    assert_eq!(whole, filtered(&whole, usize::MAX), "the second time");
}

fn filtered(bytes: &[u8], step: usize) -> Vec<u8> {
    let mut filter = AuthorityFilter::new();
    let (mut out, mut held) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(step) {
        held.extend_from_slice(piece);
        let settled = filter.pass(&mut held);
        out.extend(held.drain(..settled));
        assert!(held.len() <= AuthorityFilter::MAX_UNSETTLED);
    }
    out.extend(held);
    out
}

/// A header string in Huffman code, for tests of what reads one.
pub fn huffman_coded(text: &[u8]) -> Vec<u8> {
    huffman::encode(text)
}

/// Frames are cut the same way however the bytes arrive, hold no more than one
/// may have, and are the same bytes when they are framed again.
pub fn descriptor_frames(bytes: &[u8]) {
    let whole = frames(bytes, usize::MAX);
    for step in [1, 7] {
        assert_eq!(whole, frames(bytes, step), "{step} at a time");
    }
    let (frames, end) = whole;
    let mut again = Vec::new();
    for frame in &frames {
        assert!(frame.len() <= MAX_FRAME);
        again.extend((frame.len() as u32).to_be_bytes());
        again.extend(frame);
        if let Ok(request) = DescriptorRequest::decode(frame.as_slice()) {
            check_framed(&request);
        }
        if let Ok(reply) = DescriptorReply::decode(frame.as_slice()) {
            check_framed(&reply);
        }
    }
    assert!(bytes.starts_with(&again));
    if let Err(refused) = end {
        let length = bytes.get(again.len()..).and_then(<[u8]>::first_chunk);
        let length = length.map(|length| u32::from_be_bytes(*length) as usize);
        assert_eq!(length, Some(refused.length));
        check_message(&refused.to_string());
    }
}

/// All whole frames, and whether the next one was refused.
fn frames(bytes: &[u8], step: usize) -> (Vec<Vec<u8>>, Result<(), FrameTooLong>) {
    let (mut buffer, mut found) = (FrameBuffer::new(), Vec::new());
    let mut rest = bytes;
    loop {
        match buffer.is_ready() {
            Ok(true) => found.push(buffer.take().to_vec()),
            Ok(false) if rest.is_empty() => return (found, Ok(())),
            Ok(false) => {
                let room = buffer.room();
                let length = step.min(room.len()).min(rest.len());
                assert!(length > 0);
                let (part, later) = rest.split_at(length);
                room[..length].copy_from_slice(part);
                buffer.filled(length);
                rest = later;
            }
            Err(refused) => return (found, Err(refused)),
        }
    }
}

/// A message that was framed comes out of its frame.
fn check_framed<M: Message + Default + PartialEq>(message: &M) {
    let mut bytes = Vec::new();
    if put_frame(message, &mut bytes).is_err() {
        return;
    }
    let (frames, end) = frames(&bytes, usize::MAX);
    assert_eq!((frames.len(), end), (1, Ok(())));
    let again = M::decode(frames.concat().as_slice());
    assert!(again.is_ok_and(|again| again == *message));
}

fn check_address(address: &Address) {
    if let Err(error) = address.resolve() {
        check_message(&error.to_string());
    }
}

fn check_message(text: &str) {
    assert!(text.len() <= LONGEST_ERROR, "{} bytes", text.len());
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

type OwnedPiece = (Vec<u8>, bool, bool);

fn pieces(buffer: usize, stream: &[u8], step: usize) -> Vec<OwnedPiece> {
    let mut splitter = LineSplitter::new(buffer);
    let mut out = Vec::new();
    let mut keep = |piece: Piece<'_>| {
        out.push((piece.bytes.to_vec(), piece.complete, piece.long));
    };
    for chunk in stream.chunks(step) {
        splitter.push(chunk, &mut keep);
    }
    splitter.finish(&mut keep);
    out
}

/// The raw copy equals the stream, but for line endings and a newline at the
/// end.
fn check_nothing_is_lost(stream: &[u8], pieces: &[OwnedPiece]) {
    let mut copy = Vec::new();
    for (bytes, complete, _) in pieces {
        copy.extend_from_slice(bytes);
        if *complete {
            copy.push(b'\n');
        }
    }
    let mut expected = Vec::new();
    for line in stream.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\r\n") {
            Some(text) => expected.extend([text, b"\n"].concat()),
            None => expected.extend_from_slice(line),
        }
    }
    if copy.ends_with(b"\n") && !expected.ends_with(b"\n") {
        expected.push(b'\n');
    }
    assert_eq!(copy, expected);
}

fn check_record(record: Record) {
    let line = write_hclog(&record);
    assert!(!line.contains(['\n', '\r']));
    let piece = Piece {
        bytes: line.as_bytes(),
        complete: true,
        long: false,
    };
    let Entry::Json(again) = StderrClassifier::new().classify(&piece) else {
        panic!("{line:?} was not taken as a record");
    };
    let is_renamed = |(name, _): &(String, _)| name == "@module" || name == "@caller";
    if !record.fields.iter().any(is_renamed) {
        assert_eq!(again, record, "written as {line:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Frames of headers and others, most of them well formed.
    fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let string = prop_oneof![
            "[%/a-z]{0,30}".prop_map(|text| [&[text.len() as u8], text.as_bytes()].concat()),
            "[ -~]{1,30}".prop_map(|text| {
                let coded = huffman_coded(text.as_bytes());
                [&[0x80 | coded.len() as u8], coded.as_slice()].concat()
            }),
            Just([&[10], b":authority".as_slice()].concat()),
        ];
        let first = prop_oneof![
            4 => prop_oneof![Just(0x41), Just(0x01), Just(0x11), Just(0x7e), Just(0x7f)].prop_map(|byte: u8| vec![byte]),
            1 => any::<u8>().prop_map(|byte| vec![byte]),
            2 => (prop_oneof![Just(0x40_u8), Just(0), Just(0x10)], string.clone())
                .prop_map(|(first, name)| [&[first], name.as_slice()].concat()),
        ];
        let field = (first, string).prop_map(|(first, value)| [first, value].concat());
        let block = proptest::collection::vec(field, 0..4).prop_map(|fields| fields.concat());
        let flags = prop_oneof![4 => Just(4), 1 => Just(0), 1 => any::<u8>()];
        let kind = prop_oneof![4 => Just(1), 1 => Just(9), 1 => 0..10_u8];
        let frame = (kind, flags, block).prop_map(|(kind, flags, block)| {
            [
                &[0, 0, block.len() as u8, kind, flags, 0, 0, 0, 1],
                block.as_slice(),
            ]
            .concat()
        });
        proptest::collection::vec(frame, 0..6)
    }

    proptest! {
            #[test]
            fn no_handshake_line_breaks_a_promise(
                bytes in prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..200),
                    "[ ]?[+]?[01x]\\|[0-4]\\|(unix|tcp|udp)\\|(/tmp/p|@n|:80|:http|[ -~]{0,9})(\\|(grpc|netrpc|x|)(\\|[A-Za-z0-9+/=]{0,60}(\\|(true|0|x|))?)?)?[ \n]?"
                        .prop_map(String::into_bytes),
                ],
            ) {
                handshake_line(&bytes);
            }

            #[test]
            fn no_log_stream_breaks_a_promise(
                first: u8,
                stream in prop_oneof![
                    proptest::collection::vec(prop_oneof![4 => Just(b'a'), 1 => Just(b'\r'), 1 => Just(b'\n'), 1 => any::<u8>()], 0..400),
                    "(\\{\"@level\":\"(info|x)\",\"@message\":\"[ -!#-~]{0,9}\",\"@?[a-z]{0,3}\":(1|1e3|-0.1|null|NaN|-1e999|\"\\\\udce9\"|\\[\\{\\}\\])\\}(\r?\n)?){0,9}"
                        .prop_map(String::into_bytes),
                ],
            ) {
                hclog_lines(&[&[first], stream.as_slice()].concat());
            }

            #[test]
            fn no_connection_breaks_a_promise(
                bytes in prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..200),
                    frames().prop_map(|frames| [vec![b'*'; 24], frames.concat()].concat()),
                ],
            ) {
                authorities(&bytes);
            }

            #[test]
            fn no_broker_message_breaks_a_promise(
                bytes in prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..200),
    (any::<u32>(), "unix|tcp|", "[ -~]{0,20}", proptest::option::of((any::<bool>(), any::<bool>(), ".{0,20}")))
                        .prop_map(|(service_id, network, address, knock)| {
                            ConnInfo::from(RawConnInfo { service_id, network, address, knock }).encode_to_vec()
                        }),
                ],
            ) {
                conn_info(&bytes);
            }

            #[test]
            fn no_descriptor_frames_break_a_promise(
                bytes in prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..200),
                    proptest::collection::vec(
                        proptest::collection::vec(any::<u8>(), 0..300).prop_map(|frame| {
                            [&(frame.len() as u32).to_be_bytes()[..], &frame].concat()
                        }),
                        0..30,
                    )
                    .prop_map(|frames| frames.concat()),
                ],
            ) {
                descriptor_frames(&bytes);
            }
        }

    #[test]
    fn inputs_that_once_looked_dangerous_keep_their_promises() {
        // 52 characters with padding, but only 50 without: too short.
        let short = format!("1|1|unix|/p|grpc|{}==", "A".repeat(50));
        for line in [
            b"".as_slice(),
            b"|||",
            b"1|1|unix||",
            short.as_bytes(),
            b"1|1|unix|\xff|grpc",
        ] {
            handshake_line(line);
        }
        for stream in [
            b"\0aaaaaaaaaaaaaaa\r\nb".as_slice(),
            b"\0aaaaaaaaaaaaaaa\r",
            b"\0aaaaaaaaaaaaaaaa",
            b"\xff{\"@level\":\"info\",\"@module\":1,\"_@module\":2}",
            b"\xff{\"@level\":\"info\",\"n\":1.7976931348623157e308}",
        ] {
            hclog_lines(stream);
        }
        let longest = [&[0, 1, 0, 0][..], &[0; MAX_FRAME], &[0, 1, 0, 1]].concat();
        descriptor_frames(&longest);
        conn_info(b"\x22\x00");
        conn_info(b"\x08\x01\x22\x02\x10\x01");
    }
}
