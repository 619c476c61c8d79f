//! Detaches the programs and removes portmap's pins. An object is portmap's if its directory, its name and its kind are those
//! of a pin of portmap. All other objects stay, and are reported, except the kernel's own files.
//!
//! A search comes first, through open directories (see `maps::directory`). Only then links are removed, after them maps, and
//! at last the directories that are empty. Filters of `tc` are not pinned: portmap's are removed from all devices of the
//! network namespace.

use std::{
    ffi::{OsStr, OsString},
    io::ErrorKind,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    rc::Rc,
};

use anyhow::{Context, Result, anyhow, bail};

use super::{
    attach::PROGRAMS,
    devices::{clsact, tcx},
    load,
};
use crate::{
    kernel::{
        bpf::{self, Object},
        tc::Direction,
    },
    maps::{
        directory::{Directory, DirectoryEntry},
        pin::{LINK, PinDirectory, Pins, SharedMaps},
    },
};

/// Programs that only earlier versions attach. A program that a new version no longer has must be added here.
const EARLIER_PROGRAMS: [&str; 1] = ["sock_release"];

/// Maps that only earlier versions pin. A map that a new version no longer has must be added here.
const EARLIER_MAPS: [&str; 1] = ["UDP_SOCKETS"];

/// Files of the kernel in the root directory of a BPF file system.
const KERNEL_FILES: [&str; 2] = ["maps.debug", "progs.debug"];

/// Detaches the programs from the cgroup, and from the devices of the thread's network namespace, and removes the pins of all
/// sets. Continues after an error. Returns the removed objects (the paths of pins, and descriptions of filters), and an error
/// for each object that stays.
///
/// Fails, and removes nothing, if the directory has objects and none of them is portmap's.
pub fn clean_up(pins: &Pins) -> Result<(Vec<String>, Vec<anyhow::Error>)> {
    let Some(root) = Directory::open(pins.root())? else { return Ok(clsact::remove_all()) };
    let root = Rc::new(root);
    let mut search = Search::new()?;
    search.search_root(&root)?;
    if !search.has_own_objects && !search.remaining.is_empty() {
        let remaining: Vec<String> = search.remaining.iter().map(|error| format!("{error:#}")).collect();
        bail!("nothing in {} is portmap's, and nothing was removed: {}", root.path().display(), remaining.join("; "));
    }
    let (mut removed, mut failed) = clsact::remove_all();
    let (removed_pins, failed_pins) = search.remove();
    removed.extend(removed_pins.iter().map(|path| path.display().to_string()));
    failed.extend(failed_pins);
    match root.remove_itself() {
        Ok(false) if failed.is_empty() => failed.push(anyhow!("left {}: it is not empty", root.path().display())),
        // The directory was removed, or `failed` has an error for each object in it.
        Ok(_) => {}
        Err(error) => failed.push(error),
    }
    Ok((removed, failed))
}

/// Detaches the programs and removes the pins of one set. Continues after an error. Returns an error for each object that
/// stays.
pub fn remove_set(set: &Pins) -> Vec<anyhow::Error> {
    find_set(set).map_or_else(|error| vec![error], |search| search.remove().1)
}

/// Searches one set for pins of portmap and other objects. Finds nothing if the set does not exist.
fn find_set(set: &Pins) -> Result<Search> {
    let mut search = Search::new()?;
    let (abi, number) = set.numbers();
    let (abi, number) = (OsString::from(abi.to_string()), OsString::from(number.to_string()));
    let Some(root) = Directory::open(set.root())? else { return Ok(search) };
    let Some(version) = root.child(&abi)? else { return Ok(search) };
    search.search_set(&Rc::new(version), number)?;
    // The directory of the version is removed with the last set in it.
    search.directories.push((Rc::new(root), abi));
    Ok(search)
}

/// The objects that a search has found.
struct Search {
    /// The names of the maps that this version or an earlier one pins.
    maps: Vec<String>,
    /// The pins to remove.
    pins: Vec<Pin>,
    /// The directories to remove if they are empty, inner before outer: for each, its parent and its name.
    directories: Vec<(Rc<Directory>, OsString)>,
    /// An error for each object that stays.
    remaining: Vec<anyhow::Error>,
    /// Whether a pin of portmap was found, or an object with the name of one that could not be opened.
    has_own_objects: bool,
}

/// A pin of portmap.
struct Pin {
    object: PinKind,
    directory: Rc<Directory>,
    name: OsString,
}

/// The kind of a pinned object, as far as its removal depends on it.
enum PinKind {
    /// An open link, which keeps a program attached.
    Link(OwnedFd),
    /// A map, which needs no other action than the removal of its pin.
    Map,
}

impl Search {
    fn new() -> Result<Self> {
        let maps = load::pinned_maps()?.into_iter().chain(EARLIER_MAPS.map(str::to_owned)).collect();
        Ok(Self { maps, pins: Vec::new(), directories: Vec::new(), remaining: Vec::new(), has_own_objects: false })
    }

