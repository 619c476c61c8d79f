//! Writes a plan to the maps, step by step: the stage between `plan` and `maps`. Stops at the first error; the agent then
//! reads the maps and plans again.

use anyhow::{Context, Result};

use crate::{
    maps::{Item, Maps},
    plan::{Plan, Step},
};

/// Applies the steps in their order. Consecutive insertions of names, or of source ranges and ClusterIPs, are handed to the
/// maps together. The error names the failed step, or the first step of a batch that failed.
pub fn apply(maps: &mut impl Maps, plan: &Plan) -> Result<()> {
    for steps in plan.steps.chunk_by(are_of_one_batch) {
        let [first, others @ ..] = steps else { continue };
        write(maps, first, steps).with_context(|| match others.len() {
            0 => format!("failed to {first}"),
            others => format!("failed to {first}, or to make one of the {others} insertions after it"),
        })?;
    }
    Ok(())
}

/// Whether the maps accept both insertions at a time.
fn are_of_one_batch(first: &Step, second: &Step) -> bool {
    let is_batched = |item: &Item| matches!(item, Item::Range(..) | Item::Address(..));
    match (first, second) {
        (Step::InsertName(..), Step::InsertName(..)) => true,
        (Step::Insert(first), Step::Insert(second)) => is_batched(first) && is_batched(second),
        _ => false,
    }
}

/// Writes the steps of one batch: `first`, and only for insertions more steps like it.
fn write(maps: &mut impl Maps, first: &Step, steps: &[Step]) -> Result<()> {
    let name = |step: &Step| if let Step::InsertName(id, owner) = step { Some((*id, owner.clone())) } else { None };
    let item = |step: &Step| if let Step::Insert(item) = step { Some(*item) } else { None };
    match first {
        Step::SetNextNumbers(next) => maps.set_next_numbers(*next),
        Step::WriteBackends(first, backends) => maps.write_backends(*first, backends),
        Step::WriteService(number, service) => maps.write_service(*number, service),
        Step::StoreChoice(number, location, choice) => maps.store_choice(*number, *location, *choice),
        Step::DescribeService(number, service) => maps.describe_service(*number, service),
        Step::InsertName(..) => maps.insert_names(&steps.iter().filter_map(name).collect::<Vec<_>>()),
        Step::RemoveName(id) => maps.remove_name(*id),
        Step::InsertFrontend(frontend, number) => maps.insert_frontend(frontend, *number),
        Step::RemoveFrontend(frontend) => maps.remove_frontend(frontend),
        Step::Insert(_) => maps.insert(&steps.iter().filter_map(item).collect::<Vec<_>>()),
        Step::Remove(item) => maps.remove(item),
        Step::SetPrefixes(family, prefixes) => maps.set_prefixes(*family, prefixes),
        Step::RemoveForeign(key) => maps.remove_foreign(key),
    }
}
