use super::*;
use proptest::prelude::*;

/// A sequence of that many bytes, as a stand-in for a certificate.
fn der(length: usize) -> Vec<u8> {
    let content = length - 4;
    let mut der = vec![0x30, 0x82, (content >> 8) as u8, content as u8];
    der.extend((0..content).map(|at| at as u8));
    der
}

fn base64(der: &[u8]) -> String {
    CERTIFICATE_BASE64.encode(der)
}

struct Host {
    offered: BTreeSet<AppProtocolVersion>,
    allowed: AllowedTransports,
    mux: bool,
}

/// Offers versions 1, 4 and 5, accepts everything, asks for nothing.
fn host() -> Host {
    Host {
        offered: [1, 4, 5].map(AppProtocolVersion).into(),
        allowed: AllowedTransports::ALL,
        mux: false,
    }
}

impl Host {
    fn allowing(mut self, allowed: AllowedTransports) -> Host {
        self.allowed = allowed;
        self
    }

    fn asking_for_mux(mut self) -> Host {
        self.mux = true;
        self
    }

    fn offering(mut self, versions: &[u32]) -> Host {
        self.offered = versions.iter().copied().map(AppProtocolVersion).collect();
        self
    }

    fn parse(&self, line: impl AsRef<[u8]>) -> Result<HandshakeLine, HandshakeError> {
        HandshakeLine::parse(
            line.as_ref(),
            &HandshakeRules {
                offered: &self.offered,
                allowed: self.allowed,
                mux_requested: self.mux,
            },
        )
    }

    fn code(&self, line: impl AsRef<[u8]>) -> &'static str {
        self.parse(line).unwrap_err().code()
    }
}

fn plain(address: &str, transport: Transport) -> HandshakeLine {
    HandshakeLine {
        app_version: AppProtocolVersion(1),
        address: Address::parse("unix", address).unwrap(),
        transport,
        certificate: None,
        mux: None,
    }
}

#[test]
fn each_row_of_the_table_has_its_own_code() {
    let bad_certificate = format!("1|1|unix|/p|grpc|{}", "!".repeat(51));
    let mux = |field: &str| format!("1|1|unix|/p|grpc|{field}");
    for (row, line, code) in [
        (2, "", "handshake-malformed"),
        (2, "1|1|unix", "handshake-malformed"),
        (3, "x|1|unix|/p", "core-version-invalid"),
        (4, "2|1|unix|/p", "core-version-mismatch"),
        (4, "-1|1|unix|/p", "core-version-mismatch"),
        (5, "1|x|unix|/p", "app-version-invalid"),
        (6, "1|2|unix|/p", "app-version-mismatch"),
        (6, "1|-1|unix|/p", "app-version-mismatch"),
        (6, "1|4294967297|unix|/p", "app-version-mismatch"),
        (9, "1|1|udp|/p", "address-unknown-network"),
        (9, "1|1||/p", "address-unknown-network"),
        (9, "1|1|tcp|nonsense", "address-port-missing"),
        (10, "1|1|unix|/p|", "transport-not-allowed"),
        (10, "1|1|tcp|localhost:80|", "transport-not-allowed"),
        (10, "1|1|unix|/p|http", "transport-not-allowed"),
        (11, &bad_certificate, "certificate-invalid"),
        (12, "1|1|unix|/p|grpc", "mux-unsupported"),
        (12, &mux(""), "mux-unsupported"),
        (13, &mux("|maybe"), "mux-invalid"),
        (13, &mux("|"), "mux-invalid"),
        (14, &mux("|false"), "mux-unsupported"),
    ] {
        let host = host().asking_for_mux();
        assert_eq!(host.code(line), code, "row {row}: {line:?}");
    }
}

#[test]
fn of_several_faults_the_one_in_the_earliest_row_is_reported() {
    let certificate = "!".repeat(51);
    // Each line mends the fault of the line before and keeps all later ones.
    for (line, code) in [
        ("x".to_owned(), "handshake-malformed"),
        (format!("x|x|x||x|{certificate}|x"), "core-version-invalid"),
        (format!("9|x|x||x|{certificate}|x"), "core-version-mismatch"),
        (format!("1|x|x||x|{certificate}|x"), "app-version-invalid"),
        (format!("1|9|x||x|{certificate}|x"), "app-version-mismatch"),
        (
            format!("1|1|x||x|{certificate}|x"),
            "address-unknown-network",
        ),
        (
            format!("1|1|tcp||x|{certificate}|x"),
            "address-port-missing",
        ),
        (
            format!("1|1|unix||x|{certificate}|x"),
            "transport-not-allowed",
        ),
        (
            format!("1|1|unix||grpc|{certificate}|x"),
            "certificate-invalid",
        ),
        ("1|1|unix||grpc||x".to_owned(), "mux-invalid"),
    ] {
        assert_eq!(host().asking_for_mux().code(&line), code, "{line}");
    }
}

