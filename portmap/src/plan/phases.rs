//! The order of a plan's steps.

use super::Step;
use crate::maps::NextNumbers;

/// The steps of a plan by phase. Removals that make room come before the writes. Entries that an entry in use refers to until
/// the stores are made are removed after the writes.
#[derive(Default)]
pub struct Phases {
    /// New prefixes in which no address counts as unallocated. Only while the owners of ClusterIPs are unknown.
    pub first: Vec<Step>,
    /// Removals of frontends, of their names, of ClusterIPs whose owner changed or is gone, and of invalid entries.
    pub remove: Vec<Step>,
    /// Insertions of names: together, since `apply` writes consecutive names with one system call.
    pub names: Vec<Step>,
    /// Insertions of other entries, and stores into entries in use.
    pub write: Vec<Step>,
    /// Removals of entries that programs may look up until the stores are made, and the new prefixes.
    pub cleanup: Vec<Step>,
}

impl Phases {
    /// All steps in their order, after the step that writes the next numbers, if they changed.
    pub fn into_steps(self, numbers: Option<NextNumbers>) -> Vec<Step> {
        let Self { first, remove, names, write, cleanup } = self;
        let mut steps = Vec::with_capacity(1 + first.len() + remove.len() + names.len() + write.len() + cleanup.len());
        steps.extend(numbers.map(Step::SetNextNumbers));
        steps.extend(first.into_iter().chain(remove).chain(names).chain(write).chain(cleanup));
        steps
    }
}
