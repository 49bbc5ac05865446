//! The standard health service, as a go-plugin server answers it.

use std::collections::HashMap;
use std::pin::Pin;

use futures_util::Stream;
use outrigger_wire::proto::health::health_check_response::ServingStatus;
use outrigger_wire::proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use tonic::{Request, Response, Status};

use crate::proto::health::health_server::{Health, HealthServer};

/// The name under which a plugin's health is asked for.
pub const SERVICE_NAME: &str = "plugin";

/// A health service that reports `""` and [`SERVICE_NAME`] as serving.
pub fn service() -> HealthServer<impl Health> {
    HealthServer::new(Serving)
}

struct Serving;

fn status_of(service: &str) -> Option<HealthCheckResponse> {
    matches!(service, "" | SERVICE_NAME).then(|| HealthCheckResponse {
        status: ServingStatus::Serving.into(),
    })
}

#[tonic::async_trait]
impl Health for Serving {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        status_of(&request.get_ref().service)
            .map(Response::new)
            .ok_or_else(|| Status::not_found("unknown service"))
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let statuses: HashMap<_, _> = ["", SERVICE_NAME]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), status_of(name)?)))
            .collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let unknown = HealthCheckResponse {
            status: ServingStatus::ServiceUnknown.into(),
        };
        let now = status_of(&request.get_ref().service).unwrap_or(unknown);
        // The status never changes while the server lives: say it once, keep the stream open.
        let stream = futures_util::StreamExt::chain(
            futures_util::stream::iter([Ok(now)]),
            futures_util::stream::pending(),
        );
        Ok(Response::new(Box::pin(stream)))
    }
}