#[test]
fn h8_the_line_is_trimmed_and_split_on_every_bar() {
    let expected = plain("/tmp/p", Transport::Grpc);
    for line in [
        "1|1|unix|/tmp/p|grpc|",
        "  1|1|unix|/tmp/p|grpc|  \n",
        "\t\r\u{85}\u{a0}\u{2003}1|1|unix|/tmp/p|grpc|\u{b}\u{c}\r\n",
        "1|1|unix|/tmp/p|grpc|||||more|",
    ] {
        assert_eq!(host().parse(line), Ok(expected.clone()), "{line:?}");
    }
    // Inner spaces belong to their field.
    assert_eq!(host().code("1 |1|unix|/p"), "core-version-invalid");
    assert_eq!(host().code("1| 1|unix|/p"), "app-version-invalid");
    assert_eq!(host().code("1|1|unix |/p"), "address-unknown-network");
    assert_eq!(host().code("1|1|unix|/p|grpc |"), "transport-not-allowed");
    assert_eq!(
        host().parse("1|1|unix| /p |grpc").unwrap().address.text,
        " /p "
    );
}

#[test]
fn h9_numbers_are_read_as_go_reads_them() {
    for line in ["+1|01|unix|/p", "01|+1|unix|/p"] {
        assert_eq!(host().parse(line), Ok(plain("/p", Transport::NetRpc)));
    }
    for number in ["", "1.0", "0x1", "1_0", "9223372036854775808"] {
        let line = format!("{number}|1|unix|/p");
        assert_eq!(host().code(line), "core-version-invalid", "{number}");
    }
}

#[test]
fn h10_lines_of_four_to_seven_fields_are_accepted() {
    for (line, transport) in [
        ("1|1|unix|/p", Transport::NetRpc),
        ("1|1|unix|/p|netrpc", Transport::NetRpc),
        ("1|1|unix|/p|grpc", Transport::Grpc),
        ("1|1|unix|/p|grpc|", Transport::Grpc),
        ("1|1|unix|/p|grpc||true", Transport::Grpc),
        ("1|1|unix|/p|netrpc||true", Transport::NetRpc),
    ] {
        assert_eq!(host().parse(line), Ok(plain("/p", transport)), "{line}");
    }
}

#[test]
fn h10_the_examples_of_go_plugins_are_understood() {
    let line = host()
        .parse("1|1|unix|/tmp/plugin3779987455|grpc|")
        .unwrap();
    assert_eq!(line, plain("/tmp/plugin3779987455", Transport::Grpc));
    let line = host()
        .asking_for_mux()
        .parse("1|1|unix|/tmp/plugin130775168|grpc||true")
        .unwrap();
    assert_eq!(line.mux, Some(true));
}

#[test]
fn h11_the_address_keeps_its_text() {
    for (network, text) in [
        ("tcp", ":1234"),
        ("tcp", "localhost:1234"),
        ("tcp", "127.0.0.1:1234"),
        ("tcp", "localhost:http"),
        ("unix", "/tmp/plugin1"),
        ("unix", "@abstract"),
        ("unix", ""),
    ] {
        let line = host().parse(format!("1|1|{network}|{text}|grpc")).unwrap();
        assert_eq!(line.address.network.as_str(), network);
        assert_eq!(line.address.text, text);
    }
}

#[test]
fn h12_a_newline_at_the_end_makes_no_difference() {
    assert_eq!(
        host().parse("1|1|unix|/p|grpc|\n"),
        host().parse("1|1|unix|/p|grpc|")
    );
}

#[test]
fn h13_a_transport_must_be_allowed() {
    let netrpc = host().allowing(AllowedTransports::NETRPC);
    assert_eq!(netrpc.code("1|1|unix|/p|grpc|"), "transport-not-allowed");
    assert!(netrpc.parse("1|1|unix|/p").is_ok());
    let grpc = host().allowing(AllowedTransports::GRPC);
    assert_eq!(grpc.code("1|1|unix|/p"), "transport-not-allowed");
    assert!(grpc.parse("1|1|unix|/p|grpc|").is_ok());
}