    /// Searches the directory of all sets.
    fn search_root(&mut self, root: &Rc<Directory>) -> Result<()> {
        for entry in root.entries()? {
            match (&entry, PinDirectory::in_root(entry.name())) {
                (DirectoryEntry::Directory(name), Some(PinDirectory::Version)) => self.search_version(root, name.clone())?,
                (DirectoryEntry::Directory(name), Some(PinDirectory::Shared(maps))) => {
                    self.search_shared_maps(root, name.clone(), maps)?;
                }
                (DirectoryEntry::Pin(name), _) if KERNEL_FILES.iter().any(|kernel| name == kernel) => {}
                _ => self.report(root, entry.name(), "portmap makes no directory with this name here"),
            }
        }
        Ok(())
    }

    /// Searches the directory of an ABI version.
    fn search_version(&mut self, root: &Rc<Directory>, name: OsString) -> Result<()> {
        let Some(version) = root.child(&name)?.map(Rc::new) else { return Ok(()) };
        for entry in version.entries()? {
            match (&entry, PinDirectory::number(entry.name())) {
                (DirectoryEntry::Directory(name), Some(_)) => self.search_set(&version, name.clone())?,
                _ => self.report(&version, entry.name(), "portmap makes no directory with this name here"),
            }
        }
        self.directories.push((root.clone(), name));
        Ok(())
    }

    /// Searches the directory of a set.
    fn search_set(&mut self, version: &Rc<Directory>, name: OsString) -> Result<()> {
        let Some(set) = version.child(&name)?.map(Rc::new) else { return Ok(()) };
        for entry in set.entries()? {
            let text = entry.name().to_string_lossy().into_owned();
            let link = text.strip_prefix(LINK);
            if link.is_some_and(|link| PROGRAMS.contains(&link) || EARLIER_PROGRAMS.contains(&link)) {
                self.add_pin(&set, &entry, Object::CgroupLink);
            } else if link.is_some_and(|link| tcx::parse(link).is_some()) {
                self.add_pin(&set, &entry, Object::DeviceLink);
            } else if Pins::owns(&text) && self.maps.contains(&text) {
                self.add_pin(&set, &entry, Object::Map);
            } else {
                self.report(&set, entry.name(), "portmap pins no object with this name here");
            }
        }
        self.directories.push((version.clone(), name));
        Ok(())
    }

    /// Searches a directory of maps that all sets share.
    fn search_shared_maps(&mut self, root: &Rc<Directory>, name: OsString, maps: SharedMaps) -> Result<()> {
        let Some(directory) = root.child(&name)?.map(Rc::new) else { return Ok(()) };
        for entry in directory.entries()? {
            if entry.name().to_str().is_some_and(|name| maps.maps().contains(&name)) {
                self.add_pin(&directory, &entry, Object::Map);
            } else {
                self.report(&directory, entry.name(), "portmap pins no object with this name here");
            }
        }
        self.directories.push((root.clone(), name));
        Ok(())
    }

    /// Adds an object with the name of a pin of portmap to the pins to remove. Reports it instead if it is of another kind
    /// or cannot be opened.
    fn add_pin(&mut self, directory: &Rc<Directory>, entry: &DirectoryEntry, wanted: Object) {
        let DirectoryEntry::Pin(name) = entry else { return self.report(directory, entry.name(), "it is not a pin") };
        let opened =
            bpf::open_pin(&directory.path_by_descriptor(name)).and_then(|object| Ok((bpf::kind_of(object.as_fd())?, object)));
        match opened {
            Ok((found, object)) if found == wanted => {
                let object = if wanted == Object::Map { PinKind::Map } else { PinKind::Link(object) };
                self.has_own_objects = true;
                self.pins.push(Pin { object, directory: directory.clone(), name: name.clone() });
            }
            Ok(_) => self.report(directory, name, &format!("it is not {wanted}")),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                self.has_own_objects = true;
                self.remaining
                    .push(anyhow!(error).context(format!("failed to open {}", directory.path().join(name).display())));
            }
        }
    }

    /// Reports an object that stays.
    fn report(&mut self, directory: &Directory, name: &OsStr, reason: &str) {
        self.remaining.push(anyhow!("left {}: {reason}", directory.path().join(name).display()));
    }

    /// Detaches the programs of the pinned links, removes the pins, and then the directories that are empty. Returns the
    /// paths of the removed pins, and an error for each object that stays.
    fn remove(mut self) -> (Vec<PathBuf>, Vec<anyhow::Error>) {
        let (mut removed, mut failed) = (Vec::new(), self.remaining);
        self.pins.sort_by_key(Pin::rank);
        for pin in self.pins {
            match pin.remove() {
                Ok(()) => removed.push(pin.path()),
                Err(error) => failed.push(error),
            }
        }
        for (parent, name) in self.directories {
            match parent.remove_directory(&name) {
                // Removed; or not empty: its objects are reported, or it is the directory of a version that has another set.
                Ok(_) => {}
                Err(error) => failed.push(error),
            }
        }
        (removed, failed)
    }
}

impl Pin {
    /// The place in the order of removal: programs at devices first, ingress before egress, and maps last.
    fn rank(&self) -> u8 {
        if matches!(self.object, PinKind::Map) {
            return 3;
        }
        match self.name.to_str().and_then(|name| tcx::parse(name.strip_prefix(LINK)?)) {
            Some((Direction::Ingress, _)) => 0,
            Some((Direction::Egress, _)) => 1,
            None => 2,
        }
    }

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
