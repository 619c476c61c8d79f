//! From text to objects: YAML or JSON, one document or many, a `List` or single objects; other kinds are passed over.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::ServiceCIDR,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    object::{is_label, object_name},
    table::ObjectName,
};

/// As the API server has it.
const LONGEST_NAME: usize = 253;

/// The objects of some files that matter.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Services.
    pub services: BTreeMap<ObjectName, Service>,
    /// EndpointSlices.
    pub slices: BTreeMap<ObjectName, EndpointSlice>,
    /// Pods.
    pub pods: BTreeMap<ObjectName, Pod>,
    /// Nodes.
    pub nodes: BTreeMap<ObjectName, Node>,
    /// ServiceCIDRs.
    pub cidrs: BTreeMap<ObjectName, ServiceCIDR>,
}

impl Objects {
    /// All objects of several files. Of one that is given twice the last counts, which is said.
    pub fn merge<'a>(files: impl Iterator<Item = &'a Self>, warnings: &mut Vec<String>) -> Self {
        let mut all = Self::default();
        for Self { services, slices, pods, nodes, cidrs } in files.cloned() {
            extend("Service", &mut all.services, services, warnings);
            extend("EndpointSlice", &mut all.slices, slices, warnings);
            extend("Pod", &mut all.pods, pods, warnings);
            extend("Node", &mut all.nodes, nodes, warnings);
            extend("ServiceCIDR", &mut all.cidrs, cidrs, warnings);
        }
        all
    }
}

fn extend<T>(kind: &str, all: &mut BTreeMap<ObjectName, T>, more: BTreeMap<ObjectName, T>, warnings: &mut Vec<String>) {
    for (name, object) in more {
        if all.insert(name.clone(), object).is_some() {
            warnings.push(format!("{kind} {name} is given in two files; the one of the last file counts"));
        }
    }
}

/// Parses a file's text. `file` names it in errors. An object that is not what its kind should be is left out, with a
/// warning; a text that is not YAML or JSON at all is an error.
pub fn parse(text: &str, file: &str, warnings: &mut Vec<String>) -> Result<Objects> {
    let mut objects = Objects::default();
    for document in documents(text).with_context(|| format!("{file} is neither YAML nor JSON"))? {
        take(document, file, &mut objects, warnings);
    }
    Ok(objects)
}

/// JSON is tried first: it is faster, and may be large.
fn documents(text: &str) -> Result<Vec<Value>> {
    if text.trim_start().starts_with(['{', '[']) {
        let parsed: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        if let Ok(documents) = parsed {
            return Ok(documents);
        }
    }
    // The limits guard against hostile input; a dump of a large cluster is only large.
    let options = serde_saphyr::options! { budget: None };
    serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| anyhow::anyhow!("{}", first_line(&error.to_string())))
}

/// The parser shows the place in the text on further lines.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn take(document: Value, file: &str, objects: &mut Objects, warnings: &mut Vec<String>) {
    let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    match (version.as_str(), kind.as_str()) {
        ("v1", "Service") => insert(document, &kind, file, &mut objects.services, warnings, |service| service.metadata.clone()),
        ("v1", "Pod") => insert(document, &kind, file, &mut objects.pods, warnings, |pod| pod.metadata.clone()),
        ("v1", "Node") => insert(document, &kind, file, &mut objects.nodes, warnings, |node| node.metadata.clone()),
        ("networking.k8s.io/v1" | "networking.k8s.io/v1beta1", "ServiceCIDR") => {
            insert(document, &kind, file, &mut objects.cidrs, warnings, |cidr| cidr.metadata.clone());
        }
        ("discovery.k8s.io/v1", "EndpointSlice") => {
            insert(document, &kind, file, &mut objects.slices, warnings, |slice| slice.metadata.clone());
        }
        (_, list) if list.ends_with("List") || document.is_array() => {
            let item_kind = list.strip_suffix("List").filter(|kind| !kind.is_empty());
            for mut item in items(document) {
                complete(&mut item, item_kind, &version);
                take(item, file, objects, warnings);
            }
        }
        _ if document.is_object() || document.is_null() => {}
        _ => warnings.push(format!("{file}: a document is not an object, and is left out")),
    }
}

