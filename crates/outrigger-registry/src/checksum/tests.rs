use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use super::*;

fn digits(digest: &ExpectedDigest) -> String {
    digest.to_string().replace("sha256:", "")
}

#[test]
fn every_form_that_sha256sum_prints_is_read() {
    let (mine, other) = ("ab".repeat(32), "0".repeat(64));
    for file in [
        mine.clone(),
        format!("{mine}\n"),
        format!("{mine}  cat\n"),
        format!("{mine} *cat\n"),
        format!("{mine} cat\n"),
        format!("\n{mine}\t bin/cat \r\n\r\n"),
        format!("\u{feff}{mine}  cat\n"),
        format!("SHA256 (cat) = {mine}\n"),
        format!("{}  another-name\n", mine.to_uppercase()),
        format!("{other}  dog\n{mine}  cat\n"),
        format!("{mine}  ./bin/cat\n{other} *bin/dog\n"),
        format!("{mine}  cat\n{other}  dog\n{mine}  bin/cat\n"),
        format!("SHA256 (bin/dog) = {other}\nSHA256 (bin/cat) = {mine}\n"),
        format!("{other}  dog\n{mine}     cat\n"),
        format!("{other}  dog\0{mine}  cat\0"),
    ] {
        let stated = checksum_of(file.as_bytes(), Path::new("bin/cat"));
        let stated = stated.unwrap_or_else(|error| panic!("{error}: {file:?}"));
        assert_eq!(digits(&stated), mine, "{file:?}");
    }
}

/// `sha256sum` itself, on names that it writes in another way than others.
#[test]
fn what_sha256sum_says_of_unusual_names_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let names: [&[u8]; 10] = [
        b"cat",
        b"a cat",
        b" cat ",
        b"*cat",
        b"cat\nwith two lines",
        b"back\\slash",
        b"car\rriage",
        b"\xff not UTF-8",
        b"cat) = x",
        "кот".as_bytes(),
    ];
    for (number, name) in names.iter().enumerate() {
        let path = dir.path().join(OsStr::from_bytes(name));
        fs::write(path, number.to_string()).expect("written");
    }
    for arguments in [
        &["--"][..],
        &["--binary", "--"],
        &["--tag", "--"],
        &["--zero", "--"],
    ] {
        #[allow(clippy::disallowed_methods)] // It is no plugin.
        let output = Command::new("sha256sum")
            .args(arguments)
            .args(names.iter().map(|name| OsStr::from_bytes(name)))
            .current_dir(dir.path())
            .output()
            .expect("sha256sum runs");
        assert!(output.status.success(), "{output:?}");
        for (number, name) in names.iter().enumerate() {
            let stated = checksum_of(&output.stdout, Path::new(OsStr::from_bytes(name)));
            let expected = ExpectedDigest::of(number.to_string().as_bytes());
            assert_eq!(
                stated,
                Ok(expected.expect("read")),
                "{name:?} {arguments:?}"
            );
        }
    }
}

#[test]
fn what_states_no_checksum_of_the_program_is_refused_with_a_reason() {
    let (mine, other) = ("ab".repeat(32), "0".repeat(64));
    for (file, code, text) in [
        (
            " \n".to_owned(),
            "checksum-empty",
            "the file has no checksum in it",
        ),
        (
            format!("{mine}  cat\nab\u{1b}  dog\n"),
            "checksum-malformed",
            "line 2: `ab\\u{1b}` is not a SHA-256 digest of 64 hexadecimal digits",
        ),
        (
            format!("{mine}  dog\n{other}  pig\n"),
            "checksum-not-listed",
            "none of its 2 lines is about `cat`",
        ),
        (
            format!("{mine}  cat\n{other}  cat\n"),
            "checksum-ambiguous",
            "it has two different checksums for `cat`",
        ),
        (
            format!("{mine}  cat\n{other}  dog\n{other}  cat\n"),
            "checksum-ambiguous",
            "it has two different checksums for `cat`",
        ),
    ] {
        let error = checksum_of(file.as_bytes(), Path::new("cat")).expect_err("refused");
        assert_eq!((error.code(), error.to_string().as_str()), (code, text));
    }
    for wrong in [
        "é".repeat(32),
        "g".repeat(64),
        "a".repeat(63),
        "a".repeat(65),
        format!("{mine}cat"),
        format!("SHA256 (cat) = {}", &mine[1..]),
        format!("SHA256 (cat){mine}"),
        format!("\\{mine}  ca\\t"),
        format!("MD5 (cat) = {}", "a".repeat(32)),
    ] {
        let error = checksum_of(wrong.as_bytes(), Path::new("cat")).expect_err("refused");
        assert_eq!(error.code(), "checksum-malformed", "{wrong}");
    }
}
