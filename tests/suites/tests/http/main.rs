//! The agent's HTTP servers: health, health checks for load balancers, and metrics.
//!
//! Needs: root and BPF.

mod limits;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::agent::Agent;
use portmap_harness::world::World;
use serde_json::{Value, json};

const HEALTH: &str = "127.0.0.1:10256";

const METRICS: &str = "127.0.0.1:10249";

/// An HTTP answer in the format of `curl --include`.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("the answer is {self:?}"))
    }

    fn has_header(&self, header: &str) -> bool {
        self.headers.lines().any(|line| line.trim_end().eq_ignore_ascii_case(header))
    }
}

/// Sends a request from the node. `None` if curl gets no answer within 5 seconds.
fn ask(world: &World, url: &str) -> Result<Option<Answer>> {
    let output = world.command("curl").args(["--silent", "--include", "--max-time", "5", url]).output()?;
    if !output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8(output.stdout).context("the answer is no text")?;
    let (headers, body) = text.split_once("\r\n\r\n").with_context(|| format!("not an HTTP answer: {text}"))?;
    let status = headers.split_whitespace().nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok(Some(Answer { status, headers: headers.to_owned(), body: body.to_owned() }))
}

fn node(extra: Value) -> Value {
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.244.0.1"}]},
    });
    if let (Value::Object(node), Value::Object(extra)) = (&mut node, extra) {
        node.extend(extra);
    }
    node
}

/// A `LoadBalancer` Service with `externalTrafficPolicy: Local` and these endpoints, as objects of a manifest.
fn local(port: u16, endpoints: &[Value]) -> [Value; 2] {
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "local"},
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.96.0.20", "externalTrafficPolicy": "Local",
                "healthCheckNodePort": port, "ports": [{"port": 80, "nodePort": 30_080}],
            },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "local-1", "labels": {"kubernetes.io/service-name": "local"}},
            "ports": [{"name": "", "port": 8080}], "endpoints": endpoints,
        }),
    ]
}

fn endpoint(address: &str, node: &str, ready: bool) -> Value {
    let conditions = json!({"ready": ready, "serving": true, "terminating": !ready});
    json!({"addresses": [address], "nodeName": node, "conditions": conditions})
}

fn write(world: &World, objects: &[Value]) -> Result<()> {
    Agent::write(world, "objects.json", &json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())
}

fn start(name: &str, objects: &[Value]) -> Result<(World, Agent)> {
    let world = World::new(name)?;
    write(&world, objects)?;
    let agent = Agent::start(&world, &["--healthz-bind-address", HEALTH, "--metrics-bind-address", METRICS])?;
    Ok((world, agent))
}

#[test]
fn a_health_check_reports_the_ready_local_endpoints() -> Result<()> {
    let with = |endpoints: &[Value]| [vec![node(json!({}))], local(31_000, endpoints).to_vec()].concat();
    let (here, terminating) = (endpoint("10.244.0.2", "node", true), endpoint("10.244.0.3", "node", false));
    let (world, mut agent) =
        start("http-checks", &with(&[here.clone(), terminating.clone(), endpoint("10.244.1.2", "far", true)]))?;
    let url = "http://10.244.0.1:31000/whatever";
    agent.wait_until("the health check is answered", |_| Ok(ask(&world, url)?.is_some()))?;
    let answer = ask(&world, url)?.context("the health check is answered with 200")?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let expected = json!({
        "service": {"namespace": "default", "name": "local"}, "localEndpoints": 1, "serviceProxyHealthy": true,
    });
    assert_eq!(answer.json()?, expected);
    for header in ["Content-Type: application/json", "X-Content-Type-Options: nosniff", "X-Load-Balancing-Endpoint-Weight: 1"] {
        assert!(answer.has_header(header), "{header}: {answer:?}");
    }
    // A terminating endpoint does not count, even if it still serves.
    write(&world, &with(&[terminating]))?;
    agent.wait_until("no local endpoint is ready", |_| Ok(ask(&world, url)?.is_some_and(|answer| answer.status == 503)))?;
    // The health check moves if its port number is changed.
    write(&world, &[vec![node(json!({}))], local(31_001, &[here]).to_vec()].concat())?;
    let moved = "http://10.244.0.1:31001/";
    agent.wait_until("the health check has moved", |_| Ok(ask(&world, moved)?.is_some_and(|answer| answer.status == 200)))?;
    agent.wait_until("the old port is free", |_| Ok(ask(&world, url)?.is_none()))
}