fn items(document: Value) -> Vec<Value> {
    match document {
        Value::Array(items) => items,
        Value::Object(mut fields) => match fields.remove("items") {
            Some(Value::Array(items)) => items,
            Some(_) | None => Vec::new(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// The items of a `ServiceList`, as the API server answers it, do not repeat their kind.
fn complete(item: &mut Value, kind: Option<&str>, version: &str) {
    if let (Value::Object(fields), Some(kind)) = (item, kind) {
        fields.entry("kind").or_insert_with(|| kind.into());
        fields.entry("apiVersion").or_insert_with(|| version.into());
    }
}

fn insert<T: DeserializeOwned>(
    document: Value,
    kind: &str,
    file: &str,
    objects: &mut BTreeMap<ObjectName, T>,
    warnings: &mut Vec<String>,
    metadata: fn(&T) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) {
    let shown = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("without a name").to_owned();
    let object: T = match serde_json::from_value(document) {
        Ok(object) => object,
        Err(error) => return warnings.push(format!("{file}: {kind} {shown} is left out: {error}")),
    };
    let metadata = metadata(&object);
    let name = object_name(&metadata);
    if name.name().is_empty() {
        return warnings.push(format!("{file}: a {kind} has no metadata.name, and is left out"));
    }
    // A slash would be the one between a namespace and a name.
    let is_namespace = is_label(name.namespace()) && metadata.namespace.is_none_or(|namespace| !namespace.contains('/'));
    if !(is_namespace && is_name(name.name(), kind)) {
        return warnings
            .push(format!("{file}: {kind} {:?} is left out: no API server would take such a name", name.to_string()));
    }
    if objects.insert(name.clone(), object).is_some() {
        warnings.push(format!("{file}: {kind} {name} is given twice; the last one counts"));
    }
}

/// Names of Services go into the tables, where labels have room. Others may be longer.
fn is_name(name: &str, kind: &str) -> bool {
    if kind == "Service" { is_label(name) } else { name.len() <= LONGEST_NAME && !name.contains(char::is_control) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> (Vec<String>, Vec<String>) {
        let mut warnings = Vec::new();
        let objects = parse(text, "file", &mut warnings).expect("parses");
        (objects.services.keys().map(ToString::to_string).collect(), warnings)
    }

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n";

    #[test]
    fn documents_lists_and_json_are_read() {
        let (services, warnings) =
            names(&format!("{SERVICE}---\n# nothing\n---\n{}", SERVICE.replace("name: a", "name: b, namespace: x")));
        assert_eq!((services, warnings), (vec!["default/a".to_owned(), "x/b".to_owned()], vec![]));
        let list =
            r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"}}]}"#;
        assert_eq!(names(list).0, ["default/a"]);
        let typed = r#"{"apiVersion":"v1","kind":"ServiceList","items":[{"metadata":{"name":"a"}}]}"#;
        assert_eq!(names(typed).0, ["default/a"]);
    }

    #[test]
    fn other_kinds_are_passed_over_in_silence() {
        assert_eq!(names("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n"), (vec![], vec![]));
    }

    #[test]
    fn a_malformed_object_costs_only_itself() {
        let broken = SERVICE.replace("name: a}", "name: b}\nspec: {ports: 3}");
        let (services, warnings) = names(&format!("{SERVICE}---\n{broken}"));
        assert_eq!(services, ["default/a"]);
        assert!(warnings.len() == 1 && warnings.iter().all(|warning| warning.contains("Service b")), "{warnings:?}");
    }

    #[test]
    fn a_name_that_could_not_be_shown_costs_only_its_object() {
        for name in ["\"nul\\0\"", "\"\\e[31m\"", &"x".repeat(64), "x, namespace: y/z"] {
            let (services, warnings) =
                names(&format!("{SERVICE}---\n{}", SERVICE.replace("name: a", &format!("name: {name}"))));
            assert_eq!(services, ["default/a"], "{name}");
            assert!(warnings.len() == 1 && !warnings.iter().any(|text| text.contains(char::is_control)), "{warnings:?}");
        }
        assert_eq!(names(&SERVICE.replace("name: a", &format!("name: {}", "x".repeat(63)))).0.len(), 1);
    }

    #[test]
    fn text_that_is_not_yaml_names_the_file() {
        let error = parse("a: [1, 2\nb: }", "broken.yaml", &mut Vec::new()).expect_err("does not parse");
        assert!(error.to_string().contains("broken.yaml"), "{error:#}");
    }
}
