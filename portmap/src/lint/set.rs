//! All objects of one run: files, or the lists of a cluster.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value as Json;

use super::{
    catalog::{INVALID, UNKNOWN_CODE},
    documents::{self, Broken, Document, Part},
    finding::Finding,
    gaps::{Gaps, PodMakers},
    head::{Head, IGNORE, Labels, labels},
    objects::{policy::Policy, route::Route, service::Service, slice::Slice, workload::Workload},
    tree::{Invalid, Node, json::Item},
};
use crate::parallel;

/// The origin of the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Files, which may be a part of what a cluster has.
    Files,
    /// A cluster, whose API server has accepted the objects.
    Cluster,
}

/// All objects of one run.
#[derive(Debug)]
pub struct Set {
    /// The origin.
    pub origin: Origin,
    /// Services.
    pub services: Vec<Service>,
    /// Pods and pod templates.
    pub workloads: Vec<Workload>,
    /// NetworkPolicies.
    pub policies: Vec<Policy>,
    /// Ingresses and routes of the Gateway API.
    pub routes: Vec<Route>,
    /// EndpointSlices and Endpoints.
    pub slices: Vec<Slice>,
    /// The labels of Namespaces, with the label of the name that each has.
    pub namespaces: BTreeMap<String, Labels>,
    /// Objects that are missing, so that conclusions about absence are wrong.
    pub gaps: Gaps,
    /// Objects of other kinds, for which a controller may make pods.
    pub makers: PodMakers,
    /// Findings about documents that cannot be read.
    pub faults: Vec<Finding>,
    /// The number of all objects, of all kinds.
    pub objects: usize,
    default_namespace: String,
}

/// The label that each Namespace has, with its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

impl Set {
    /// An empty set. `default_namespace`: the namespace of objects that name none.
    pub fn new(origin: Origin, default_namespace: &str) -> Self {
        Self {
            origin,
            services: Vec::new(),
            workloads: Vec::new(),
            policies: Vec::new(),
            routes: Vec::new(),
            slices: Vec::new(),
            namespaces: BTreeMap::new(),
            gaps: Gaps::default(),
            makers: PodMakers::default(),
            faults: Vec::new(),
            objects: 0,
            default_namespace: default_namespace.to_owned(),
        }
    }

    /// Reads a file with YAML or JSON. Documents with an error become faults.
    pub fn read(&mut self, file: &str, text: &str) {
        let file = Arc::from(file);
        for part in documents::split(text) {
            if self.read_list(&part, &file).is_some() {
                continue;
            }
            for document in part.documents() {
                match document {
                    Document::Tree(tree) => self.take(&tree, Some(&file)),
                    Document::Broken(broken) => self.add_broken(&file, &broken),
                }
            }
        }
    }

    /// Reads a list of JSON on all processors. `None` if the part is something else, or has an error.
    fn read_list(&mut self, part: &Part<'_>, file: &Arc<str>) -> Option<()> {
        let list = part.list().filter(|list| is_list(&list.head))?;
        let read = |items: &[Item<'_>]| {
            // With a file name of its own, no thread waits for others that count its users.
            let (mut set, file) = (Self::new(self.origin, &self.default_namespace), Arc::from(&**file));
            for item in items {
                set.take_item(&list.tree(item)?, &list.head, Some(&file));
            }
            Some(set)
        };
        let sets = parallel::in_parts(&list.items, read).into_iter().collect::<Option<Vec<_>>>()?;
        for set in sets {
            self.append(set);
        }
        Some(())
    }

    /// Appends the objects of another set.
    fn append(&mut self, other: Self) {
        let Self {
            services,
            workloads,
            policies,
            routes,
            slices,
            namespaces,
            gaps,
            makers,
            faults,
            objects,
            origin: _,
            default_namespace: _,
        } = other;
        self.services.extend(services);
        self.workloads.extend(workloads);
        self.policies.extend(policies);
        self.routes.extend(routes);
        self.slices.extend(slices);
        self.namespaces.extend(namespaces);
        self.gaps.append(gaps);
        self.makers.append(makers);
        self.faults.extend(faults);
        self.objects += objects;
    }

    /// Adds an object of a cluster, with `kind` and `apiVersion`.
    pub fn add(&mut self, object: Json) {
        self.take(&Node::from_json(object), None);
    }

    /// Adds a file that cannot be read as text. Every object may be missing.
    pub fn add_unreadable(&mut self, file: &str, reason: &str) {
        let broken = Broken { line: 1, reason: reason.to_owned(), kind: None, is_template: false };
        self.add_broken(&Arc::from(file), &broken);
    }

    fn add_broken(&mut self, file: &Arc<str>, Broken { line, reason, kind, is_template }: &Broken) {
        self.gaps.add(kind.as_deref());
        let kind = kind.clone().unwrap_or_default();
        let head = Head { file: Some(file.clone()), line: *line, kind, ..Head::default() };
        let fault = |what| Finding::new(INVALID, &head, *line, what);
        self.faults.push(if *is_template {
            let mend = "render the template first, for example `helm template CHART | portmap lint -`";
            fault("the document is a template, and not YAML".to_owned()).mended_by(mend.to_owned())
        } else {
            fault(format!("the document is neither YAML nor JSON: {reason}"))
        });
    }

