//! The pods that selectors select: an index of workloads by namespace and label.

use super::{
    head::Labels,
    objects::{policy::Selector, service::Service, workload::Workload},
};
use crate::collections::{HashMap, HashSet};

/// Indices into the list of workloads, in ascending order.
pub type Selected = Vec<usize>;

/// Workloads by namespace and by label.
#[derive(Debug)]
pub struct Index<'a> {
    workloads: &'a [Workload],
    by_namespace: HashMap<&'a str, Selected>,
    /// By namespace, name and value of a label.
    by_label: HashMap<(&'a str, &'a str, &'a str), Selected>,
    /// The names of labels in each namespace.
    label_names: HashSet<(&'a str, &'a str)>,
}

/// Labels that controllers add to the pods of a template, with values that the template does not tell.
const ADDED: [&str; 5] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "controller-revision-hash",
    "pod-template-generation",
    "pod-template-hash",
];
/// The label with the name of a StatefulSet's pod.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The labels with the name of a pod's Job.
const JOB_NAME: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

impl<'a> Index<'a> {
    /// An index of these workloads.
    pub fn new(workloads: &'a [Workload]) -> Self {
        let mut by_namespace = HashMap::<_, Selected>::default();
        let mut by_label = HashMap::<_, Selected>::default();
        let mut label_names = HashSet::default();
        for (index, workload) in workloads.iter().enumerate() {
            let namespace = workload.head.namespace.as_str();
            by_namespace.entry(namespace).or_default().push(index);
            for (key, value) in &workload.labels {
                by_label.entry((namespace, key.as_str(), value.as_str())).or_default().push(index);
                label_names.insert((namespace, key.as_str()));
            }
        }
        Self { workloads, by_namespace, by_label, label_names }
    }

    /// The workloads of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> &[usize] {
        self.by_namespace.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// Whether a workload of the namespace has a label of this name.
    pub fn has_label(&self, namespace: &str, name: &str) -> bool {
        self.label_names.contains(&(namespace, name))
    }

    /// All namespaces with workloads.
    pub fn namespaces(&self) -> impl Iterator<Item = &'a str> {
        self.by_namespace.keys().copied()
    }

    /// The workloads whose pods a Service selects; none without a selector. Objects that a controller of the set made are left
    /// out if their template is selected.
    pub fn of_service(&self, service: &Service) -> Selected {
        let Some(selector) = service.selector() else { return Vec::new() };
        let all = self.with_labels(&service.head.namespace, selector);
        let given: Selected = all.iter().copied().filter(|index| !self.workloads[*index].is_made).collect();
        if given.is_empty() { all } else { given }
    }

    /// The workloads whose pods a label selector selects.
    pub fn of_selector(&self, namespace: &str, selector: &Selector) -> Selected {
        let mut all = self.with_labels(namespace, &selector.labels);
        all.retain(|index| selector.expressions_hold(&self.workloads[*index].labels));
        all
    }

    /// The workloads whose pods have all of these labels.
    fn with_labels(&self, namespace: &str, labels: &Labels) -> Selected {
        let added = labels.iter().filter(|(key, _)| is_added(key)).count();
        // The shortest list of a label has all candidates.
        let lists = labels
            .iter()
            .filter(|(key, _)| !is_added(key))
            .map(|(key, value)| self.by_label.get(&(namespace, key.as_str(), value.as_str())).map_or(&[][..], Vec::as_slice));
        let candidates = lists.min_by_key(|list| list.len()).unwrap_or_else(|| self.in_namespace(namespace));
        if labels.len() == 1 && added == 0 {
            return candidates.to_vec();
        }
        let has_all = |workload: &Workload| labels.iter().all(|(key, value)| may_have(workload, key, value));
        candidates.iter().copied().filter(|index| has_all(&self.workloads[*index])).collect()
    }
}

/// From each index in the lists to the lists that have it.
pub fn reversed(lists: &[Selected]) -> HashMap<usize, Vec<usize>> {
    let mut reversed = HashMap::<usize, Vec<usize>>::default();
    for (list, indices) in lists.iter().enumerate() {
        for index in indices {
            reversed.entry(*index).or_default().push(list);
        }
    }
    reversed
}

/// Whether a controller may add a label of this name to pods.
pub fn is_added(key: &str) -> bool {
    key == POD_NAME || ADDED.contains(&key) || JOB_NAME.contains(&key)
}

/// Whether pods of the workload have the label, or may get it from their controller.
fn may_have(workload: &Workload, key: &str, value: &str) -> bool {
    if let Some(found) = workload.labels.get(key) {
        return found == value;
    }
    let name = &workload.head.name;
    let is_numbered = |prefix: &str| value.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'));
    match workload.head.kind.as_str() {
        "Pod" => false,
        "StatefulSet" if key == POD_NAME => is_numbered(name),
        "Job" if JOB_NAME.contains(&key) => value == name,
        "CronJob" if JOB_NAME.contains(&key) => is_numbered(name),
        _ => ADDED.contains(&key),
    }
}
