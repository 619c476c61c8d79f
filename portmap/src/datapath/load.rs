//! Loads the programs, onto pinned maps where there are any.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::MapInfo,
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};

use super::cgroup::Cgroup;
use crate::maps::pin::Pins;
use crate::{
    kernel::{OWN_PRIORITY, namespaces},
    maps::Capacity,
};

/// The programs that are attached.
pub(super) static DATAPATH: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portmap"));

/// Cgroups that can be excluded.
pub const EXCLUDED: usize = 8;

/// The map that diagnostics pass through. It ends with the agent, and so it is not pinned.
const LOGS: &str = "AYA_LOGS";

/// Maps whose size is the number of services.
const SIZED_BY_SERVICES: [&str; 4] = ["SERVICES", "COUNTERS", "SOURCE_RANGES_V4", "SOURCE_RANGES_V6"];

/// Maps whose size is the number of frontends; a service port that gets another id has both names for a moment.
const SIZED_BY_FRONTENDS: [&str; 3] = ["FRONTENDS_V4", "FRONTENDS_V6", "NAMES"];

/// Maps whose size is the number of backends.
const SIZED_BY_BACKENDS: [&str; 2] = ["BACKENDS_V4", "BACKENDS_V6"];

/// Maps of what is kept of some backends.
const SIZED_BY_ITEMS: [&str; 3] = ["ENDPOINTS_V4", "ENDPOINTS_V6", "MEMBERS"];

/// What the programs are told before they are verified.
#[derive(Clone, Debug, Default)]
pub struct Switches {
    /// Whose calls are translated.
    pub scope: Scope,
    /// What TCP sockets are shown as their peer.
    pub peer_names: PeerNames,
    /// Which diagnostics the programs write.
    pub log: LogLevel,
}

/// What `getpeername()` of a TCP socket shows that was connected to a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PeerNames {
    /// The Service that it asked for.
    #[default]
    Service,
    /// The pod that it is connected to: `connect()` then takes no memory of the kernel's.
    Pod,
}

/// Whose calls are translated.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Only those of processes in the host's network namespace: the agent's.
    pub only_host: bool,
    /// Not those of processes in or below these cgroups.
    pub excluded: Vec<PathBuf>,
}

/// The least important diagnostics that the programs write. The numbers are those of aya-log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[repr(u8)]
pub enum LogLevel {
    /// No diagnostics, at no cost.
    #[default]
    Off = 0,
    /// Errors that should never happen.
    Error = 1,
    /// Errors, and unusual events.
    Warn = 2,
    /// Errors, unusual events and rare events.
    Info = 3,
    /// Every decision.
    Debug = 4,
}

/// The constants of the programs.
#[derive(Clone, Debug)]
pub struct Constants {
    only_host: u8,
    host_namespace: u64,
    excluded: Excluded,
    notes_tcp: u8,
    affinity_share: u64,
    log: u8,
}

/// The cgroups that are left alone, in the kernel's terms.
#[derive(Clone, Debug)]
struct Excluded {
    count: u32,
    ids: [u64; EXCLUDED],
    levels: [u32; EXCLUDED],
}

impl Excluded {
    fn new(paths: &[PathBuf], attached: &Cgroup) -> Result<Self> {
        ensure!(paths.len() <= EXCLUDED, "{} cgroups are too many to exclude: at most {EXCLUDED}", paths.len());
        let (mut ids, mut levels) = ([0; EXCLUDED], [0; EXCLUDED]);
        for ((path, id), level) in paths.iter().zip(&mut ids).zip(&mut levels) {
            let cgroup = Cgroup::open(Some(path)).context("failed to exclude a cgroup")?;
            ensure!(
                !attached.is_within(&cgroup)?,
                "--exclude-cgroup {} contains all of --cgroup {}: nothing would be translated; give one below it",
                path.display(),
                attached.path.display()
            );
            (*id, *level) = (cgroup.id, cgroup.level().context("failed to exclude a cgroup")?);
        }
        Ok(Self { count: u32::try_from(paths.len())?, ids, levels })
    }
}

impl Constants {
    /// The switches in the kernel's terms, for programs on this cgroup.
    pub fn new(switches: &Switches, attached: &Cgroup, capacity: Capacity) -> Result<Self> {
        let Switches { scope: Scope { only_host, excluded }, peer_names, log } = switches;
        Ok(Self {
            only_host: u8::from(*only_host),
            // Older kernels do not tell; then the host's namespace has to be the initial one.
            host_namespace: namespaces::cookie().unwrap_or(0),
            excluded: Excluded::new(excluded, attached)?,
            notes_tcp: u8::from(*peer_names == PeerNames::Service),
            affinity_share: capacity.affinity_share(),
            log: *log as u8,
        })
    }

