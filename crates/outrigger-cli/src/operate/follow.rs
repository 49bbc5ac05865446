//! `outrigger events` and `outrigger audit`: what happened, and what happens.

use serde_json::{Value, json};
use tonic::Streaming;

use crate::args::{AuditArgs, EventsArgs};
use crate::audit::named_line;
use crate::control::client::reply;
use crate::control::proto;
use crate::control::trouble::failure;
use crate::failure::Failure;
use crate::operate::answer::or_tell;
use crate::printer::line;
use crate::{output, shown};

/// Prints the events of plugins, oldest first.
///
/// # Errors
/// As [`WhichRun::connect`](crate::control::client::WhichRun::connect);
/// `control-lost` if the run ends in an untimely way.
pub(crate) async fn events(args: &EventsArgs) -> Result<(), Failure> {
    let request = proto::EventsRequest {
        plugin: args.plugin.clone().unwrap_or_default(),
        follow: args.follow,
    };
    let asked = async { reply(args.run.connect().await?.grpc.events(request).await) };
    let mut events = or_tell(args.json, asked.await)?;
    while let Some(told) = next(&mut events).await? {
        missed(args.json, told.missed, "events");
        match (args.json, &told.event) {
            (true, _) => object(&shown::event_json(&told))?,
            (false, Some(event)) => output::text(&format!("{}\n", shown::event(event)))?,
            (false, None) => {}
        }
    }
    Ok(())
}

/// Prints what the host's services decided, oldest first.
///
/// # Errors
/// As [`events`].
pub(crate) async fn audit(args: &AuditArgs) -> Result<(), Failure> {
    let request = proto::AuditRequest {
        plugin: args.plugin.clone().unwrap_or_default(),
        refused: args.refused,
        follow: args.follow,
    };
    let asked = async { reply(args.run.connect().await?.grpc.audit(request).await) };
    let mut records = or_tell(args.json, asked.await)?;
    while let Some(told) = next(&mut records).await? {
        missed(args.json, told.missed, "decisions");
        let record = told.record.unwrap_or_default();
        match args.json {
            true => object(&record_json(told.missed, &record))?,
            false => output::text(&format!("{}\n", named_line(&record)))?,
        }
    }
    Ok(())
}

/// The next message; nothing once the run is done with telling.
async fn next<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Failure> {
    stream.message().await.map_err(|status| failure(&status))
}

/// Says that some were forgotten before they could be told; JSON says it itself.
fn missed(as_json: bool, count: u64, what: &str) {
    if count > 0 && !as_json {
        output::note(&format!("{count} {what} before this were forgotten"));
    }
}

fn object(value: &Value) -> Result<(), Failure> {
    output::plain(&format!("{}\n", line(value)))
}

fn record_json(missed: u64, record: &proto::AuditRecord) -> Value {
    let text = |text: &str| match text {
        "" => Value::Null,
        text => text.into(),
    };
    let took = shown::span(record.took.as_ref()).unwrap_or_default();
    json!({
        "missed": missed,
        "time": shown::moment(record.time.as_ref()),
        "plugin": record.plugin,
        "instance": record.instance,
        "pid": record.pid,
        "digest": text(&record.digest),
        "client": text(&record.client),
        "request": text(&record.request),
        "capability": record.capability,
        "operation": record.operation,
        "argument": record.argument,
        "verdict": record.verdict,
        "rule": text(&record.rule),
        "code": record.code,
        "reason": text(&record.reason),
        "missing": text(&record.missing),
        "bytes": record.bytes,
        "micros": took.as_micros() as u64,
    })
}
