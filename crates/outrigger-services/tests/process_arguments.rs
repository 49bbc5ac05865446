//! Which commands run, compared with a slow judge that was written apart.

mod support;

use outrigger_wire::proto::host::*;
use proptest::prelude::*;
use support::grants_with;
use support::plugin::Plugin;
use tonic::Code;

const PATTERN: [&str; 7] = ["a", "b", "-x", "--", "a*", "*", "*"];
const GIVEN: [&str; 11] = ["a", "b", "-x", "--", "a*", "*", "", "a b", "a\nb", "é", "-"];

fn words(from: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::vec(proptest::sample::select(from), 0..5)
}

/// Tries every way in which the last `*` may take arguments.
fn slow(pattern: &[&str], given: &[&str]) -> bool {
    let harmless = |text: &&str| !text.starts_with('-') && !text.chars().any(char::is_control);
    let one = |(pattern, given): (&&str, &&str)| match *pattern {
        "*" => harmless(given),
        text => text == *given,
    };
    let fixed =
        |pattern: &[&str]| pattern.len() == given.len() && pattern.iter().zip(given).all(one);
    match pattern.split_last() {
        Some((&"*", before)) => (0..=given.len()).any(|count| {
            let mut long = before.to_vec();
            long.extend(std::iter::repeat_n("*", count));
            fixed(&long)
        }),
        _ => fixed(pattern),
    }
}

fn sections(patterns: &[Vec<&str>]) -> String {
    let entries: Vec<String> = patterns
        .iter()
        .map(|pattern| {
            let args = serde_json::to_string(pattern).expect("JSON");
            format!("{{command: /usr/bin/printf, args: {args}}}")
        })
        .collect();
    format!(
        "capabilities: {{process: {{exec: [{}]}}}}",
        entries.join(", ")
    )
}

fn distinct(patterns: &[Vec<&'static str>]) -> Vec<Vec<&'static str>> {
    let mut patterns = patterns.to_vec();
    patterns.sort_unstable();
    patterns.dedup();
    patterns
}

proptest! {
    #[test]
    fn verdicts_on_arguments_equal_those_of_a_slow_judge(
        patterns in proptest::collection::vec(words(&PATTERN), 1..4),
        lists in proptest::collection::vec(words(&GIVEN), 8),
    ) {
        let patterns = distinct(&patterns);
        let grants = grants_with(&sections(&patterns));
        for given in lists {
            let expected = patterns.iter().any(|pattern| slow(pattern, &given));
            let verdict = grants.process().exec("/usr/bin/printf", &given);
            prop_assert_eq!(verdict.is_ok(), expected, "{:?} {:?}", &patterns, given);
            prop_assert!(grants.process().exec("/usr/bin/env", &given).is_err());
        }
    }
}

#[tokio::test]
async fn what_runs_is_what_the_slow_judge_allows_and_it_arrives_unchanged() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    // The format makes printf print each argument with a mark at its end.
    let patterns = vec![
        vec!["%s|", "a", "*"],
        vec!["%s|", "*", "-x"],
        vec!["%s|", "--", "*", "b"],
    ];
    let plugin = Plugin::new(&sections(&patterns)).await;
    for _ in 0..100 {
        let mut given = words(&GIVEN)
            .new_tree(&mut runner)
            .expect("a list")
            .current();
        given.insert(0, "%s|");
        let command = Some(Command {
            command: "/usr/bin/printf".into(),
            args: given.iter().map(|text| (*text).to_owned()).collect(),
            ..Command::default()
        });
        let request = RunRequest {
            command,
            ..RunRequest::default()
        };
        let outcome = plugin.call::<_, RunResponse>("Process/Run", request).await;
        match patterns.iter().any(|pattern| slow(pattern, &given)) {
            true => {
                let printed: String = given[1..].iter().map(|text| format!("{text}|")).collect();
                let printed = if given.len() == 1 { "|" } else { &printed };
                let reply = outcome.expect("it ran");
                assert_eq!(reply.output, printed.as_bytes(), "{given:?}");
            }
            false => {
                let status = outcome.expect_err("refused");
                assert_eq!(status.code(), Code::PermissionDenied, "{given:?}");
            }
        }
    }
    plugin.close().await;
}
