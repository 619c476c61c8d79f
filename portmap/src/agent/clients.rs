//! Which addresses the clients on this node have, for the source ranges of load balancers.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use portmap_common::Totals;
use tokio::task::JoinHandle;

use super::kernel::Kernel;
use crate::{datapath::pin::Pins, maps::bpf::BpfMaps, network::namespaces};

/// Addresses change rarely without a new namespace: they are looked up anew this often.
const REFRESH: Duration = Duration::from_secs(5);

/// Between two looks, however many clients are kept out.
const AGAIN: Duration = Duration::from_millis(500);

/// What the last look at the namespaces found.
#[derive(Default)]
pub struct Clients {
    look: Option<JoinHandle<Result<()>>>,
    last: Option<Instant>,
    kept_out: u64,
    failed: bool,
}

impl Clients {
    /// Looks at the namespaces again if a client was kept out, or it was long ago: the one may have an address that is not known
    /// yet, or lack one that it had.
    pub async fn check(&mut self, kernel: &Kernel) -> Result<()> {
        self.finish().await;
        let since_last = self.last.map(|last| last.elapsed());
        if self.look.is_some() || since_last.is_some_and(|since| since < AGAIN) {
            return Ok(());
        }
        let Totals { unknown_namespace, not_admitted, .. } = kernel.maps.totals()?;
        let kept_out = unknown_namespace + not_admitted;
        if self.kept_out != kept_out || since_last.is_none_or(|since| since >= REFRESH) {
            (self.kept_out, self.last) = (kept_out, Some(Instant::now()));
            let pins = kernel.pins.clone();
            self.look = Some(tokio::task::spawn_blocking(move || look(&pins)));
        }
        Ok(())
    }

    async fn finish(&mut self) {
        let Some(look) = self.look.take_if(|look| look.is_finished()) else { return };
        match look.await.context("the look at network namespaces crashed").flatten() {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                tracing::warn!(
                    "{error:#}; clients that source ranges apply to are admitted by the address they are bound to only"
                );
            }
            Err(_) => {}
        }
    }
}

/// Lists the namespaces, and writes what is new of them.
fn look(pins: &Pins) -> Result<()> {
    // A kernel that does not tell the cookie of our own does not tell others'.
    namespaces::cookie()?;
    let mut found: BTreeMap<u64, Vec<IpAddr>> = BTreeMap::new();
    for namespace in namespaces::all()? {
        // One that is on its way in has no address yet, and one on its way out no name: neither has clients.
        if let Ok((cookie, addresses)) = namespace.describe()
            && !addresses.is_empty()
        {
            found.insert(cookie, addresses);
        }
    }
    BpfMaps::open(pins)?.set_namespaces(&found)
}
