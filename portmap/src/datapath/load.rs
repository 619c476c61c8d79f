//! Loads BPF objects. Their maps are the pinned ones of a set; a missing map is created and pinned. `attach` comes after.

mod constants;
mod switches;

use std::{collections::BTreeMap, os::fd::AsFd as _, path::Path};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{MapData, MapInfo, MapType},
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
    util::nr_cpus,
};

pub use constants::Constants;
pub use switches::{LogLevel, Outside, PeerNames, Scope, Switches};

use crate::{
    kernel::bpf::{self, Layout},
    maps::{
        self, Capacity,
        pin::{Pins, SharedMaps},
    },
};

/// The BPF object of the programs that `attach` attaches.
pub(super) static DATAPATH: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portmap"));

/// The map of the programs' diagnostics.
const LOGS: &str = "AYA_LOGS";

/// Maps that belong to one load of the programs: their diagnostics, which each agent reads itself, and their working memory.
const PRIVATE: [&str; 3] = [LOGS, "WALK_V4", "WALK_V6"];

/// Whether programs can set the error of a call: kernel 5.18 and newer.
pub fn sets_errors() -> Result<bool> {
    is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval)
        .context("failed to ask the kernel for its features; portmap needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root)")
}

/// Loads the object of the datapath with these constants. See [`load`].
pub(super) fn load_datapath(pins: &Pins, capacity: Capacity, constants: &Constants) -> Result<Ebpf> {
    load(DATAPATH, pins, capacity, Some(constants))
}

/// Loads an object onto the pinned maps of a set. Creates and pins missing maps with this capacity.
///
/// Fails if a pinned map has another type, capacity or layout, or if the kernel rejects the object.
pub(super) fn load(object: &[u8], pins: &Pins, capacity: Capacity, constants: Option<&Constants>) -> Result<Ebpf> {
    let names = check_maps(object, pins, capacity)?;
    let mut loader = EbpfLoader::new();
    let sets_errors = u8::from(sets_errors()?);
    if let Some(constants) = constants {
        loader.override_global("SETS_ERRORS", &sets_errors, true);
        constants.set(&mut loader);
    }
    for name in &names {
        loader.map_pin_path(name, pins.map(name));
        if let Some(size) = capacity.entries(name) {
            loader.map_max_entries(name, size);
        }
    }
    loader.load(object).context("failed to load the BPF object; portmap needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root)")
}

/// Closes the descriptors of the object's maps, except the one for diagnostics. The kernel keeps the maps of loaded programs.
pub fn close_maps(programs: &mut Ebpf) {
    let names: Vec<String> = programs.maps().map(|(name, _)| name.to_owned()).filter(|name| name != LOGS).collect();
    for name in names {
        drop(programs.take_map(&name));
    }
}

/// A difference between a pinned map of the set and the map that this agent needs, in type, key size, value size, flags or
/// capacity. `None` if there is no difference. Maps that all sets share are not compared.
pub fn difference(pins: &Pins, capacity: Capacity) -> Result<Option<String>> {
    let object = aya_obj::Object::parse(DATAPATH).context("failed to parse the BPF object")?;
    Ok(differences(&object, pins, capacity)?.into_iter().find(|(name, _)| Pins::owns(name)).map(|(_, difference)| difference))
}

/// The capacity for an agent that finds this set, within a limit. A set that could have grown within the limit keeps its size.
///
/// FLOWS keeps the size of its pinned maps in any case. A map of another size would begin without flows, which would end the
/// connections of clients outside the node.
pub fn continued(pins: &Pins, limit: Capacity) -> Result<Capacity> {
    let size = |name: &str, absent: u32| {
        let path = pins.map(name);
        if path.exists() { Ok(pinned(&path)?.max_entries()) } else { anyhow::Ok(absent) }
    };
    let found = Capacity { services: size("SERVICES", 0)?, backends: size("BACKENDS_V4", 0)?, ..limit };
    Ok(Capacity { flows: size("FLOWS_V4", limit.flows)?, ..limit.continued(found) })
}

