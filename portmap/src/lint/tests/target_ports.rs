//! Rules PM101 to PM108.

use super::{codes, deployment, findings, object, service, workload};

const HTTP: &str = "ports: [{name: http, containerPort: 8080}]";

#[test]
fn a_name_that_no_pod_has() {
    let named = service("{port: 80, targetPort: http}");
    assert_eq!(codes(&[&service("{port: 80, targetPort: web}"), &deployment("a", HTTP)]), ["error PM101"]);
    assert_eq!(codes(&[&named, &deployment("a", HTTP)]), [""; 0]);
    // The port is in another container, or in another workload, or a sidecar has it.
    let other = "containers: [{name: a}, {name: b, ports: [{name: http, containerPort: 1}]}]";
    assert_eq!(codes(&[&named, &workload("DaemonSet", "a", "{app: web}", other)]), [""; 0]);
    assert_eq!(codes(&[&named, &deployment("a", HTTP), &deployment("b", "image: b")]), ["note PM105"]);
    let sidecar =
        "containers: [{name: a}], initContainers: [{name: b, restartPolicy: Always, ports: [{name: http, containerPort: 1}]}]";
    assert_eq!(codes(&[&named, &workload("StatefulSet", "a", "{app: web}", sidecar)]), [""; 0]);
    let ended = sidecar.replace("restartPolicy: Always, ", "");
    assert_eq!(codes(&[&named, &workload("StatefulSet", "a", "{app: web}", &ended)]), ["error PM101"]);
    // A Service without selected pods gives no conclusion about names.
    assert_eq!(codes(&[&named]), ["note PM110"]);
    let by_name =
        object("v1", "Service", "web", "spec: {type: ExternalName, externalName: a.b, ports: [{port: 80, targetPort: x}]}");
    assert_eq!(codes(&[&by_name, &deployment("a", HTTP)]), [""; 0]);
}

#[test]
fn a_name_that_is_not_in_the_template() {
    // A service mesh adds a sidecar with this port.
    assert_eq!(codes(&[&service("{port: 15090, targetPort: http-envoy-prom}"), &deployment("a", HTTP)]), [""; 0]);
    // A second document with the same name is a patch of the first.
    assert_eq!(
        codes(&[&service("{port: 80, targetPort: http}"), &deployment("a", HTTP), &deployment("a", "image: a")]),
        [""; 0]
    );
}

#[test]
fn every_kind_with_pods_counts() {
    let named = service("{port: 80, targetPort: web}");
    let template = format!("template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: a, {HTTP}}}]}}}}");
    let pod = format!("spec: {{containers: [{{name: a, {HTTP}}}]}}");
    let pod = object("v1", "Pod", "a", &pod).replace("{name: a}\n", "{name: a, labels: {app: web}}\n");
    let objects = [
        pod,
        object("batch/v1", "CronJob", "a", &format!("spec: {{jobTemplate: {{spec: {{{template}}}}}}}")),
        object("batch/v1", "Job", "a", &format!("spec: {{{template}}}")),
        object("v1", "ReplicationController", "a", &format!("spec: {{{template}}}")),
        object("argoproj.io/v1alpha1", "Rollout", "a", &format!("spec: {{{template}}}")),
    ];
    for object in &objects {
        assert_eq!(codes(&[&named, object]), ["error PM101"], "{object}");
        let lists = [format!("{{apiVersion: v1, kind: List, items: [{}]}}", json(object))];
        assert_eq!(codes(&[&named, &lists[0]]), ["error PM101"], "{object}");
    }
}

/// A document as JSON.
fn json(document: &str) -> String {
    serde_saphyr::from_str::<serde_json::Value>(document).expect("YAML").to_string()
}