#[test]
fn a_port_in_use_is_named_and_retried() -> Result<()> {
    let (world, mut agent) = start("http-taken", &[node(json!({}))])?;
    let mut holder = world.command("python3").args(["-m", "http.server", "31000"]).spawn()?;
    agent.wait_until("the port is taken", |_| Ok(ask(&world, "http://10.244.0.1:31000/")?.is_some()))?;
    write(&world, &[vec![node(json!({}))], local(31_000, &[endpoint("10.244.0.2", "node", true)]).to_vec()].concat())?;
    agent.wait_until("the agent logs the port in use", |agent| {
        Ok(agent.log().contains("default/local on port 31000, trying again"))
    })?;
    holder.kill()?;
    holder.wait()?;
    agent.wait_until("the health check is answered", |_| {
        let answer = ask(&world, "http://10.244.0.1:31000/")?;
        Ok(answer.is_some_and(|answer| answer.has_header("X-Load-Balancing-Endpoint-Weight: 1")))
    })
}

#[test]
fn a_node_being_deleted_is_alive_and_not_eligible() -> Result<()> {
    let (world, mut agent) = start("http-health", &[node(json!({}))])?;
    let ask_path =
        |path: &str| ask(&world, &format!("http://{HEALTH}/{path}"))?.with_context(|| format!("no answer to /{path}"));
    let healthz = ask_path("healthz")?;
    let body = healthz.json()?;
    assert_eq!((healthz.status, &body["healthy"], &body["nodeEligible"]), (200, &json!(true), &json!(true)), "{body}");
    assert_eq!(body["lastUpdated"], body["currentTime"], "{body}");
    assert_eq!(body["status"]["IPv6"]["healthy"], json!(true), "{body}");
    assert_eq!(ask_path("readyz")?.status, 200);
    let taint = json!({"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"});
    write(&world, &[node(json!({"spec": {"taints": [taint]}}))])?;
    agent.wait_until("the node is not eligible", |_| Ok(ask_path("healthz")?.status == 503))?;
    assert_eq!(ask_path("healthz")?.json()?["nodeEligible"], json!(false));
    let livez = ask_path("livez")?;
    assert_eq!(livez.status, 200);
    assert_eq!(livez.json()?.get("nodeEligible"), None, "/livez must not have nodeEligible");
    Ok(())
}

#[test]
fn metrics_have_the_names_of_kube_proxy() -> Result<()> {
    let far = endpoint("10.244.1.2", "far", true);
    let (world, mut agent) = start("http-metrics", &[vec![node(json!({}))], local(31_000, &[far]).to_vec()].concat())?;
    let has = |line: &str| {
        let answer = ask(&world, &format!("http://{METRICS}/metrics"))?;
        Ok(answer.is_some_and(|answer| answer.body.lines().any(|found| found == line)))
    };
    for line in [
        r#"kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="external"} 1"#,
        r#"kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="internal"} 0"#,
        r#"portmap_map_capacity{map="SERVICES"} 8192"#,
        r#"portmap_map_entries{map="SERVICES"} 2"#,
        "portmap_frontends_left_out 0",
        "portmap_backends_not_listening 0",
    ] {
        agent.wait_until(line, |_| has(line))?;
    }
    let text = ask(&world, &format!("http://{METRICS}/metrics"))?.context("metrics")?.body;
    for name in [
        "kubeproxy_sync_proxy_rules_duration_seconds_bucket",
        "kubeproxy_sync_full_proxy_rules_duration_seconds_count",
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
        "kubeproxy_sync_proxy_rules_service_changes_total",
    ] {
        ensure!(text.lines().any(|line| line.starts_with(name)), "{name} is missing:\n{text}");
    }
    Ok(())
}
