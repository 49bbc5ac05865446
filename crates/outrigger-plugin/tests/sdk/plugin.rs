//! The plugin: makes the check that its host names.

use std::panic::resume_unwind;
use std::process::ExitCode;
use std::sync::Arc;

use futures_util::FutureExt;
use outrigger_plugin::netrpc::Methods;
use outrigger_plugin::{MagicCookie, PluginContext, PluginSet, Serve, ServiceSet};

use crate::checks::{self, Checked};
use crate::interface::ListerServer;

/// Key and value.
pub(crate) const COOKIE: (&str, &str) = ("OUTRIGGER_SDK_TEST", "sdk");

pub(crate) fn cookie() -> MagicCookie {
    MagicCookie::new(COOKIE.0, COOKIE.1)
}

pub(crate) fn serve() -> ExitCode {
    let set = if std::env::args().any(|argument| argument == "netrpc") {
        PluginSet::new().netrpc("client", |context| {
            let context = context.clone();
            Methods::new().method("Run", move |kind: String| {
                let checked = check(context.clone(), kind);
                async move { checked.await.map(|()| true) }
            })
        })
    } else {
        PluginSet::new().grpc("client", |context| {
            let context = context.clone();
            let work = move |kind| check(context.clone(), kind).boxed();
            ServiceSet::new().with(ListerServer(Arc::new(work)))
        })
    };
    outrigger_plugin::serve(Serve::new(cookie()).offer(1, set))
}

/// One check in both ways, or by calls alone for `calls-KIND`. The host's services
/// are those of the plugin's whole life, or for `KIND@ID` those behind a broker id.
async fn check(context: PluginContext, kind: String) -> Result<(), String> {
    // A failed assertion is a panic, which a task keeps.
    let checked = tokio::spawn(async move { run(&context, &kind).await }).await;
    match checked {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => Err(match panic.downcast::<String>() {
                Ok(message) => *message,
                Err(panic) => match panic.downcast::<&str>() {
                    Ok(message) => (*message).to_owned(),
                    Err(panic) => resume_unwind(panic),
                },
            }),
            Err(stopped) => Err(stopped.to_string()),
        },
    }
}

async fn run(context: &PluginContext, kind: &str) -> Checked {
    let (kind, id) = match kind.split_once('@') {
        Some((kind, id)) => (kind, Some(id.parse()?)),
        None => (kind, None),
    };
    if kind == "hostserve" {
        let host = context.host_serve(id.ok_or("no broker id")?).await?;
        return checks::hostserve::check(&host).await;
    }
    let host = match id {
        Some(id) => context.host_on(id).await?,
        None => context.host().await?,
    };
    let (kind, ways) = match kind.strip_prefix("calls-") {
        Some(kind) => (kind, vec![host.without_descriptors()]),
        None if host.has_descriptors() => (kind, vec![host.clone(), host.without_descriptors()]),
        None => return Err("the host hands over no descriptors".into()),
    };
    for host in ways {
        let way = match host.has_descriptors() {
            true => "descriptor",
            false => "call",
        };
        let checked = checks::run(&host, kind).await;
        checked.map_err(|error| format!("{kind} by {way}: {error}"))?;
    }
    Ok(())
}
