//! The names of the pins and of their directories.

use std::ffi::{OsStr, OsString};

use anyhow::Result;
use portmap_common::SOCKETS_VERSION;

use crate::maps::directory::{Directory, DirectoryEntry};

/// Prefix of the names of pinned links. Names of maps do not have it.
pub const LINK: &str = "link_";

/// Prefix of the name of the directory of [`SOCKET_MAPS`]. The version of their layout follows.
const SOCKET_DIRECTORY: &str = "sockets-";

/// The maps about open sockets. All sets share them, because open sockets outlive a set.
pub const SOCKET_MAPS: [&str; 3] = ["SOCKETS", "DATAGRAMS", "NUMBERS"];

/// The kind of a subdirectory of `--bpffs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinDirectory {
    /// The directory of the sets of one ABI version.
    Version,
    /// The directory of [`SOCKET_MAPS`], of any version of their layout.
    SocketMaps,
}

impl PinDirectory {
    /// The kind of the directory with this name; `None` if portmap makes no directory of this name.
    pub fn in_root(name: &OsStr) -> Option<Self> {
        let socket_version =
            || name.to_str()?.strip_prefix(SOCKET_DIRECTORY).and_then(|version| Self::number(version.as_ref()));
        Self::number(name).map(|_| Self::Version).or_else(|| socket_version().map(|_| Self::SocketMaps))
    }

    /// The name as a number; `None` if it is no number, or if portmap would write the number differently, as with `03`.
    pub fn number(name: &OsStr) -> Option<u32> {
        let name = name.to_str()?;
        name.parse().ok().filter(|number: &u32| number.to_string() == name)
    }
}

/// The name of the directory of [`SOCKET_MAPS`], of this build's version.
pub fn socket_directory() -> String {
    format!("{SOCKET_DIRECTORY}{SOCKETS_VERSION}")
}

/// The subdirectories with a number as their name, ordered by the number.
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

    /// The numbers in `docs/maps.md` after a text.
    fn documented(before: &str) -> Vec<u32> {
        let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
        include_str!("../../../../docs/maps.md").split(before).skip(1).filter_map(digits).collect()
    }

    #[test]
    fn the_documented_paths_have_the_current_versions() {
        for (before, version) in [("/sys/fs/bpf/portmap/", portmap_common::ABI_VERSION), ("/sockets-", SOCKETS_VERSION)] {
            let found = documented(before);
            assert!(!found.is_empty() && found.iter().all(|found| *found == version), "docs/maps.md: {before}{found:?}");
        }
    }

    #[test]
    fn only_names_that_portmap_gives_are_its_own() {
        let kind = |name: &str| PinDirectory::in_root(OsStr::new(name));
        assert_eq!(["0", "3", "901"].map(kind), [Some(PinDirectory::Version); 3]);
        assert_eq!(["sockets-1", "sockets-20"].map(kind), [Some(PinDirectory::SocketMaps); 2]);
        let others = ["03", "+3", "-3", "3 ", "4294967296", "", "sockets-", "sockets-02", "sockets", "sockets-x", "x"];
        assert_eq!(others.map(kind), [None; 11]);
    }
}
