//! The plugin's side of each interface.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use outrigger_examples::netrpc::{animal_methods, animals, kv_methods};
use outrigger_plugin::netrpc::Methods;
use outrigger_plugin::{Broker, BrokerError, BrokerId, PluginContext, PluginSet, Stream};
use tokio::io::AsyncWriteExt;

use super::{Any, Pair, Wanted, Words, adder, describe, http, pattern};

/// How long a stream that was offered waits for the host.
const DIALLED: Duration = Duration::from_secs(5);
/// The longest that `Sleep` takes, in milliseconds.
const LONGEST: i64 = 60_000;
/// What is read of stdin, in bytes.
const MAX_STDIN: u64 = 1 << 20;

/// Every name of the contract but the benchmarks'.
pub fn all() -> PluginSet {
    let mut set = PluginSet::new()
        .netrpc("greeter", |_| greeter())
        .netrpc("kv", |_| kv_methods())
        .netrpc("callbacks", callbacks)
        .netrpc("streams", streams)
        .netrpc("types", |_| types())
        .netrpc("stdio", |_| stdio());
    for name in animals() {
        set = set.netrpc(name, move |_| animal_methods(name));
    }
    set
}

/// The text of an error with its causes: all that crosses.
fn said<T>(result: Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{error:#}"))
}

/// go-plugin's first example.
pub fn greeter() -> Methods {
    Methods::new().method("Greet", |_: Any| async { Ok::<_, String>("Hello!") })
}

/// Calls the host, and serves it an adder.
pub fn callbacks(context: &PluginContext) -> Methods {
    let (calling, offering) = (context.broker(), context.broker());
    Methods::new()
        .method("CallHost", move |id: u32| {
            let broker = calling.clone();
            async move { said(call_host(&*broker, BrokerId(id)).await) }
        })
        .method("OfferHelper", move |_: Any| {
            let broker = offering.clone();
            async move {
                let id = broker.next_id();
                broker.serve_netrpc_once(id, adder()).await?.detach();
                Ok::<u32, BrokerError>(id.0)
            }
        })
}

async fn call_host(broker: &dyn Broker, id: BrokerId) -> Result<String> {
    let host = broker.connect_netrpc(id).await?;
    let sum: i64 = host.call("Plugin.Add", &Pair { a: 20, b: 22 }).await?;
    Ok(sum.to_string())
}

/// Raw streams in both directions, and HTTP on them.
pub fn streams(context: &PluginContext) -> Methods {
    let broker = || context.broker();
    let (sum, produce, fetch) = (broker(), broker(), broker());
    let (echo, answer) = (broker(), broker());
    Methods::new()
        .method("Sum", move |id: u32| {
            let broker = sum.clone();
            async move {
                let mut stream = said(dial(&*broker, id).await)?;
                let digest = pattern::digest(&mut stream).await;
                digest.map_err(|error| error.to_string())
            }
        })
        .method("Produce", move |wanted: Wanted| {
            let broker = produce.clone();
            async move {
                let mut stream = said(dial(&*broker, wanted.id).await)?;
                let written = async {
                    let written = pattern::write(&mut stream, wanted.bytes).await?;
                    stream.shutdown().await?;
                    Ok::<u64, std::io::Error>(written)
                };
                written.await.map_err(|error| error.to_string())
            }
        })
        .method("FetchFromHost", move |id: u32| {
            let broker = fetch.clone();
            async move {
                let body = async {
                    let stream = dial(&*broker, id).await?;
                    let body = http::fetch(stream, "GET", "host", &[]).await?;
                    Ok(String::from_utf8(body)?)
                };
                said(body.await)
            }
        })
        .method("Echo", move |_: Any| {
            offer(echo.clone(), |stream| async move {
                let (mut reader, mut writer) = tokio::io::split(stream);
                tokio::io::copy(&mut reader, &mut writer).await?;
                writer.shutdown().await?;
                Ok(())
            })
        })
        .method("OfferHTTP", move |_: Any| {
            offer(answer.clone(), |stream| {
                http::answer_one(stream, |request| match request.method.as_str() {
                    "POST" => request.body.clone(),
                    _ => b"hello from the plugin\n".to_vec(),
                })
            })
        })
}

async fn dial(broker: &dyn Broker, id: u32) -> Result<Stream> {
    let dialled = broker.dial(BrokerId(id)).await;
    dialled.with_context(|| format!("dialling the host's id {id}"))
}

/// Takes one stream in the background, and says under which id.
async fn offer<F>(
    broker: Arc<dyn Broker>,
    work: impl FnOnce(Stream) -> F + Send + 'static,
) -> Result<u32, BrokerError>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let id = broker.next_id();
    let mut listener = broker.accept(id).await?;
    // Ends with the stream, which ends with the connection to the host.
    tokio::spawn(async move {
        let done = match tokio::time::timeout(DIALLED, listener.accept()).await {
            Ok(Ok(stream)) => {
                drop(listener);
                work(stream).await
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => return tracing::debug!(id = id.0, "nobody dialled"),
        };
        if let Err(error) = done {
            tracing::debug!(id = id.0, "a stream failed: {error:#}");
        }
    });
    Ok(id.0)
}

/// Values of all types, errors and slow methods.
pub fn types() -> Methods {
    Methods::new()
        .method("Describe", |value: Any| async move {
            said(describe::describe(&value))
        })
        .method("Echo", |value: Any| async move { Ok::<_, String>(value) })
        .method("Fail", |text: String| async move { Err::<Any, _>(text) })
        .method("Sleep", |millis: i64| async move {
            if !(0..=LONGEST).contains(&millis) {
                return Err(format!("{millis} ms is not between 0 and {LONGEST}"));
            }
            tokio::time::sleep(Duration::from_millis(millis.unsigned_abs())).await;
            Ok(millis)
        })
}

/// Prints and reads stdin.
pub fn stdio() -> Methods {
    Methods::new()
        .method("Print", |words: Words| async move {
            off_thread(move || {
                let (mut stdout, mut stderr) = (std::io::stdout(), std::io::stderr());
                stdout.write_all(words.out.as_bytes())?;
                stdout.flush()?;
                stderr.write_all(words.err.as_bytes())?;
                Ok(Any::nil())
            })
            .await
        })
        .method("ReadStdin", |_: Any| async move {
            off_thread(|| {
                let mut text = String::new();
                std::io::stdin().take(MAX_STDIN).read_to_string(&mut text)?;
                Ok(text)
            })
            .await
        })
}

/// Blocking work must not hold up the plugin's only thread.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