#[test]
fn h14_a_sixth_field_of_up_to_fifty_characters_is_ignored() {
    for length in [1, 48, 50] {
        let line = format!("1|1|unix|/p|grpc|{}", "!".repeat(length));
        assert_eq!(host().parse(line).unwrap().certificate, None, "{length}");
    }
    let line = format!("1|1|unix|/p|grpc|{}", "!".repeat(51));
    assert_eq!(host().code(line), "certificate-invalid");
}

#[test]
fn h15_the_sixth_field_is_der_in_unpadded_base64() {
    for length in [596, 597, 598, 70] {
        let der = der(length);
        let line = format!("1|1|unix|/p|grpc|{}", base64(&der));
        assert_eq!(host().parse(&line).unwrap().certificate, Some(der.clone()));
        let padded = match length % 3 {
            0 => line,
            1 => format!("{line}=="),
            _ => format!("{line}="),
        };
        assert_eq!(host().parse(padded).unwrap().certificate, Some(der));
    }
}

#[test]
fn h15_what_is_not_one_der_sequence_is_refused() {
    let mut trailing = der(100);
    trailing.push(0);
    let mut cut = der(100);
    cut.pop();
    let mut set = der(100);
    set[0] = 0x31;
    let mut indefinite = der(100);
    indefinite[1] = 0x80;
    let mut huge = der(100);
    huge[1] = 0x88;
    for (what, der) in [
        ("trailing", trailing),
        ("cut", cut),
        ("set", set),
        ("indefinite", indefinite),
        ("huge", huge),
    ] {
        let error = host()
            .parse(format!("1|1|unix|/p|grpc|{}", base64(&der)))
            .unwrap_err();
        assert!(
            matches!(
                error,
                HandshakeError::CertificateInvalid {
                    reason: CertificateProblem::NotDer,
                    ..
                }
            ),
            "{what}"
        );
    }
    let text = "-----BEGIN CERTIFICATE-----".repeat(3);
    assert!(matches!(
        host().parse(format!("1|1|unix|/p|grpc|{text}")),
        Err(HandshakeError::CertificateInvalid {
            reason: CertificateProblem::NotBase64,
            ..
        })
    ));
}

#[test]
fn short_sequences_are_measured_too() {
    assert!(is_one_der_sequence(&[0x30, 0]));
    assert!(is_one_der_sequence(&[0x30, 1, 5]));
    assert!(is_one_der_sequence(&[0x30, 0x81, 1, 5]));
    for der in [
        &[][..],
        &[0x30],
        &[0x30, 1],
        &[0x30, 0, 0],
        &[0x30, 0x80],
        &[0x30, 0x81],
        &[0x30, 0x82, 0],
        &[0x30, 0x84, 0, 0, 0, 0],
    ] {
        assert!(!is_one_der_sequence(der), "{der:?}");
    }
}

#[test]
fn t39_a_certificate_nobody_asked_for_is_no_error() {
    let line = format!("1|1|unix|/p|netrpc|{}", base64(&der(596)));
    assert!(host().parse(line).unwrap().certificate.is_some());
}

#[test]
fn h16_a_host_that_asks_for_mux_needs_a_true_seventh_field() {
    let host = host().asking_for_mux();
    for word in ["1", "t", "T", "TRUE", "true", "True"] {
        let line = host.parse(format!("1|1|unix|/p|grpc||{word}")).unwrap();
        assert_eq!(line.mux, Some(true), "{word}");
    }
    for word in ["0", "f", "F", "FALSE", "false", "False"] {
        assert_eq!(
            host.parse(format!("1|1|unix|/p|grpc||{word}")),
            Err(HandshakeError::MuxUnsupported {
                reason: MuxUnsupported::Declined
            }),
            "{word}"
        );
    }
    for line in ["1|1|unix|/p|grpc", "1|1|unix|/p|grpc|"] {
        assert_eq!(
            host.parse(line),
            Err(HandshakeError::MuxUnsupported {
                reason: MuxUnsupported::FieldMissing
            })
        );
    }
}

#[test]
fn h16_the_seventh_field_is_not_looked_at_otherwise() {
    for field in ["true", "false", "garbage", ""] {
        let line = host().parse(format!("1|1|unix|/p|grpc||{field}")).unwrap();
        assert_eq!(line.mux, None, "{field}");
        let line = host()
            .asking_for_mux()
            .parse(format!("1|1|unix|/p|netrpc||{field}"))
            .unwrap();
        assert_eq!(line.mux, None, "{field}");
    }
    assert!(host().asking_for_mux().parse("1|1|unix|/p").is_ok());
}

