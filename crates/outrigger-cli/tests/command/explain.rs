//! `outrigger explain`.

use super::run;

#[test]
fn a_code_is_explained_as_it_stands_in_a_message_or_alone() {
    for code in [
        "handshake-malformed",
        "error[handshake-malformed]:",
        "[handshake-malformed]",
    ] {
        let ran = run(&["explain", code]).expect(0);
        assert_eq!(
            ran.stdout,
            "\
handshake-malformed: the plugin printed something other than a handshake line
  usual causes: a help text, a log line on stdout, no go-plugin program
  what to do: keep stdout for the handshake; print everything else to stderr
"
        );
    }
    let object = run(&["explain", "--json", "handshake-malformed"])
        .expect(0)
        .json();
    assert_eq!(object["code"], "handshake-malformed");
    assert_eq!(object["field"], "Starting a plugin");
}

#[test]
fn without_a_code_all_are_listed() {
    let ran = run(&["explain"]).expect(0);
    assert!(
        ran.stdout
            .starts_with("Finding a plugin\n  plugins-unreadable "),
        "{ran:?}"
    );
    let all = run(&["explain", "--json"]).expect(0).json();
    let all = all.as_array().expect("a list");
    assert_eq!(
        ran.stdout
            .lines()
            .filter(|line| line.starts_with("  "))
            .count(),
        all.len()
    );
    assert!(all.len() > 200, "{}", all.len());
}

#[test]
fn an_unknown_code_is_answered_with_the_nearest() {
    run(&["explain", "handshake-malfromed"])
        .expect(2)
        .says("error[unknown-code]: no error has the code `handshake-malfromed`\n  help: did you mean `handshake-malformed`?");
    run(&["explain", "zzz"])
        .expect(2)
        .says("help: `outrigger explain` lists all codes");
}
