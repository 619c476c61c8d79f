//! `portmap doctor`: finds mistakes on this node because of which Services do not work. `portmap::doctor` has the checks.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Result, ensure};
use clap::Args;
use comfy_table::{Cell, Color};
use portmap::{
    doctor::{
        Check, CheckResult, leftovers, listening, node, node_ports, programs, sockets,
        tables::{self, ServedPort},
    },
    inspect::flows::ServiceName,
    kernel::{listeners, namespaces},
    maps::{Maps as _, bpf::BpfMaps, pin::Pins},
    source::kube::list::Lister,
};
use portmap_common::State;
use serde::Serialize;

use super::{
    NO, PinsArguments, optional_cluster,
    output::{self, Format},
    runtime,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pins: PinsArguments,
    /// The agent's --cgroup [default: the root of the hierarchy]
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// Check that this cluster's API server answers [default: the pod's service account, or else no check]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current context]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Check only the listening programs of this Service: NAME (in every namespace), NAME.NAMESPACE or NAMESPACE/NAME
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The output. Its JSON and YAML have these fields.
#[derive(Clone, Debug, Serialize)]
struct Report {
    /// Whether no check found a mistake.
    healthy: bool,
    /// The results, in the order of their lines.
    checks: Vec<Check>,
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        let pins = self.pins.open()?;
        pins.expect()?;
        let maps = BpfMaps::open(&pins)?;
        let state = maps.state()?;
        let mut ports = tables::served_ports(&maps.read()?);
        if let Some(service) = &self.service {
            ports.retain(|port| service.matches(&port.owner));
            ensure!(!ports.is_empty(), "no Service of this name is in the tables; portmap services lists them");
        }
        let is_here = namespaces::own()?.inode() == state.network;
        let mut checks = if self.service.is_none() { self.node(&pins, &state, is_here)? } else { Vec::new() };
        checks.extend(listening(&ports)?);
        checks.extend(node_ports(&ports, is_here)?);
        let healthy = checks.iter().all(|check| check.result != CheckResult::NotOk);
        let report = Report { healthy, checks };
        if !output::print_data(&report, self.output)? {
            print_table(&report.checks)?;
        }
        Ok(if healthy { ExitCode::SUCCESS } else { NO.into() })
    }

    /// The checks of the node, except those of Services. `is_here`: whether this is the agent's network namespace.
    fn node(&self, pins: &Pins, state: &State, is_here: bool) -> Result<Vec<Check>> {
        let mut checks = vec![node::kernel(state), node::pins(pins), node::capabilities()?];
        match node::cgroup(self.cgroup.as_deref()) {
            Ok(cgroup) => checks.extend(programs::of_cgroup(pins, &cgroup)?),
            Err(check) => checks.push(check),
        }
        if is_here {
            checks.extend(programs::of_devices(pins)?);
            checks.push(leftovers::check());
        } else {
            checks.push(Check::note("devices", elsewhere()));
            checks.push(Check::note("kube-proxy", elsewhere()));
        }
        checks.push(self.api_server()?);
        checks.push(node::firewall(state));
        Ok(checks)
    }

    fn api_server(&self) -> Result<Check> {
        const NAME: &str = "API server";
        let Some(cluster) = optional_cluster(self.kubeconfig.clone(), self.context.clone()) else {
            return Ok(Check::note(NAME, "not checked: give --kubeconfig"));
        };
        let version = async { Lister::open(&cluster).await?.version().await };
        Ok(match runtime()?.block_on(version) {
            Ok((server, version)) => Check::ok(NAME, format!("{server} answers from here, version {version}")),
            Err(error) => Check::not_ok(NAME, portmap::error_text::of_error(error.as_ref())),
        })
    }
}

fn elsewhere() -> String {
    "not checked: this is not the network namespace of the agent".to_owned()
}

fn print_table(checks: &[Check]) -> Result<()> {
    let mut table = output::new_table(&[]);
    for Check { name, result, text } in checks {
        let color = match result {
            CheckResult::Ok => Color::Green,
            CheckResult::Note => Color::Yellow,
            CheckResult::NotOk => Color::Red,
        };
        table.add_row([Cell::new(name), Cell::new(result.text()).fg(color), Cell::new(text)]);
    }
    output::print_table(&table)
}

/// Checks whether programs listen for the local backends of these service ports.
fn listening(ports: &[ServedPort]) -> Result<Vec<Check>> {
    Ok(listening::checks(ports, &sockets::survey(&tables::addresses(ports))?))
}

/// Checks whether processes of the node listen on the node ports of these service ports.
fn node_ports(ports: &[ServedPort], is_here: bool) -> Result<Vec<Check>> {
    if !is_here {
        return Ok(vec![Check::note("node ports", elsewhere())]);
    }
    let conflicts = node_ports::conflicts(ports, &listeners::list()?);
    let inodes: BTreeSet<u32> = conflicts.iter().flat_map(|conflict| &conflict.inodes).copied().collect();
    let owners = if inodes.is_empty() { BTreeMap::new() } else { listeners::owners(&inodes) };
    Ok(node_ports::checks(ports, &conflicts, &owners))
}
