//! Loads the programs, onto pinned maps where there are any.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned, maps::MapInfo};

use super::pin::Pins;
use crate::maps::Capacity;

/// The programs that are attached.
pub(super) static DATAPATH: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portmap"));

/// Maps whose size is the number of services.
const SIZED_BY_SERVICES: [&str; 5] = ["FRONTENDS_V4", "FRONTENDS_V6", "SERVICES", "COUNTERS", "NAMES"];

/// Maps whose size is the number of backends.
const SIZED_BY_BACKENDS: [&str; 2] = ["BACKENDS_V4", "BACKENDS_V6"];

/// Loads an object: its maps are those pinned, or are created and pinned.
pub(super) fn load(object: &[u8], pins: &Pins, capacity: Capacity) -> Result<Ebpf> {
    let directory = pins.set();
    let names = compare(object, &directory, capacity)?;
    let mut loader = EbpfLoader::new();
    for name in &names {
        loader.map_pin_path(name, directory.join(name));
        if let Some(size) = size(name, capacity) {
            loader.map_max_entries(name, size);
        }
    }
    loader.load(object).context("failed to load the BPF object; portmap needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root)")
}

/// The names of an object's maps, after checking that those pinned already are of the same shape: aya does not.
fn compare(object: &[u8], directory: &Path, capacity: Capacity) -> Result<Vec<String>> {
    let object = aya_obj::Object::parse(object).context("failed to parse the BPF object")?;
    let mut names: Vec<String> = object.maps.keys().cloned().collect();
    names.sort();
    for (name, map) in &object.maps {
        let path = directory.join(name);
        if !path.exists() {
            continue;
        }
        let found = MapInfo::from_pin(&path).with_context(|| format!("failed to open the pinned map {}", path.display()))?;
        let kind = found.map_type().map_or(u32::MAX, |kind| kind as u32);
        let wanted = [
            ("type", kind, map.map_type()),
            ("key size", found.key_size(), map.key_size()),
            ("value size", found.value_size(), map.value_size()),
            ("flags", found.map_flags(), map.map_flags()),
            ("size", found.max_entries(), size(name, capacity).unwrap_or(map.max_entries())),
        ];
        for (what, is, should) in wanted {
            ensure!(
                is == should,
                "the pinned map {} has {what} {is}, not {should}; start with the same flags as before, or run: portmap cleanup",
                path.display()
            );
        }
    }
    Ok(names)
}

fn size(name: &str, capacity: Capacity) -> Option<u32> {
    if SIZED_BY_SERVICES.contains(&name) {
        Some(capacity.services)
    } else if SIZED_BY_BACKENDS.contains(&name) {
        Some(capacity.backends)
    } else {
        None
    }
}
