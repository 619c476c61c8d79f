//! Parses YAML or JSON text with one or several documents, each an object or a list of objects. Kinds that are not in [`kinds`]
//! are ignored, unless they look misspelt.

mod documents;
mod json;

use std::sync::Arc;

use anyhow::{Context, Result};
use k8s_openapi::{
    Metadata,
    api::{
        core::v1::{Endpoints, Node, Pod},
        networking::v1::ServiceCIDR,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use documents::Document;
pub use documents::Split;

use super::{
    beta,
    faults::{Fault, Faults},
    kinds,
    objects::{self, All, Objects},
};
use crate::model::{
    ObjectName,
    event::{Object, Wanted},
    object::{is_label, object_name},
};

/// The API server's maximum length of a name in bytes.
const MAX_NAME_LEN: usize = 253;

/// The objects to read of a text.
#[derive(Clone, Copy)]
pub struct Filter<'a> {
    /// The selection of objects.
    pub wanted: &'a Wanted,
    /// Leaves out Services and EndpointSlices in JSON without any of these strings, which have their quotes.
    pub only: Option<&'a [String]>,
}

impl Filter<'_> {
    /// Whether an object with this JSON text may have one of the strings: as it is, or with an escape for a character.
    fn takes(self, json: &str) -> bool {
        self.only.is_none_or(|only| only.iter().any(|string| json.contains(string)) || json.contains("\\u"))
    }
}

/// Parses the text of a file. An invalid object is left out and becomes a fault. `file` is the file's name for errors.
///
/// # Errors
///
/// The text is neither YAML nor JSON.
pub fn parse(text: &str, file: &str, filter: Filter) -> Result<(Objects, Faults)> {
    decode(split(text, file)?, file, filter)
}

/// Splits the text of a file into documents, for [`decode`].
pub fn split<'a>(text: &'a str, file: &str) -> Result<Split<'a>> {
    documents::split(text).with_context(|| unreadable(file))
}

fn unreadable(file: &str) -> String {
    format!("{file} is neither YAML nor JSON")
}

/// Decodes the documents of a file, as [`parse`] does.
pub fn decode(documents: Split, file: &str, filter: Filter) -> Result<(Objects, Faults)> {
    let mut reader = Reader { wanted: filter.wanted, objects: Objects::default(), faults: Faults::default() };
    for document in documents.decode(filter).with_context(|| unreadable(file))? {
        match document {
            Document::LeftOut => {}
            Document::Service(service) => reader.insert(service, kinds::SERVICE, |it| &mut it.services),
            Document::Slice(slice) => reader.insert(slice, kinds::SLICE, |it| &mut it.slices),
            Document::Other(value) => reader.take(value),
        }
    }
    Ok((reader.objects, reader.faults))
}

/// Converts the documents of a file to objects.
struct Reader<'a> {
    wanted: &'a Wanted,
    objects: Objects,
    faults: Faults,
}

