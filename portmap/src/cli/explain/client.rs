//! The client of `--from-pid` or `--from-netns`: a network namespace.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use portmap::{
    inspect::explain::{Explanation, client::Client},
    kernel::{
        namespaces::{self, Namespace},
        routes::Routes,
        uptime,
    },
    model::{AddressKind, Entry, Frontend},
};

use super::kernel::Kernel;

/// The directory of named network namespaces, of iproute2 and most container runtimes.
const NAMED: &str = "/run/netns";

/// An open network namespace of a client.
pub struct ClientNamespace {
    namespace: Namespace,
    is_host: bool,
}

impl ClientNamespace {
    /// Opens the namespace of a process.
    pub fn of_process(id: u32, network: Option<u64>) -> Result<Self> {
        Self::at(&PathBuf::from(format!("/proc/{id}/ns/net")), network).with_context(|| format!("found no process {id}"))
    }

    /// Opens a namespace by its path, or by its name in `/run/netns`.
    pub fn of_name(name: &Path, network: Option<u64>) -> Result<Self> {
        let is_path = name.components().count() > 1;
        Self::at(&if is_path { name.to_owned() } else { Path::new(NAMED).join(name) }, network)
    }

    /// `network`: the inode of the agent's network namespace; none for that of this process.
    fn at(path: &Path, network: Option<u64>) -> Result<Self> {
        let namespace = Namespace::at(path)?;
        let host = match network.filter(|inode| *inode != 0) {
            Some(inode) => inode,
            None => namespaces::own()?.inode(),
        };
        Ok(Self { is_host: namespace.id()?.inode() == host, namespace })
    }

    /// Adds the rules for this client to the explanation of a frontend.
    pub fn add(
        &self,
        explanation: &mut Explanation,
        frontend: &Frontend,
        entry: Option<&Entry>,
        kernel: &Kernel,
    ) -> Result<()> {
        let (client, cookie) = self.namespace.enter(|| {
            let source = Routes::open()?.source(frontend.address)?;
            let client = Client { addresses: namespaces::global_addresses()?, source, is_host: self.is_host };
            Ok((client, namespaces::cookie().ok()))
        })?;
        let balancer = entry.filter(|entry| entry.kind == AddressKind::LoadBalancer);
        explanation.add_client(&client, frontend.address, balancer.and_then(|entry| entry.source_ranges.as_deref()));
        let (Ok(tables), Some(cookie)) = (&kernel.0, cookie) else { return Ok(()) };
        let now = u64::try_from(uptime::monotonic().as_nanos()).unwrap_or(u64::MAX);
        if explanation.connects
            && let Some(session) = tables.maps.session(cookie, frontend, now)?
        {
            explanation.add_session(&session.endpoint, now.saturating_sub(session.last_used) / 1_000_000_000);
        }
        Ok(())
    }
}
