//! Writes a plan to the maps, step by step: the stage between `plan` and `maps`. Stops at the first error; the agent then
//! reads the maps and plans again.

use anyhow::{Context, Result};

use crate::{
    maps::{Item, Maps},
    plan::{Plan, Step},
};

/// Applies the steps in their order. Consecutive insertions of source ranges are one call of [`Maps::insert_ranges`]. The
/// error names the failed step.
pub fn apply(maps: &mut impl Maps, plan: &Plan) -> Result<()> {
    let adds_range = |step: &Step| matches!(step, Step::Insert(Item::Range(..)));
    for steps in plan.steps.chunk_by(|first, second| adds_range(first) && adds_range(second)) {
        match steps {
            [] => {}
            [step] => apply_step(maps, step).with_context(|| format!("failed to {step}"))?,
            [first, others @ ..] => insert_ranges(maps, steps).with_context(|| {
                format!("failed to {first}, or to insert one of the {} source ranges after it", others.len())
            })?,
        }
    }
    Ok(())
}

fn insert_ranges(maps: &mut impl Maps, steps: &[Step]) -> Result<()> {
    let range = |step: &Step| if let Step::Insert(Item::Range(id, range)) = step { Some((*id, *range)) } else { None };
    maps.insert_ranges(&steps.iter().filter_map(range).collect::<Vec<_>>())
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
