//! A plugin whose interface is the `.proto` beside it. Hosts in any language
//! generate their side from that file; `outrigger inspect` asks the plugin itself.

use std::process::ExitCode;

use outrigger_plugin::{MagicCookie, PluginSet, Serve, ServiceSet};
use tonic::{Request, Response, Status};

use forecast::forecast_server::{Forecast, ForecastServer};
use forecast::{Sky, TomorrowRequest, TomorrowResponse};

mod forecast {
    #![allow(missing_docs, unreachable_pub, dead_code, clippy::all)] // Generated.

    tonic::include_proto!("forecast.v1");

    pub(crate) const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("descriptors");
}

struct Optimist;

#[tonic::async_trait]
impl Forecast for Optimist {
    async fn tomorrow(
        &self,
        request: Request<TomorrowRequest>,
    ) -> Result<Response<TomorrowResponse>, Status> {
        if request.get_ref().place.is_empty() {
            return Err(Status::invalid_argument("name a place"));
        }
        Ok(Response::new(TomorrowResponse {
            sky: Sky::Clear.into(),
            warmest: 24.0,
        }))
    }
}

fn main() -> ExitCode {
    let set = PluginSet::new().grpc("forecast", |_| {
        ServiceSet::new()
            .with(ForecastServer::new(Optimist))
            .describe(forecast::DESCRIPTORS)
    });
    outrigger_plugin::serve(Serve::new(MagicCookie::new("FORECAST", "tomorrow")).offer(1, set))
}