    /// Takes a document: an object, or a list of objects.
    fn take(&mut self, object: &Node, file: Option<&Arc<str>>) {
        if is_list(object) {
            let items = if object.items().is_empty() { object.list("items") } else { object.items() };
            for item in items {
                self.take_item(item, object, file);
            }
        } else if object.text("kind").is_some_and(|kind| !kind.is_empty()) {
            self.take_object(object, file);
        }
    }

    /// Takes an item of a list. The items of a typed list such as `ServiceList` have no kind.
    fn take_item(&mut self, item: &Node, list: &Node, file: Option<&Arc<str>>) {
        let kind = list.text("kind").and_then(|kind| kind.strip_suffix("List")).filter(|kind| !kind.is_empty());
        match kind.filter(|_| item.get("kind").is_none()) {
            Some(kind) => {
                let version = list.text("apiVersion").unwrap_or_default();
                self.take_object(&item.with_kind(version, kind), file);
            }
            None => self.take(item, file),
        }
    }

    fn take_object(&mut self, object: &Node, file: Option<&Arc<str>>) {
        self.objects += 1;
        let head = Head::read(object, file, &self.default_namespace);
        if let Err(Invalid { line, reason }) = self.insert(head.clone(), object) {
            self.gaps.add(Some(&head.kind));
            self.faults.push(Finding::new(INVALID, &head, line, format!("the object is invalid: {reason}")));
        }
    }

    fn insert(&mut self, head: Head, object: &Node) -> Result<(), Invalid> {
        let version = object.text("apiVersion").unwrap_or_default();
        let group = version.split_once('/').map_or("", |(group, _)| group);
        match (group, head.kind.as_str()) {
            ("", "Service") => self.services.push(Service::read(head, object)?),
            ("", "Pod") => self.workloads.push(Workload::read(head, object, object)?),
            ("", "Endpoints") => self.slices.push(Slice::read_endpoints(head, object)?),
            ("", "Namespace") => self.insert_namespace(&head, object)?,
            ("discovery.k8s.io", "EndpointSlice") => self.slices.push(Slice::read(head, object)?),
            ("networking.k8s.io" | "extensions", "NetworkPolicy") => self.policies.push(Policy::read(head, object)?),
            ("networking.k8s.io" | "extensions", "Ingress") => self.routes.push(Route::read_ingress(head, object)?),
            ("gateway.networking.k8s.io", kind) if kind.ends_with("Route") => {
                self.routes.push(Route::read_gateway(head, object)?);
            }
            _ => match template_of(object) {
                Some(template) => self.workloads.push(Workload::read(head, object, template)?),
                None => self.makers.add(group, &head),
            },
        }
        Ok(())
    }

    fn insert_namespace(&mut self, head: &Head, object: &Node) -> Result<(), Invalid> {
        let mut labels = labels(object.get("metadata"))?;
        labels.insert(NAME_LABEL.to_owned(), head.name.clone());
        self.namespaces.insert(head.name.clone(), labels);
        Ok(())
    }

    /// The labels of a namespace. Without a Namespace object, it has the label of its name.
    pub fn namespace_labels(&self, name: &str) -> Labels {
        let given = self.namespaces.get(name).cloned();
        given.unwrap_or_else(|| [(NAME_LABEL.to_owned(), name.to_owned())].into())
    }

    /// Findings about annotations that list unknown codes.
    pub fn unknown_codes(&self) -> Vec<Finding> {
        let words = self.heads().flat_map(|head| head.ignored.unknown.iter().map(move |(word, line)| (head, word, *line)));
        words
            .map(|(head, word, line)| Finding::new(UNKNOWN_CODE, head, line, format!("the annotation {IGNORE} has {word:?}")))
            .collect()
    }

    fn heads(&self) -> impl Iterator<Item = &Head> {
        let services = self.services.iter().map(|it| &it.head);
        let workloads = self.workloads.iter().map(|it| &it.head);
        let policies = self.policies.iter().map(|it| &it.head);
        let routes = self.routes.iter().map(|it| &it.head);
        services.chain(workloads).chain(policies).chain(routes).chain(self.slices.iter().map(|it| &it.head))
    }
}

/// Whether a document is a list of objects.
fn is_list(document: &Node) -> bool {
    document.text("kind").is_some_and(|kind| kind.ends_with("List")) || !document.items().is_empty()
}

/// The pod template of an object. All kinds have it in one field, except a CronJob. Custom resources often have it there, too.
fn template_of(object: &Node) -> Option<&Node> {
    let templates = [&["spec", "template"][..], &["spec", "jobTemplate", "spec", "template"]];
    let mut found = templates.into_iter().filter_map(|path| object.at(path));
    found.find(|template| template.at(&["spec", "containers"]).is_some())
}