    /// The constants by what the paths of excluded cgroups lead to now; none if that is the same, or if there is no such cgroup.
    pub fn successor(&self, switches: &Switches, attached: &Cgroup) -> Result<Option<Self>> {
        let paths = &switches.scope.excluded;
        let is_another = |(path, id): (&PathBuf, &u64)| fs::metadata(path).is_ok_and(|found| found.ino() != *id);
        if !paths.iter().zip(&self.excluded.ids).any(is_another) || !paths.iter().all(|path| path.exists()) {
            return Ok(None);
        }
        Ok(Some(Self { excluded: Excluded::new(paths, attached)?, ..self.clone() }))
    }
}

impl Constants {
    fn set<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        let Self { only_host, host_namespace, excluded: Excluded { count, ids, levels }, notes_tcp, affinity_share, log } =
            self;
        loader
            .override_global("ONLY_HOST", only_host, true)
            .override_global("HOST_NAMESPACE", host_namespace, true)
            .override_global("EXCLUDED", count, true)
            .override_global("EXCLUDED_IDS", ids.as_slice(), true)
            .override_global("EXCLUDED_LEVELS", levels.as_slice(), true)
            .override_global("NOTES_TCP", notes_tcp, true)
            .override_global("AFFINITY_SHARE", affinity_share, true)
            .override_global("OWN_PRIORITY", &OWN_PRIORITY, true)
            .override_global(aya_log::LEVEL, log, true);
    }
}

/// Whether hooks can set the error of a call: kernel 5.18 and newer.
pub fn sets_errors() -> Result<bool> {
    is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval)
        .context("failed to ask the kernel for its features; portmap needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root)")
}

/// Loads the datapath: its maps are those pinned, or are created and pinned.
pub(super) fn load_datapath(pins: &Pins, capacity: Capacity, constants: &Constants) -> Result<Ebpf> {
    load(DATAPATH, pins, capacity, Some(constants))
}

/// Loads an object: its maps are those pinned, or are created and pinned.
pub(super) fn load(object: &[u8], pins: &Pins, capacity: Capacity, constants: Option<&Constants>) -> Result<Ebpf> {
    let names = compare(object, pins, capacity)?;
    let mut loader = EbpfLoader::new();
    let sets_errors = u8::from(sets_errors()?);
    if let Some(constants) = constants {
        loader.override_global("SETS_ERRORS", &sets_errors, true);
        constants.set(&mut loader);
    }
    for name in &names {
        loader.map_pin_path(name, pins.map(name));
        if let Some(size) = size(name, capacity) {
            loader.map_max_entries(name, size);
        }
    }
    loader.load(object).context("failed to load the BPF object; portmap needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root)")
}

/// What stands against using the pinned maps, if anything does: a map of another size, or one that somebody else put there.
pub fn difference(pins: &Pins, capacity: Capacity) -> Result<Option<String>> {
    let object = aya_obj::Object::parse(DATAPATH).context("failed to parse the BPF object")?;
    Ok(differences(&object, pins, capacity)?.into_iter().find(|(name, _)| Pins::owns(name)).map(|(_, what)| what))
}

/// The names of the maps that this version pins.
pub(super) fn pinned_maps() -> Result<Vec<String>> {
    let object = aya_obj::Object::parse(DATAPATH).context("failed to parse the BPF object")?;
    Ok(object.maps.into_keys().filter(|name| !is_private(name)).collect())
}

/// The names of an object's maps, after checking that those pinned already are of the same shape: aya does not.
fn compare(object: &[u8], pins: &Pins, capacity: Capacity) -> Result<Vec<String>> {
    let object = aya_obj::Object::parse(object).context("failed to parse the BPF object")?;
    if let Some((_, what)) = differences(&object, pins, capacity)?.into_iter().next() {
        bail!("{what}; remove what is not portmap's, or start anew after: portmap cleanup");
    }
    Ok(object.maps.into_keys().filter(|name| !is_private(name)).collect())
}

/// The pinned maps that are not of the shape of the object's, in the order of their names, and how they differ.
fn differences(object: &aya_obj::Object, pins: &Pins, capacity: Capacity) -> Result<BTreeMap<String, String>> {
    let mut different = BTreeMap::new();
    for (name, map) in object.maps.iter().filter(|(name, _)| !is_private(name)) {
        let path = pins.map(name);
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
        if let Some((what, is, should)) = wanted.into_iter().find(|(_, is, should)| is != should) {
            different.insert(name.clone(), format!("the pinned map {} has {what} {is}, not {should}", path.display()));
        }
    }
    Ok(different)
}

/// Whether a map belongs to one load of the object: its constants, and the diagnostics.
fn is_private(name: &str) -> bool {
    name.starts_with('.') || name == LOGS
}

fn size(name: &str, capacity: Capacity) -> Option<u32> {
    if SIZED_BY_SERVICES.contains(&name) {
        Some(capacity.services)
    } else if SIZED_BY_FRONTENDS.contains(&name) {
        Some(capacity.frontends())
    } else if SIZED_BY_BACKENDS.contains(&name) {
        Some(capacity.backends)
    } else if SIZED_BY_ITEMS.contains(&name) {
        Some(capacity.items())
    } else if name == "AFFINITY" {
        Some(capacity.affinity_clients)
    } else {
        None
    }
}
