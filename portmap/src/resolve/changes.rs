//! The changed frontends and ClusterIPs of the desired table: the output of `resolve` and the input of `plan`.

use std::net::IpAddr;

use crate::{
    collections::HashSet,
    model::{AddressOwner, Entry, Frontend},
};

/// Keys of the desired table whose value may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Frontends whose entry may have changed.
    pub frontends: HashSet<Frontend>,
    /// ClusterIPs whose owner may have changed.
    pub addresses: HashSet<IpAddr>,
}

impl Changes {
    /// Whether both sets are empty: then no frontend and no ClusterIP has changed.
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.addresses.is_empty()
    }

    /// Adds the frontends and ClusterIPs of `other`.
    pub fn extend(&mut self, other: Self) {
        self.frontends.extend(other.frontends);
        self.addresses.extend(other.addresses);
    }
}

/// The entries of changed frontends and the owners of changed addresses. `plan` reads the entries one at a time, so that they
/// are never all in memory.
pub struct ChangedEntries<I> {
    /// Changed ClusterIPs in order, with their owners; `None` if no Service has the address any more.
    pub owners: Vec<(IpAddr, Option<AddressOwner>)>,
    /// An iterator of `(Frontend, Option<Entry>)`, in the order of [`super::claims::Table::changed`]; `None` if no Service wins
    /// the frontend any more.
    pub frontends: I,
}

/// A changed frontend and its entry; `None` if no Service wins the frontend any more.
pub type ChangedEntry = (Frontend, Option<Entry>);