#[test]
fn p6_six_fields_are_always_printed_and_a_seventh_only_on_request() {
    let mut line = plain("/tmp/p", Transport::NetRpc);
    assert_eq!(line.to_line(), "1|1|unix|/tmp/p|netrpc|");
    line.mux = Some(false);
    assert_eq!(line.to_line(), "1|1|unix|/tmp/p|netrpc||false");
    line.mux = Some(true);
    assert_eq!(line.to_line(), "1|1|unix|/tmp/p|netrpc||true");
}

#[test]
fn t37_the_printed_certificate_has_no_padding_and_no_line_breaks() {
    let mut line = plain("/p", Transport::Grpc);
    line.certificate = Some(der(596));
    let printed = line.to_line();
    assert_eq!(printed.split('|').nth(5).unwrap().len(), 795);
    assert!(!printed.contains(['=', '\n']));
}

#[test]
fn bytes_that_are_no_text_are_refused_where_they_matter() {
    for (line, code) in [
        (&b"\xff|1|unix|/p"[..], "core-version-invalid"),
        (b"1|\xff|unix|/p", "app-version-invalid"),
        (b"1|1|\xff|/p", "address-unknown-network"),
        (b"1|1|\xff|\xff", "address-unknown-network"),
        (b"1|1|unix|/\xff", "address-not-utf8"),
        (b"1|1|unix|/\0", "address-contains-nul"),
        (b"1|1|unix|/p|\xff", "transport-not-allowed"),
        (b"1|1|unix|/p|grpc||\xff", "mux-invalid"),
        (b" \xff ", "handshake-malformed"),
        (b"\0", "handshake-malformed"),
    ] {
        assert_eq!(host().asking_for_mux().code(line), code, "{line:?}");
    }
    // Where nobody looks they are ignored.
    assert!(
        host()
            .parse(b"\x0b1|1|unix|/p|grpc|\xff|\xff|\xff \n")
            .is_ok()
    );
}

