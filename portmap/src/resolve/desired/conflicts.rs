//! Who claims a spec in vain: said once.

use std::collections::BTreeSet;

use crate::{
    model::{FrontendSpec, ObjectName, Precedence},
    resolve::claims::Table,
};

/// Places named at once; the rest are counted. A Service may claim thousands.
const MOST: usize = 5;

/// Those that were said, while they last.
#[derive(Debug, Default)]
pub struct Conflicts {
    reported: BTreeSet<(FrontendSpec, ObjectName)>,
}

impl Conflicts {
    /// Says what is new after the claims of a Service on these places have changed. At each spec that is at most the Service
    /// itself, and the one that it has displaced.
    pub fn review<'a>(&mut self, table: &Table, claimant: &Precedence, specs: impl IntoIterator<Item = &'a FrontendSpec>) {
        let service = &claimant.service;
        let mut count = 0;
        for spec in specs {
            let Some(holder) = table.holder(spec) else {
                self.reported.remove(&(*spec, service.clone()));
                continue;
            };
            self.reported.remove(&(*spec, holder.clone()));
            let own = table.has_unsuccessful_claim(spec, claimant).then_some(service);
            if own.is_none() {
                self.reported.remove(&(*spec, service.clone()));
            }
            let displaced =
                table.conflicts(spec).next().map(|(conflicting, _)| conflicting).filter(|conflicting| *conflicting != service);
            for conflicting in [own, displaced].into_iter().flatten() {
                if !self.reported.insert((*spec, conflicting.clone())) {
                    continue;
                }
                count += 1;
                if count <= MOST {
                    tracing::warn!("Service {conflicting}: {spec} belongs to Service {holder}, and is left to it");
                }
            }
        }
        if count > MOST {
            tracing::warn!("Service {service}: {} more of its addresses and ports are claimed by two Services", count - MOST);
        }
    }
}
