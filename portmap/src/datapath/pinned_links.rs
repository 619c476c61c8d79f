//! Pinned links: attaches a program by a pinned link that exists, of this set or of another, or else by a new link.

use std::{
    fs,
    io::ErrorKind,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result, ensure};

use super::attach::Attached;
use crate::{
    kernel::bpf::{self, Hook, LinkInfo, Object},
    maps::pin::Pins,
};

/// Attaches a program to a hook, and pins its link under `name`. An existing link to the hook, of this set or of another, gets
/// the program atomically. Else `create` makes a new link and pins it at the given path. A pinned link of this name to another
/// hook is detached before.
pub(super) fn attach(
    pins: &Pins,
    name: &str,
    hook: Hook,
    program: BorrowedFd<'_>,
    create: impl FnOnce(&Path) -> Result<()>,
) -> Result<Attached> {
    let own = pins.link(name);
    let kind = hook.link();
    for pin in std::iter::once(own.clone()).chain(pins.others()?.iter().map(|other| other.link(name))) {
        let Some(link) = open(&pin, kind)? else { continue };
        let info = bpf::link_info(link.as_fd())
            .with_context(|| format!("failed to read the state of the pinned link {}", pin.display()))?;
        if info.hook == hook {
            bpf::update_link(link.as_fd(), program).context("failed to replace the program of the pinned link")?;
            if pin != own {
                fs::rename(&pin, &own).with_context(|| format!("failed to move {} to {}", pin.display(), own.display()))?;
            }
            return Ok(Attached::Replaced);
        }
        if pin == own {
            // The link is to another hook, or to none any more.
            remove(&pin, &link)?;
        }
    }
    create(&own)?;
    Ok(Attached::New)
}

/// The state of a pinned link of this kind; `None` if there is no pin of this name.
pub(super) fn state(pins: &Pins, name: &str, kind: Object) -> Result<Option<LinkInfo>> {
    let Some(link) = open(&pins.link(name), kind)? else { return Ok(None) };
    let info = bpf::link_info(link.as_fd()).with_context(|| format!("failed to read the state of the link of {name}"))?;
    Ok(Some(info))
}

/// Detaches the program of a pinned link of this kind, also if other processes hold the link, and removes the pin. Does
/// nothing if there is no pin.
pub(super) fn detach(pin: &Path, kind: Object) -> Result<()> {
    open(pin, kind)?.map_or(Ok(()), |link| remove(pin, &link))
}

fn remove(pin: &Path, link: &OwnedFd) -> Result<()> {
    bpf::detach(link.as_fd()).with_context(|| format!("failed to detach {}", pin.display()))?;
    fs::remove_file(pin).with_context(|| format!("failed to remove {}", pin.display()))
}

/// Opens a pinned link of this kind; `None` if there is no pin. Fails if the pin is another kind of object, and leaves the
/// object alone.
fn open(pin: &Path, kind: Object) -> Result<Option<OwnedFd>> {
    let context = || format!("failed to open the pinned link {}", pin.display());
    let link = match bpf::open_pin(pin) {
        Ok(link) => link,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(context),
    };
    let found = bpf::kind_of(link.as_fd()).with_context(context)?;
    ensure!(found == kind, "{} is not {kind}, so it is not portmap's; remove it", pin.display());
    Ok(Some(link))
}
