//! `--events`: a Kubernetes Event on a Service whose targetPort no program listens on.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use crate::cluster::{COMMON_PORT, Cluster, NAMESPACE, NODE};
use crate::manifest;
use crate::permissions::{Permission, apply_role, await_access};
use crate::wait::eventually;

const NAME: &str = "web";
/// No pod listens on this port.
const WRONG: &str = "9999";
const ENDED: &str = "no local backend is without a listening program any more";

#[tokio::test]
async fn a_mistake_is_an_event_on_its_service() -> Result<()> {
    let cluster = Cluster::start("events").await?;
    let agent = cluster.agent_with(&["--events", "--listening-interval", "1"]).await?;
    cluster.apply_service(NAME, "http", WRONG).await?;
    let failure = format!("failed to write an Event about Service {NAMESPACE}/{NAME}");
    agent.await_log(&failure).await.context("with the shipped role")?;
    agent.await_log("cannot create resource \"events\" in API group \"events.k8s.io\"").await?;
    cluster.apply_service(NAME, "http", &COMMON_PORT.to_string()).await?;
    agent.await_log(ENDED).await?;

    let permission = Permission { group: "events.k8s.io".into(), resource: "events".into(), verb: "create".into() };
    apply_role(&cluster, &role_with_events()?).await?;
    await_access(&cluster, &permission, true).await?;
    cluster.apply_service(NAME, "http", WRONG).await?;
    let found = eventually(async || events(&cluster).await, |events| !events.is_empty()).await?;
    is_about_the_service(&cluster, &found).await?;
    agent.terminate()
}

/// The shipped role, with the rule that it has as a comment.
fn role_with_events() -> Result<Value> {
    let text = manifest::TEXT;
    let (_, comment) = text.split_once("# Only for --events").context("the role has no comment about --events")?;
    let lines = comment.lines().skip(1).map_while(|line| line.strip_prefix("  #"));
    let rules: Value = serde_saphyr::from_str(&lines.collect::<Vec<_>>().join("\n"))?;
    let mut role = manifest::document("ClusterRole")?;
    let all = role["rules"].as_array_mut().context("the role has no rules")?;
    all.extend(rules.as_array().context("the comment has no list of rules")?.clone());
    Ok(role)
}

async fn events(cluster: &Cluster) -> Result<Vec<Event>> {
    let events: Api<Event> = Api::namespaced(cluster.plane.admin()?, NAMESPACE);
    let list = events.list(&ListParams::default().fields("reason=TargetPortNotListening")).await;
    Ok(list.context("failed to list Events")?.items)
}

async fn is_about_the_service(cluster: &Cluster, events: &[Event]) -> Result<()> {
    let services: Api<Service> = Api::namespaced(cluster.plane.admin()?, NAMESPACE);
    let service = services.get(NAME).await?;
    let [event] = events else { anyhow::bail!("one Event was expected: {events:#?}") };
    let regarding = event.regarding.as_ref().context("the Event is about nothing")?;
    ensure!(regarding.kind.as_deref() == Some("Service") && regarding.uid == service.uid(), "{event:#?}");
    ensure!(event.type_.as_deref() == Some("Warning") && event.reporting_instance.as_deref() == Some(NODE), "{event:#?}");
    let note = event.note.as_deref().unwrap_or_default();
    ensure!(note.contains(&format!("port 80/TCP → targetPort {WRONG}: ")), "{event:#?}");
    Ok(())
}
