//! The names of pins, and of the directories that they are in.

use std::ffi::{OsStr, OsString};

use anyhow::Result;
use portmap_common::SOCKETS_VERSION;

use crate::maps::directory::{Directory, DirectoryEntry};

/// Prefix of the links' names, so that they are told from the maps.
pub const LINK: &str = "link_";

/// Prefix of the directories of [`NOTES`].
const SOCKETS: &str = "sockets-";

/// The maps that what sockets remember depends on. They outlive the tables.
pub const NOTES: [&str; 3] = ["SOCKETS", "DATAGRAMS", "NUMBERS"];

/// What a directory in the directory of all sets is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinDirectory {
    /// The sets of an ABI version.
    Version,
    /// The notes on sockets, of some version.
    Notes,
}

impl PinDirectory {
    /// What a name stands for: `None` if portmap makes no such directory.
    pub fn in_root(name: &OsStr) -> Option<Self> {
        let notes = || name.to_str()?.strip_prefix(SOCKETS).and_then(|version| Self::number(version.as_ref()));
        Self::number(name).map(|_| Self::Version).or_else(|| notes().map(|_| Self::Notes))
    }

    /// The number that a name is, as portmap writes numbers.
    pub fn number(name: &OsStr) -> Option<u32> {
        let name = name.to_str()?;
        name.parse().ok().filter(|number: &u32| number.to_string() == name)
    }
}

pub fn notes_directory() -> String {
    format!("{SOCKETS}{SOCKETS_VERSION}")
}

/// The subdirectories whose name is a number, in the order of the numbers.
pub fn numbered(directory: &Directory) -> Result<Vec<(u32, OsString)>> {
    let entries = directory.entries()?.into_iter();
    let mut numbered: Vec<(u32, OsString)> = entries
        .filter_map(|entry| match entry {
            DirectoryEntry::Directory(name) => Some((PinDirectory::number(&name)?, name)),
            DirectoryEntry::Pin(_) | DirectoryEntry::Other(_) => None,
        })
        .collect();
    numbered.sort();
    Ok(numbered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_portmap_gives_are_its_own() {
        let place = |name: &str| PinDirectory::in_root(OsStr::new(name));
        assert_eq!(["0", "3", "901"].map(place), [Some(PinDirectory::Version); 3]);
        assert_eq!(["sockets-1", "sockets-20"].map(place), [Some(PinDirectory::Notes); 2]);
        let others = ["03", "+3", "-3", "3 ", "4294967296", "", "sockets-", "sockets-02", "sockets", "sockets-x", "x"];
        assert_eq!(others.map(place), [None; 11]);
    }
}
