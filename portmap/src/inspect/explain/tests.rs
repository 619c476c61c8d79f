//! Explanations of objects: the steps of the chain, and the nearest reason where there is no backend.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::*;
use crate::{
    model::{
        event::{Event, Object, ObjectKind},
        object::{EndpointSlice, object_name},
    },
    resolve::node_ports::Eligible,
};

/// The objects of a test.
struct World {
    desired: Desired,
    written: BTreeMap<ObjectName, Written>,
    pods: BTreeMap<IpAddr, String>,
}

impl World {
    /// A world on the node `node-1` with node ports on 192.0.2.1, of Services (name, spec) in the namespace `default`.
    fn new(services: &[(&str, Value)]) -> Self {
        let mut desired = Desired::new("node-1".into(), vec![Eligible::All], vec!["10.96.0.0/12".parse().expect("a range")]);
        let mut written = BTreeMap::new();
        let services = services.iter().map(|(name, spec)| {
            let service = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
            let service: Service = serde_json::from_value(service).expect("a Service");
            let object = object_name(&service.metadata);
            let kept = Written::new(object.clone(), true, service.spec.clone().unwrap_or_default());
            written.insert(object, kept);
            Object::service(service)
        });
        desired.apply(Event::Listed(ObjectKind::Service, services.collect()));
        for kind in [ObjectKind::Slice, ObjectKind::OtherService, ObjectKind::Node, ObjectKind::ServiceCidr] {
            desired.apply(Event::Listed(kind, Vec::new()));
        }
        desired.set_local(["192.0.2.1/24", "2001:db8::1/64"].map(|address| address.parse().expect("an address")).to_vec());
        Self { desired, written, pods: BTreeMap::new() }.resolved()
    }

    /// Adds an EndpointSlice of a Service.
    fn slice(mut self, service: &str, slice: Value) -> Self {
        let mut slice: EndpointSlice = serde_json::from_value(slice).expect("an EndpointSlice");
        slice.metadata.name = Some(format!("{service}-1"));
        slice.metadata.namespace = Some("default".to_owned());
        slice.metadata.labels = Some([("kubernetes.io/service-name".to_owned(), service.to_owned())].into());
        self.desired.apply(Event::Changed(Object::slice(slice, "node-1")));
        self.resolved()
    }

    fn resolved(mut self) -> Self {
        self.desired.resolve();
        self
    }

    /// The explanations of a destination.
    fn all(&self, target: &str) -> Vec<Explanation> {
        let known = Known { desired: &self.desired, written: &self.written, pods: &self.pods };
        known.explain(&target.parse().expect("a destination")).into_iter().map(|(_, explanation)| explanation).collect()
    }

    fn explain(&self, target: &str) -> Explanation {
        self.all(target).remove(0)
    }

    /// The code of the reason, and its text.
    fn reason(&self, target: &str) -> (&'static str, String) {
        let reason = self.explain(target).reason.expect("a reason");
        (reason.code, reason.text)
    }
}

