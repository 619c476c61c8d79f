//! Logs the unsuccessful claims of Services on frontends, each at most once until the conflict ends.
//!
//! Conflicts are reviewed when a Service that portmap serves is resolved, not when a Service of another proxy changes.

use std::collections::BTreeSet;

use crate::{
    model::{FrontendSpec, ObjectName, Precedence},
    resolve::claims::Table,
};

/// Number of conflicts that one call of [`Conflicts::review`] logs. Further conflicts are counted, because a Service may have
/// thousands.
const MAX_LOGGED: usize = 5;

/// The conflicts that are already logged or counted and still exist: frontend and unsuccessful Service.
#[derive(Debug, Default)]
pub struct Conflicts {
    logged: BTreeSet<(FrontendSpec, ObjectName)>,
}

impl Conflicts {
    /// Logs new conflicts on frontends for which the claims of a Service have changed. For each frontend, only two Services can
    /// have a new conflict: the Service itself, and the Service that it displaced.
    pub fn review<'a>(&mut self, table: &Table, claimant: &Precedence, specs: impl IntoIterator<Item = &'a FrontendSpec>) {
        let service = &claimant.service;
        let mut count = 0;
        for spec in specs {
            let Some(holder) = table.holder(spec) else {
                self.logged.remove(&(*spec, service.clone()));
                continue;
            };
            self.logged.remove(&(*spec, holder.clone()));
            let own = table.has_unsuccessful_claim(spec, claimant).then_some(service);
            if own.is_none() {
                self.logged.remove(&(*spec, service.clone()));
            }
            let displaced = table.conflicts(spec).next().map(|(other, _)| other).filter(|other| *other != service);
            for unsuccessful in [own, displaced].into_iter().flatten() {
                if !self.logged.insert((*spec, unsuccessful.clone())) {
                    continue;
                }
                count += 1;
                if count <= MAX_LOGGED {
                    tracing::warn!("Service {unsuccessful}: {spec} belongs to Service {holder}, and is left to it");
                }
            }
        }
        if count > MAX_LOGGED {
            let further = count - MAX_LOGGED;
            tracing::warn!("Service {service}: {further} more of its addresses and ports are claimed by two Services");
        }
    }
}