impl Reader<'_> {
    /// Converts a document, or each item of a list. Another document becomes a warning, unless it is empty.
    fn take(&mut self, mut document: Value) {
        let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let wanted = self.wanted;
        match (version.as_str(), kind.as_str()) {
            ("v1", "Service") => {
                self.decode(document, kinds::SERVICE, |it| &mut it.services, |raw| objects::Service::new(raw, wanted));
            }
            ("v1", "Pod") => self.decode(document, kinds::POD, |it| &mut it.pods, |raw: Pod| raw),
            ("v1", "Endpoints") => self.decode(document, kinds::ENDPOINTS, |it| &mut it.endpoints, |raw: Endpoints| raw),
            ("v1", "Node") => self.decode(document, kinds::NODE, |it| &mut it.nodes, |raw: Node| Object::node(raw)),
            ("networking.k8s.io/v1" | "networking.k8s.io/v1beta1", "ServiceCIDR") => {
                beta::set_version(&mut document, "networking.k8s.io/v1");
                self.insert_cidr(document);
            }
            ("discovery.k8s.io/v1" | "discovery.k8s.io/v1beta1", "EndpointSlice") => {
                if version.ends_with("beta1") {
                    beta::convert_slice(&mut document);
                }
                self.decode(document, kinds::SLICE, |it| &mut it.slices, |raw| objects::Slice::new(raw, wanted));
            }
            (_, list) if list.ends_with("List") || document.is_array() => {
                let item_kind = list.strip_suffix("List").filter(|kind| !kind.is_empty());
                for mut item in items(document) {
                    complete(&mut item, item_kind.map(|kind| (kind, version.as_str())));
                    self.take(item);
                }
            }
            _ if document.is_null() => {}
            _ if document.is_object() => self.ignore(&document, &version, &kind),
            _ => self.faults.warn("a document is not an object, and is left out"),
        }
    }

    /// Ignores a document of an unknown kind or version. If that looks misspelt, or an object with metadata has no kind, the
    /// document becomes a fault.
    fn ignore(&mut self, document: &Value, version: &str, kind: &str) {
        let Some(misspelling) = kinds::misspelling(version, kind, document.get("metadata").is_some_and(Value::is_object))
        else {
            return;
        };
        let (name, shown) = name_of(document);
        let kind = if kind.is_empty() { "an object" } else { kind };
        self.faults.add(Fault { kind: misspelling.kind, name, subject: format!("{kind} {shown}"), reason: misspelling.reason });
    }

    /// Converts a document to an object of this kind, and adds it to `all`. An invalid document becomes a fault.
    fn decode<T, K>(
        &mut self,
        document: Value,
        kind: &'static str,
        all: fn(&mut Objects) -> &mut All<K>,
        convert: impl FnOnce(T) -> K,
    ) where
        T: DeserializeOwned + Metadata<Ty = ObjectMeta>,
    {
        let (name, shown) = name_of(&document);
        let object = match serde_json::from_value(document) {
            Ok(raw) => named(raw, kind, convert),
            Err(error) => {
                let subject = format!("{kind} {shown}");
                Err(Fault { kind: Some(kind), name, subject, reason: error.to_string() })
            }
        };
        self.insert(object, kind, all);
    }

    /// Adds an object of this kind to `all`.
    fn insert<K>(&mut self, object: Result<Named<K>, Fault>, kind: &'static str, all: fn(&mut Objects) -> &mut All<K>) {
        match object {
            Ok((name, object)) => {
                if all(&mut self.objects).insert(name.clone(), object).is_some() {
                    self.faults.warn(format_args!("{kind} {name} is given twice; the last one is used"));
                }
            }
            Err(fault) => self.faults.add(fault),
        }
    }

    fn insert_cidr(&mut self, document: Value) {
        let mut faults = Vec::new();
        self.decode(
            document,
            kinds::SERVICE_CIDR,
            |it| &mut it.cidrs,
            |raw: ServiceCIDR| {
                let (object, wrong) = Object::service_cidr(&raw.metadata, raw.spec.unwrap_or_default());
                faults = wrong;
                object
            },
        );
        for fault in faults {
            self.faults.warn(fault);
        }
    }
}

/// An object of a file, and its name.
type Named<K> = (ObjectName, Arc<K>);

