//! A step of a plan: one write to the maps, and its text.

use std::fmt;

use portmap_common::{Choice, Service};

use crate::{
    maps::{Backends, ClientLocation, ForeignKey, Item, NextNumbers, Prefix},
    model::{Family, Frontend, ServicePort},
};

/// A write of a plan. The documentation of each variant names the method of `Maps` that carries it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// [`crate::maps::Maps::set_next_numbers`]
    SetNextNumbers(NextNumbers),
    /// [`crate::maps::Maps::write_backends`]
    WriteBackends(u32, Backends),
    /// [`crate::maps::Maps::write_service`]
    WriteService(u32, Service),
    /// [`crate::maps::Maps::store_choice`]
    StoreChoice(u32, ClientLocation, Choice),
    /// [`crate::maps::Maps::describe_service`]
    DescribeService(u32, Service),
    /// [`crate::maps::Maps::insert_names`]
    InsertName(u64, ServicePort),
    /// [`crate::maps::Maps::remove_name`]
    RemoveName(u64),
    /// [`crate::maps::Maps::insert_frontend`]
    InsertFrontend(Frontend, u32),
    /// [`crate::maps::Maps::remove_frontend`]
    RemoveFrontend(Frontend),
    /// [`crate::maps::Maps::insert`]
    Insert(Item),
    /// [`crate::maps::Maps::remove`]
    Remove(Item),
    /// [`crate::maps::Maps::set_prefixes`]
    SetPrefixes(Family, Vec<Prefix>),
    /// [`crate::maps::Maps::remove_foreign`]
    RemoveForeign(ForeignKey),
}

/// The text of a step: in errors, in the warning about repaired tables, and in the debug log.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetNextNumbers(next_numbers) => {
                write!(
                    f,
                    "set NUMBERS: the next id is {}, the next endpoint number is {}",
                    next_numbers.id, next_numbers.endpoint
                )
            }
            Self::WriteBackends(first, backends) => {
                write!(f, "write {} backends from slot {first} of BACKENDS_{:?}:", backends.len(), backends.family())?;
                backends.iter().try_for_each(|slot| write!(f, " {}", slot.endpoint))
            }
            Self::WriteService(number, service) => write!(f, "write service {number}: {service:?}"),
            Self::StoreChoice(number, location, choice) => {
                write!(f, "store the {location:?} choice of service {number}: {choice:?}")
            }
            Self::DescribeService(number, service) => write!(f, "update service {number}: {service:?}"),
            Self::InsertName(id, owner) => {
                write!(f, "insert the name of id {id}: {} port {:?}/{}", owner.service, owner.port, owner.protocol)
            }
            Self::RemoveName(id) => write!(f, "remove the name of id {id}"),
            Self::InsertFrontend(frontend, number) => write!(f, "insert the frontend {frontend} → service {number}"),
            Self::RemoveFrontend(frontend) => write!(f, "remove the frontend {frontend}"),
            Self::Insert(item) => write!(f, "insert {item}"),
            Self::Remove(item) => write!(f, "remove {item}"),
            Self::SetPrefixes(family, prefixes) => {
                write!(f, "set PREFIXES_{family:?}:")?;
                prefixes.iter().try_for_each(|prefix| write!(f, " {}", prefix.range))
            }
            Self::RemoveForeign(key) => write!(f, "remove the invalid key {key:?}"),
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
