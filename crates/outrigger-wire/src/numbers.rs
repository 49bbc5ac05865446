//! Numbers and booleans, read the way a Go peer reads them.

/// Reads a boolean as Go does: `1 t T TRUE true True` and
/// `0 f F FALSE false False`; anything else is `None`.
///
/// ```
/// use outrigger_wire::parse_go_bool;
///
/// assert_eq!(parse_go_bool("T"), Some(true));
/// assert_eq!(parse_go_bool("False"), Some(false));
/// assert_eq!(parse_go_bool("yes"), None);
/// assert_eq!(parse_go_bool("tRUE"), None);
/// ```
pub fn parse_go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Reads a 64-bit decimal integer as Go does: an optional sign, then digits
/// only, with leading zeros allowed and nothing trimmed.
///
/// ```
/// use outrigger_wire::parse_go_int;
///
/// assert_eq!(parse_go_int("+1"), Some(1));
/// assert_eq!(parse_go_int("007"), Some(7));
/// assert_eq!(parse_go_int(" 1"), None);
/// assert_eq!(parse_go_int("1_000"), None);
/// ```
pub fn parse_go_int(text: &str) -> Option<i64> {
    // The standard parser happens to have exactly this grammar; the tests
    // below hold it to that.
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_twelve_words_are_booleans() {
        for word in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(parse_go_bool(word), Some(true), "{word}");
        }
        for word in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(parse_go_bool(word), Some(false), "{word}");
        }
        for word in ["", " true", "true ", "tRue", "on", "yes", "2", "01"] {
            assert_eq!(parse_go_bool(word), None, "{word}");
        }
    }

    #[test]
    fn integers_take_a_sign_and_leading_zeros_and_nothing_else() {
        for (text, value) in [
            ("0", 0),
            ("1", 1),
            ("+1", 1),
            ("-1", -1),
            ("01", 1),
            ("-0", 0),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(parse_go_int(text), Some(value), "{text}");
        }
        for text in [
            "",
            "+",
            "-",
            "+-1",
            "1 ",
            " 1",
            "1 1",
            "1_0",
            "0x1",
            "1.0",
            "1e3",
            "٣",
            "9223372036854775808",
            "-9223372036854775809",
        ] {
            assert_eq!(parse_go_int(text), None, "{text}");
        }
    }
}