/// Converts an object of a kind. An object with an invalid name becomes a fault.
fn named<T, K>(raw: T, kind: &'static str, convert: impl FnOnce(T) -> K) -> Result<Named<K>, Fault>
where
    T: Metadata<Ty = ObjectMeta>,
{
    let metadata = raw.metadata();
    let name = object_name(metadata);
    if name.name().is_empty() {
        let (subject, reason) = (format!("a {kind}"), "it has no metadata.name".to_owned());
        return Err(Fault { kind: Some(kind), name: None, subject, reason });
    }
    // A slash separates namespace and name in `ObjectName`.
    let is_namespace = is_label(name.namespace()) && !metadata.namespace.as_ref().is_some_and(|it| it.contains('/'));
    if !(is_namespace && is_name(name.name(), kind)) {
        let subject = format!("{kind} {:?}", name.to_string());
        let reason = "its name or namespace is invalid".to_owned();
        return Err(Fault { kind: Some(kind), name: None, subject, reason });
    }
    Ok((name, Arc::new(convert(raw))))
}

/// The name of a document (`None` without a name), and the name as a warning shows it.
fn name_of(document: &Value) -> (Option<ObjectName>, String) {
    let field = |pointer| document.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let Some(name) = field("/metadata/name") else { return (None, "without a name".to_owned()) };
    let shown = if is_label(name) { name.to_owned() } else { format!("{name:?}") };
    (Some(ObjectName::new(field("/metadata/namespace").unwrap_or("default"), name)), shown)
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

/// Completes an item of a typed list such as `ServiceList`, in which the items have no `kind` and `apiVersion`.
fn complete(item: &mut Value, of_list: Option<(&str, &str)>) {
    if let (Value::Object(fields), Some((kind, version))) = (item, of_list) {
        fields.entry("kind").or_insert_with(|| kind.into());
        fields.entry("apiVersion").or_insert_with(|| version.into());
    }
}

/// Whether a name is valid for its kind. The maps store names of Services, with room for the length of a label. Other names
/// may be longer.
fn is_name(name: &str, kind: &str) -> bool {
    if kind == kinds::SERVICE { is_label(name) } else { name.len() <= MAX_NAME_LEN && !name.contains(char::is_control) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> (Vec<String>, Vec<String>) {
        names_with(text, None)
    }

    fn names_with(text: &str, only: Option<&[String]>) -> (Vec<String>, Vec<String>) {
        let (objects, faults) = parse(text, "file", Filter { wanted: &Wanted::default(), only }).expect("parses");
        (objects.services.keys().map(ToString::to_string).collect(), faults.into_warnings("file"))
    }

    /// An object with these lines of YAML and a name.
    fn yaml_and_json(head: &str) -> [String; 2] {
        let fields = head.replace(": ", "\": \"").replace('\n', "\", \"");
        [format!("{head}\nmetadata: {{name: a}}\n"), format!("{{\"{fields}\", \"metadata\": {{\"name\": \"a\"}}}}")]
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
    fn services_in_json_without_a_string_are_left_out() {
        let service = |name: &str| format!(r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"{name}"}}}}"#);
        let items = ["web", "web-2", "w\\u0065b-3"].map(service).join(",");
        let list = format!(r#"{{"kind":"List","items":[{items}]}}"#);
        let only = [r#""web""#.to_owned(), r#""other""#.to_owned()];
        assert_eq!(names_with(&list, Some(&only)).0, ["default/web", "default/web-3"]);
        assert_eq!(names_with(SERVICE, Some(&only)).0, ["default/a"], "YAML");
    }

    #[test]
    fn comments_are_not_limited() {
        let comments = "  # a comment\n".repeat(1_000);
        let text = SERVICE.replace("metadata:", &format!("spec:\n  ports: []\n{comments}metadata:"));
        assert_eq!(names(&text), (vec!["default/a".to_owned()], vec![]));
    }

    #[test]
    fn other_kinds_are_ignored_without_a_warning() {
        assert_eq!(names("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n"), (vec![], vec![]));
    }

    #[test]
    fn a_misspelt_kind_or_version_is_reported() {
        let misspelt = [
            ("apiVersion: v1\nkind: Servcie", "is it a v1 Service?"),
            ("apiVersion: v1\nkind: service", "is it a v1 Service?"),
            ("apiVersion: v2\nkind: Service", "is it a v1 Service?"),
            ("kind: Service", "is it a v1 Service?"),
            ("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlices", "is it a discovery.k8s.io/v1 EndpointSlice?"),
            ("apiVersion: v1\nkind: EndpointSlice", "is it a discovery.k8s.io/v1 EndpointSlice?"),
            ("apiVersion: v1", "it has no kind"),
        ];
        for (text, part) in misspelt.iter().flat_map(|(head, part)| yaml_and_json(head).map(|text| (text, part))) {
            let (services, warnings) = names(&text);
            assert!(services.is_empty() && warnings.len() == 1 && warnings[0].contains(part), "{text}: {warnings:?}");
        }
        let others = [
            "apiVersion: serving.knative.dev/v1\nkind: Service",
            "apiVersion: v1\nkind: ServiceAccount",
            "apiVersion: v1\nkind: Secret",
            "apiVersion: v1\nkind: PodTemplate",
            "apiVersion: networking.k8s.io/v1\nkind: Ingress",
        ];
        for text in others.iter().flat_map(|head| yaml_and_json(head)) {
            assert_eq!(names(&text).1, Vec::<String>::new(), "{text}");
        }
        assert_eq!(names("resources: [web.yaml]\n").1, Vec::<String>::new());
    }

    #[test]
    fn a_malformed_object_leaves_others_unchanged() {
        let broken = SERVICE.replace("name: a}", "name: b}\nspec: {ports: 3}");
        let (services, warnings) = names(&format!("{SERVICE}---\n{broken}"));
        assert_eq!(services, ["default/a"]);
        assert!(warnings.len() == 1 && warnings.iter().all(|warning| warning.contains("Service b")), "{warnings:?}");
    }

    #[test]
    fn an_invalid_name_leaves_other_objects_unchanged() {
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
        let filter = Filter { wanted: &Wanted::default(), only: None };
        let error = parse("a: [1, 2\nb: }", "broken.yaml", filter).expect_err("does not parse");
        assert!(error.to_string().contains("broken.yaml"), "{error:#}");
    }
}
