//! The order of a plan's steps.

use super::Step;
use crate::maps::NextNumbers;

/// The steps of a plan by phase. Removals come first, because they make room; entries that programs may still look up go last.
#[derive(Default)]
pub struct Phases {
    /// The withdrawal of prefixes.
    pub first: Vec<Step>,
    /// Removals.
    pub remove: Vec<Step>,
    /// Insertions and stores.
    pub write: Vec<Step>,
    /// Removals of entries that programs may look up until the stores are made.
    pub cleanup: Vec<Step>,
}

impl Phases {
    /// All steps in their order, after the step that writes the next numbers.
    pub fn into_steps(self, numbers: Option<NextNumbers>) -> Vec<Step> {
        let Self { first, remove, write, cleanup } = self;
        let mut steps = Vec::with_capacity(1 + first.len() + remove.len() + write.len() + cleanup.len());
        steps.extend(numbers.map(Step::SetNextNumbers));
        steps.extend(first.into_iter().chain(remove).chain(write).chain(cleanup));
        steps
    }
}
