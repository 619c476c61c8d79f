//! Rule PM110.

use super::{codes, deployment, findings, object, service, settings, workload};
use crate::lint::{
    check,
    set::{Origin, Set},
};

fn with_labels(labels: &str) -> String {
    workload("Deployment", "a", labels, "containers: [{name: a, ports: [{containerPort: 80}]}]")
}

#[test]
fn a_selector_that_selects_nothing() {
    let web = service("{port: 80}");
    assert_eq!(codes(&[&web, &with_labels("{app: wbe}")]), ["warning PM110"]);
    // A selector is a subset of the labels.
    assert_eq!(codes(&[&web, &with_labels("{app: web, tier: a}")]), [""; 0]);
    // All files are one set, in any order.
    assert_eq!(codes(&[&with_labels("{app: web}"), &web]), [""; 0]);
    // Services without a selector are so by design.
    assert_eq!(codes(&[&web.replace("selector: {app: web}, ", ""), &with_labels("{app: wbe}")]), [""; 0]);
    assert_eq!(codes(&[&web.replace("{app: web}", "{}"), &with_labels("{app: wbe}")]), [""; 0]);
}

#[test]
fn pods_that_may_be_elsewhere_are_a_note() {
    let web = service("{port: 80}");
    assert_eq!(codes(&[&web]), ["note PM110"]);
    // A controller may make the pods, or the program may set a label.
    let custom = object("monitoring.coreos.com/v1", "Prometheus", "a", "spec: {}");
    assert_eq!(codes(&[&web, &with_labels("{app: a}"), &custom]), ["note PM110"]);
    let monitor = object("monitoring.coreos.com/v1", "ServiceMonitor", "a", "spec: {}");
    assert_eq!(codes(&[&web, &with_labels("{app: a}"), &monitor]), ["warning PM110"]);
    let active = web.replace("{app: web}", "{app: web, role: active}");
    assert_eq!(codes(&[&active, &with_labels("{app: web}")]), ["note PM110"]);
    let kustomization = "{apiVersion: kustomize.config.k8s.io/v1beta1, kind: Kustomization, resources: [x]}";
    assert_eq!(codes(&[&web, &with_labels("{app: a}"), kustomization]), ["note PM110"]);
}

/// A program may set a label while it runs, but not one that resembles a label of the template.
#[test]
fn a_misspelt_label_is_a_warning() {
    let front = service("{port: 80}").replace("{app: web}", "{app: web, teir: front}");
    assert_eq!(codes(&[&front, &with_labels("{app: web, tier: front}")]), ["warning PM110"]);
    assert_eq!(codes(&[&front, &with_labels("{app: web, role: front}")]), ["note PM110"]);
}

#[test]
fn namespaces_are_respected() {
    let web = service("{port: 80}");
    let elsewhere = with_labels("{app: web}").replace("{name: a}\nspec", "{name: a, namespace: shop}\nspec");
    let found = findings(&[&web, &elsewhere]);
    assert!(found[0].mend.contains("namespace \"shop\""), "{}", found[0].mend);
    // An empty namespace is the default one.
    let given = with_labels("{app: web}").replace("{name: a}\nspec", "{name: a, namespace: default}\nspec");
    assert_eq!(codes(&[&web, &given]), [""; 0]);
    let mut set = Set::new(Origin::Files, "shop");
    set.read("a.yaml", &format!("{web}{elsewhere}"));
    assert_eq!(check(&set, &settings()), []);
}

#[test]
fn labels_of_controllers_are_known() {
    let by_name = service("{port: 80}").replace("{app: web}", "{statefulset.kubernetes.io/pod-name: db-0}");
    let set = |name: &str| workload("StatefulSet", name, "{app: db}", "containers: [{name: a, ports: [{containerPort: 80}]}]");
    assert_eq!(codes(&[&by_name, &set("db")]), [""; 0]);
    assert_eq!(codes(&[&by_name, &set("web")]), ["warning PM110"]);
    let by_hash = service("{port: 80}").replace("{app: web}", "{app: web, pod-template-hash: abc}");
    assert_eq!(codes(&[&by_hash, &with_labels("{app: web}")]), [""; 0]);
}

#[test]
fn in_a_cluster_nothing_selected_is_a_warning() {
    let mut set = Set::new(Origin::Cluster, "default");
    set.read("a.yaml", &service("{port: 80}"));
    assert_eq!(check(&set, &settings()).len(), 1);
    // The kinds with pods could not all be listed.
    set.gaps.add(Some("Pod"));
    assert_eq!(check(&set, &settings()), []);
}

#[test]
fn objects_of_controllers_are_no_second_template() {
    let web = service("{port: 80, targetPort: http}");
    let old = deployment("a-1", "ports: [{name: http, containerPort: 1}]").replace("kind: Deployment", "kind: ReplicaSet");
    let old = old.replace("{name: a-1}\n", "{name: a-1, ownerReferences: [{kind: Deployment, name: a, controller: true}]}\n");
    let new = deployment("a", "ports: [{name: http, containerPort: 2}]");
    assert_eq!(codes(&[&web, &old, &new]), [""; 0]);
}