#[test]
fn a_name_with_another_protocol() {
    let dns = "ports: [{name: dns, containerPort: 53, protocol: UDP}]";
    assert_eq!(codes(&[&service("{port: 53, targetPort: dns}"), &deployment("a", dns)]), ["error PM102"]);
    assert_eq!(codes(&[&service("{port: 53, targetPort: dns, protocol: UDP}"), &deployment("a", dns)]), [""; 0]);
    let both = "ports: [{name: dns, containerPort: 53, protocol: UDP}, {name: dns, containerPort: 53, protocol: TCP}]";
    assert_eq!(codes(&[&service("{port: 53, targetPort: dns}"), &deployment("a", both)]), [""; 0]);
}

#[test]
fn a_number_that_no_container_declares() {
    assert_eq!(codes(&[&service("{port: 80, targetPort: 8081}"), &deployment("a", HTTP)]), ["note PM103"]);
    assert_eq!(codes(&[&service("{port: 80, targetPort: 8080}"), &deployment("a", HTTP)]), [""; 0]);
    // Without a targetPort, the port counts.
    assert_eq!(codes(&[&service("{port: 8080}"), &deployment("a", HTTP)]), [""; 0]);
    assert_eq!(codes(&[&service("{port: 80}"), &deployment("a", "image: a")]), ["note PM103"]);
    // `port` is never compared with the container ports if there is a targetPort.
    assert_eq!(codes(&[&service("{port: 1, targetPort: http}"), &deployment("a", HTTP)]), [""; 0]);
    assert_eq!(
        codes(&[
            &service("{port: 80, targetPort: 8081}"),
            &deployment("a", HTTP),
            &deployment("b", "ports: [{containerPort: 8081}]")
        ]),
        [""; 0]
    );
}

#[test]
fn one_name_with_several_numbers() {
    let named = service("{port: 80, targetPort: http}");
    let other = "ports: [{name: http, containerPort: 9090}]";
    assert_eq!(codes(&[&named, &deployment("a", HTTP), &deployment("b", other)]), ["note PM104"]);
    assert_eq!(codes(&[&named, &deployment("a", HTTP), &deployment("b", HTTP)]), [""; 0]);
    // Pods of a Job often share the labels, and lack the port.
    assert_eq!(
        codes(&[&named, &deployment("a", HTTP), &workload("Job", "b", "{app: web}", "containers: [{name: a}]")]),
        [""; 0]
    );
}

#[test]
fn a_number_in_quotes() {
    let found = findings(&[&service("{port: 80, targetPort: \"8080\"}"), &deployment("a", HTTP)]);
    assert_eq!(found.iter().map(|it| (it.rule.code, &*it.mend)).collect::<Vec<_>>(), [("PM106", "write targetPort: 8080")]);
    // The rule needs no pods.
    assert_eq!(
        codes(&["{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80, targetPort: '80'}]}}"]),
        ["error PM106"]
    );
    assert_eq!(codes(&[&deployment("a", &format!("{HTTP}, livenessProbe: {{tcpSocket: {{port: '8080'}}}}"))]), ["error PM106"]);
    // Digits with a letter are a name.
    let name = "ports: [{name: 80a, containerPort: 8080}]";
    assert_eq!(codes(&[&service("{port: 80, targetPort: 80a}"), &deployment("a", name)]), [""; 0]);
}

#[test]
fn ports_without_names_and_equal_ports() {
    let pods = deployment("a", "ports: [{containerPort: 1}, {containerPort: 2}, {containerPort: 1, protocol: UDP}]");
    assert_eq!(codes(&[&service("{port: 1}, {port: 2}"), &pods]), ["error PM107"]);
    assert_eq!(codes(&[&service("{port: 1}"), &pods]), [""; 0]);
    assert_eq!(codes(&[&service("{name: a, port: 1}, {name: b, port: 2}"), &pods]), [""; 0]);
    assert_eq!(codes(&[&service("{name: a, port: 1}, {name: a, port: 2}"), &pods]), ["error PM108"]);
    assert_eq!(codes(&[&service("{name: a, port: 1}, {name: b, port: 1}"), &pods]), ["error PM108"]);
    assert_eq!(codes(&[&service("{name: a, port: 1}, {name: b, port: 1, protocol: UDP}"), &pods]), [""; 0]);
}
