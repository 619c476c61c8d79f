//! Probes and HTTP hooks of containers.

use super::{Context, add};
use crate::lint::{
    catalog::{PROBE_NAME, PROBE_NUMBER, QUOTED_NUMBER},
    finding::Finding,
    objects::{
        PortRef, Protocol, unquoted,
        workload::{Container, Probe},
    },
};

/// Checks the probes of all pod templates, and of pods without a linted controller.
pub fn check(context: &Context, findings: &mut Vec<Finding>) {
    for (index, workload) in context.set.workloads.iter().enumerate().filter(|(_, workload)| !workload.is_made) {
        for container in &workload.containers {
            for probe in &container.probes {
                if let Some(finding) = check_probe(context, index, container, probe) {
                    add(findings, &workload.head, finding);
                }
            }
        }
    }
}

fn check_probe(context: &Context, index: usize, container: &Container, probe: &Probe) -> Option<Finding> {
    let workload = &context.set.workloads[index];
    let Probe { field, line, port } = probe;
    let finding = |rule, what| Finding::new(rule, &workload.head, *line, what);
    let name = &container.name;
    match port {
        PortRef::Quoted(number) => {
            let what = format!("the {field} of container {name} has the port {number:?} in quotes");
            Some(finding(QUOTED_NUMBER, what).mended_by(format!("write port: {}", unquoted(number))))
        }
        // Probes use TCP, but the kubelet looks up a name of any protocol.
        PortRef::Name(wanted) => (!container.ports.iter().any(|port| port.name == *wanted)).then(|| {
            let what =
                format!("the {field} of container {name} uses the port {wanted:?}, which this container does not declare");
            finding(PROBE_NAME, what).mended_by(mend(container))
        }),
        // A pod without any declared port tells nothing.
        PortRef::Number(number) if workload.ports().next().is_none() || context.serves(index, *number, Protocol::Tcp) => None,
        PortRef::Number(number) => Some({
            let what = format!("the {field} of container {name} uses port {number}, which no container declares");
            finding(PROBE_NUMBER, what)
                .mended_by(format!("declare the port, or correct the probe; the pod declares {}", workload.shown_ports()))
        }),
    }
}

/// The remedy for an unknown name, with the names that the container declares.
fn mend(container: &Container) -> String {
    let names: Vec<&str> = container.ports.iter().map(|port| port.name.as_str()).filter(|name| !name.is_empty()).collect();
    match &*names {
        [] => "write a number, or give the container port a name".to_owned(),
        [name] => format!("write {name}, or a number"),
        names => format!("write one of {}, or a number", names.join(", ")),
    }
}
