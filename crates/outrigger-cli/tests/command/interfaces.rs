//! Plugins whose interface was made by `outrigger-build` or by `#[interface]`, as
//! strangers see them.

use serde_json::json;

use super::{run, rust_example};

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
        "HASHI=hola",
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
