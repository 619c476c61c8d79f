//! Rules PM160 to PM171: routes and slices.

use super::{codes, findings, object};

/// The Service `web` without a selector, with port 80 named `http`.
fn web() -> String {
    object("v1", "Service", "web", "spec: {ports: [{name: http, port: 80, targetPort: 8080}]}")
}

fn ingress(port: &str) -> String {
    let path = format!("{{backend: {{service: {{name: web, port: {{{port}}}}}}}}}");
    object("networking.k8s.io/v1", "Ingress", "a", &format!("spec: {{rules: [{{http: {{paths: [{path}]}}}}]}}"))
}

#[test]
fn an_ingress_to_an_undefined_port() {
    assert_eq!(codes(&[&web(), &ingress("number: 8080")]), ["error PM160"]);
    assert_eq!(codes(&[&web(), &ingress("name: web")]), ["error PM160"]);
    assert_eq!(codes(&[&web(), &ingress("number: 80")]), [""; 0]);
    assert_eq!(codes(&[&web(), &ingress("name: http")]), [""; 0]);
    let found = findings(&[&web(), &ingress("number: 8080")]);
    assert_eq!(found[0].mend, "write 80, the port of the Service; 8080 is its targetPort");
    // The Service may be elsewhere, or in another namespace, or be only a name.
    assert_eq!(codes(&[&ingress("number: 8080")]), [""; 0]);
    assert_eq!(codes(&[&web().replace("name: web", "name: web, namespace: x"), &ingress("number: 8080")]), [""; 0]);
    assert_eq!(codes(&[&web().replace("spec: {", "spec: {type: ExternalName, "), &ingress("number: 8080")]), [""; 0]);
    assert_eq!(codes(&[&web(), &ingress("name: use-annotation")]), [""; 0]);
    // One variant of the Service has the port.
    assert_eq!(codes(&[&web(), &web().replace("port: 80,", "port: 81,"), &ingress("number: 81")]), [""; 0]);
}

#[test]
fn other_forms_of_an_ingress() {
    let default =
        object("networking.k8s.io/v1", "Ingress", "a", "spec: {defaultBackend: {service: {name: web, port: {number: 1}}}}");
    assert_eq!(codes(&[&web(), &default]), ["error PM160"]);
    let old = object("extensions/v1beta1", "Ingress", "a", "spec: {backend: {serviceName: web, servicePort: 1}}");
    assert_eq!(codes(&[&web(), &old]), ["error PM160"]);
    assert_eq!(codes(&[&web(), &old.replace("servicePort: 1", "servicePort: http")]), [""; 0]);
    assert_eq!(codes(&[&web(), &ingress("number: '80'")]), ["error PM001"]);
}

#[test]
fn a_gateway_route_to_an_undefined_port() {
    let route = |kind: &str, reference: &str| {
        object("gateway.networking.k8s.io/v1", kind, "a", &format!("spec: {{rules: [{{backendRefs: [{{{reference}}}]}}]}}"))
    };
    assert_eq!(codes(&[&web(), &route("HTTPRoute", "name: web, port: 8080")]), ["error PM160"]);
    assert_eq!(codes(&[&web(), &route("TCPRoute", "name: web, kind: Service, group: '', port: 8080")]), ["error PM160"]);
    assert_eq!(codes(&[&web(), &route("GRPCRoute", "name: web, port: 80")]), [""; 0]);
    assert_eq!(codes(&[&web(), &route("HTTPRoute", "name: web, kind: Bucket, group: x.y, port: 8080")]), [""; 0]);
    assert_eq!(codes(&[&web(), &route("HTTPRoute", "name: web, namespace: other, port: 8080")]), [""; 0]);
    let mirror = "spec: {rules: [{filters: [{requestMirror: {backendRef: {name: web, port: 1}}}]}]}";
    assert_eq!(codes(&[&web(), &object("gateway.networking.k8s.io/v1", "HTTPRoute", "a", mirror)]), ["error PM160"]);
}

fn slice(ports: &str) -> String {
    let head = "{name: web-1, labels: {kubernetes.io/service-name: web}}";
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {head}\naddressType: IPv4\nendpoints: []\n\
         ports: [{ports}]\n"
    )
}

#[test]
fn a_slice_port_without_a_service_port() {
    assert_eq!(codes(&[&web(), &slice("{name: http, port: 9}")]), [""; 0]);
    assert_eq!(codes(&[&web(), &slice("{name: web, port: 9}")]), ["warning PM171", "warning PM170"]);
    assert_eq!(codes(&[&web(), &slice("{name: http, port: 9, protocol: UDP}")]), ["warning PM171", "warning PM170"]);
    // Ports of several slices count together.
    assert_eq!(codes(&[&web(), &slice("{name: http, port: 9}"), &slice("{name: b, port: 9}")]), ["warning PM170"]);
    // The slice of a Service elsewhere, of Kubernetes itself, and of a headless Service without ports.
    assert_eq!(codes(&[&slice("{name: web, port: 9}")]), [""; 0]);
    let made = slice("{name: web, port: 9}")
        .replace("{kubernetes.io", "{endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io, kubernetes.io");
    let selecting = web().replace("spec: {", "spec: {selector: {app: web}, ");
    assert_eq!(codes(&[&selecting, &made]), ["note PM110"]);
    let headless = object("v1", "Service", "web", "spec: {clusterIP: None}");
    assert_eq!(codes(&[&headless, &slice("{name: web, port: 9}")]), [""; 0]);
}

#[test]
fn endpoints_count_as_slices() {
    let endpoints = |port: &str| object("v1", "Endpoints", "web", &format!("subsets: [{{ports: [{{{port}}}]}}]"));
    assert_eq!(codes(&[&web(), &endpoints("name: http, port: 9")]), [""; 0]);
    assert_eq!(codes(&[&web(), &endpoints("port: 9")]), ["warning PM171", "warning PM170"]);
    // A Service with one unnamed port joins an unnamed port.
    let unnamed = web().replace("name: http, ", "");
    assert_eq!(codes(&[&unnamed, &endpoints("port: 9")]), [""; 0]);
    // Kubernetes writes the Endpoints of a Service with a selector.
    let selecting = web().replace("spec: {", "spec: {selector: {app: web}, ");
    assert_eq!(codes(&[&selecting, &endpoints("port: 9")]), ["note PM110"]);
    // A broken slice may have the port.
    assert_eq!(codes(&[&web(), &endpoints("name: b, port: 9"), "kind: EndpointSlice\na: ["]), ["warning PM170", "error PM001"]);
}
