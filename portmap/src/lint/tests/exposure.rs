//! Rules PM120 to PM141: node ports, load balancers and probes.

use super::{codes, deployment, object, service, settings};
use crate::lint::{
    Settings, check,
    set::{Origin, Set},
};

fn node_port(name: &str, port: &str) -> String {
    object("v1", "Service", name, &format!("spec: {{type: NodePort, ports: [{port}]}}"))
}

#[test]
fn a_node_port_out_of_range() {
    assert_eq!(codes(&[&node_port("a", "{port: 80, nodePort: 80}")]), ["error PM120"]);
    assert_eq!(codes(&[&node_port("a", "{port: 80, nodePort: 32768}")]), ["error PM120"]);
    assert_eq!(codes(&[&node_port("a", "{port: 80, nodePort: 30000}")]), [""; 0]);
    assert_eq!(codes(&[&node_port("a", "{port: 80, nodePort: 0}")]), [""; 0]);
    let read = |origin| {
        let mut set = Set::new(origin, "default");
        set.read("a.yaml", &node_port("a", "{port: 80, nodePort: 80}"));
        set
    };
    let wide = Settings { node_ports: (1, 32_767), ..settings() };
    assert_eq!(check(&read(Origin::Files), &wide), []);
    // The API server of a cluster has accepted the port.
    assert_eq!(check(&read(Origin::Cluster), &settings()), []);
}

#[test]
fn a_node_port_of_two_services() {
    let a = node_port("a", "{port: 80, nodePort: 30080}");
    assert_eq!(codes(&[&a, &node_port("b", "{port: 81, nodePort: 30080}")]), ["error PM121"]);
    // A cluster has one set of node ports for all namespaces and protocols.
    let elsewhere = node_port("b, namespace: x", "{port: 81, nodePort: 30080, protocol: UDP}");
    assert_eq!(codes(&[&a, &elsewhere]), ["error PM121"]);
    assert_eq!(codes(&[&a, &node_port("b", "{port: 81, nodePort: 30081}")]), [""; 0]);
    // Two documents with one name are variants of one Service.
    assert_eq!(codes(&[&a, &a]), [""; 0]);
    let both = "{name: a, port: 80, nodePort: 30080}, {name: b, port: 80, protocol: UDP, nodePort: 30080}";
    assert_eq!(codes(&[&node_port("a", both)]), [""; 0]);
    let same = "{name: a, port: 80, nodePort: 30080}, {name: b, port: 81, nodePort: 30080}";
    assert_eq!(codes(&[&node_port("a", same)]), ["error PM121"]);
    let health = node_port("b", "{port: 80}").replace("ports:", "healthCheckNodePort: 30080, ports:");
    assert_eq!(codes(&[&a, &health]), ["error PM121"]);
}

#[test]
fn a_load_balancer_for_all() {
    let open = node_port("a", "{port: 80}").replace("NodePort", "LoadBalancer");
    assert_eq!(codes(&[&open]), ["note PM130"]);
    assert_eq!(codes(&[&open.replace("ports:", "loadBalancerSourceRanges: [10.0.0.0/8], ports:")]), [""; 0]);
    let annotated = |annotation: &str| open.replace("{name: a}", &format!("{{name: a, annotations: {{{annotation}}}}}"));
    for annotation in [
        "service.beta.kubernetes.io/load-balancer-source-ranges: 10.0.0.0/8",
        "service.beta.kubernetes.io/aws-load-balancer-scheme: internal",
        "networking.gke.io/load-balancer-type: \"Internal\"",
        "service.beta.kubernetes.io/azure-load-balancer-internal: \"true\"",
    ] {
        assert_eq!(codes(&[&annotated(annotation)]), [""; 0], "{annotation}");
    }
    let external = annotated("service.beta.kubernetes.io/azure-load-balancer-internal: \"false\"");
    assert_eq!(codes(&[&external]), ["note PM130"]);
}

const PORTS: &str = "ports: [{name: http, containerPort: 8080}]";

fn probed(probe: &str) -> String {
    deployment("a", &format!("{PORTS}, {probe}"))
}

#[test]
fn a_probe_on_an_unknown_name() {
    assert_eq!(codes(&[&probed("livenessProbe: {httpGet: {port: web}}")]), ["error PM140"]);
    assert_eq!(codes(&[&probed("startupProbe: {tcpSocket: {port: web}}")]), ["error PM140"]);
    assert_eq!(codes(&[&probed("lifecycle: {preStop: {httpGet: {port: web}}}")]), ["error PM140"]);
    assert_eq!(codes(&[&probed("livenessProbe: {httpGet: {port: http}}")]), [""; 0]);
    // The kubelet looks only at the container of the probe.
    let other = "ports: [{name: a, containerPort: 1}], livenessProbe: {httpGet: {port: http}}}, {name: b, ports: [{name: http, \
                 containerPort: 2}]";
    assert_eq!(codes(&[&deployment("a", other)]), ["error PM140"]);
    // A probe of another host, or without a port, gives no conclusion.
    assert_eq!(codes(&[&probed("livenessProbe: {httpGet: {port: web, host: a.b}}")]), [""; 0]);
    assert_eq!(codes(&[&probed("livenessProbe: {exec: {command: [a]}}")]), [""; 0]);
}

#[test]
fn a_probe_on_an_undeclared_number() {
    assert_eq!(codes(&[&probed("readinessProbe: {httpGet: {port: 8081}}")]), ["note PM141"]);
    assert_eq!(codes(&[&probed("readinessProbe: {grpc: {port: 8081}}")]), ["note PM141"]);
    assert_eq!(codes(&[&probed("readinessProbe: {httpGet: {port: 8080}}")]), [""; 0]);
    // Another container serves the number, or a Service leads to it, or the pod declares nothing at all.
    let other = format!("{PORTS}, livenessProbe: {{httpGet: {{port: 2}}}}}}, {{name: b, ports: [{{containerPort: 2}}]");
    assert_eq!(codes(&[&deployment("a", &other)]), [""; 0]);
    assert_eq!(
        codes(&[&service("{port: 80, targetPort: 8081}"), &probed("readinessProbe: {httpGet: {port: 8081}}")]),
        ["note PM103"]
    );
    assert_eq!(codes(&[&deployment("a", "readinessProbe: {httpGet: {port: 8081}}")]), [""; 0]);
}
