//! Takes pins out of the kernel, and nothing else: objects of the names and kinds that portmap pins, at the places where it pins them.
//! Everything else is left and named.
//!
//! All is found before anything is removed, through open directories: see `directory`. Links go before maps, and directories last, once
//! they are empty.

use std::{
    ffi::{OsStr, OsString},
    io::ErrorKind,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    rc::Rc,
};

use anyhow::{Context, Result, anyhow, bail};

use super::{attach::PROGRAMS, load};
use crate::{
    kernel::bpf::{self, Object},
    maps::{
        directory::{Directory, DirectoryEntry},
        pin::{LINK, PinDirectory, Pins},
    },
};

/// Programs that only earlier versions attach. A program that is taken out of the datapath is added.
const EARLIER_PROGRAMS: [&str; 1] = ["sock_release"];

/// Maps that only earlier versions pin. A map that is taken out of the datapath is added.
const EARLIER_MAPS: [&str; 1] = ["UDP_SOCKETS"];

/// What the kernel puts into the root of a mount.
const OF_THE_KERNEL: [&str; 2] = ["maps.debug", "progs.debug"];

/// Detaches and removes the pins of all sets. Continues past errors. Returns what was removed, and what failed or was left. Fails, and
/// removes nothing, if the directory holds only what is not portmap's.
pub fn clean_up(pins: &Pins) -> Result<(Vec<PathBuf>, Vec<anyhow::Error>)> {
    let Some(root) = Directory::open(pins.root())? else { return Ok((Vec::new(), Vec::new())) };
    let root = Rc::new(root);
    let mut search = Search::new()?;
    search.look_into_root(&root)?;
    if !search.is_any_ours && !search.left.is_empty() {
        let left: Vec<String> = search.left.iter().map(|error| format!("{error:#}")).collect();
        bail!("nothing in {} is portmap's, and nothing was removed: {}", root.path().display(), left.join("; "));
    }
    let (removed, mut failed) = search.remove();
    match root.remove_itself() {
        Ok(false) if failed.is_empty() => failed.push(anyhow!("left {}: it is not empty", root.path().display())),
        // What is in it has been named.
        Ok(_) => {}
        Err(error) => failed.push(error),
    }
    Ok((removed, failed))
}

/// Detaches and removes the pins of one set. Continues past errors, and returns what failed or was left.
pub fn remove_set(set: &Pins) -> Vec<anyhow::Error> {
    find_set(set).map_or_else(|error| vec![error], |search| search.remove().1)
}

fn find_set(set: &Pins) -> Result<Search> {
    let mut search = Search::new()?;
    let (abi, number) = set.numbers();
    let (abi, number) = (OsString::from(abi.to_string()), OsString::from(number.to_string()));
    let Some(root) = Directory::open(set.root())? else { return Ok(search) };
    let Some(version) = root.child(&abi)? else { return Ok(search) };
    search.look_into_set(&Rc::new(version), number)?;
    // If this was the last set of its version.
    search.directories.push((Rc::new(root), abi));
    Ok(search)
}

/// What was found, and what of it is portmap's.
struct Search {
    /// The maps that any version pins.
    maps: Vec<String>,
    pins: Vec<Pin>,
    /// Those to remove if they are empty, inner before outer: each by the directory that it is in, and its name.
    directories: Vec<(Rc<Directory>, OsString)>,
    /// Why something is left.
    left: Vec<anyhow::Error>,
    /// Whether anything has a name and a place of portmap's.
    is_any_ours: bool,
}

/// A pin of portmap's.
struct Pin {
    object: PinKind,
    directory: Rc<Directory>,
    name: OsString,
}

enum PinKind {
    /// Keeps a program attached.
    Link(OwnedFd),
    Map,
}

impl Search {
    fn new() -> Result<Self> {
        let maps = load::pinned_maps()?.into_iter().chain(EARLIER_MAPS.map(str::to_owned)).collect();
        Ok(Self { maps, pins: Vec::new(), directories: Vec::new(), left: Vec::new(), is_any_ours: false })
    }

    fn look_into_root(&mut self, root: &Rc<Directory>) -> Result<()> {
        for entry in root.entries()? {
            match (&entry, PinDirectory::in_root(entry.name())) {
                (DirectoryEntry::Directory(name), Some(PinDirectory::Version)) => self.look_into_version(root, name.clone())?,
                (DirectoryEntry::Directory(name), Some(PinDirectory::Notes)) => self.look_into_notes(root, name.clone())?,
                (DirectoryEntry::Pin(name), _) if OF_THE_KERNEL.iter().any(|kernel| name == kernel) => {}
                _ => self.leave(root, entry.name(), "portmap makes nothing of that name here"),
            }
        }
        Ok(())
    }

