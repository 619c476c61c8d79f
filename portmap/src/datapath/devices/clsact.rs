//! Programs at devices by filters of tc at the queueing discipline `clsact`, for kernels without TCX links.
//!
//! A filter stays when the agent ends, and needs no pin. It is portmap's if its place and its name are portmap's. The queueing
//! discipline stays on the device for ever: another program may use it at any moment, and it costs nothing without filters.

use std::{collections::BTreeSet, os::fd::BorrowedFd};

use anyhow::{Context, Result, anyhow, bail};

use super::text;
use crate::kernel::{
    devices::names,
    tc::{Direction, Filter, FilterPlace, Filters},
};

/// The place of portmap's filters.
const PLACE: FilterPlace = FilterPlace { priority: 50, handle: 1 };

/// The beginning of the names of portmap's filters.
pub(super) const NAME: &str = "portmap_";

/// The filters of portmap in the network namespace of the thread that found them.
pub(in crate::datapath) struct OwnFilters {
    filters: Filters,
    found: Vec<(u32, Direction)>,
}

impl OwnFilters {
    /// Finds portmap's filters on all devices of the thread's network namespace.
    pub(in crate::datapath) fn find() -> Result<Self> {
        let filters = open()?;
        let mut found = Vec::new();
        for device in filters.devices().context("failed to list the queueing disciplines")? {
            for direction in [Direction::Ingress, Direction::Egress] {
                if find(&filters, device, direction)?.is_some_and(|filter| filter.name == name(direction)) {
                    found.push((device, direction));
                }
            }
        }
        Ok(Self { filters, found })
    }

    /// Removes the filters of this direction, except those of the devices `kept`.
    pub(in crate::datapath) fn detach_others(&self, direction: Direction, kept: &BTreeSet<u32>) -> Result<()> {
        for (device, found) in &self.found {
            if *found == direction && !kept.contains(device) {
                self.filters.remove(*device, direction, PLACE).context("failed to remove a filter of tc")?;
            }
        }
        Ok(())
    }
}

/// Removes all filters of portmap from the devices of the thread's network namespace. Returns descriptions of the removed
/// filters, and an error for each filter that stays.
pub(in crate::datapath) fn remove_all() -> (Vec<String>, Vec<anyhow::Error>) {
    let (mut removed, mut failed) = (Vec::new(), Vec::new());
    let (attached, names) = match OwnFilters::find().and_then(|attached| Ok((attached, names()?))) {
        Ok(found) => found,
        Err(error) => return (removed, vec![error]),
    };
    for direction in [Direction::Ingress, Direction::Egress] {
        for (device, _) in attached.found.iter().filter(|(_, found)| *found == direction) {
            let description =
                format!("the {} filter of {}", text(direction), names.get(device).map_or("a device", String::as_str));
            match attached.filters.remove(*device, direction, PLACE) {
                Ok(()) => removed.push(description),
                Err(error) => failed.push(anyhow!(error).context(format!("failed to remove {description}"))),
            }
        }
    }
    (removed, failed)
}

/// Makes portmap's filter of a device run the program. Adds the queueing discipline if it is missing.
///
/// Fails if another program has a filter at this place.
pub(super) fn attach(index: u32, direction: Direction, program: BorrowedFd<'_>) -> Result<()> {
    let filters = open()?;
    let (filter, found) = (Filter { place: PLACE, name: name(direction) }, find(&filters, index, direction)?);
    if let Some(other) = found.filter(|found| found.name != filter.name) {
        let FilterPlace { priority, handle } = PLACE;
        bail!(
            "another program has a filter with priority {priority} and handle {handle} there ({}); remove it with tc",
            other.name
        );
    }
    filters.prepare(index).context("failed to add the queueing discipline clsact (CONFIG_NET_SCH_INGRESS)")?;
    filters.set(index, direction, &filter, program).context("failed to add a BPF filter (CONFIG_NET_CLS_BPF)")
}

/// Whether portmap's filter is on the device.
pub(super) fn is_attached(index: u32, direction: Direction) -> Result<bool> {
    Ok(find(&open()?, index, direction)?.is_some_and(|filter| filter.name == name(direction)))
}

fn open() -> Result<Filters> {
    Filters::open().context("failed to open a netlink socket")
}

/// The filter at portmap's place, which may be another program's.
fn find(filters: &Filters, index: u32, direction: Direction) -> Result<Option<Filter>> {
    let found = filters.list(index, direction).context("failed to list the filters of a device")?;
    Ok(found.into_iter().find(|filter| filter.place == PLACE))
}

fn name(direction: Direction) -> String {
    format!("{NAME}{}", text(direction))
}
