//! The listening sockets of this node: a survey of the network namespaces that have given addresses.
//!
//! A survey lists the sockets of a namespace once. Namespaces with none of the addresses are only asked for their addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use anyhow::Result;

use crate::kernel::{
    listeners::{self, Listeners},
    namespaces::{self, NamespaceHolder, Traveller},
};

/// The result of a survey.
#[derive(Debug, Default)]
pub struct LocalSockets {
    /// The listeners of each address that a namespace of this node has. If several namespaces have the address: those of all.
    pub of_address: BTreeMap<IpAddr, Arc<Listeners>>,
    /// The number of namespaces that were asked.
    pub visited: usize,
    /// The first failure to enter a namespace, or to list its sockets. The survey goes on after it.
    pub failure: Option<anyhow::Error>,
}

/// Surveys the namespaces of all processes and names that have at least one of these addresses. Needs `CAP_SYS_ADMIN`, and
/// `CAP_SYS_PTRACE` for the namespaces of other users' processes.
pub fn survey(wanted: &BTreeSet<IpAddr>) -> Result<LocalSockets> {
    let holders = namespaces::holders()?;
    namespaces::travel(|traveller| {
        let mut found = LocalSockets::default();
        for holder in holders {
            match visit(&holder, wanted, traveller, &mut found.of_address) {
                Ok(()) => found.visited += 1,
                Err(error) => drop(found.failure.get_or_insert(error)),
            }
        }
        Ok(found)
    })
}

/// Adds the listeners of a namespace under each of its addresses that is wanted.
fn visit(
    holder: &NamespaceHolder,
    wanted: &BTreeSet<IpAddr>,
    traveller: &Traveller,
    of_address: &mut BTreeMap<IpAddr, Arc<Listeners>>,
) -> Result<()> {
    // A namespace that is gone meanwhile has no sockets.
    let Some(namespace) = holder.open()? else { return Ok(()) };
    traveller.enter(&namespace)?;
    let addresses: Vec<IpAddr> = namespaces::global_addresses()?.into_iter().filter(|it| wanted.contains(it)).collect();
    if addresses.is_empty() {
        return Ok(());
    }
    let listeners = Arc::new(listeners::list()?);
    for address in addresses {
        of_address.entry(address).and_modify(|known| *known = merged(known, &listeners)).or_insert_with(|| listeners.clone());
    }
    Ok(())
}

fn merged(first: &Listeners, second: &Listeners) -> Arc<Listeners> {
    let mut all = first.clone();
    all.tcp.extend_from_slice(&second.tcp);
    all.udp.extend_from_slice(&second.udp);
    Arc::new(all)
}
