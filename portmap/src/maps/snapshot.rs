//! The contents of the tables, as [`super::Maps::read`] returns them to `plan` and `inspect`.

use std::collections::{BTreeMap, BTreeSet};

use portmap_common::Service;

use super::{ForeignKey, Item, NextNumbers, Prefix, Slot};
use crate::model::{Frontend, PerFamily, ServicePort};

/// The contents of the tables. `frontends` and `names` are sorted by their first field, and have each of its values once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every frontend in FRONTENDS, with its service entry and backends.
    pub frontends: Vec<(Frontend, FollowedFrontend)>,
    /// Every id in NAMES, with its service port; `None` if the value is not one that an agent writes.
    pub names: Vec<(u64, Option<ServicePort>)>,
    /// Every ClusterIP in FRONTENDS, and every key of ENDPOINTS, MEMBERS and SOURCE_RANGES, except those in `foreign`.
    pub items: BTreeSet<Item>,
    /// Items of MEMBERS and SOURCE_RANGES with a value that no agent writes. They are in `items`, too.
    pub spoiled: BTreeSet<Item>,
    /// Keys of FRONTENDS and SOURCE_RANGES that no agent writes.
    pub foreign: BTreeSet<ForeignKey>,
    /// The active prefixes of each family; `None` if they are not prefixes that an agent writes.
    pub prefixes: PerFamily<Option<Vec<Prefix>>>,
    /// The value of NUMBERS, whether it is plausible or not.
    pub next_numbers: NextNumbers,
}

impl Snapshot {
    /// The service port of each id, without the values that no agent writes.
    pub fn owners(&self) -> BTreeMap<u64, &ServicePort> {
        self.names.iter().filter_map(|(id, owner)| Some((*id, owner.as_ref()?))).collect()
    }
}

/// A frontend's service entry and backends, followed from FRONTENDS through SERVICES to BACKENDS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowedFrontend {
    /// The index of the service entry in SERVICES. [`super::bpf`] sets it to 0 without a service entry.
    pub number: u32,
    /// The service entry; `None` if the frontend's value is not one that an agent writes.
    pub service: Option<Service>,
    /// The backends for clients on this node; `None` without a service entry, or if the choice reaches beyond BACKENDS.
    pub inside: Option<Vec<Slot>>,
    /// The backends for clients outside the node; `None` without a service entry, or if the choice reaches beyond BACKENDS.
    pub outside: Option<Vec<Slot>>,
}
