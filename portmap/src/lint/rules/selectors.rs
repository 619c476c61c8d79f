//! Selectors of Services that select nothing.

use strsim::osa_distance;

use super::{Context, add};
use crate::lint::{
    catalog::{Level, NO_PODS},
    finding::Finding,
    gaps::Group,
    head::Labels,
    objects::{service::Service, workload::Workload},
    selection::is_added,
    set::Origin,
};

/// Checks that a selector selects something.
pub fn check(context: &Context, service: &Service, pods: &[&Workload], findings: &mut Vec<Finding>) {
    let Some(selector) = service.selector() else { return };
    if !pods.is_empty() || context.set.gaps.has(Group::Pods) {
        return;
    }
    let shown = selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    let finding = Finding::new(NO_PODS, &service.head, service.selector_line, format!("the selector {shown} selects no pod"));
    let finding = finding.at_level(level(context, service, selector));
    let finding = match near_miss(context, service, selector) {
        Some(mend) => finding.mended_by(mend),
        None => finding,
    };
    add(findings, &service.head, finding);
}

/// A warning if the pods should be in the set. They may be elsewhere if the set has no pods of this namespace, if a controller
/// of another kind may make them, or if a program may add a label while it runs.
fn level(context: &Context, service: &Service, selector: &Labels) -> Level {
    let namespace = &service.head.namespace;
    if context.set.origin == Origin::Cluster {
        return Level::Warning;
    }
    let is_elsewhere = context.index.in_namespace(namespace).is_empty() || context.set.makers.may_make_pods_in(namespace);
    let is_from_elsewhere = selector
        .keys()
        .any(|key| !context.index.has_label(namespace, key) && !is_added(key) && !is_misspelt(context, namespace, key));
    if is_elsewhere || is_from_elsewhere { Level::Note } else { Level::Warning }
}

/// Whether a label's name resembles one that a workload of the namespace has.
fn is_misspelt(context: &Context, namespace: &str, key: &str) -> bool {
    let workloads = context.index.in_namespace(namespace).iter().take(LOOKED_AT);
    let mut names = workloads.flat_map(|index| context.set.workloads[*index].labels.keys());
    names.any(|name| name.len() > 3 && osa_distance(name, key) <= 2)
}

/// The remedy if some workload has all labels but one, or is in another namespace.
fn near_miss(context: &Context, service: &Service, selector: &Labels) -> Option<String> {
    let workloads = context.index.in_namespace(&service.head.namespace).iter().take(LOOKED_AT);
    let mut workloads = workloads.map(|index| &context.set.workloads[*index]);
    let missing = |pod: &Workload| -> Vec<String> {
        let lacks = |(key, value): &(&String, &String)| pod.labels.get(*key) != Some(value);
        selector.iter().filter(lacks).map(|(key, value)| format!("{key}={value}")).collect()
    };
    if selector.len() > 1
        && let Some((pod, label)) = workloads.find_map(|pod| match &*missing(pod) {
            [label] => Some((pod, label.clone())),
            _ => None,
        })
    {
        return Some(format!("{} lacks only {label}: correct the selector or the label", pod.head.with_place()));
    }
    let pod = context.set.workloads.iter().take(LOOKED_AT).find(|pod| missing(pod).is_empty())?;
    let namespace = &pod.head.namespace;
    Some(format!(
        "{} is in the namespace {namespace:?}: give both the same namespace, in metadata.namespace or by --namespace",
        pod.head.with_place()
    ))
}

/// The number of workloads that are compared for a remedy.
const LOOKED_AT: usize = 100;
