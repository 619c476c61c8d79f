//! The order in which `plan` reads changed frontends.

use super::Table;
use crate::{
    collections::{HashMap, sorted},
    model::{Entry, Frontend, ObjectName},
    resolve::changes::{ChangedEntries, ChangedEntry, Changes},
};

impl Table {
    /// The entries and owners for changes: the input of `plan`. `entry` derives the entry of a frontend, when the iterator
    /// reaches it.
    pub fn changed<'a>(
        &self,
        changes: &Changes,
        mut entry: impl FnMut(&Frontend) -> Option<Entry> + 'a,
    ) -> ChangedEntries<impl Iterator<Item = ChangedEntry> + 'a> {
        let addresses = sorted(changes.addresses.iter().copied());
        let frontends = self.arrange(sorted(changes.frontends.iter().copied()));
        ChangedEntries {
            owners: addresses.into_iter().map(|address| (address, self.owner(&address))).collect(),
            frontends: frontends.into_iter().map(move |frontend| (frontend, entry(&frontend))),
        }
    }

    /// Sorts frontends into the order in which `plan` reads them: frontends without a winner first, then by [`super::Rank`].
    ///
    /// Node ports are the last, so that they are the first to be left out of a full map. Within a rank and family the frontends
    /// of a Service port are adjacent, because they share their endpoints.
    pub(super) fn arrange(&self, frontends: Vec<Frontend>) -> Vec<Frontend> {
        let mut groups: HashMap<&ObjectName, usize> = HashMap::default();
        let key = |frontend: Frontend| {
            let Some((_, claim)) = self.first_claim(&frontend) else { return (None, 0, frontend) };
            let next = groups.len();
            let group = *groups.entry(&claim.precedence.service).or_insert(next);
            (Some(claim.rank), group, frontend)
        };
        let mut all: Vec<_> = frontends.into_iter().map(key).collect();
        all.sort_by_key(|(rank, group, frontend)| (*rank, *group, frontend.family(), frontend.port, frontend.protocol));
        all.into_iter().map(|(_, _, frontend)| frontend).collect()
    }
}
