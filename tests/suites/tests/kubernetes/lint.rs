//! `portmap lint --kubeconfig`: the objects of a cluster, with all and with some permissions.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::control_plane::ControlPlane;
use portmap_harness::control_plane::objects::apply_yaml;
use portmap_suites::command;
use serde_json::{Value, json};

/// A Service with a wrong targetPort, a policy for its port, an Ingress to its targetPort, and a node port that another program
/// would have to choose.
const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: admin, port: 81, targetPort: admin}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec: {defaultBackend: {service: {name: web, port: {number: 8080}}}}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: depot}
spec: {selector: {app: none}, ports: [{port: 80}]}
";

/// A user who may list Services, Deployments and Ingresses, but neither Pods nor policies.
const READER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: lint-reader}
rules:
- {apiGroups: [''], resources: [services], verbs: [list]}
- {apiGroups: [apps], resources: [deployments], verbs: [list]}
- {apiGroups: [networking.k8s.io], resources: [ingresses], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lint-reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: lint-reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: shop}]
";

#[tokio::test]
async fn lint_checks_the_objects_of_a_cluster() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let client = plane.admin()?;
    apply_yaml(&client, OBJECTS).await?;
    apply_yaml(&client, READER).await?;
    let (codes, warnings) = lint(plane.admin_kubeconfig(), &[])?;
    assert_eq!(codes, ["PM110 other", "PM160 web", "PM150 web", "PM101 web"]);
    ensure!(warnings.len() == 1 && warnings[0].contains("does not have HTTPRoute, GRPCRoute"), "{warnings:#?}");

    let (codes, _) = lint(plane.admin_kubeconfig(), &["--namespace", "depot"])?;
    assert_eq!(codes, ["PM110 other"]);

    let kubeconfig = plane.service_account_kubeconfig("shop", "reader").await?;
    let (codes, warnings) = lint(&kubeconfig, &[])?;
    // Conclusions about pods and policies are left out.
    assert_eq!(codes, ["PM160 web"]);
    let forbidden = warnings.iter().find(|line| line.contains("may not list")).context("a warning")?;
    ensure!(forbidden.contains("Pod, Endpoints") && forbidden.contains("NetworkPolicy"), "{warnings:#?}");
    refuse_an_unknown_token(&kubeconfig)
}

/// The answer of the API server is shown by its message alone.
fn refuse_an_unknown_token(kubeconfig: &Path) -> Result<()> {
    let mut config: Value = serde_json::from_slice(&fs::read(kubeconfig)?)?;
    config["users"][0]["user"] = json!({"token": "unknown"});
    fs::write(kubeconfig, config.to_string())?;
    let outcome = command::portmap(&["lint", "--kubeconfig", kubeconfig.to_str().context("not UTF-8")?])?;
    let is_short = outcome.stderr.lines().count() == 1 && outcome.stderr.ends_with(": Unauthorized (HTTP status 401)\n");
    ensure!(outcome.code == Some(3) && is_short, "{outcome:?}");
    Ok(())
}

/// The codes and objects of all findings, and the lines of standard error.
fn lint(kubeconfig: &Path, arguments: &[&str]) -> Result<(Vec<String>, Vec<String>)> {
    let kubeconfig = kubeconfig.to_str().context("not UTF-8")?;
    let outcome = command::portmap(&[&["lint", "-o", "json", "--kubeconfig", kubeconfig], arguments].concat())?;
    let rows: Vec<Value> = serde_json::from_str(&outcome.stdout).with_context(|| format!("no JSON: {outcome:?}"))?;
    let mut codes = Vec::new();
    for row in rows {
        ensure!(row["file"].is_null() && row["line"].is_null(), "an object of a cluster has no place: {row}");
        codes.push(format!("{} {}", row["code"].as_str().unwrap_or_default(), row["name"].as_str().unwrap_or_default()));
    }
    Ok((codes, outcome.stderr.lines().map(str::to_owned).collect()))
}
