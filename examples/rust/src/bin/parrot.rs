//! An animal that says what the application taught it: the phrases are in a service of
//! the application's own, which the manifest asks for by its name, `phrases`.
//!
//! What its own configuration has for a mood comes before that.
//!
//! It speaks gRPC in version 1 of its interface and net/rpc in version 2.

use std::process::ExitCode;

use outrigger_examples::netrpc::{AnyMap, animal_cookie};
use outrigger_examples::proto::animal::animal_server::{Animal, AnimalServer};
use outrigger_examples::proto::animal::{SpeakRequest, SpeakResponse};
use outrigger_examples::proto::kv::GetRequest;
use outrigger_examples::proto::kv::kv_client::KvClient;
use outrigger_plugin::netrpc::Methods;
use outrigger_plugin::{PluginContext, PluginSet, Serve, ServiceSet};
use tonic::{Request, Response, Status};

/// The service of the application's that the manifest asks for.
const PHRASES: &str = "phrases";

struct Parrot(PluginContext);

impl Parrot {
    /// What the application taught it for this mood.
    async fn phrase(context: &PluginContext, mood: &str) -> Result<String, Status> {
        if let Some(phrase) = Parrot::configured(context, mood)? {
            return Ok(phrase);
        }
        let channel = context.service(PHRASES).await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        let key = mood.to_owned();
        let phrase = KvClient::new(channel).get(GetRequest { key }).await?;
        String::from_utf8(phrase.into_inner().value.into())
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl Parrot {
    /// What its own configuration says, which may have changed since the last time.
    fn configured(context: &PluginContext, mood: &str) -> Result<Option<String>, Status> {
        let broken = |error: &dyn std::error::Error| Status::internal(error.to_string());
        let Some(config) = context.config().map_err(|error| broken(&error))? else {
            return Ok(None);
        };
        let config: serde_json::Value =
            serde_json::from_str(&config).map_err(|error| broken(&error))?;
        Ok(config[mood].as_str().map(str::to_owned))
    }
}

fn mood(loud: bool) -> &'static str {
    match loud {
        true => "loud",
        false => "quiet",
    }
}

#[tonic::async_trait]
impl Animal for Parrot {
    async fn speak(
        &self,
        request: Request<SpeakRequest>,
    ) -> Result<Response<SpeakResponse>, Status> {
        let mood = mood(request.get_ref().is_loud);
        let resp = Parrot::phrase(&self.0, mood).await?;
        Ok(Response::new(SpeakResponse { resp }))
    }
}

fn methods(context: &PluginContext) -> Methods {
    let context = context.clone();
    Methods::new().method("Speak", move |arguments: AnyMap| {
        let context = context.clone();
        let loud = arguments.get("isLoud").map(|loud| loud.get::<bool>());
        async move {
            let loud = matches!(loud, Some(Ok(Some(true))));
            let phrase = Parrot::phrase(&context, mood(loud)).await;
            phrase.map_err(|status| status.message().to_owned())
        }
    })
}

fn main() -> ExitCode {
    let grpc = PluginSet::new().grpc("parrot", |context| {
        ServiceSet::new().with(AnimalServer::new(Parrot(context.clone())))
    });
    let netrpc = PluginSet::new().netrpc("parrot", methods);
    let serve = Serve::new(animal_cookie("parrot"));
    outrigger_plugin::serve(serve.offer(1, grpc).offer(2, netrpc))
}
