//! Carries a plan out on the maps, step by step. The first failure ends it: the maps are then read again and planned anew.

use std::fmt;

use anyhow::{Context, Result};

use crate::{
    maps::{Item, Maps},
    plan::{Plan, Step},
};

/// Applies the steps in their order.
pub fn apply(maps: &mut impl Maps, plan: &Plan) -> Result<()> {
    let adds_range = |step: &Step| matches!(step, Step::Insert(Item::Range(..)));
    for steps in plan.steps.chunk_by(|first, second| adds_range(first) && adds_range(second)) {
        match steps {
            [] => {}
            [step] => apply_step(maps, step).with_context(|| format!("failed to {step}"))?,
            [first, others @ ..] => insert_ranges(maps, steps)
                .with_context(|| format!("failed to {first}, or one of the {} ranges after it", others.len()))?,
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
        Step::SetMarks(marks) => maps.set_marks(*marks),
        Step::WriteBackends(first, backends) => maps.write_backends(*first, backends),
        Step::WriteService(number, service) => maps.write_service(*number, service),
        Step::StoreChoice(number, side, choice) => maps.store_choice(*number, *side, *choice),
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

/// A step as a person would say it: in errors, and in the log with `-v`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetMarks(marks) => {
                write!(f, "record that ids below {} and endpoints below {} were given", marks.id, marks.endpoint)
            }
            Self::WriteBackends(first, backends) => {
                write!(f, "write {} backends from slot {first} of BACKENDS_{:?}:", backends.len(), backends.family())?;
                backends.iter().try_for_each(|slot| write!(f, " {}", slot.endpoint))
            }
            Self::WriteService(number, service) => write!(f, "write service {number}: {service:?}"),
            Self::StoreChoice(number, side, choice) => write!(f, "store the {side:?} choice of service {number}: {choice:?}"),
            Self::DescribeService(number, service) => write!(f, "describe service {number}: {service:?}"),
            Self::InsertName(id, owner) => {
                write!(f, "name id {id}: {} port {:?}/{}", owner.service, owner.port, owner.protocol)
            }
            Self::RemoveName(id) => write!(f, "forget the name of id {id}"),
            Self::InsertFrontend(frontend, number) => write!(f, "lead {frontend} to service {number}"),
            Self::RemoveFrontend(frontend) => write!(f, "end {frontend}"),
            Self::Insert(item) => write!(f, "insert {item}"),
            Self::Remove(item) => write!(f, "remove {item}"),
            Self::SetPrefixes(family, prefixes) => {
                write!(f, "set PREFIXES_{family:?}:")?;
                prefixes.iter().try_for_each(|prefix| write!(f, " {}", prefix.range))
            }
            Self::RemoveForeign(key) => write!(f, "remove a key that no agent writes: {key:?}"),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address, owner) => write!(f, "the ClusterIP {address} ({owner:?})"),
            Self::Endpoint(number, endpoint) => write!(f, "endpoint {number}: {endpoint}"),
            Self::Member(member) => write!(f, "endpoint {} as a member of id {}", member.endpoint, member.id),
            Self::Range(id, range) => write!(f, "the source range {range} of id {id}"),
        }
    }
}