#[test]
fn every_handshake_error_prints_one_phrase() {
    let mux = host().asking_for_mux();
    let shown = |line: &str| mux.parse(line).unwrap_err().to_string();
    insta::assert_snapshot!(
        shown("usage: greeter [--serve]\n"),
        @r#"expected a handshake line of at least 4 fields separated by `|`, found 1 in "usage: greeter [--serve]""#
    );
    insta::assert_snapshot!(
        shown(&format!("1|{}", "\u{1b}[2J".repeat(50))).replace(r"\u{1b}[2J", "^"),
        @r#"expected a handshake line of at least 4 fields separated by `|`, found 2 in "1|^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\u{1b}["… (+82 bytes)"#
    );
    insta::assert_snapshot!(shown("one|1|unix|/p"), @r#"core protocol version "one" is not an integer"#);
    insta::assert_snapshot!(shown("2|1|unix|/p"), @"plugin speaks core protocol 2, this host 1");
    insta::assert_snapshot!(shown("1|v1|unix|/p"), @r#"app protocol version "v1" is not an integer"#);
    insta::assert_snapshot!(shown("1|3|unix|/p"), @"plugin speaks app protocol 3, this host accepts 1, 4 and 5");
    insta::assert_snapshot!(shown("1|1|udp|:1"), @"handshake line has no usable address");
    insta::assert_snapshot!(
        shown("1|1|unix|/p|http"),
        @r#"plugin speaks "http", this host accepts `netrpc` and `grpc`"#
    );
    insta::assert_snapshot!(
        shown(&format!("1|1|unix|/p|grpc|{}", "!".repeat(51))).replace(&"!".repeat(51), "<51 !>"),
        @r#"certificate "<51 !>" is not base64"#
    );
    insta::assert_snapshot!(
        shown(&format!("1|1|unix|/p|grpc|{}", "A".repeat(52))).replace(&"A".repeat(52), "<52 A>"),
        @r#"certificate "<52 A>" is not a DER sequence"#
    );
    insta::assert_snapshot!(
        shown("1|1|unix|/p|grpc"),
        @"plugin does not support a multiplexed broker: its handshake line has no seventh field"
    );
    insta::assert_snapshot!(
        shown("1|1|unix|/p|grpc||false"),
        @"plugin does not support a multiplexed broker: the seventh field of its handshake line says no"
    );
    insta::assert_snapshot!(
        shown("1|1|unix|/p|grpc||maybe"),
        @r#"multiplexing support "maybe" is not a boolean"#
    );
}

#[test]
fn an_address_error_is_the_source_and_lends_its_code() {
    let error = host().parse("1|1|udp|:1").unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    insta::assert_snapshot!(
        source,
        @r#""udp" is not a network (`unix` or `tcp`), given with the address ":1""#
    );
    assert_eq!(error.code(), "address-unknown-network");
}

#[test]
fn a_version_mismatch_lists_what_the_host_accepts() {
    let shown = |versions: &[u32]| {
        let error = host().offering(versions).parse("1|3|unix|/p").unwrap_err();
        error.to_string()
    };
    insta::assert_snapshot!(shown(&[]), @"plugin speaks app protocol 3, this host accepts none");
    insta::assert_snapshot!(shown(&[4]), @"plugin speaks app protocol 3, this host accepts 4");
    insta::assert_snapshot!(shown(&[4, 5]), @"plugin speaks app protocol 3, this host accepts 4 and 5");
}

#[test]
fn a_hint_is_given_where_one_surely_helps() {
    let hint = |host: Host, line: &str| host.parse(line).unwrap_err().hint();
    insta::assert_snapshot!(
        hint(host(), "hello").unwrap(),
        @"keep stdout for the handshake; print everything else to stderr"
    );
    insta::assert_snapshot!(
        hint(host(), "2|1|unix|/p").unwrap(),
        @"rebuild the plugin with a current plugin library"
    );
    insta::assert_snapshot!(
        hint(host().offering(&[4, 5]), "1|3|unix|/p").unwrap(),
        @"update the plugin (its side is older), or serve version 3 from the host"
    );
    insta::assert_snapshot!(
        hint(host().offering(&[1, 2]), "1|3|unix|/p").unwrap(),
        @"update the host (its side is older), or build the plugin for version 2"
    );
    assert_eq!(hint(host(), "1|3|unix|/p"), None);
    assert_eq!(hint(host().offering(&[]), "1|3|unix|/p"), None);
    insta::assert_snapshot!(
        hint(host().allowing(AllowedTransports::NETRPC), "1|1|unix|/p|grpc").unwrap(),
        @"allow `grpc` if the host can speak it"
    );
    insta::assert_snapshot!(
        hint(host().allowing(AllowedTransports::GRPC), "1|1|unix|/p").unwrap(),
        @"allow `netrpc` if the host can speak it"
    );
    assert_eq!(hint(host(), "1|1|unix|/p|http"), None);
    insta::assert_snapshot!(
        hint(host(), &format!("1|1|unix|/p|grpc|{}", "!".repeat(51))).unwrap(),
        @"print the DER certificate in base64 without padding"
    );
    insta::assert_snapshot!(
        hint(host().asking_for_mux(), "1|1|unix|/p|grpc").unwrap(),
        @"update the plugin's library, or do not ask for a multiplexed broker"
    );
    insta::assert_snapshot!(
        hint(host().asking_for_mux(), "1|1|unix|/p|grpc||0").unwrap(),
        @"do not ask for a multiplexed broker"
    );
    assert_eq!(hint(host(), "1|1|udp|/p"), None);
}

#[test]
fn the_longest_line_is_judged_without_trouble() {
    let line = vec![b'|'; MAX_HANDSHAKE_LINE];
    assert_eq!(host().code(&line), "core-version-invalid");
    let mut line = b"1|1|unix|".to_vec();
    line.resize(MAX_HANDSHAKE_LINE, b'p');
    assert_eq!(host().code(&line), "address-too-long");
}

proptest! {
    #[test]
    fn a_printed_line_reads_back_as_itself(
        version: u32,
        address in prop_oneof![
            "/[a-zA-Z0-9 ._/€-]{0,30}".prop_map(|path| Address::unix(path.as_ref()).unwrap()),
            any::<std::net::SocketAddr>().prop_map(Address::tcp),
        ],
        grpc: bool,
        certificate in proptest::option::of(64_usize..1000),
        mux: bool,
    ) {
        let transport = if grpc { Transport::Grpc } else { Transport::NetRpc };
        let line = HandshakeLine {
            app_version: AppProtocolVersion(version),
            address,
            transport,
            certificate: certificate.map(der),
            mux: (mux && grpc).then_some(true),
        };
        let mut host = host().offering(&[version]);
        host.mux = mux;
        prop_assert_eq!(host.parse(line.to_line()), Ok(line));
    }
}

#[test]
fn many_versions_are_told_by_their_ends() {
    let listed = |versions: &[u32]| {
        let versions: Vec<_> = versions.iter().copied().map(AppProtocolVersion).collect();
        Listed(&versions).to_string()
    };
    let all: Vec<u32> = (0..100).collect();
    assert_eq!(listed(&all), "0 to 99");
    assert_eq!(listed(&[1, 2, 3]), "1, 2 and 3");
    assert_eq!(listed(&[1, 3, 4, 5, 6, 9]), "1, 3 to 6 and 9");
    assert_eq!(listed(&[]), "none");
}
