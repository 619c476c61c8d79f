//! Rules PM150 and PM151.

use super::{codes, deployment, findings, object, service, workload};

/// A NetworkPolicy for `app: web` with these fields.
fn policy(name: &str, rest: &str) -> String {
    object(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        name,
        &format!("spec: {{podSelector: {{matchLabels: {{app: web}}}}, {rest}}}"),
    )
}

fn allow(name: &str, port: &str) -> String {
    policy(name, &format!("ingress: [{{ports: [{{port: {port}}}]}}]"))
}

/// A Service with port 80 and targetPort 8080, and its Deployment.
fn web() -> String {
    service("{port: 80, targetPort: http}") + &deployment("web", "ports: [{name: http, containerPort: 8080}]")
}

#[test]
fn a_policy_for_the_port_of_the_service() {
    assert_eq!(codes(&[&web(), &allow("a", "80")]), ["error PM150"]);
    assert_eq!(codes(&[&web(), &allow("a", "8080")]), [""; 0]);
    assert_eq!(codes(&[&web(), &allow("a", "http")]), [""; 0]);
    // Another port than the Service's, another protocol, a range, or all ports.
    assert_eq!(codes(&[&web(), &allow("a", "443")]), [""; 0]);
    assert_eq!(codes(&[&web(), &allow("a", "80, protocol: UDP")]), [""; 0]);
    assert_eq!(codes(&[&web(), &allow("a", "80, endPort: 90")]), [""; 0]);
    assert_eq!(codes(&[&web(), &policy("a", "ingress: [{}]")]), [""; 0]);
    // The policy does not limit connections to the pods.
    assert_eq!(codes(&[&web(), &policy("a", "policyTypes: [Egress], ingress: [{ports: [{port: 80}]}]")]), [""; 0]);
}

#[test]
fn an_undeclared_target_port_is_a_warning() {
    let web = service("{port: 80, targetPort: 8080}") + &deployment("web", "image: a");
    assert_eq!(codes(&[&web, &allow("a", "80")]), ["note PM103", "warning PM150"]);
}

#[test]
fn a_port_that_the_pods_serve_too_is_fine() {
    let both = deployment("web", "ports: [{name: http, containerPort: 8080}, {containerPort: 80}]");
    assert_eq!(codes(&[&service("{port: 80, targetPort: http}"), &both, &allow("a", "80")]), [""; 0]);
    // Another Service leads to the number.
    let headless = service("{port: 80}").replace("name: web", "name: direct");
    assert_eq!(codes(&[&web(), &headless, &allow("a", "80")]), ["note PM103"]);
    // Another selected pod declares it.
    let other = workload("Deployment", "b", "{app: web, x: b}", "containers: [{name: a, ports: [{containerPort: 80}]}]");
    let selective = web()
        .replace("{app: web}, ports", "{app: web, x: c}, ports")
        .replace("{labels: {app: web}}", "{labels: {app: web, x: c}}");
    assert_eq!(codes(&[&selective, &other, &allow("a", "80")]), [""; 0]);
}

#[test]
fn another_policy_may_allow_the_target_port() {
    assert_eq!(codes(&[&web(), &allow("a", "80"), &allow("b", "8080")]), [""; 0]);
    assert_eq!(codes(&[&web(), &policy("a", "ingress: [{ports: [{port: 80}, {port: 8080}]}]")]), [""; 0]);
    let elsewhere = allow("b", "8080").replace("app: web", "app: other");
    assert_eq!(codes(&[&web(), &allow("a", "80"), &elsewhere]), ["error PM150"]);
    let calico = object("projectcalico.org/v3", "NetworkPolicy", "b", "spec: {}");
    assert_eq!(codes(&[&web(), &allow("a", "80"), &calico]), [""; 0]);
}

#[test]
fn missing_documents_silence_conclusions() {
    let expected = |broken: &str| codes(&[&web(), &allow("a", "80"), broken]);
    assert_eq!(expected("kind: ConfigMap\na: ["), ["error PM150", "error PM001"]);
    for kind in ["NetworkPolicy", "Service", "Deployment", "Widget"] {
        assert_eq!(expected(&format!("kind: {kind}\na: [")), ["error PM001"], "{kind}");
    }
    assert_eq!(expected("a: ["), ["error PM001"]);
}

#[test]
fn egress_to_selected_pods() {
    let client = |rest: &str| {
        policy("a", &format!("egress: [{{to: [{{{rest}}}], ports: [{{port: 80}}]}}]")).replace("app: web}},", "app: client}},")
    };
    let to_web = "podSelector: {matchLabels: {app: web}}";
    assert_eq!(codes(&[&web(), &client(to_web)]), ["error PM150"]);
    assert_eq!(codes(&[&web(), &client(to_web).replace("port: 80", "port: 8080")]), [""; 0]);
    assert_eq!(codes(&[&web(), &client("ipBlock: {cidr: 0.0.0.0/0}")]), [""; 0]);
    assert_eq!(codes(&[&web(), &client("namespaceSelector: {}")]), [""; 0]);
    // The namespace is selected by the label with its name.
    let by_name =
        |name: &str| client(&format!("namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}, {to_web}"));
    assert_eq!(codes(&[&web(), &by_name("default")]), ["error PM150"]);
    assert_eq!(codes(&[&web(), &by_name("shop")]), [""; 0]);
}

#[test]
fn a_name_that_no_selected_pod_declares() {
    assert_eq!(codes(&[&web(), &allow("a", "web")]), ["warning PM151"]);
    assert_eq!(codes(&[&web(), &allow("a", "http, protocol: UDP")]), ["warning PM151"]);
    assert_eq!(codes(&[&web(), &allow("a", "'80'")]), ["error PM106"]);
    // The policy selects no pod of the set.
    assert_eq!(codes(&[&web(), &allow("a", "web").replace("app: web", "app: other")]), [""; 0]);
    let found = findings(&[&web(), &allow("a", "web")]);
    assert!(found[0].mend.contains("8080/TCP (http)"), "{}", found[0].mend);
}

#[test]
fn expressions_are_evaluated() {
    let by = |expression: &str| {
        allow("a", "80").replace("matchLabels: {app: web}", &format!("matchExpressions: [{{{expression}}}]"))
    };
    for expression in
        ["key: app, operator: In, values: [web, x]", "key: app, operator: Exists", "key: x, operator: DoesNotExist"]
    {
        assert_eq!(codes(&[&web(), &by(expression)]), ["error PM150"], "{expression}");
    }
    for expression in ["key: app, operator: NotIn, values: [web]", "key: app, operator: DoesNotExist"] {
        assert_eq!(codes(&[&web(), &by(expression)]), [""; 0], "{expression}");
    }
}
