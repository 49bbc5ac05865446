use super::*;

/// What one piece must be: text, `complete`, `long`.
type Expected<'a> = (&'a str, bool, bool);

fn split(buffer: usize, chunks: &[&str]) -> Vec<(String, bool, bool)> {
    let mut splitter = LineSplitter::new(buffer);
    let mut out = Vec::new();
    let mut keep = |piece: Piece<'_>| {
        let text = String::from_utf8(piece.bytes.to_vec()).unwrap();
        out.push((text, piece.complete, piece.long));
    };
    for chunk in chunks {
        splitter.push(chunk.as_bytes(), &mut keep);
    }
    splitter.finish(&mut keep);
    out
}

fn assert_pieces(buffer: usize, stream: &str, expected: &[Expected<'_>]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(text, complete, long)| ((*text).to_owned(), *complete, *long))
        .collect();
    assert_eq!(split(buffer, &[stream]), expected, "{stream:?} at once");
    let bytes: Vec<_> = stream.split_inclusive(|_| true).collect();
    assert_eq!(split(buffer, &bytes), expected, "{stream:?} by bytes");
}

#[test]
fn lines_lose_their_line_endings_and_nothing_else() {
    assert_pieces(
        16,
        "a\nb\r\n\n\r\n\rc\r\r\n d \n",
        &[
            ("a", true, false),
            ("b", true, false),
            ("", true, false),
            ("", true, false),
            ("\rc\r", true, false),
            (" d ", true, false),
        ],
    );
}

#[test]
fn a_last_line_without_newline_is_complete_at_the_end_of_the_stream() {
    assert_pieces(16, "a\nb", &[("a", true, false), ("b", true, false)]);
    assert_pieces(16, "a\r", &[("a\r", true, false)]);
    assert_pieces(16, "", &[]);
}

#[test]
fn a_line_fits_together_with_its_newline() {
    assert_pieces(16, "123456789012345\n", &[("123456789012345", true, false)]);
    assert_pieces(16, "12345678901234\r\n", &[("12345678901234", true, false)]);
    assert_pieces(
        16,
        "1234567890123456\nx\n",
        &[
            ("1234567890123456", false, true),
            ("", true, true),
            ("x", true, false),
        ],
    );
}

#[test]
fn h25_an_over_long_line_comes_in_pieces_of_the_buffer() {
    assert_pieces(
        16,
        "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccc\nd\n",
        &[
            ("aaaaaaaaaaaaaaaa", false, true),
            ("bbbbbbbbbbbbbbbb", false, true),
            ("ccc", true, true),
            ("d", true, false),
        ],
    );
}

#[test]
fn a_carriage_return_at_the_end_of_a_full_buffer_is_held_back() {
    assert_pieces(
        16,
        "123456789012345\r\nx\n",
        &[
            ("123456789012345", false, true),
            ("", true, true),
            ("x", true, false),
        ],
    );
    assert_pieces(
        16,
        "123456789012345\rx\n",
        &[("123456789012345", false, true), ("\rx", true, true)],
    );
    assert_pieces(
        16,
        "123456789012345\r",
        &[("123456789012345", false, true), ("\r", true, true)],
    );
}

#[test]
fn an_unterminated_line_that_fills_the_buffer_has_no_last_piece() {
    assert_pieces(16, "1234567890123456", &[("1234567890123456", false, true)]);
}

#[test]
fn a_buffer_below_the_minimum_is_taken_as_the_minimum() {
    for buffer in [0, 1, 15, 16] {
        assert_pieces(
            buffer,
            "123456789012345\n",
            &[("123456789012345", true, false)],
        );
        assert_eq!(split(buffer, &["12345678901234567"]).len(), 2, "{buffer}");
    }
}

#[test]
fn a_splitter_can_be_used_again_after_the_end_of_a_stream() {
    let mut splitter = LineSplitter::new(16);
    let mut flags = Vec::new();
    for stream in [&b"1234567890123456"[..], b"x", b"y\n"] {
        splitter.push(stream, &mut |piece: Piece<'_>| {
            flags.push((piece.complete, piece.long))
        });
        splitter.finish(&mut |piece: Piece<'_>| flags.push((piece.complete, piece.long)));
    }
    assert_eq!(flags, [(false, true), (true, false), (true, false)]);
}

#[test]
fn a_splitter_holds_no_more_than_its_buffer() {
    let mut splitter = LineSplitter::new(64);
    for _ in 0..100 {
        splitter.push(&[b'a'; 1000], &mut |piece: Piece<'_>| {
            assert_eq!(piece.bytes.len(), 64);
        });
    }
    assert!(splitter.held.capacity() <= 128);
}

/// Has the shape of the vector in the Go library's `TestClient_logStderr`: an
/// empty first line, two lines longer than the buffer, a record, a short line.
#[test]
fn h20_the_raw_copy_with_a_buffer_of_32_is_exact() {
    let stream = "\n\
        an ordinary line that has far more than 32 bytes\n\
        and one that is more than twice as long as that: it has 80 bytes if you count it\n\
        {\"@level\":\"debug\",\"x\":\"y\"}\n\
        a short line at the end\n";
    let mut raw = String::new();
    let pieces = split(32, &[stream]);
    for (text, complete, _) in &pieces {
        raw.push_str(text);
        if *complete {
            raw.push('\n');
        }
    }
    assert_eq!(raw, stream);
    let long: Vec<_> = pieces.iter().map(|(_, _, long)| *long).collect();
    assert_eq!(long, [false, true, true, true, true, true, false, false]);
}
