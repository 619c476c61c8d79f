//! The model of portmap: `portmap services`, and the ClusterIPs in the kernel's tables.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use portmap::maps::bpf::BpfMaps;
use portmap::maps::pin::Pins;
use portmap::maps::{Item, Maps as _};
use portmap::model::AddressOwner;
use portmap_harness::agent::Agent;
use portmap_harness::world::World;
use serde::Deserialize;
use serde_json::Value;

use crate::model::{Answer, Family, Frontend, Model, Verdict};

/// A frontend in the format of `portmap services -o json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    frontend: String,
    family: Option<String>,
    action: String,
    backends: BTreeSet<SocketAddr>,
    affinity_seconds: Option<u64>,
    source_ranges: Option<Vec<String>>,
    external_backends: Option<External>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum External {
    Backends(BTreeSet<SocketAddr>),
    Action(String),
}

/// Reads the model from the tables of the agent.
pub fn read(agent: &Agent, world: &World) -> Result<Model> {
    let mut model = Model::new();
    for row in agent.services()? {
        let (frontend, answer) = read_row(&row).with_context(|| format!("a row of portmap services: {row}"))?;
        model.insert(frontend, answer);
    }
    for item in BpfMaps::open(&Pins::new(world.bpffs()))?.read()?.items {
        // portmap leaves ClusterIPs of other proxies alone.
        if let Item::Address(address, AddressOwner::Served) = item {
            model.insert(Frontend::OtherPorts(address), Answer::all(Verdict::Refuse));
        }
    }
    Ok(model)
}

fn read_row(row: &Value) -> Result<(Frontend, Answer)> {
    let row = Row::deserialize(row)?;
    let inside = verdict(&row.action, row.backends)?;
    let outside = match row.external_backends {
        None => inside.clone(),
        Some(External::Backends(backends)) => Verdict::Forward(backends),
        Some(External::Action(action)) => verdict(&action, BTreeSet::new())?,
    };
    let affinity = row.affinity_seconds.filter(|_| matches!(inside, Verdict::Forward(_)));
    let sources = row.source_ranges.map(|ranges| ranges.iter().map(|range| range.parse()).collect::<Result<Vec<_>, _>>());
    let sources = sources.transpose()?.map(|ranges| IpNet::aggregate(&ranges));
    Ok((frontend(&row.frontend, row.family.as_deref())?, Answer { inside, outside, affinity, sources }))
}

fn frontend(text: &str, family: Option<&str>) -> Result<Frontend> {
    let (address, protocol) = text.split_once('/').context("no protocol")?;
    let Some(port) = address.strip_prefix("*:") else {
        return Ok(Frontend::Address(address.parse()?, protocol.to_owned()));
    };
    let is_named = |known: &Family| family == Some(known.to_string().as_str());
    let family = Family::ALL.into_iter().find(is_named).context("no family")?;
    Ok(Frontend::NodePort(family, port.parse()?, protocol.to_owned()))
}

fn verdict(action: &str, backends: BTreeSet<SocketAddr>) -> Result<Verdict> {
    let verdicts = [Verdict::Forward(backends), Verdict::Refuse, Verdict::Drop];
    verdicts.into_iter().find(|verdict| verdict.name() == action).with_context(|| format!("an action `{action}`"))
}
