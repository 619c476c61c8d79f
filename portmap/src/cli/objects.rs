//! The arguments that decide the desired table, and one reading of the objects, for subcommands beside the agent.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Args;
use ipnet::IpNet;
use portmap::{
    kernel::{addresses, namespaces},
    model::{
        event::{Object, Wanted},
        object,
    },
    resolve::{desired::Desired, node_ports::Eligible},
    source::{
        kube::list::{Lister, watched},
        manifests::{
            self, Manifests, STDIN,
            files::{self, Stamp},
        },
    },
};
use tokio::runtime::Runtime;
use tracing::subscriber::NoSubscriber;

use super::{ClusterArguments, ObjectArguments, runtime};

/// The pause before the objects and the kernel's tables are read again: the agent applies a change within milliseconds.
pub const PAUSE: Duration = Duration::from_millis(500);
/// The most readings of one call. Two usually suffice; a cluster with many changes needs more.
pub const READINGS: usize = 5;

/// The arguments besides the objects that decide the desired table.
#[derive(Debug, Args)]
pub struct TableArguments {
    /// Range of ClusterIPs, for clusters without ServiceCIDR objects; repeatable. Connections to its unused addresses fail at
    /// once
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = service_cidr)]
    pub service_cidr: Vec<IpNet>,
    /// Serve node ports on these addresses: primary (the addresses of the Node object), localhost, all, or CIDRs
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "primary")]
    pub nodeport_addresses: Vec<Eligible>,
}

/// Parses a range of ClusterIPs. Refuses a range that is too wide, because calls to all unused addresses of the range are
/// dropped.
fn service_cidr(text: &str) -> Result<IpNet, String> {
    let range: IpNet = text.parse().map_err(|_| "expected ADDRESS/BITS".to_owned())?;
    object::checked_cidr(range)
}

/// The source of the objects, and the arguments that decide the desired table. They must be the agent's.
#[derive(Debug, Args)]
pub struct SourceArguments {
    /// Read objects from this file or directory (or - for standard input) instead of a cluster; repeatable
    #[arg(long, value_name = "PATH")]
    manifests: Vec<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    objects: ObjectArguments,
    #[command(flatten)]
    table: TableArguments,
}

/// An open source of objects.
pub struct Source {
    pub origin: Origin,
    /// The selection of objects.
    pub wanted: Wanted,
    table: TableArguments,
}

/// The place of the objects.
pub enum Origin {
    /// The API server.
    Kube(Lister, Runtime),
    /// Files.
    Manifests(Vec<PathBuf>),
}

/// Files, each with its identity and version.
pub type Files = BTreeMap<PathBuf, Stamp>;

impl SourceArguments {
    /// Opens the source. Reads the configuration of a cluster, and no object yet.
    pub fn open(self) -> Result<Source> {
        let Self { manifests, cluster, objects, table } = self;
        let origin = if manifests.is_empty() {
            let runtime = runtime()?;
            Origin::Kube(runtime.block_on(Lister::open(&cluster.into()))?, runtime)
        } else {
            Origin::Manifests(manifests)
        };
        Ok(Source { origin, wanted: objects.wanted()?, table })
    }
}

impl Source {
    /// Whether [`Self::read`] returns the current objects each time: standard input can be read only once.
    pub fn is_repeatable(&self) -> bool {
        match &self.origin {
            Origin::Kube(..) => true,
            Origin::Manifests(paths) => paths.iter().all(|path| path.as_os_str() != STDIN),
        }
    }

    /// The files of the objects as they are now, to notice changes. None if an API server has the objects, or a path cannot be
    /// read.
    pub fn files(&self) -> Option<Files> {
        match &self.origin {
            Origin::Kube(..) => None,
            Origin::Manifests(paths) => files::list(paths, true, &mut Vec::new()).ok(),
        }
    }

    /// Whether all objects are in files of JSON, by their names.
    pub fn is_json(&self) -> bool {
        let is_json = |path: &PathBuf| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        self.files().is_some_and(|files| files.keys().all(is_json))
    }

    /// Reads all objects. Returns also the warnings about manifests.
    pub fn read(&self) -> Result<(Vec<Object>, Vec<String>)> {
        match &self.origin {
            Origin::Kube(lister, runtime) => Ok((runtime.block_on(watched::list(lister, &self.wanted))?, Vec::new())),
            Origin::Manifests(paths) => {
                let reading = Manifests::new(paths.clone(), self.wanted.clone()).read_once()?;
                Ok((reading.objects, reading.warnings))
            }
        }
    }

    /// The desired table of an agent with the same arguments. `local`: the addresses of the agent's interfaces.
    ///
    /// If no Node object names an address, node ports are served on all addresses, as by an agent that has waited for one.
    pub fn resolve(&self, objects: Vec<Object>, local: Vec<IpNet>) -> Desired {
        let TableArguments { service_cidr, nodeport_addresses } = &self.table;
        let mut desired = Desired::new(self.wanted.node.clone(), nodeport_addresses.clone(), service_cidr.clone())
            .allowing(self.wanted.external_ips.clone());
        desired.set_local(local);
        for event in manifests::listed(objects) {
            desired.apply(event);
        }
        if desired.lacks_address() {
            desired.give_up_waiting();
        }
        resolve(&mut desired);
        desired
    }
}

/// Resolves the changed Services without log lines: the agent logs them.
pub fn resolve(desired: &mut Desired) {
    tracing::subscriber::with_default(NoSubscriber::default(), || desired.resolve());
}

/// The addresses of the interfaces in the agent's network namespace, which is `inode`, or 0 if it is unknown. They decide the
/// addresses of node ports. If the namespace cannot be found, those of the own namespace, with a warning.
pub fn agent_addresses(inode: u64) -> Result<(Vec<IpNet>, Option<String>)> {
    if inode == namespaces::own()?.inode() || inode == 0 {
        return Ok((addresses::networks()?, None));
    }
    let holders = namespaces::holders()?;
    let holder = holders.iter().find(|holder| holder.id.inode() == inode);
    if let Some(namespace) = holder.map(namespaces::NamespaceHolder::open).transpose()?.flatten() {
        return Ok((namespace.enter(addresses::networks)?, None));
    }
    let warning = "this is not the agent's network namespace, which cannot be found: node ports may differ; run the command \
                   beside the agent";
    Ok((addresses::networks()?, Some(warning.to_owned())))
}
