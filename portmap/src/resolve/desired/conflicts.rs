//! Who claims a place in vain: said once.

use std::collections::BTreeSet;

use crate::{
    model::{FrontendSpec, ObjectName, Precedence},
    resolve::claims::Table,
};

/// Places named at once; the rest are counted. A Service may claim thousands.
const MOST: usize = 5;

/// Those that were said, while they last.
#[derive(Debug, Default)]
pub struct Losers {
    said: BTreeSet<(FrontendSpec, ObjectName)>,
}

impl Losers {
    /// Says what is new after the claims of a Service on these places have changed. At each place that is at most the Service
    /// itself, and the one that it has displaced.
    pub fn review<'a>(&mut self, table: &Table, claimant: &Precedence, places: impl IntoIterator<Item = &'a FrontendSpec>) {
        let service = &claimant.service;
        let mut unsaid = 0;
        for place in places {
            let Some(holder) = table.holder(place) else {
                self.said.remove(&(*place, service.clone()));
                continue;
            };
            self.said.remove(&(*place, holder.clone()));
            let own = table.has_unsuccessful_claim(place, claimant).then_some(service);
            if own.is_none() {
                self.said.remove(&(*place, service.clone()));
            }
            let displaced = table.conflicts(place).next().map(|(loser, _)| loser).filter(|loser| *loser != service);
            for loser in [own, displaced].into_iter().flatten() {
                if !self.said.insert((*place, loser.clone())) {
                    continue;
                }
                unsaid += 1;
                if unsaid <= MOST {
                    tracing::warn!("Service {loser}: {place} belongs to Service {holder}, and is left to it");
                }
            }
        }
        if unsaid > MOST {
            tracing::warn!("Service {service}: {} more of its addresses and ports are claimed by two Services", unsaid - MOST);
        }
    }
}
