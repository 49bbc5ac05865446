//! Services of the caller's own: `call --serve`.

use serde_json::json;
use tempfile::TempDir;

use super::{EXAMPLE_COOKIE, Ran, VARIANTS, command, go_peer, rust_example};

const PUT: &str = "proto.Counter/Put";
const GET: &str = "proto.Counter/Get";

/// The programs of the counter example that are built: ours and Go's.
fn counters() -> Vec<String> {
    let all = [rust_example("counter"), go_peer("counter")];
    all.into_iter().flatten().collect()
}

/// Calls a counter in a folder of its own, with `--serve`.
fn call(folder: &TempDir, program: &str, serve: &str, more: &[&str]) -> Ran {
    let mut args = vec!["call", "--cookie", EXAMPLE_COOKIE, "--serve", serve];
    args.extend(more);
    args.extend(["--", program]);
    let mut command = command(&args);
    command.current_dir(folder);
    command.output().expect("the command runs").into()
}

const ADD: [&str; 4] = ["--method", PUT, "--data", "{\"key\":\"k\",\"value\":2}"];

#[test]
fn a_plugin_calls_the_service_that_is_served_to_it_and_its_calls_are_shown() {
    for program in counters() {
        for flags in VARIANTS {
            let folder = tempfile::tempdir().expect("a directory");
            let replies = folder.path().join("replies.json");
            std::fs::write(&replies, "{\"Sum\": [{\"r\": 40}, {\"r\": \"42\"}]}").expect("written");
            let serve = format!("proto.AddHelper={}", replies.display());
            let get = ["--method", GET, "--data", "{\"key\":\"k\"}"];
            let more: Vec<&str> = flags
                .iter()
                .chain(&ADD)
                .chain(&ADD)
                .chain(&get)
                .copied()
                .collect();
            let ran = call(&folder, &program, &serve, &more).expect(0);
            assert_eq!(
                ran.stdout, "{}\n{}\n{\"value\":\"42\"}\n",
                "{flags:?} {ran:?}"
            );
            ran.says("  the plugin called proto.AddHelper/Sum with {\"b\":\"2\"}\n  proto.AddHelper/Sum answered {\"r\":\"40\"}\n")
                .says("with {\"a\":\"40\",\"b\":\"2\"}\n");
        }
    }
}

#[test]
fn json_has_the_plugins_calls_and_the_errors_that_it_was_given() {
    for program in counters() {
        let folder = tempfile::tempdir().expect("a directory");
        let serve = "proto.AddHelper={\"Sum\":{\"@error\":{\"code\":\"OUT_OF_RANGE\",\"message\":\"too \\u001bmuch\"}}}@add_server";
        let mut more = vec!["--json"];
        more.extend(ADD);
        let ran = call(&folder, &program, serve, &more).expect(1);
        let object = ran.json();
        assert_eq!(object["status"]["message"], "too \u{1b}much", "{ran:?}");
        assert_eq!(
            object["served"],
            json!([{"method": "proto.AddHelper/Sum", "requests": [{"b": "2"}], "replies": [],
                "error": {"code": "OUT_OF_RANGE", "message": "too \u{1b}much"}}])
        );
        let ran = call(&folder, &program, "proto.AddHelper={}", &ADD).expect(1);
        assert!(!ran.stderr.contains('\u{1b}'));
        ran.says("proto.AddHelper/Sum answered with the error {\"code\":\"UNIMPLEMENTED\"")
            .says("no reply was written for this method (`--serve`)");
    }
}

#[test]
fn a_number_in_the_data_is_not_replaced() {
    for program in counters() {
        let folder = tempfile::tempdir().expect("a directory");
        let data = "{\"key\":\"k\",\"value\":2,\"addServer\":77}";
        let more = ["--method", PUT, "--data", data, "--timeout", "20s"];
        let ran = call(
            &folder,
            &program,
            "proto.AddHelper={\"Sum\":{\"r\":1}}",
            &more,
        )
        .expect(1);
        assert!(!ran.stderr.contains("the plugin called"), "{ran:?}");
    }
}

#[test]
fn a_service_on_a_fixed_id_is_there_from_the_beginning() {
    for program in counters() {
        let folder = tempfile::tempdir().expect("a directory");
        let data = "{\"key\":\"k\",\"value\":2,\"add_server\":1}";
        let more = ["--method", PUT, "--data", data];
        let ran = call(
            &folder,
            &program,
            "proto.AddHelper={\"Sum\":{\"r\":1}}@1",
            &more,
        );
        ran.expect(0).says("the plugin called proto.AddHelper/Sum");
    }
}

#[test]
fn services_that_cannot_be_served_are_usage_errors_that_say_what_there_is() {
    let Some(program) = rust_example("counter") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a directory");
    let served = |serve: &str, more: &[&str]| call(&folder, &program, serve, more).expect(2);
    served("proto.AddHelper={\"Sum\":{\"q\":1}}", &ADD)
        .says("error[serve-invalid]")
        .says("the reply of `proto.AddHelper/Sum` does not fit");
    served("proto.AddHelper={\"Add\":{}}", &ADD).says("it has `Sum`");
    served("proto.AddHelper=/nonexistent", &ADD).says("error[serve-unreadable]");
    served("proto.AddHelpr={}", &ADD)
        .says("error[serve-undescribed]")
        .says("did you mean `proto.AddHelper`?")
        .says("--descriptors FILE");
    let get = ["--method", GET, "--data", "{}"];
    served("proto.AddHelper={}", &get)
        .says("error[serve-unsuitable]: no field is known to carry the broker id of `proto.AddHelper`")
        .says("its `uint32` fields are none");
    served("proto.AddHelper={}@nothing", &ADD)
        .says("its `uint32` fields are `add_server`")
        .says("`--serve proto.AddHelper=…@add_server`");
    let ran = super::run(&[
        "call",
        "--serve",
        "proto.AddHelper",
        "--method",
        PUT,
        "--",
        "x",
    ]);
    ran.expect(2);
}
