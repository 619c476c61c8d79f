//! Attaches the programs that see packets to network devices of the agent's network namespace.
//!
//! Kernels from 6.6 on have TCX links, which are pinned like the links to the cgroup ([`tcx`]). For older kernels there are
//! filters of `tc` ([`clsact`]). Both keep the programs attached after the agent has ended, and both replace a program
//! atomically.
//!
//! Egress programs are attached on all devices before ingress programs, and detached after them: an ingress program may rely on
//! the egress program of any device.

pub(super) mod clsact;
pub(super) mod tcx;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::{Context, Result};
use aya::{Ebpf, programs::SchedClassifier};

use crate::{
    kernel::{bpf, devices::LinkLayer, tc::Direction},
    maps::pin::Pins,
};

/// The programs for devices, each named after its direction. Those for devices without a link-layer header end with `_bare`.
const PROGRAMS: [&str; 4] = ["egress", "egress_bare", "ingress", "ingress_bare"];

/// The directions, in the order of attachment.
const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// How programs are attached to devices, as chosen by the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceAttach {
    /// TCX links on kernels from 6.6 on, filters on older kernels.
    #[default]
    Auto,
    /// TCX links.
    Tcx,
    /// Filters of tc at the queueing discipline clsact.
    Clsact,
}

/// How a program is attached to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttachMode {
    /// By a TCX link.
    Tcx,
    /// By a filter of tc at the queueing discipline clsact.
    Clsact,
}

/// A device that gets programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The interface index in the agent's network namespace.
    pub index: u32,
    /// The name, for messages.
    pub name: String,
    /// The headers of the device's packets, which decide between the programs.
    pub link_layer: LinkLayer,
}

impl DeviceAttach {
    /// The way that this kernel offers. Fails for TCX links on a kernel without them.
    pub fn mode(self) -> Result<AttachMode> {
        let has_links = bpf::has_device_links().context("failed to ask the kernel for TCX links")?;
        match (self, has_links) {
            (Self::Tcx, false) => {
                anyhow::bail!("this kernel has no TCX links (they need kernel 6.6); use --device-attach auto or clsact")
            }
            (Self::Auto | Self::Tcx, true) => Ok(AttachMode::Tcx),
            (Self::Clsact, _) | (Self::Auto, false) => Ok(AttachMode::Clsact),
        }
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// The name of a direction in names of programs, links and filters.
pub(super) fn text(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

/// Loads the programs for devices into the kernel.
pub fn load(programs: &mut Ebpf) -> Result<()> {
    for name in PROGRAMS {
        let program = programs.program_mut(name).with_context(|| format!("the BPF object has no program {name}"))?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load().with_context(|| {
            format!("the kernel rejected the program {name}; to run without programs at devices, give --devices none")
        })?;
    }
    Ok(())
}

/// Attaches the loaded programs to devices. A program of portmap that is attached there is replaced atomically. A device whose
/// egress program cannot be attached gets no ingress program.
///
/// Continues after an error. Returns the error of each device that has one, by interface index.
pub fn attach(programs: &Ebpf, pins: &Pins, mode: AttachMode, targets: &[Target]) -> BTreeMap<u32, anyhow::Error> {
    let mut failed = BTreeMap::new();
    for direction in DIRECTIONS {
        for target in targets {
            if failed.contains_key(&target.index) {
                continue;
            }
            let attached = loaded(programs, direction, target.link_layer).and_then(|program| match mode {
                AttachMode::Tcx => tcx::attach(pins, target.index, direction, program),
                AttachMode::Clsact => clsact::attach(target.index, direction, program),
            });
            if let Err(error) = attached {
                let context = format!("failed to attach a program to {} ({})", target.name, text(direction));
                failed.insert(target.index, error.context(context));
            }
        }
    }
    failed
}

/// Detaches the programs of this set from all devices except `kept`, and those that are attached in another way than `mode`.
pub fn detach_others(pins: &Pins, mode: AttachMode, kept: &BTreeSet<u32>) -> Result<()> {
    let (no_devices, filters) = (BTreeSet::new(), clsact::OwnFilters::find()?);
    let (tcx, clsact) = match mode {
        AttachMode::Tcx => (kept, &no_devices),
        AttachMode::Clsact => (&no_devices, kept),
    };
    for direction in DIRECTIONS.into_iter().rev() {
        tcx::detach_others(pins, direction, tcx)?;
        filters.detach_others(direction, clsact)?;
    }
    Ok(())
}

/// How both programs of portmap are attached to a device; `None` if one of them is not attached.
pub fn attachment(pins: &Pins, index: u32) -> Result<Option<AttachMode>> {
    for mode in [AttachMode::Tcx, AttachMode::Clsact] {
        if is_attached(pins, mode, index)? {
            return Ok(Some(mode));
        }
    }
    Ok(None)
}

/// Whether both programs of portmap are attached to a device in this way.
pub fn is_attached(pins: &Pins, mode: AttachMode, index: u32) -> Result<bool> {
    for direction in DIRECTIONS {
        let is_attached = match mode {
            AttachMode::Tcx => tcx::is_attached(pins, index, direction)?,
            AttachMode::Clsact => clsact::is_attached(index, direction)?,
        };
        if !is_attached {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The ids of the programs that this set attaches to a device by TCX links.
pub fn own_programs(pins: &Pins, index: u32) -> Result<BTreeSet<u32>> {
    let programs = DIRECTIONS.into_iter().map(|direction| tcx::program(pins, index, direction));
    Ok(programs.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Whether a filter of tc with this name is portmap's.
pub fn is_own_filter(name: &str) -> bool {
    name.starts_with(clsact::NAME)
}

fn loaded(programs: &Ebpf, direction: Direction, link_layer: LinkLayer) -> Result<BorrowedFd<'_>> {
    let suffix = match link_layer {
        LinkLayer::Ethernet => "",
        LinkLayer::Bare => "_bare",
    };
    let name = format!("{}{suffix}", text(direction));
    let program = programs.program(&name).with_context(|| format!("the BPF object has no program {name}"))?;
    let program: &SchedClassifier = program.try_into()?;
    Ok(program.fd()?.as_fd())
}
