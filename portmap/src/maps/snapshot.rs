//! The contents of the maps, as [`super::Maps::read`] returns them.

use std::collections::BTreeSet;

use portmap_common::Service;

use super::{ForeignKey, Item, NextNumbers, Prefix, Slot};
use crate::model::{Frontend, PerFamily, ServicePort};

/// What the tables hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Each frontend and what it leads to, in order.
    pub frontends: Vec<(Frontend, FollowedFrontend)>,
    /// Each id that has a name, in order; `None` where the name is not one that the agent would write.
    pub names: Vec<(u64, Option<ServicePort>)>,
    /// Everything that is in a map or not.
    pub items: BTreeSet<Item>,
    /// Items whose value is not one that the agent would write.
    pub spoiled: BTreeSet<Item>,
    /// Keys that the agent would never write.
    pub foreign: BTreeSet<ForeignKey>,
    /// The prefixes of each family; `None` where they are not what the agent would write.
    pub prefixes: PerFamily<Option<Vec<Prefix>>>,
    /// Numbers given so far.
    pub next_numbers: NextNumbers,
}

/// Where a frontend leads, followed through all three tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowedFrontend {
    /// The service entry's number.
    pub number: u32,
    /// The service entry; `None` if the frontend's value is not one that the agent would write.
    pub service: Option<Service>,
    /// The backends of the inside choice; `None` if it leaves the map.
    pub inside: Option<Vec<Slot>>,
    /// The backends of the outside choice; `None` if it leaves the map.
    pub outside: Option<Vec<Slot>>,
}
