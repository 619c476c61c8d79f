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
    for steps in
        plan.steps.chunk_by(|first, second| kind_of_batch(first).is_some_and(|kind| kind_of_batch(second) == Some(kind)))
    {
        match steps {
            [] => {}
            [step] => apply_step(maps, step).with_context(|| format!("failed to {step}"))?,
            [first, others @ ..] => apply_batch(maps, steps)
                .with_context(|| format!("failed to {first}, or to make one of the {} insertions after it", others.len()))?,
        }
    }
    Ok(())
}

/// Insertions that the maps accept many at a time.
#[derive(PartialEq, Eq)]
enum BatchKind {
    Items,
    Names,
}

/// The kind of batch that a step may be part of; `None` for steps that are written one by one.
fn kind_of_batch(step: &Step) -> Option<BatchKind> {
    if matches!(step, Step::Insert(Item::Range(..) | Item::Address(..))) {
        Some(BatchKind::Items)
    } else {
        matches!(step, Step::InsertName(..)).then_some(BatchKind::Names)
    }
}

fn apply_batch(maps: &mut impl Maps, steps: &[Step]) -> Result<()> {
    let item = |step: &Step| if let Step::Insert(item) = step { Some(*item) } else { None };
    let name = |step: &Step| if let Step::InsertName(id, owner) = step { Some((*id, owner.clone())) } else { None };
    maps.insert_all(&steps.iter().filter_map(item).collect::<Vec<_>>())?;
    maps.insert_names(&steps.iter().filter_map(name).collect::<Vec<_>>())
}

fn apply_step(maps: &mut impl Maps, step: &Step) -> Result<()> {
    match step {
        Step::SetNextNumbers(next) => maps.set_next_numbers(*next),
        Step::WriteBackends(first, backends) => maps.write_backends(*first, backends),
        Step::WriteService(number, service) => maps.write_service(*number, service),
        Step::StoreChoice(number, location, choice) => maps.store_choice(*number, *location, *choice),
        Step::DescribeService(number, service) => maps.describe_service(*number, service),
        Step::InsertName(id, owner) => maps.insert_name(*id, owner),
        Step::RemoveName(id) => maps.remove_name(*id),
        Step::InsertFrontend(frontend, number) => maps.insert_frontend(frontend, *number),
        Step::RemoveFrontend(frontend) => maps.remove_frontend(frontend),
        Step::Insert(item) => maps.insert(item),
        Step::Remove(item) => maps.remove(item),
        Step::SetPrefixes(family, prefixes) => maps.set_prefixes(*family, prefixes),
        Step::RemoveForeign(key) => maps.remove_foreign(key),
    }
}
