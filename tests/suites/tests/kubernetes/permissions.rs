//! The permissions of the shipped manifest: the agent uses each of them, and no other.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use portmap_harness::control_plane::objects::apply_yaml;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::cluster::{Cluster, NODE, rows};
use crate::manifest;
use crate::wait::eventually_equal;

#[tokio::test]
async fn the_shipped_permissions_are_required_and_sufficient() -> Result<()> {
    let cluster = Cluster::start("permissions").await?;
    the_image_is_of_this_version().context("image")?;
    pods_of_the_daemon_set_are_admitted(&cluster).await.context("pods of the DaemonSet")?;
    the_role_suffices(&cluster).await.context("the role")?;
    for permission in permissions()? {
        permission_is_needed(&cluster, &permission).await.with_context(|| format!("without {permission:?}"))?;
    }
    Ok(())
}

/// A permission of a role: one verb on one resource.
#[derive(Clone, Debug)]
pub struct Permission {
    pub group: String,
    pub resource: String,
    pub verb: String,
}

/// The permissions of the shipped role.
fn permissions() -> Result<Vec<Permission>> {
    let role = manifest::document("ClusterRole")?;
    let mut all = Vec::new();
    for rule in items(&role["rules"]) {
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                for verb in strings(&rule["verbs"]) {
                    all.push(Permission { group: group.clone(), resource: resource.clone(), verb });
                }
            }
        }
    }
    ensure!(!all.is_empty(), "the role has no permission");
    Ok(all)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn strings(list: &Value) -> Vec<String> {
    items(list).filter_map(Value::as_str).map(str::to_owned).collect()
}

fn the_image_is_of_this_version() -> Result<()> {
    let daemon_set = manifest::document("DaemonSet")?;
    let image = &daemon_set["spec"]["template"]["spec"]["containers"][0]["image"];
    ensure!(*image == concat!("portmap:", env!("CARGO_PKG_VERSION")), "the image is {image}");
    Ok(())
}

/// Checks pods, not only their template: Pod Security admission and priority classes apply to pods.
async fn pods_of_the_daemon_set_are_admitted(cluster: &Cluster) -> Result<()> {
    let daemon_set = manifest::document("DaemonSet")?;
    let template = &daemon_set["spec"]["template"];
    let mut metadata = template["metadata"].clone();
    metadata["name"] = json!("portmap-0");
    let pod: Pod = serde_json::from_value(json!({"metadata": metadata, "spec": template["spec"]}))?;
    let pods: Api<Pod> = Api::namespaced(cluster.plane.admin()?, manifest::NAMESPACE);
    let admitted = pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await?;
    let spec = admitted.spec.context("a pod has a spec")?;
    ensure!(spec.priority.is_some_and(|priority| priority > 0), "the pod has no priority: {:?}", spec.priority);
    Ok(())
}

async fn the_role_suffices(cluster: &Cluster) -> Result<()> {
    let agent = cluster.agent().await?;
    cluster.await_healthy().await?;
    agent.await_log(&format!("this is Node {NODE}")).await?;
    what_is_new_arrives(cluster, &agent).await?;
    let log = agent.log()?.0;
    ensure!(!log.contains("forbidden"), "the agent uses a permission that the role does not have");
    agent.terminate()
}

/// Changes after the first lists arrive by watches: Services and EndpointSlices in the tables, and the Node in the log.
async fn what_is_new_arrives(cluster: &Cluster, agent: &Agent) -> Result<()> {
    let (a, b) = (&cluster.a, &cluster.b);
    cluster.apply_service("web", "http", "http").await?;
    let frontends = cluster.frontends("web").await?;
    cluster.await_table(&rows("web", "http", &frontends, &[(a, a.http), (b, b.http)])).await?;

    let nodes: Api<Node> = Api::all(cluster.plane.admin()?);
    nodes.delete(NODE, &DeleteParams::default()).await.context("failed to delete the Node")?;
    agent.await_log(&format!("there is no Node {NODE}")).await
}

async fn permission_is_needed(cluster: &Cluster, permission: &Permission) -> Result<()> {
    apply_role(cluster, &role_without(permission)?).await?;
    await_access(cluster, permission, false).await?;
    let agent = cluster.agent().await?;
    let Permission { resource, verb, .. } = permission;
    agent.await_log(&format!("cannot {verb} resource \"{resource}\"")).await?;
    // Without the list of Services, or of EndpointSlices, the agent cannot be synced.
    if verb == "list" && ["services", "endpointslices"].contains(&resource.as_str()) {
        ensure!(!cluster.status()?.synced(), "the agent should not be synced");
    }
    apply_role(cluster, &manifest::document("ClusterRole")?).await?;
    await_access(cluster, permission, true).await
}

/// The shipped role without one permission.
pub fn role_without(permission: &Permission) -> Result<Value> {
    let mut role = manifest::document("ClusterRole")?;
    for rule in role["rules"].as_array_mut().into_iter().flatten() {
        if strings(&rule["apiGroups"]).contains(&permission.group) && strings(&rule["resources"]).contains(&permission.resource)
        {
            let verbs: Vec<_> = strings(&rule["verbs"]).into_iter().filter(|verb| *verb != permission.verb).collect();
            rule["verbs"] = json!(verbs);
        }
    }
    Ok(role)
}

/// Replaces the role. JSON is valid YAML.
pub async fn apply_role(cluster: &Cluster, role: &Value) -> Result<()> {
    apply_yaml(&cluster.plane.admin()?, &role.to_string()).await
}

/// Waits until the API server allows the permission to the agent's service account (`expected` is true), or forbids it.
pub async fn await_access(cluster: &Cluster, permission: &Permission, expected: bool) -> Result<()> {
    let Permission { group, resource, verb } = permission;
    let review: SubjectAccessReview = serde_json::from_value(json!({"spec": {
        "user": format!("system:serviceaccount:{}:{}", manifest::NAMESPACE, manifest::SERVICE_ACCOUNT),
        "resourceAttributes": {"group": group, "resource": resource, "verb": verb},
    }}))?;
    let reviews: Api<SubjectAccessReview> = Api::all(cluster.plane.admin()?);
    let look = async || {
        let answer = reviews.create(&PostParams::default(), &review).await.context("failed to review access")?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    };
    eventually_equal(look, &expected).await
}
