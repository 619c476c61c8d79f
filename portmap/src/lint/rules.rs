//! The rules, by topic.

mod node_ports;
mod policies;
mod probes;
mod routes;
mod selectors;
mod service_ports;
mod slices;
mod target_ports;

use super::{
    Settings,
    catalog::Rule,
    finding::Finding,
    head::Head,
    objects::{
        Protocol,
        service::{Service, ServicePort},
        workload::Workload,
    },
    selection::{self, Index, Selected},
    set::Set,
};
use crate::{collections::HashMap, parallel};

/// The objects, and the relations between them.
struct Context<'a> {
    set: &'a Set,
    settings: &'a Settings,
    index: Index<'a>,
    /// The workloads that each Service selects, in the order of the Services.
    selected: Vec<Selected>,
    /// Services by namespace and name. Files may have several variants of a Service.
    services: HashMap<(&'a str, &'a str), Vec<&'a Service>>,
    /// The Services that select each workload, as indices.
    selecting: HashMap<usize, Vec<usize>>,
}

/// All findings about a set, in any order.
pub fn apply(set: &Set, settings: &Settings) -> Vec<Finding> {
    let context = Context::new(set, settings);
    let mut findings = set.faults.clone();
    findings.extend(set.unknown_codes());
    let services: Vec<_> = set.services.iter().zip(&context.selected).collect();
    findings.extend(parallel::in_parts(&services, |services| context.of_services(services)).into_iter().flatten());
    node_ports::check(&context, &mut findings);
    probes::check(&context, &mut findings);
    policies::check(&context, &mut findings);
    routes::check(&context, &mut findings);
    slices::check(&context, &mut findings);
    findings
}

impl<'a> Context<'a> {
    fn new(set: &'a Set, settings: &'a Settings) -> Self {
        let index = Index::new(&set.workloads);
        let selected: Vec<Selected> = set.services.iter().map(|service| index.of_service(service)).collect();
        let mut services = HashMap::<_, Vec<_>>::default();
        for service in &set.services {
            let name = (service.head.namespace.as_str(), service.head.name.as_str());
            services.entry(name).or_default().push(service);
        }
        let selecting = selection::reversed(&selected);
        Self { set, settings, index, selected, services, selecting }
    }

    /// The Services that select a workload.
    fn services_of(&self, workload: usize) -> impl Iterator<Item = &'a Service> {
        self.selecting.get(&workload).into_iter().flatten().map(|index| &self.set.services[*index])
    }

    /// Whether a pod serves a number as far as the objects tell: a container declares it, or a Service leads to it.
    fn serves(&self, workload: usize, number: i32, protocol: Protocol) -> bool {
        let pod = &self.set.workloads[workload];
        let leads_to = |it: &ServicePort| it.protocol == protocol && pod.resolve(&it.target, protocol) == Some(number);
        pod.declares(number, protocol) || self.services_of(workload).any(|service| service.ports.iter().any(leads_to))
    }

    /// The findings about Services, each with the workloads that it selects.
    fn of_services(&self, services: &[(&Service, &Selected)]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (service, selected) in services {
            let selected = self.workloads(selected);
            target_ports::check(self, service, &selected, &mut findings);
            selectors::check(self, service, &selected, &mut findings);
            service_ports::check(service, &mut findings);
        }
        findings
    }

    fn workloads(&self, selected: &[usize]) -> Vec<&'a Workload> {
        selected.iter().map(|index| &self.set.workloads[*index]).collect()
    }
}

/// Adds a finding, unless an annotation of its object ignores it.
fn add(findings: &mut Vec<Finding>, head: &Head, finding: Finding) {
    if !head.ignored.has(finding.rule) {
        findings.push(finding);
    }
}

/// Whether the annotations of all these pods ignore a rule.
fn all_ignore(workloads: &[&Workload], rule: &Rule) -> bool {
    !workloads.is_empty() && workloads.iter().all(|workload| workload.head.ignored.has(rule))
}

/// Some workloads as text: the first one with its place, and the number of further ones.
fn shown(workloads: &[&Workload]) -> String {
    match workloads {
        [] => "no pod".to_owned(),
        [one] => one.head.with_place(),
        [first, rest @ ..] => format!("{} and {} more", first.head.with_place(), rest.len()),
    }
}
