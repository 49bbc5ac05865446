//! Plugins whose interface was made by `outrigger-build` or by `#[interface]`, as
//! strangers see them.

use serde_json::json;

use outrigger_transport::{ServiceSet, health};

use super::{EXAMPLE_COOKIE, Fake, go_peer, run, rust_example};

#[test]
fn a_plugin_made_from_a_proto_by_the_build_helper_describes_itself() {
    let Some(program) = rust_example("forecast") else {
        return;
    };
    let cookie = "FORECAST=tomorrow";
    let ran = run(&["inspect", "--json", "--cookie", cookie, "--", &program]).expect(0);
    let services = ran.json()["services"].clone();
    let forecast = json!({
        "name": "forecast.v1.Forecast",
        "file": "forecast.proto",
        "methods": [{
            "name": "Tomorrow",
            "kind": "unary",
            "request": "forecast.v1.TomorrowRequest",
            "reply": "forecast.v1.TomorrowResponse",
        }],
    });
    let services = services.as_array().expect("services");
    assert!(services.contains(&forecast), "{services:#?}");
    let ran = run(&[
        "call",
        "--cookie",
        cookie,
        "--method",
        "forecast.v1.Forecast/Tomorrow",
        "--data",
        r#"{"place": "Oslo"}"#,
        "--",
        &program,
    ])
    .expect(0);
    assert_eq!(ran.json(), json!({"sky": "SKY_CLEAR", "warmest": 24.0}));
}

#[test]
fn a_plugin_that_implements_an_interface_describes_it() {
    let Some(program) = rust_example("greeter") else {
        return;
    };
    let ran = run(&[
        "inspect",
        "--json",
        "--cookie",
        "HELLO_PLUGIN=hello",
        "--",
        &program,
    ])
    .expect(0);
    let services = ran.json()["services"].clone();
    let greeter = json!({
        "name": "greeter.v1.Greeter",
        "file": "greeter/v1/greeter.proto",
        "methods": [
            {
                "name": "SayHello",
                "kind": "unary",
                "request": "greeter.v1.SayHelloRequest",
                "reply": "greeter.v1.SayHelloResponse",
            },
            {
                "name": "SayHelloToAll",
                "kind": "server-stream",
                "request": "greeter.v1.SayHelloToAllRequest",
                "reply": "greeter.v1.SayHelloToAllResponse",
            },
        ],
    });
    let services = services.as_array().expect("services");
    assert!(services.contains(&greeter), "{services:#?}");
}

#[test]
fn the_proto_of_a_plugin_is_printed_as_its_author_wrote_it() {
    let Some(program) = rust_example("greeter") else {
        return;
    };
    let ran = run(&["proto", "--cookie", "HELLO_PLUGIN=hello", "--", &program]).expect(0);
    assert_eq!(ran.stdout, include_str!("greeter.proto"));
}

#[test]
fn the_proto_of_a_go_plugin_is_the_one_that_it_was_generated_from() {
    let Some(program) = go_peer("kv") else {
        return;
    };
    let ran = run(&["proto", "--cookie", EXAMPLE_COOKIE, "--", &program]).expect(0);
    for line in include_str!("../../../../proto/kv.proto").lines() {
        // Go's descriptors have no comments.
        let printed = line.starts_with("//") || ran.stdout.contains(line);
        assert!(printed, "no {line:?} in {ran:?}");
    }
}

#[test]
fn what_cannot_be_printed_as_a_proto_is_said_with_what_to_do() {
    let Some(program) = rust_example("forecast") else {
        return;
    };
    let cookie = "FORECAST=tomorrow";
    run(&[
        "proto",
        "--cookie",
        cookie,
        "--file",
        "forcast.proto",
        "--",
        &program,
    ])
    .expect(2)
    .says("error[unknown-file]")
    .says("did you mean `forecast.proto`?");
    let Some(program) = rust_example("hello") else {
        return;
    };
    run(&["proto", "--cookie", "HELLO_PLUGIN=hello", "--", &program])
        .expect(2)
        .says("error[option-unsupported]")
        .says("speaks net/rpc");
    let served = |services: ServiceSet| services.with(health::service());
    let fake = Fake::new(served, true);
    run(&["proto", "--", &fake.program()])
        .expect(1)
        .says("error[service-undescribed]");
}