fn web() -> Value {
    json!({
        "clusterIP": "10.96.0.10", "type": "NodePort", "selector": {"app": "web"},
        "ports": [
            {"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080},
            {"name": "admin", "port": 9000, "targetPort": 9001},
        ],
    })
}

fn slice(endpoints: &Value) -> Value {
    json!({"metadata": {}, "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints})
}

#[test]
fn the_chain_leads_from_the_address_to_the_backends() {
    let endpoints = json!([
        {"addresses": ["10.244.0.2"]},
        {"addresses": ["10.244.0.3"], "conditions": {"ready": false}},
        {"addresses": ["10.244.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}},
    ]);
    let explanation = World::new(&[("web", web())]).slice("web", slice(&endpoints)).explain("10.96.0.10:80");
    assert!(explanation.connects && explanation.reason.is_none(), "{explanation:#?}");
    assert_eq!((explanation.service.as_deref(), explanation.kind), (Some("default/web"), Some("ClusterIP")));
    let port = explanation.port.expect("a port");
    assert_eq!((port.name.as_str(), port.target_port.as_deref(), port.node_port), ("http", Some("\"web\""), Some(30080)));
    let rows: Vec<_> = explanation.endpoints.iter().map(|row| (row.endpoint.as_str(), row.taken, row.reason.code)).collect();
    assert_eq!(
        rows,
        [("10.244.0.2:8080", true, "ready"), ("10.244.0.3:8080", false, "notReady"), ("10.244.0.4:8080", false, "terminating"),]
    );
    assert_eq!(explanation.backends, ["10.244.0.2:8080"]);
}

#[test]
fn policies_and_hints_are_reasons_of_endpoints() {
    let mut local = web();
    local["internalTrafficPolicy"] = json!("Local");
    let world = World::new(&[("web", local)]);
    let there = json!([{"addresses": ["10.244.0.2"], "nodeName": "node-2"}]);
    let world = world.slice("web", slice(&there));
    let explanation = world.explain("10.96.0.10:80");
    assert_eq!((explanation.action, explanation.endpoints[0].reason.code), ("drop", "otherNode"));
    assert_eq!(explanation.reason.map(|reason| reason.code), Some("noLocalEndpoint"));
    let hinted = json!([
        {"addresses": ["10.244.0.2"], "hints": {"forNodes": [{"name": "node-1"}]}},
        {"addresses": ["10.244.0.3"], "hints": {"forNodes": [{"name": "node-2"}]}},
    ]);
    let explanation = World::new(&[("web", web())]).slice("web", slice(&hinted)).explain("10.96.0.10:80");
    let texts: Vec<_> = explanation.endpoints.iter().map(|row| row.reason.text.as_str()).collect();
    assert_eq!(texts, ["ready, hinted for node node-1", "hinted for node node-2, not for node node-1"]);
}

#[test]
fn clients_outside_may_differ() {
    let mut local = web();
    local["externalTrafficPolicy"] = json!("Local");
    let there = json!([{"addresses": ["10.244.0.2"], "nodeName": "node-2"}]);
    let explanation = World::new(&[("web", local)]).slice("web", slice(&there)).explain("192.0.2.1:30080");
    assert!(explanation.connects, "{explanation:#?}");
    assert_eq!(explanation.kind, Some("NodePort"));
    assert_eq!(explanation.outside.map(|outside| outside.action), Some("drop"));
    assert_eq!(explanation.endpoints[0].outside.as_ref().map(|reason| reason.code), Some("otherNode"));
}

#[test]
fn undefined_ports_name_the_ports_that_were_meant() {
    let world = World::new(&[("web", web())]);
    let (code, text) = world.reason("10.96.0.10:81");
    assert_eq!(code, "undefinedPort");
    assert!(text.contains("its ports are 80/TCP (http), 9000/TCP (admin)"), "{text}");
    assert!(world.reason("10.96.0.10:9001").1.contains("9001 is the targetPort of port 9000"));
    assert!(world.reason("10.96.0.10:80/udp").1.contains("80 is a port of TCP: append /tcp"));
    assert_eq!(world.explain("10.96.0.10:81").action, "refuse");
    assert!(!world.explain("10.96.0.10:81/udp").notes.is_empty());
    let (code, text) = world.reason("svc/web:https");
    assert_eq!(code, "undefinedPort");
    assert!(text.contains("no port \"https\"; its ports are 80/TCP (http)"), "{text}");
    assert!(world.reason("svc/web:9001").1.contains("clients use 9000"));
}

#[test]
fn services_without_endpoints_have_the_nearest_reason() {
    let world = || World::new(&[("web", web())]);
    let (code, text) = world().reason("10.96.0.10:80");
    assert_eq!(code, "noEndpoints");
    assert!(text.contains("no pod matches its selector app=web"), "{text}");
    let one = json!([{"addresses": ["10.244.0.2"]}]);
    let (code, text) = world().slice("web", slice(&one)).reason("10.96.0.10:9000");
    assert_eq!(code, "unmatchedPortName");
    assert!(text.contains("have the ports \"http\"/TCP (8080), and none is named \"admin\"/TCP"), "{text}");
    let portless = json!({"metadata": {}, "addressType": "IPv4", "ports": [], "endpoints": one});
    assert!(world().slice("web", portless).reason("10.96.0.10:80").1.contains("no pod has the targetPort \"web\""));
    let other = json!({
        "metadata": {}, "addressType": "IPv6", "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": ["fd00::2"]}],
    });
    let (code, text) = world().slice("web", other).reason("10.96.0.10:80");
    assert_eq!(code, "otherFamily");
    assert!(text.contains("no endpoints of IPv4, but 1 of IPv6"), "{text}");
    let unready = json!([{"addresses": ["10.244.0.2"], "conditions": {"ready": false}}]);
    assert_eq!(world().slice("web", slice(&unready)).reason("10.96.0.10:80").0, "noUsableEndpoint");
}

#[test]
fn services_without_an_address_are_explained() {
    let world = World::new(&[
        ("headless", json!({"clusterIP": "None", "ports": [{"port": 80}]})),
        ("alias", json!({"type": "ExternalName", "externalName": "example.com"})),
        ("bare", json!({"ports": [{"port": 80}]})),
    ]);
    assert_eq!(world.reason("svc/headless").0, "headless");
    assert!(world.reason("svc/alias").1.contains("a DNS name for \"example.com\""));
    assert_eq!(world.reason("svc/bare").0, "withoutAddress");
    assert_eq!(world.reason("svc/other"), ("unknownService", "there is no Service other".to_owned()));
    assert!(world.reason("svc/bare.shop").1.contains("no Service bare in the namespace shop, but in default"));
}

#[test]
fn addresses_without_a_service_have_the_nearest_reason() {
    let external = json!({"clusterIP": "10.96.0.11", "externalIPs": ["198.51.100.1"], "ports": [{"port": 80}]});
    let world = World::new(&[("web", web()), ("external", external)]);
    assert_eq!(world.reason("10.96.0.99:80").0, "unallocated");
    assert_eq!(world.explain("10.96.0.99:80").action, "drop");
    assert_eq!(world.reason("8.8.8.8:53").0, "unknownAddress");
    assert_eq!(world.reason("192.0.2.1:30081").0, "undefinedNodePort");
    let (code, text) = world.reason("192.0.2.9:30080");
    assert_eq!(code, "otherAddress");
    assert!(text.contains("node port of Service default/web") && text.contains("on 192.0.2.1, not on 192.0.2.9"), "{text}");
    let (code, text) = world.reason("[2001:db8::1]:30080");
    assert_eq!(code, "otherFamily");
    assert!(text.contains("node port of Service default/web, which has IPv4 addresses only"), "{text}");
    let (code, text) = world.reason("198.51.100.1:81");
    assert_eq!(code, "undefinedPort");
    assert!(text.contains("default/external (80/TCP)"), "{text}");
}

#[test]
fn another_service_wins_an_address() {
    let claim = |address| json!({"clusterIP": address, "externalIPs": ["198.51.100.1"], "ports": [{"port": 80}]});
    let world = World::new(&[("first", claim("10.96.0.11")), ("second", claim("10.96.0.12"))]);
    let explanation = world.explain("198.51.100.1:80");
    assert_eq!(explanation.service.as_deref(), Some("default/first"));
    assert_eq!(explanation.other_claims, ["default/second"]);
    let notes = world.explain("svc/second").notes;
    assert_eq!(notes, ["198.51.100.1:80/TCP of this Service belongs to Service default/first"]);
}

#[test]
fn a_service_is_explained_at_each_port_and_family() {
    let mut dual = web();
    dual["clusterIPs"] = json!(["10.96.0.10", "fd00:96::10"]);
    dual["ipFamilies"] = json!(["IPv4", "IPv6"]);
    let world = World::new(&[("web", dual)]);
    let frontends: Vec<_> = world.all("svc/web").into_iter().map(|explanation| explanation.frontend).collect();
    assert_eq!(frontends, ["10.96.0.10:80/TCP", "[fd00:96::10]:80/TCP", "10.96.0.10:9000/TCP", "[fd00:96::10]:9000/TCP"]);
    let named = world.all("svc/web.default:http");
    assert_eq!(named.len(), 2);
    assert_eq!(named[0].other_addresses, ["*:30080/TCP"]);
    assert_eq!(world.all("svc/web:9000/tcp").len(), 2);
}
