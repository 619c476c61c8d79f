//! Programs at devices by TCX links, which are pinned in the directory of the set. Kernel 6.6 and newer.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::{Context, Result};

use super::text;
use crate::{
    datapath::pinned_links,
    kernel::{
        bpf::{self, Hook, Object},
        tc::Direction,
    },
    maps::{
        directory::{Directory, DirectoryEntry},
        pin::{LINK, Pins},
    },
};

/// The name of the link to a device, as in `ingress_2`.
fn name(index: u32, direction: Direction) -> String {
    format!("{}_{index}", text(direction))
}

/// The direction and the device of the link with this name, as in `ingress_2`; `None` for other names.
pub(in crate::datapath) fn parse(link: &str) -> Option<(Direction, u32)> {
    let (direction, index) = link.split_once('_')?;
    let direction = [Direction::Ingress, Direction::Egress].into_iter().find(|it| text(*it) == direction)?;
    let parsed = index.parse().ok()?;
    (index == u32::to_string(&parsed)).then_some((direction, parsed))
}

/// Attaches a program to a device after the other programs there, or replaces the program of an existing link.
pub(super) fn attach(pins: &Pins, index: u32, direction: Direction, program: BorrowedFd<'_>) -> Result<()> {
    let attached = pinned_links::attach(pins, &name(index, direction), Hook::Device(index, direction), program, |pin| {
        let link = bpf::link_device(program, index, direction).context("the kernel refused the link")?;
        bpf::pin(link.as_fd(), pin).with_context(|| format!("failed to pin the link at {}", pin.display()))
    });
    attached.map(drop)
}

/// Whether the pinned link attaches a program to this device.
pub(super) fn is_attached(pins: &Pins, index: u32, direction: Direction) -> Result<bool> {
    Ok(program(pins, index, direction)?.is_some())
}

/// The id of the program that the pinned link attaches to this device; `None` if it attaches none.
pub(super) fn program(pins: &Pins, index: u32, direction: Direction) -> Result<Option<u32>> {
    let state = pinned_links::state(pins, &name(index, direction), Object::DeviceLink)?;
    Ok(state.filter(|link| link.hook == Hook::Device(index, direction)).map(|link| link.program))
}

/// Detaches the links of this set and direction, except those to the devices `kept`.
pub(super) fn detach_others(pins: &Pins, direction: Direction, kept: &BTreeSet<u32>) -> Result<()> {
    let Some(set) = Directory::open(&pins.set())? else { return Ok(()) };
    for entry in set.entries()? {
        let DirectoryEntry::Pin(file) = entry else { continue };
        let found = file.to_str().and_then(|file| parse(file.strip_prefix(LINK)?));
        if found.is_some_and(|(found, index)| found == direction && !kept.contains(&index)) {
            pinned_links::detach(&pins.set().join(file), Object::DeviceLink)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_links_are_parsed() {
        assert_eq!(parse(&name(2, Direction::Ingress)), Some((Direction::Ingress, 2)));
        assert_eq!(parse(&name(4_000_000_000, Direction::Egress)), Some((Direction::Egress, 4_000_000_000)));
        for other in ["connect4", "ingress", "ingress_", "ingress_02", "ingress_+2", "ingress_2_3", "other_2", "egress_bare"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