    fn look_into_version(&mut self, root: &Rc<Directory>, name: OsString) -> Result<()> {
        let Some(version) = root.child(&name)?.map(Rc::new) else { return Ok(()) };
        for entry in version.entries()? {
            match (&entry, PinDirectory::number(entry.name())) {
                (DirectoryEntry::Directory(name), Some(_)) => self.look_into_set(&version, name.clone())?,
                _ => self.leave(&version, entry.name(), "portmap makes nothing of that name here"),
            }
        }
        self.directories.push((root.clone(), name));
        Ok(())
    }

    fn look_into_set(&mut self, version: &Rc<Directory>, name: OsString) -> Result<()> {
        let Some(set) = version.child(&name)?.map(Rc::new) else { return Ok(()) };
        for entry in set.entries()? {
            let text = entry.name().to_string_lossy().into_owned();
            let program = text.strip_prefix(LINK);
            let is_program = program.is_some_and(|program| PROGRAMS.contains(&program) || EARLIER_PROGRAMS.contains(&program));
            if is_program {
                self.take(&set, &entry, Object::CgroupLink);
            } else if Pins::owns(&text) && self.maps.contains(&text) {
                self.take(&set, &entry, Object::Map);
            } else {
                self.leave(&set, entry.name(), "portmap pins nothing of that name here");
            }
        }
        self.directories.push((version.clone(), name));
        Ok(())
    }

    fn look_into_notes(&mut self, root: &Rc<Directory>, name: OsString) -> Result<()> {
        let Some(notes) = root.child(&name)?.map(Rc::new) else { return Ok(()) };
        for entry in notes.entries()? {
            if entry.name().to_str().is_some_and(|name| !Pins::owns(name)) {
                self.take(&notes, &entry, Object::Map);
            } else {
                self.leave(&notes, entry.name(), "portmap pins nothing of that name here");
            }
        }
        self.directories.push((root.clone(), name));
        Ok(())
    }

    /// Notes something that has a name of portmap's, if it is of this kind.
    fn take(&mut self, directory: &Rc<Directory>, entry: &DirectoryEntry, wanted: Object) {
        let DirectoryEntry::Pin(name) = entry else { return self.leave(directory, entry.name(), "it is not a pin") };
        let opened = bpf::open_pin(&directory.through(name)).and_then(|object| Ok((bpf::kind_of(object.as_fd())?, object)));
        match opened {
            Ok((found, object)) if found == wanted => {
                let object = if wanted == Object::Map { PinKind::Map } else { PinKind::Link(object) };
                self.is_any_ours = true;
                self.pins.push(Pin { object, directory: directory.clone(), name: name.clone() });
            }
            Ok(_) if wanted == Object::Map => self.leave(directory, name, "it is not a map"),
            Ok(_) => self.leave(directory, name, "it is not a link to a cgroup"),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                self.is_any_ours = true;
                self.left.push(anyhow!(error).context(format!("failed to open {}", directory.path().join(name).display())));
            }
        }
    }

    fn leave(&mut self, directory: &Directory, name: &OsStr, reason: &str) {
        self.left.push(anyhow!("left {}: {reason}", directory.path().join(name).display()));
    }

    /// Removes what is portmap's. Returns what was removed, and what failed or was left.
    fn remove(mut self) -> (Vec<PathBuf>, Vec<anyhow::Error>) {
        let (mut removed, mut failed) = (Vec::new(), self.left);
        self.pins.sort_by_key(|pin| matches!(pin.object, PinKind::Map));
        for pin in self.pins {
            match pin.remove() {
                Ok(()) => removed.push(pin.path()),
                Err(error) => failed.push(error),
            }
        }
        for (parent, name) in self.directories {
            match parent.remove_directory(&name) {
                // What is in it has been named; or it is the directory of a version that has another set.
                Ok(_) => {}
                Err(error) => failed.push(error),
            }
        }
        (removed, failed)
    }
}

impl Pin {
    fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }

    fn remove(&self) -> Result<()> {
        if let PinKind::Link(link) = &self.object {
            bpf::detach(link.as_fd()).with_context(|| format!("failed to detach {}", self.path().display()))?;
        }
        self.directory.remove_pin(&self.name)
    }
}
