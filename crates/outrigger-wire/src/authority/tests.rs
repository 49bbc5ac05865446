use super::*;
use proptest::prelude::*;

const REFUSED: &str = "%2Ftmp%2Fplugin123";
const REPLACED: &str = "-2Ftmp-2Fplugin123";

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &1_u32.to_be_bytes(), payload].concat()
}

/// A connection's bytes: the preface and a block of headers in one frame.
fn request(block: &[u8]) -> Vec<u8> {
    connection(&[frame(HEADERS, END_HEADERS, block)])
}

fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    [vec![b'*'; PREFACE as usize], frames.concat()].concat()
}

/// What comes out when `bytes` come in pieces of `step`.
fn passed(bytes: &[u8], step: usize) -> Vec<u8> {
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

/// In whatever pieces `before` comes, `after` comes out.
fn check(before: &[u8], after: &[u8]) {
    for step in [1, 2, 3, 7, 24, usize::MAX] {
        let passed = passed(before, step);
        assert_eq!(
            String::from_utf8_lossy(&passed),
            String::from_utf8_lossy(after),
            "{step} at a time"
        );
        assert_eq!(passed, after);
    }
}

fn string(text: &str) -> Vec<u8> {
    assert!(text.len() < 127);
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn coded(text: &str) -> Vec<u8> {
    let coded = huffman::encode(text.as_bytes());
    assert!(coded.len() < 127);
    [&[0x80 | coded.len() as u8], coded.as_slice()].concat()
}

#[test]
fn an_authority_that_is_one_stays_as_it_is() {
    for text in [
        "localhost",
        "localhost:50051",
        "127.0.0.1:50051",
        "[::1]:50051",
        "[fe80::1%25eth0]:80",
        "user@host",
        "a_b~c",
        "",
    ] {
        for value in [string(text), coded(text)] {
            let bytes = request(&[&[0x41], value.as_slice()].concat());
            check(&bytes, &bytes);
        }
    }
}

#[test]
fn the_path_of_a_socket_becomes_an_authority_of_the_same_length() {
    for (text, replaced) in [
        (REFUSED, REPLACED),
        ("/tmp/plugin 1", "-tmp-plugin-1"),
        ("unix:/tmp/a:b", "unix--tmp-a-b"),
        ("@", "-"),
        ("a?b#c\"<>\\^`{|}", "a-b-c---------"),
        ("/tmp/jürgen", "-tmp-j--rgen"),
    ] {
        let bytes = |text| request(&[&[0x41], string(text).as_slice()].concat());
        check(&bytes(text), &bytes(replaced));
    }
}

#[test]
fn a_coded_path_becomes_a_coded_authority_of_the_same_lengths() {
    for text in [
        REFUSED,
        "/tmp/plugin 1",
        "a?b#c\"<>^`{|}",
        "/tmp/jürgen",
        "unix:/a:b",
    ] {
        let mut value = huffman::encode(text.as_bytes());
        let length = value.len();
        assert!(replace(&mut value, true), "{text}");
        assert_eq!(value.len(), length);
        let replaced = huffman::decode(&value).expect("a text");
        assert_eq!(replaced.len(), text.len());
        assert!(!is_refused(&replaced), "{replaced:?}");

        let bytes = |value: &[u8]| request(&[&[0x41, 0x80 | length as u8], value].concat());
        check(&bytes(&huffman::encode(text.as_bytes())), &bytes(&value));
    }
}

#[test]
fn every_way_to_write_the_header_is_known() {
    let named = |first: u8| [&[first], string(":authority").as_slice()].concat();
    let coded_name = |first: u8| [&[first], coded(":authority").as_slice()].concat();
    for first in [
        vec![0x41],
        vec![0x01],
        vec![0x11],
        named(0x40),
        named(0x00),
        named(0x10),
        coded_name(0x40),
        coded_name(0x00),
        coded_name(0x10),
    ] {
        let bytes = |text| request(&[first.as_slice(), &string(text)].concat());
        check(&bytes(REFUSED), &bytes(REPLACED));
    }
}

#[test]
fn other_headers_stay_as_they_are() {
    for first in [
        // `:path`, and a name of the dynamic table that nobody inserted.
        vec![0x44],
        vec![0x7e],
        vec![0x0f, 0x80, 0x01],
        [&[0x40], string(":authoritx").as_slice()].concat(),
        [&[0x40], string("authority").as_slice()].concat(),
        [&[0x40], string(":path").as_slice()].concat(),
        [&[0x40], coded(":path").as_slice()].concat(),
    ] {
        let bytes = request(&[first.as_slice(), &string(REFUSED)].concat());
        check(&bytes, &bytes);
    }
}

#[test]
fn a_name_in_the_dynamic_table_is_found_behind_newer_ones() {
    for newer in [0_u8, 1, 62, 63, 126] {
        let block = |text| {
            let mut block = [&[0x40], string(":authority").as_slice(), &string("a")].concat();
            for number in 0..newer {
                // Inserted; the ones between are not, or only tables are spoken of.
                block.extend([0x40, 1, b'n', 1, number]);
                block.extend([0x00, 1, b'n', 1, b'v', 0xbe, 0x10, 1, b'n', 0]);
            }
            // A literal whose name is the oldest entry, then whose name is one newer.
            let index = 62 + u32::from(newer);
            let name = |index: u32, text| {
                let more = index - 15;
                assert!(more < 16_384);
                let mut field = vec![0x0f];
                match more {
                    0..=127 => field.push(more as u8),
                    _ => field.extend([0x80 | more as u8, (more >> 7) as u8]),
                }
                [field, string(text)].concat()
            };
            if newer > 0 {
                block.extend(name(index - 1, REFUSED));
            }
            block.extend(name(index, text));
            block.extend(name(index + 1, REFUSED));
            block
        };
        check(&request(&block(REFUSED)), &request(&block(REPLACED)));
    }
}

#[test]
fn an_inserted_value_is_clean_and_its_name_is_kept_for_later_requests() {
    let two = |text| {
        let first = [&[0x41], string(text).as_slice()].concat();
        // Its value from the table, then its name with another value.
        let second = [
            &[0xbe],
            [&[0x7e], string(text).as_slice()].concat().as_slice(),
        ]
        .concat();
        connection(&[
            frame(HEADERS, END_HEADERS, &first),
            frame(0, 0, &first),
            frame(HEADERS, END_HEADERS, &second),
        ])
    };
    let mut expected = two(REPLACED);
    // Data is nobody's header.
    let data = two(REFUSED);
    let begin = PREFACE as usize + 2 * FRAME_HEADER + string(REFUSED).len() + 1;
    expected[begin..begin + 20].copy_from_slice(&data[begin..begin + 20]);
    check(&data, &expected);
}

#[test]
fn padding_and_priority_are_none_of_the_headers() {
    let frames = |text| {
        let field = [&[0x41], string(text).as_slice()].concat();
        let padding = [0x41; 9];
        connection(&[
            frame(
                HEADERS,
                END_HEADERS | PADDED,
                &[&[9], field.as_slice(), &padding].concat(),
            ),
            frame(
                HEADERS,
                END_HEADERS | PRIORITY,
                &[&[0x41; 5], field.as_slice()].concat(),
            ),
            frame(
                HEADERS,
                END_HEADERS | PADDED | PRIORITY,
                &[
                    &[9, 0x41, 0x41, 0x41, 0x41, 0x41],
                    field.as_slice(),
                    &padding,
                ]
                .concat(),
            ),
            frame(HEADERS, END_HEADERS | PADDED, &[0]),
            frame(HEADERS, END_HEADERS, &field),
        ])
    };
    check(&frames(REFUSED), &frames(REPLACED));
}

#[test]
fn a_value_is_put_together_from_the_frames_of_its_block() {
    let field = |text| [&[0x41], string(text).as_slice(), &[0x86]].concat();
    for cut in 0..=field(REFUSED).len() {
        let frames = |text| {
            let field = field(text);
            let (first, second) = field.split_at(cut);
            let padded = [&[3], first, &[0x41; 3]].concat();
            connection(&[
                frame(HEADERS, PADDED, &padded),
                frame(CONTINUATION, 0, &[]),
                frame(CONTINUATION, END_HEADERS, second),
                frame(HEADERS, END_HEADERS, &field),
            ])
        };
        check(&frames(REFUSED), &frames(REPLACED));
    }
}

#[test]
fn long_strings_pass_while_they_come() {
    let long = vec![b'%'; 300_000];
    let size = long.len() as u32 - 127;
    let length = [
        0x7f,
        0x80 | size as u8,
        0x80 | (size >> 7) as u8,
        (size >> 14) as u8,
    ];
    let block = |text| {
        [
            &[0x40, 1, b'n'],
            length.as_slice(),
            &long,
            &[0x40],
            &length,
            &long,
            &[1, b'v', 0x41],
            &string(text),
        ]
        .concat()
    };
    let bytes = request(&block(REFUSED));
    let mut filter = AuthorityFilter::new();
    let mut first = bytes[..200_000].to_vec();
    assert_eq!(filter.pass(&mut first), 200_000);
    check(&bytes, &request(&block(REPLACED)));
}

#[test]
fn an_authority_that_is_too_long_passes_as_it_is() {
    let field = |length: u32| {
        let more = length - 127;
        let begin = [0x41, 0x7f, 0x80 | more as u8, (more >> 7) as u8];
        [begin.as_slice(), &vec![b'/'; length as usize]].concat()
    };
    let bytes = request(&field(MAX_AUTHORITY + 1));
    check(&bytes, &bytes);
    let bytes = request(&field(MAX_AUTHORITY));
    assert!(passed(&bytes, usize::MAX).ends_with(&[b'-'; MAX_AUTHORITY as usize]));
}

#[test]
fn what_no_reader_accepts_passes_as_it_is() {
    let good = [&[0x41], string(REFUSED).as_slice()].concat();
    for nonsense in [
        // A continuation of nothing, and a frame within a block.
        vec![frame(CONTINUATION, END_HEADERS, &good)],
        vec![frame(HEADERS, 0, &[0x86]), frame(0, 0, b"data")],
        vec![frame(HEADERS, 0, &[0x86]), frame(HEADERS, 0, &good)],
        // More padding than frame, no room for the padding's length or a priority.
        vec![frame(HEADERS, END_HEADERS | PADDED, &[2, 0])],
        vec![frame(HEADERS, END_HEADERS | PADDED, &[])],
        vec![frame(HEADERS, END_HEADERS | PRIORITY, &[0; 4])],
        // An endless integer, and a block that ends in a name, a value or an integer.
        vec![frame(
            HEADERS,
            END_HEADERS,
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        )],
        vec![frame(HEADERS, END_HEADERS, &[0x40, 3, b'n'])],
        vec![frame(HEADERS, END_HEADERS, &[0x41, 3, b'/'])],
        vec![frame(HEADERS, END_HEADERS, &[0x44, 3, b'/'])],
        vec![frame(HEADERS, END_HEADERS, &[0x41])],
        vec![frame(HEADERS, END_HEADERS, &[0x7f, 0x80])],
    ] {
        // Nothing that comes later is touched.
        let after = frame(HEADERS, END_HEADERS, &good);
        let bytes = connection(&[nonsense, vec![after]].concat());
        check(&bytes, &bytes);
    }
}

#[test]
fn a_header_that_never_ends_is_not_waited_for() {
    // A value in ever more empty frames.
    let mut frames = vec![frame(HEADERS, 0, &[0x41, 3, b'/'])];
    frames.extend(vec![frame(CONTINUATION, 0, &[]); 600]);
    let mut bytes = connection(&frames);
    assert_eq!(AuthorityFilter::new().pass(&mut bytes), bytes.len());
    check(&bytes, &bytes);
}

proptest! {
    #[test]
    fn whatever_is_sent_as_an_authority_is_accepted(
        text in prop_oneof![
            "[ -~]{1,60}",
            "([%/]|unix:|[a-z0-9.-]){1,20}",
            ".{1,30}",
        ],
    ) {
        let mut plain = text.clone().into_bytes();
        let was_refused = Authority::try_from(text.as_str()).is_err();
        assert_eq!(replace(&mut plain, false), was_refused);
        assert_eq!(plain.len(), text.len());
        Authority::try_from(plain.as_slice()).expect("an authority");

        let mut coded = huffman::encode(text.as_bytes());
        if replace(&mut coded, true) {
            assert!(was_refused);
            let replaced = huffman::decode(&coded).expect("a text");
            assert_eq!(replaced.len(), text.len());
            Authority::try_from(replaced.as_slice()).expect("an authority");
        } else if was_refused {
            // Too many characters with long codes.
            assert!(coded.len() * 8 > 13 * text.len() + 7);
        }
    }
}
