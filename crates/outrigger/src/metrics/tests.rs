use std::collections::BTreeSet;

use outrigger_transport::{EndedCall, TraceContext};
use proptest::prelude::*;
use tonic::Code;

use super::*;

fn call<'a>(method: &'a str, is_known: bool, code: Code) -> EndedCall<'a> {
    EndedCall {
        method,
        is_known,
        code,
        took: Duration::from_micros(30),
        trace: None,
    }
}

/// Each sample of a metric, without its value.
fn samples(text: &str, metric: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    let names = lines.map(|(name, _)| name.to_owned());
    names
        .filter(|name| name.split('{').next() == Some(metric))
        .collect()
}

fn value(text: &str, sample: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn methods_that_somebody_made_up_and_those_beyond_200_are_other() {
    let metrics = Metrics::new();
    let observer = metrics.plugin("p").client();
    let ended = |method: &str, is_known, code| {
        observer.begun();
        observer.ended(&call(method, is_known, code));
    };
    ended("a.v1.A/Get", true, Code::Ok);
    ended("a.v1.A/Get", true, Code::NotFound);
    ended("made.up/Name", false, Code::Unimplemented);
    ended("odd\"} 1\nx{", true, Code::Ok);
    ended(&"x".repeat(1000), true, Code::Ok);
    for number in 0..1000 {
        ended(&format!("many.v1.Many/M{number}"), true, Code::Ok);
    }
    let text = metrics.text(MetricsFormat::Prometheus);
    let counts = samples(&text, "rpc_client_call_duration_seconds_count");
    let others: Vec<&String> = counts
        .iter()
        .filter(|name| name.contains("_OTHER"))
        .collect();
    assert_eq!(others.len(), 2, "of two codes: {others:?}");
    assert_eq!(counts.len() - others.len(), calls::SERIES);
    let of = |method: &str, code: &str| {
        let sample = format!(
            "rpc_client_call_duration_seconds_count{{plugin=\"p\",rpc_method=\"{method}\",rpc_status_code=\"{code}\"}}"
        );
        value(&text, &sample)
    };
    assert_eq!(of("a.v1.A/Get", "OK"), Some(1.0));
    assert_eq!(of("a.v1.A/Get", "NOT_FOUND"), Some(1.0));
    assert_eq!(of("_OTHER", "UNIMPLEMENTED"), Some(1.0));
    // Of 1000, 198 found room beside the two of before.
    assert_eq!(of("_OTHER", "OK"), Some(2.0 + 802.0));
    let traffic = metrics.traffic("p").expect("counted");
    assert_eq!(
        (traffic.calls, traffic.failed, traffic.in_flight),
        (1005, 2, 0)
    );
    assert!(traffic.p99.expect("calls") <= Duration::from_micros(50));
}

#[test]
fn traffic_of_late_is_that_since_a_reading_a_minute_ago() {
    let plugin = PluginMetrics::default();
    let observer = plugin.client();
    let begun = Instant::now();
    let mut slow = call("a.v1.A/Get", true, Code::Internal);
    slow.took = Duration::from_secs(2);
    observer.begun();
    observer.ended(&slow);
    observer.begun();
    let now = plugin.traffic(begun + Duration::from_secs(10));
    assert_eq!((now.calls, now.failed, now.in_flight), (1, 1, 1));
    assert!(now.failed_per_second > 0.05 && now.failed_per_second < 0.2);
    for minutes in 1..=3 {
        plugin.traffic(begun + Duration::from_secs(61 * minutes));
    }
    let quick = call("a.v1.A/Get", true, Code::Ok);
    observer.ended(&quick);
    let late = plugin.traffic(begun + Duration::from_secs(61 * 3 + 1));
    assert_eq!((late.calls, late.failed, late.in_flight), (2, 1, 0));
    assert_eq!(late.failed_per_second, 0.0);
    assert!(
        late.p99.expect("a call") <= Duration::from_micros(50),
        "{late:?}"
    );
}

#[test]
fn the_trace_of_a_sampled_call_is_told_in_open_metrics_only() {
    let metrics = Metrics::new();
    let observer = metrics.plugin("p").client();
    for flags in ["00", "01"] {
        let id = format!("{flags}f92f3577b34da6a3ce929d0e0e4736");
        let parent = format!("00-{id}-00f067aa0ba902b7-{flags}");
        let trace = TraceContext::parse(&parent, None).expect("well-formed");
        let mut traced = call("a.v1.A/Get", true, Code::Ok);
        traced.trace = Some(&trace);
        observer.begun();
        observer.ended(&traced);
    }
    let open = metrics.text(MetricsFormat::OpenMetrics);
    assert!(
        open.contains("# {trace_id=\"01f92f3577b34da6a3ce929d0e0e4736\"}"),
        "{open}"
    );
    assert!(!open.contains("00f92f3577b34da6a3ce929d0e0e4736"), "{open}");
    assert!(open.ends_with("# EOF\n"));
    let plain = metrics.text(MetricsFormat::Prometheus);
    assert!(!plain.contains("trace_id"), "{plain}");
}

#[test]
fn a_plugin_has_one_state_and_what_its_process_uses() {
    let metrics = Metrics::new();
    let plugin = metrics.plugin("p");
    plugin.starts();
    plugin.serves(Duration::from_millis(12));
    let life = Arc::new(Mutex::new(Some(Life {
        plugin: "p".into(),
        state: "running",
        generation: 1,
        pid: Some(std::process::id()),
    })));
    let told = life.clone();
    metrics.look_at(Box::new(move || Some(vec![lock(&told).clone()?])));
    plugin.restarts("plugin-exited");
    plugin.decided("filesystem", Verdict::Refused);
    let text = metrics.text(MetricsFormat::Prometheus);
    let states = samples(&text, "outrigger_plugin_state");
    assert_eq!(states.len(), names::STATES.len(), "{states:?}");
    let set: Vec<&String> = states
        .iter()
        .filter(|state| value(&text, state) == Some(1.0))
        .collect();
    assert_eq!(
        set,
        ["outrigger_plugin_state{plugin=\"p\",state=\"running\"}"]
    );
    for (sample, expected) in [
        ("outrigger_plugin_starts_total{plugin=\"p\"}", 1.0),
        ("outrigger_plugin_generation{plugin=\"p\"}", 1.0),
        (
            "outrigger_plugin_restarts_total{plugin=\"p\",reason=\"plugin-exited\"}",
            1.0,
        ),
        (
            "outrigger_grants_decisions_total{plugin=\"p\",capability=\"filesystem\",verdict=\"refused\"}",
            1.0,
        ),
        (
            "outrigger_plugin_start_duration_seconds_bucket{plugin=\"p\",le=\"0.01\"}",
            0.0,
        ),
        (
            "outrigger_plugin_start_duration_seconds_bucket{plugin=\"p\",le=\"0.025\"}",
            1.0,
        ),
    ] {
        assert_eq!(value(&text, sample), Some(expected), "{sample} in\n{text}");
    }
    let resident = value(&text, "process_resident_memory_bytes{plugin=\"p\"}");
    assert!(resident > Some(1e6), "{resident:?}");
    *lock(&life) = None;
    let text = metrics.text(MetricsFormat::Prometheus);
    assert_eq!(samples(&text, "process_resident_memory_bytes").len(), 0);
    assert_eq!(samples(&text, "outrigger_plugin_state").len(), 0, "no host");
    assert_eq!(samples(&text, "outrigger_plugin_starts_total").len(), 1);
}

#[test]
fn the_page_names_each_metric_with_its_labels_and_help() {
    let page = include_str!("../../../../docs/metrics.md");
    let rows: Vec<String> = page
        .lines()
        .filter(|line| line.starts_with("| `") && line.contains("_"))
        .filter(|line| line.matches('|').count() == 5)
        .map(str::to_owned)
        .collect();
    let wanted: Vec<String> = names::ALL
        .iter()
        .map(|name| {
            let labels: Vec<String> = name
                .labels
                .iter()
                .map(|label| format!("`{label}`"))
                .collect();
            let (shown, kind) = (name.shown(), name.kind.as_str());
            format!(
                "| `{shown}` | {kind} | {} | {} |",
                labels.join(", "),
                name.help
            )
        })
        .collect();
    assert_eq!(rows, wanted, "the rows should be\n{}", wanted.join("\n"));
}

proptest! {
    #[test]
    fn no_label_breaks_the_text_whatever_a_method_is_called(
        method in ".{0,300}",
        is_known: bool,
        code in 0_i32..17,
    ) {
        let metrics = Metrics::new();
        let observer = metrics.plugin("p").server.clone();
        observer.begun();
        observer.ended(&call(&method, is_known, Code::from_i32(code)));
        let text = metrics.text(MetricsFormat::Prometheus);
        let counts = samples(&text, "rpc_server_call_duration_seconds_count");
        prop_assert_eq!(counts.len(), 1);
        for line in text.lines() {
            let is_sample = line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok());
            prop_assert!(line.starts_with("# ") || is_sample, "{}", line);
        }
    }
}
