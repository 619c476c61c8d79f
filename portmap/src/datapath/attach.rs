//! Attaches the programs to a cgroup. If one fails, newly attached programs are detached again. Pinned links keep the
//! programs attached after the agent has ended; `removal` detaches them.

use std::os::fd::AsFd as _;

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSockAddr, links::FdLink},
};

use super::{
    cgroup::Cgroup,
    load::{self, Constants},
    pinned_links,
};
use crate::{
    kernel::bpf::{Hook, LinkInfo, Object},
    maps::{Capacity, pin::Pins},
};

/// The programs of the datapath, each named after its hook, in the order of their attachment. The programs that show a Service
/// as the peer come before those that connect a socket to a backend.
pub const PROGRAMS: [&str; 8] =
    ["getpeername4", "getpeername6", "recvmsg4", "recvmsg6", "sendmsg4", "sendmsg6", "connect4", "connect6"];

/// The effect of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// At least one hook of the cgroup had no link of portmap before.
    New,
    /// Each hook of the cgroup had a link of portmap, whose program was replaced atomically.
    Replaced,
}

/// Loads the programs of the datapath onto the pinned maps. Creates and pins missing maps.
pub fn load(pins: &Pins, capacity: Capacity, constants: &Constants) -> Result<Ebpf> {
    let mut programs = load::load_datapath(pins, capacity, constants)?;
    for name in PROGRAMS {
        program(&mut programs, name)?.load().with_context(|| format!("the kernel rejected the program {name}"))?;
    }
    Ok(programs)
}

/// Attaches all programs to the cgroup. An existing link to the cgroup, of this set or of another, gets the new program
/// atomically: each call meets either the old program or the new one.
///
/// On an error, detaches the programs whose links this call has made.
pub fn attach(programs: &mut Ebpf, pins: &Pins, cgroup: &Cgroup) -> Result<Attached> {
    let mut new_links = Vec::new();
    for name in PROGRAMS {
        match attach_one(program(programs, name)?, name, pins, cgroup) {
            Ok(Attached::New) => new_links.push(pins.link(name)),
            Ok(Attached::Replaced) => {}
            Err(error) => {
                // A node that translates only some calls is worse than a node that translates none.
                let failures: Vec<String> = new_links
                    .iter()
                    .filter_map(|pin| pinned_links::detach(pin, Object::CgroupLink).err())
                    .map(|error| format!("; {error:#}"))
                    .collect();
                let context = format!("failed to attach {name} to {}{}", cgroup.path.display(), failures.concat());
                return Err(error).context(context);
            }
        }
    }
    Ok(if new_links.is_empty() { Attached::Replaced } else { Attached::New })
}

/// Detaches all programs of this set from their cgroup, in the reverse order of their attachment.
pub fn detach(pins: &Pins) -> Result<()> {
    PROGRAMS.iter().rev().try_for_each(|name| pinned_links::detach(&pins.link(name), Object::CgroupLink))
}

/// The programs without a link to the cgroup: another process has detached them, or removed their pins.
pub fn detached(pins: &Pins, cgroup: &Cgroup) -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    for program in PROGRAMS {
        // An error, such as a lack of descriptors, does not mean that the program is detached.
        if attachment(pins, program)?.is_none_or(|(id, _)| id != cgroup.id) {
            missing.push(program);
        }
    }
    Ok(missing)
}

/// The id of the cgroup and the id of the program of a pinned link; `None` if the link is not pinned. The cgroup is 0 if the
/// link is detached, or its cgroup is gone.
pub fn attachment(pins: &Pins, program: &str) -> Result<Option<(u64, u32)>> {
    let state = pinned_links::state(pins, program, Object::CgroupLink)?;
    Ok(state.map(|LinkInfo { hook, program }| (if let Hook::Cgroup(id) = hook { id } else { 0 }, program)))
}

fn program<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut CgroupSockAddr> {
    let program = programs.program_mut(name).with_context(|| format!("the BPF object has no program {name}"))?;
    Ok(program.try_into()?)
}

/// Attaches a program to the cgroup by a new link.
fn link(program: &mut CgroupSockAddr, cgroup: &Cgroup) -> Result<FdLink> {
    let attached = program.attach(&cgroup.directory, CgroupAttachMode::Single)?;
    Ok(program.take_link(attached)?.try_into()?)
}

/// Attaches one program: by its pinned link, or by the link of another set, or else by a new link. Detaches its pinned link
/// first if that is to another cgroup.
fn attach_one(program: &mut CgroupSockAddr, name: &str, pins: &Pins, cgroup: &Cgroup) -> Result<Attached> {
    let loaded = program.fd()?.try_clone()?;
    pinned_links::attach(pins, name, Hook::Cgroup(cgroup.id), loaded.as_fd(), |pin| {
        let link = link(program, cgroup).context(
            "the kernel refused the link; on EPERM, another program was attached to this hook without BPF_F_ALLOW_MULTI: \
             find it with bpftool cgroup tree",
        )?;
        link.pin(pin).with_context(|| format!("failed to pin the link at {}", pin.display()))?;
        Ok(())
    })
}
