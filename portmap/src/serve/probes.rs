//! The answers to the probes: `/healthz` and `/livez`, as kube-proxy answers them, and `/readyz`.

use std::sync::Arc;

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use jiff::Timestamp;
use serde::Serialize;

use super::{Metrics, Published};

/// The body of the answers of `/healthz` and `/livez`, as kube-proxy has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HealthzAnswer {
    last_updated: Timestamp,
    current_time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    status: Families,
}

/// The health for each address family. The agent writes both families together, so both values are equal.
#[derive(Serialize)]
struct Families {
    #[serde(rename = "IPv4")]
    v4: FamilyHealth,
    #[serde(rename = "IPv6")]
    v6: FamilyHealth,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyHealth {
    last_updated: Timestamp,
    healthy: bool,
}

/// The routes of the servers at `--healthz-bind-address`.
pub fn router(published: Arc<Published>, metrics: Arc<Metrics>) -> Router {
    let (live, ready, live_metrics) = (published.clone(), published.clone(), metrics.clone());
    Router::new()
        // For load balancers: a node that is about to be removed should get no new connections.
        .route(
            "/healthz",
            get(move || async move {
                let answer = answer(&published, Some(published.is_eligible()));
                metrics.answered_healthz(answer.status().as_u16());
                answer
            }),
        )
        // For the kubelet: the removal of the node is no reason to restart the agent.
        .route(
            "/livez",
            get(move || async move {
                let answer = answer(&live, None);
                live_metrics.answered_livez(answer.status().as_u16());
                answer
            }),
        )
        .route("/readyz", get(move || async move { readiness(&ready) }))
}

/// Further routes of the server of `/metrics`: `/healthz`, which always answers 200, and `/readyz`.
pub fn plain_router(published: Arc<Published>) -> Router {
    Router::new().route("/healthz", get(|| async { "ok" })).route("/readyz", get(move || async move { readiness(&published) }))
}

fn answer(published: &Published, node_eligible: Option<bool>) -> Response {
    let (is_healthy, last_sync, now) = (published.is_healthy(), published.last_sync(), Timestamp::now());
    let healthy = is_healthy && node_eligible != Some(false);
    let family = FamilyHealth { last_updated: last_sync, healthy: is_healthy };
    let answer = HealthzAnswer {
        // Some consumers compare `lastUpdated` with `currentTime`, so an answer with `healthy` reports the current time in
        // both.
        last_updated: if healthy { now } else { last_sync },
        current_time: now,
        node_eligible,
        healthy,
        status: Families { v4: family, v6: family },
    };
    (status(healthy), [("X-Content-Type-Options", "nosniff")], Json(answer)).into_response()
}

fn readiness(published: &Published) -> Response {
    let problem = match published.outage() {
        Some(outage) => Some(format!("{outage}\n")),
        None if !published.is_ready() => Some("the objects are not listed, or their tables are not written\n".to_owned()),
        None if !published.is_attached() => Some("programs are detached; the agent's log has the reason\n".to_owned()),
        None => None,
    };
    (status(problem.is_none()), problem.unwrap_or_else(|| "ok\n".to_owned())).into_response()
}

fn status(is_fine: bool) -> StatusCode {
    if is_fine { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Watches;

    #[test]
    fn ready_after_a_complete_write_and_while_attached() {
        let published = Published::new(Arc::new(Watches::default()));
        let code = || readiness(&published).status().as_u16();
        assert_eq!(code(), 503, "nothing has been listed yet");
        published.synced();
        assert_eq!(code(), 200);
        published.set_attached(false);
        assert_eq!(code(), 503, "the programs are detached");
        published.set_attached(true);
        assert_eq!(code(), 200);
        published.failed();
        assert_eq!(code(), 503, "the tables could not be written");
    }
}
