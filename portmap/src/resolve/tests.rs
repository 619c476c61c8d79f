use super::*;
use crate::model::{
    ObjectName, Protocol, Target,
    object::{Service, Slice, SliceEndpoint, SlicePort},
};

fn service(ports: &[(&str, &str, i32)]) -> Service {
    let ports: Vec<_> = ports
        .iter()
        .map(|(name, protocol, port)| serde_json::json!({ "name": name, "protocol": protocol, "port": port }))
        .collect();
    let object = serde_json::json!({
        "metadata": { "name": "web" },
        "spec": { "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ipFamilies": ["IPv4"], "ports": ports },
    });
    serde_json::from_value::<k8s_openapi::api::core::v1::Service>(object).expect("a Service").into()
}

fn node() -> NodeContext {
    NodeContext::new("node", None)
}

fn objects(service: Service, slices: &[Slice]) -> ServiceObjects {
    ServiceObjects { name: ObjectName::new("default", "web"), service, slices: slices.to_vec() }
}

fn slice(port: u16, endpoints: Vec<SliceEndpoint>) -> Slice {
    Slice {
        family: Some(Family::V4),
        ports: [SlicePort { name: "http".into(), protocol: Protocol::Tcp, port }].into(),
        endpoints: endpoints.into(),
        faults: Faults::default(),
    }
}

fn ready(address: &str) -> SliceEndpoint {
    let address = address.parse().expect("an address");
    SliceEndpoint { address, ready: true, serving: true, terminating: false, local: false, hints: None }
}

fn terminating(address: &str) -> SliceEndpoint {
    SliceEndpoint { ready: false, terminating: true, ..ready(address) }
}

fn backends(slices: &[Slice]) -> Vec<String> {
    let objects = objects(service(&[("http", "TCP", 80)]), slices);
    let frontends = resolve(&objects, &node()).claims.frontends;
    let [(spec, _)] = frontends.as_slice() else { return vec![format!("{} frontends", frontends.len())] };
    match ServiceEntries::new(objects, &node()).entry(spec).expect("an entry").inside {
        Target::Backends(backends) => backends.iter().map(|backend| format!("{}:{}", backend.address, backend.port)).collect(),
        Target::Verdict(verdict) => vec![format!("{verdict:?}")],
    }
}

#[test]
fn a_named_port_may_have_another_number_in_each_slice() {
    let slices = [slice(8080, vec![ready("10.1.0.1")]), slice(9090, vec![ready("10.1.0.2")])];
    assert_eq!(backends(&slices), ["10.1.0.1:8080", "10.1.0.2:9090"]);
}

#[test]
fn terminating_endpoints_serve_only_if_no_other_is_ready() {
    assert_eq!(backends(&[slice(80, vec![ready("10.1.0.1"), terminating("10.1.0.2")])]), ["10.1.0.1:80"]);
    assert_eq!(backends(&[slice(80, vec![terminating("10.1.0.2")])]), ["10.1.0.2:80"]);
    let deaf = SliceEndpoint { serving: false, ..terminating("10.1.0.2") };
    assert_eq!(backends(&[slice(80, vec![deaf])]), ["Refuse"]);
}

#[test]
fn of_duplicates_the_one_that_does_not_terminate_counts() {
    for order in [[terminating("10.1.0.1"), ready("10.1.0.1")], [ready("10.1.0.1"), terminating("10.1.0.1")]] {
        assert_eq!(backends(&[slice(80, order.to_vec())]), ["10.1.0.1:80"]);
    }
}

#[test]
fn nothing_to_serve_is_refused() {
    assert_eq!(backends(&[]), ["Refuse"]);
}

#[test]
fn a_bad_port_costs_only_itself() {
    let bad = service(&[("http", "TCP", 80), ("zero", "TCP", 0), ("odd", "ICMP", 1), ("s", "SCTP", 2), ("again", "TCP", 80)]);
    let resolved = resolve(&objects(bad, &[]), &node());
    assert_eq!(resolved.claims.frontends.len(), 1);
    assert_eq!(resolved.skipped.len(), 4, "{:?}", resolved.skipped);
}

#[test]
fn tcp_and_udp_share_a_number() {
    let resolved = resolve(&objects(service(&[("dns-tcp", "TCP", 53), ("dns", "UDP", 53)]), &[]), &node());
    assert_eq!(resolved.claims.frontends.len(), 2);
}
