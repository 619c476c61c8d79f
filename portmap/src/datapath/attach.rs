//! Attaches the programs to a cgroup. If one fails, newly attached programs are detached again. Pinned links keep the
//! programs attached after the agent has ended; `removal` detaches them.

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
use crate::{
    kernel::bpf::{self, Object},
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
                let failures: Vec<String> =
                    new_links.iter().filter_map(|pin| detach(pin).err()).map(|error| format!("; {error:#}")).collect();
                let context = format!("failed to attach {name} to {}{}", cgroup.path.display(), failures.concat());
                return Err(error).context(context);
            }
        }
    }
    Ok(if new_links.is_empty() { Attached::Replaced } else { Attached::New })
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
    let Some(link) = open(&pins.link(program))? else { return Ok(None) };
    let info = bpf::link_info(link.as_fd()).with_context(|| format!("failed to read the state of the link of {program}"))?;
    Ok(Some((info.cgroup, info.program)))
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
    let own = pins.link(name);
    for pin in std::iter::once(own.clone()).chain(pins.others()?.iter().map(|other| other.link(name))) {
        let Some(link) = open(&pin)? else { continue };
        let info = bpf::link_info(link.as_fd())
            .with_context(|| format!("failed to read the state of the pinned link {}", pin.display()))?;
        if info.cgroup == cgroup.id {
            bpf::update_link(link.as_fd(), program.fd()?.as_fd())
                .context("failed to replace the program of the pinned link")?;
            if pin != own {
                fs::rename(&pin, &own).with_context(|| format!("failed to move {} to {}", pin.display(), own.display()))?;
            }
            return Ok(Attached::Replaced);
        }
        if pin == own {
            // The link is to another cgroup, or to a removed one.
            detach(&pin)?;
        }
    }
    let link = link(program, cgroup).context(
        "the kernel refused the link; on EPERM, another program was attached to this hook without BPF_F_ALLOW_MULTI: find \
         it with bpftool cgroup tree",
    )?;
    link.pin(&own).with_context(|| format!("failed to pin the link at {}", own.display()))?;
    Ok(Attached::New)
}

/// Detaches the program of a pinned link, also if other processes hold the link, and removes the pin. Does nothing if there
/// is no pin.
fn detach(pin: &Path) -> Result<()> {
    if let Some(link) = open(pin)? {
        bpf::detach(link.as_fd()).with_context(|| format!("failed to detach {}", pin.display()))?;
        fs::remove_file(pin).with_context(|| format!("failed to remove {}", pin.display()))?;
    }
    Ok(())
}

/// Opens a pinned link; `None` if there is no pin. Fails if the pin is another kind of object, and leaves the object alone.
fn open(pin: &Path) -> Result<Option<OwnedFd>> {
    let context = || format!("failed to open the pinned link {}", pin.display());
    let link = match bpf::open_pin(pin) {
        Ok(link) => link,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(context),
    };
    let kind = bpf::kind_of(link.as_fd()).with_context(context)?;
    ensure!(kind == Object::CgroupLink, "{} is not a link to a cgroup, so it is not portmap's; remove it", pin.display());
    Ok(Some(link))
}
