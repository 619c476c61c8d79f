//! The names of the pins and of their directories.

use std::ffi::{OsStr, OsString};

use anyhow::Result;
use portmap_common::{FLOWS_VERSION, SOCKETS_VERSION, trace::TRACE_VERSION};

use crate::maps::directory::{Directory, DirectoryEntry};

/// Prefix of the names of pinned links. Names of maps do not have it.
pub const LINK: &str = "link_";

/// Maps in a directory of their own below `--bpffs`, which all sets share. The directory has the version of their layout in its
/// name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedMaps {
    /// The maps about open sockets, which outlive a set.
    Sockets,
    /// The flows of clients outside the node, which outlive a set.
    Flows,
    /// The events of `portmap trace`, which goes on when an agent replaces a set.
    Trace,
}

impl SharedMaps {
    /// All groups of shared maps.
    pub const ALL: [Self; 3] = [Self::Sockets, Self::Flows, Self::Trace];

    /// The group that this map belongs to; `None` if each set has its own map of this name.
    pub fn of_map(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shared| shared.maps().contains(&name))
    }

    /// The names of the maps.
    pub fn maps(self) -> &'static [&'static str] {
        match self {
            Self::Sockets => &["SOCKETS", "DATAGRAMS", "NUMBERS"],
            Self::Flows => &["FLOWS_V4", "FLOWS_V6", "OPENING_V4", "OPENING_V6"],
            Self::Trace => &["TRACING", "TRACE", "TRACE_LOST"],
        }
    }

    /// The name of the directory, with this build's version of the layout.
    pub fn directory(self) -> String {
        let version = match self {
            Self::Sockets => SOCKETS_VERSION,
            Self::Flows => FLOWS_VERSION,
            Self::Trace => TRACE_VERSION,
        };
        format!("{}{version}", self.prefix())
    }

    /// The group in the directory with this name, of any version of the layout.
    fn in_directory(name: &str) -> Option<Self> {
        let is_version = |version: &str| PinDirectory::number(version.as_ref()).is_some();
        Self::ALL.into_iter().find(|shared| name.strip_prefix(shared.prefix()).is_some_and(is_version))
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Sockets => "sockets-",
            Self::Flows => "flows-",
            Self::Trace => "trace-",
        }
    }
}

/// The kind of a subdirectory of `--bpffs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinDirectory {
    /// The directory of the sets of one ABI version.
    Version,
    /// The directory of maps that all sets share, of any version of their layout.
    Shared(SharedMaps),
}

impl PinDirectory {
    /// The kind of the directory with this name; `None` if portmap makes no directory of this name.
    pub fn in_root(name: &OsStr) -> Option<Self> {
        let shared = || name.to_str().and_then(SharedMaps::in_directory).map(Self::Shared);
        Self::number(name).map(|_| Self::Version).or_else(shared)
    }

    /// The name as a number; `None` if it is no number, or if portmap would write the number differently, as with `03`.
    pub fn number(name: &OsStr) -> Option<u32> {
        let name = name.to_str()?;
        name.parse().ok().filter(|number: &u32| number.to_string() == name)
    }
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
        for (before, version) in [
            ("/sys/fs/bpf/portmap/", portmap_common::ABI_VERSION),
            ("/sockets-", SOCKETS_VERSION),
            ("/flows-", FLOWS_VERSION),
            ("/trace-", TRACE_VERSION),
        ] {
            let found = documented(before);
            assert!(!found.is_empty() && found.iter().all(|found| *found == version), "docs/maps.md: {before}{found:?}");
        }
    }

    #[test]
    fn only_names_that_portmap_gives_are_its_own() {
        let kind = |name: &str| PinDirectory::in_root(OsStr::new(name));
        assert_eq!(["0", "3", "901"].map(kind), [Some(PinDirectory::Version); 3]);
        for (shared, names) in [
            (SharedMaps::Sockets, ["sockets-1", "sockets-20"]),
            (SharedMaps::Flows, ["flows-1", "flows-20"]),
            (SharedMaps::Trace, ["trace-1", "trace-20"]),
        ] {
            assert_eq!(names.map(kind), [Some(PinDirectory::Shared(shared)); 2]);
            assert_eq!(kind(&shared.directory()), Some(PinDirectory::Shared(shared)));
        }
        let others = ["03", "+3", "-3", "3 ", "4294967296", "", "sockets-", "sockets-02", "sockets", "flows-x", "x"];
        assert_eq!(others.map(kind), [None; 11]);
    }
}