/// Copies the entries of a set's maps into the maps of another set, which has at least the same capacity. Maps that both share,
/// and GRACE, which nobody reads, stay.
///
/// Programs may write to the first set meanwhile. A count or a client of theirs may be missing from the copy.
pub fn copy_maps(from: &Pins, to: &Pins) -> Result<()> {
    for name in pinned_maps()?.iter().filter(|name| Pins::owns(name) && *name != "GRACE") {
        copy_map(&maps::bpf::open(from, name)?, &maps::bpf::open(to, name)?)
            .with_context(|| format!("failed to copy the map {name}"))?;
    }
    Ok(())
}

fn copy_map(from: &MapData, to: &MapData) -> Result<()> {
    let info = from.info()?;
    let kind = info.map_type()?;
    let size = info.value_size() as usize;
    let is_per_cpu = kind == MapType::PerCpuArray;
    let processors = nr_cpus().map_err(|(_, error)| error).context("failed to read the number of processors")?;
    let layout = Layout {
        is_array: is_per_cpu || kind == MapType::Array,
        key_size: info.key_size() as usize,
        value_size: if is_per_cpu { size.next_multiple_of(8) * processors } else { size },
        capacity: info.max_entries() as usize,
    };
    Ok(bpf::copy_entries(from.fd().as_fd(), to.fd().as_fd(), layout)?)
}

/// The names of the maps that this version pins, in no order.
pub(super) fn pinned_maps() -> Result<Vec<String>> {
    let object = aya_obj::Object::parse(DATAPATH).context("failed to parse the BPF object")?;
    Ok(object.maps.into_keys().filter(|name| !is_private(name)).collect())
}

/// The names of an object's maps that are pinned. Fails if a pinned map differs from the object's map: aya does not compare
/// them.
fn check_maps(object: &[u8], pins: &Pins, capacity: Capacity) -> Result<Vec<String>> {
    let object = aya_obj::Object::parse(object).context("failed to parse the BPF object")?;
    if let Some((_, difference)) = differences(&object, pins, capacity)?.into_iter().next() {
        bail!("{difference}; remove this map if it is not portmap's, or start again after: portmap cleanup");
    }
    Ok(object.maps.into_keys().filter(|name| !is_private(name)).collect())
}

/// The first difference of each pinned map that differs from the object's map, by the name of the map. The maps of flows may
/// have any size: see [`keep_flows`].
fn differences(object: &aya_obj::Object, pins: &Pins, capacity: Capacity) -> Result<BTreeMap<String, String>> {
    let mut different = BTreeMap::new();
    for (name, map) in object.maps.iter().filter(|(name, _)| !is_private(name)) {
        let path = pins.map(name);
        if !path.exists() {
            continue;
        }
        let found = pinned(&path)?;
        let kept = (SharedMaps::of_map(name) == Some(SharedMaps::Flows)).then(|| found.max_entries());
        let size = kept.or_else(|| capacity.entries(name)).unwrap_or_else(|| map.max_entries());
        let kind = found.map_type().map_or(u32::MAX, |kind| kind as u32);
        let properties = [
            ("type", kind, map.map_type()),
            ("key size", found.key_size(), map.key_size()),
            ("value size", found.value_size(), map.value_size()),
            ("flags", found.map_flags(), map.map_flags()),
            ("max_entries", found.max_entries(), size),
        ];
        if let Some((property, is, should)) = properties.into_iter().find(|(_, is, should)| is != should) {
            different.insert(name.clone(), format!("the pinned map {} has {property} {is}, not {should}", path.display()));
        }
    }
    Ok(different)
}

fn pinned(path: &Path) -> Result<MapInfo> {
    MapInfo::from_pin(path).with_context(|| format!("failed to open the pinned map {}", path.display()))
}

/// Whether a map belongs to one load of the object, and is not pinned: the constants, and those of [`PRIVATE`].
fn is_private(name: &str) -> bool {
    name.starts_with('.') || PRIVATE.contains(&name)
}
