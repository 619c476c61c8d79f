//! Attaches the programs to a cgroup, all or none, and keeps them there by pinned links; and takes them off again.

use std::{
    fs,
    io::ErrorKind,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSockAddr, links::FdLink},
};

use super::{
    cgroup::Cgroup,
    load::{self, Constants},
    pin::{Pin, Pins},
    sys,
};
use crate::{exhaustion::is_exhausted, maps::Capacity};

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

/// Removes a set, and detaches what it keeps attached. Continues past errors, and returns them.
pub fn remove_set(set: &Pins) -> Vec<anyhow::Error> {
    let mut failed = match set.list() {
        Ok(found) => remove_all(found).1,
        Err(error) => vec![error],
    };
    let directory = set.set();
    if let Err(error) = fs::remove_dir(&directory) {
        failed.push(anyhow!("failed to remove {}: {error}", directory.display()));
    }
    // The directory of its version, if this was the last set in it.
    if let Some(version) = directory.parent() {
        drop(fs::remove_dir(version));
    }
    failed
}

/// Programs that are not attached to the cgroup, as somebody else has seen to. What could not be looked at for want of
/// descriptors or memory counts as attached: the next look will tell.
pub fn detached(pins: &Pins, cgroup: &Cgroup) -> Vec<&'static str> {
    let is_attached = |program: &&str| match attachment(pins, program) {
        Ok(attachment) => attachment.is_some_and(|(id, _)| id == cgroup.id),
        Err(error) => is_exhausted(&error),
    };
    PROGRAMS.into_iter().filter(|program| !is_attached(program)).collect()
}

/// The program that a pinned link keeps attached, and to which cgroup: `None` if there is no such pin.
pub fn attachment(pins: &Pins, program: &str) -> Result<Option<(u64, u32)>> {
    let Some(link) = open(&pins.link(program))? else { return Ok(None) };
    let info = sys::link_info(link.as_fd()).with_context(|| format!("failed to ask about the link of {program}"))?;
    Ok(Some((info.cgroup, info.program)))
}

/// Detaches everything pinned, and removes the pins, of all sets. Continues past errors, and returns what was removed and what
/// failed.
pub fn clean_up(pins: &Pins) -> Result<(Vec<PathBuf>, Vec<anyhow::Error>)> {
    let (removed, mut failed) = remove_all(pins.list_all()?);
    for directory in pins.directories()? {
        if let Err(error) = fs::remove_dir(&directory) {
            failed.push(anyhow!("failed to remove {}: {error}", directory.display()));
        }
    }
    Ok((removed, failed))
}

fn remove_all(pins: Vec<Pin>) -> (Vec<PathBuf>, Vec<anyhow::Error>) {
    let (mut removed, mut failed) = (Vec::new(), Vec::new());
    for pin in pins {
        let (path, result) = match pin {
            Pin::Link(path) => (path.clone(), detach(&path)),
            Pin::Map(path) => (path.clone(), remove(&path)),
        };
        match result {
            Ok(()) => removed.push(path),
            Err(error) => failed.push(error),
        }
    }
    (removed, failed)
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
    for pin in std::iter::once(own.clone()).chain(pins.others().iter().map(|other| other.link(name))) {
        let Some(link) = open(&pin)? else { continue };
        let info = sys::link_info(link.as_fd()).context("failed to ask about the pinned link")?;
        if info.cgroup == cgroup.id {
            sys::update_link(link.as_fd(), program.fd()?.as_fd())
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
        match sys::detach_link(link.as_fd()) {
            Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => {
                return Err(error).with_context(|| format!("failed to detach {}", pin.display()));
            }
            Ok(()) | Err(_) => remove(pin)?,
        }
    }
    Ok(())
}

fn remove(pin: &Path) -> Result<()> {
    fs::remove_file(pin).with_context(|| format!("failed to remove {}", pin.display()))
}

fn open(pin: &Path) -> Result<Option<OwnedFd>> {
    match sys::open_link(pin) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("failed to open the pinned link {}", pin.display())),
    }
}
