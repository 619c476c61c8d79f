//! Attaches the programs to a cgroup, all or none, and keeps them there by pinned links. `removal` takes them off again.

use std::{
    fs,
    io::ErrorKind,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSockAddr, links::FdLink},
};

use super::{
    cgroup::Cgroup,
    load::{self, Constants},
};
use crate::maps::Capacity;
use crate::{
    kernel::bpf::{self, Object},
    maps::pin::Pins,
};

/// The programs of the datapath, each for the hook of its name, in the order in which they are attached: who is given a backend
/// is shown the Service from the first moment on.
pub const PROGRAMS: [&str; 8] =
    ["getpeername4", "getpeername6", "recvmsg4", "recvmsg6", "sendmsg4", "sendmsg6", "connect4", "connect6"];

/// How an attachment came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// There was none before.
    New,
    /// An earlier agent's program was replaced, without a moment in between.
    Replaced,
}

/// Loads the programs onto the pinned maps, which are created where there are none.
pub fn load(pins: &Pins, capacity: Capacity, constants: &Constants) -> Result<Ebpf> {
    let mut programs = load::load_datapath(pins, capacity, constants)?;
    for name in PROGRAMS {
        program(&mut programs, name)?.load().with_context(|| format!("the kernel rejected the program {name}"))?;
    }
    Ok(programs)
}

/// Attaches the programs. Where a link to the cgroup exists, in this set or another, it is taken over: there is no moment
/// without a program, and none with two.
pub fn attach(programs: &mut Ebpf, pins: &Pins, cgroup: &Cgroup) -> Result<Attached> {
    let mut made = Vec::new();
    for name in PROGRAMS {
        match attach_one(program(programs, name)?, name, pins, cgroup) {
            Ok(Attached::New) => made.push(pins.link(name)),
            Ok(Attached::Replaced) => {}
            Err(error) => {
                // All or none: a node that translates only some calls would be worse than one that translates none.
                let undone: Vec<String> =
                    made.iter().filter_map(|pin| detach(pin).err()).map(|error| format!("; {error:#}")).collect();
                let context = format!("failed to attach {name} to {}{}", cgroup.path.display(), undone.concat());
                return Err(error).context(context);
            }
        }
    }
    Ok(if made.is_empty() { Attached::Replaced } else { Attached::New })
}

/// Programs that are not attached to the cgroup, as somebody else has seen to.
pub fn detached(pins: &Pins, cgroup: &Cgroup) -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    for program in PROGRAMS {
        // Not to be able to look, for want of descriptors say, is another matter.
        if attachment(pins, program)?.is_none_or(|(id, _)| id != cgroup.id) {
            missing.push(program);
        }
    }
    Ok(missing)
}

/// The program that a pinned link keeps attached, and to which cgroup: `None` if there is no such pin.
pub fn attachment(pins: &Pins, program: &str) -> Result<Option<(u64, u32)>> {
    let Some(link) = open(&pins.link(program))? else { return Ok(None) };
    let info = bpf::link_info(link.as_fd()).with_context(|| format!("failed to ask about the link of {program}"))?;
    Ok(Some((info.cgroup, info.program)))
}

fn program<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut CgroupSockAddr> {
    let program = programs.program_mut(name).with_context(|| format!("the BPF object has no program {name}"))?;
    Ok(program.try_into()?)
}

/// A new link to the cgroup.
fn link(program: &mut CgroupSockAddr, cgroup: &Cgroup) -> Result<FdLink> {
    let attached = program.attach(&cgroup.directory, CgroupAttachMode::Single)?;
    Ok(program.take_link(attached)?.try_into()?)
}

fn attach_one(program: &mut CgroupSockAddr, name: &str, pins: &Pins, cgroup: &Cgroup) -> Result<Attached> {
    let own = pins.link(name);
    for pin in std::iter::once(own.clone()).chain(pins.others()?.iter().map(|other| other.link(name))) {
        let Some(link) = open(&pin)? else { continue };
        let info = bpf::link_info(link.as_fd()).context("failed to ask about the pinned link")?;
        if info.cgroup == cgroup.id {
            bpf::update_link(link.as_fd(), program.fd()?.as_fd())
                .context("failed to replace the program of the pinned link")?;
            if pin != own {
                fs::rename(&pin, &own).with_context(|| format!("failed to move {} to {}", pin.display(), own.display()))?;
            }
            return Ok(Attached::Replaced);
        }
        if pin == own {
            // It keeps a program on another cgroup, or on one that is gone.
            detach(&pin)?;
        }
    }
    let link = link(program, cgroup).context(
        "the kernel refused; with EPERM, a program that was attached without BPF_F_ALLOW_MULTI keeps the hook for itself \
         (bpftool cgroup tree shows it)",
    )?;
    link.pin(&own).with_context(|| format!("failed to pin the link at {}", own.display()))?;
    Ok(Attached::New)
}

/// Detaches the program of a pinned link, whoever else holds the link, and removes the pin.
fn detach(pin: &Path) -> Result<()> {
    if let Some(link) = open(pin)? {
        bpf::detach(link.as_fd()).with_context(|| format!("failed to detach {}", pin.display()))?;
        fs::remove_file(pin).with_context(|| format!("failed to remove {}", pin.display()))?;
    }
    Ok(())
}

/// Opens a pinned link. What somebody else has put in its place is not touched.
fn open(pin: &Path) -> Result<Option<OwnedFd>> {
    let context = || format!("failed to open the pinned link {}", pin.display());
    let link = match bpf::open_pin(pin) {
        Ok(link) => link,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(context),
    };
    let kind = bpf::kind_of(link.as_fd()).with_context(context)?;
    ensure!(kind == Object::CgroupLink, "{} is not a link to a cgroup: it is not portmap's; remove it", pin.display());
    Ok(Some(link))
}
