//! The programs' constants. They are computed from the options before the programs are loaded, and `portmap-ebpf` defines
//! their meaning.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use anyhow::{Context, Result, ensure};
use aya::{EbpfLoader, util::KernelVersion};
use portmap_common::EXCLUDED_CGROUPS;

use super::{PeerNames, Scope, Switches};
use crate::{
    datapath::cgroup::Cgroup,
    kernel::{OWN_PRIORITY, namespaces},
    maps::Capacity,
};

/// The values of the programs' constants, for the cgroup that the programs are attached to.
#[derive(Clone, Debug)]
pub struct Constants {
    only_host: u8,
    host_namespace: u64,
    excluded: Excluded,
    notes_tcp: u8,
    affinity_share: u64,
    log: u8,
    shortcut: u8,
    client_ports_first: u32,
    client_ports: u32,
    half_open_flows: u32,
    coarse_clock: u8,
    ipv6_checksum: u64,
}

/// The flag `BPF_F_IPV6` of `bpf_l4_csum_replace`. It makes the kernel keep the checksum of a whole IPv6 packet that a device
/// has computed.
const BPF_F_IPV6: u64 = 1 << 7;

/// The cgroups whose processes are excluded: their ids and levels. Only the first `count` elements are valid.
#[derive(Clone, Debug)]
struct Excluded {
    count: u32,
    ids: [u64; EXCLUDED_CGROUPS],
    levels: [u32; EXCLUDED_CGROUPS],
}

impl Excluded {
    fn new(paths: &[PathBuf], attached: &Cgroup) -> Result<Self> {
        ensure!(
            paths.len() <= EXCLUDED_CGROUPS,
            "--exclude-cgroup is given {} times; at most {EXCLUDED_CGROUPS} cgroups can be excluded",
            paths.len()
        );
        let (mut ids, mut levels) = ([0; EXCLUDED_CGROUPS], [0; EXCLUDED_CGROUPS]);
        for ((path, id), level) in paths.iter().zip(&mut ids).zip(&mut levels) {
            let cgroup = Cgroup::open(Some(path)).context("failed to exclude a cgroup")?;
            ensure!(
                !attached.is_within(&cgroup)?,
                "--exclude-cgroup {} contains --cgroup {}, so no call would be translated; exclude a cgroup below --cgroup",
                path.display(),
                attached.path.display()
            );
            (*id, *level) = (cgroup.id, cgroup.level().context("failed to exclude a cgroup")?);
        }
        Ok(Self { count: u32::try_from(paths.len())?, ids, levels })
    }
}

impl Constants {
    /// Computes the constants for programs that are attached to this cgroup. Fails if there are too many excluded cgroups,
    /// or if one cannot be opened as a cgroup v2 directory, has no known level, or contains the attached cgroup.
    pub fn new(switches: &Switches, attached: &Cgroup, capacity: Capacity) -> Result<Self> {
        let Switches { scope: Scope { only_host, excluded }, peer_names, log, outside } = switches;
        let kernel = KernelVersion::current().context("failed to read the kernel's version")?;
        Ok(Self {
            only_host: u8::from(*only_host),
            // On a kernel without cookies of network namespaces, 0 makes the programs take the initial namespace for the
            // host's.
            host_namespace: namespaces::cookie().unwrap_or(0),
            excluded: Excluded::new(excluded, attached)?,
            notes_tcp: u8::from(*peer_names == PeerNames::Service),
            affinity_share: capacity.affinity_share(),
            log: *log as u8,
            // Before 5.12 the kernel does not check the length of a packet that it will divide into segments.
            shortcut: u8::from(outside.shortcut && kernel >= KernelVersion::new(5, 12, 0)),
            client_ports_first: outside.client_ports.first.into(),
            client_ports: u32::try_from(outside.client_ports.ports().len())?,
            half_open_flows: outside.half_open.unwrap_or_else(|| capacity.half_open_flows()),
            coarse_clock: u8::from(kernel >= KernelVersion::new(5, 11, 0)),
            ipv6_checksum: if kernel >= KernelVersion::new(6, 16, 0) { BPF_F_IPV6 } else { 0 },
        })
    }

    /// The constants with the present ids of the excluded cgroups, if a cgroup was removed and made again. `None` if no id has
    /// changed, or if a path does not exist at the moment.
    pub fn successor(&self, switches: &Switches, attached: &Cgroup) -> Result<Option<Self>> {
        let paths = &switches.scope.excluded;
        let is_another = |(path, id): (&PathBuf, &u64)| fs::metadata(path).is_ok_and(|found| found.ino() != *id);
        if !paths.iter().zip(&self.excluded.ids).any(is_another) || !paths.iter().all(|path| path.exists()) {
            return Ok(None);
        }
        Ok(Some(Self { excluded: Excluded::new(paths, attached)?, ..self.clone() }))
    }

    /// Sets the constants of the object that the loader loads next.
    pub(super) fn set<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        let Self {
            only_host, host_namespace, excluded: Excluded { count, ids, levels }, notes_tcp, affinity_share, log, ..
        } = self;
        loader
            .override_global("ONLY_HOST", only_host, true)
            .override_global("HOST_NAMESPACE", host_namespace, true)
            .override_global("EXCLUDED", count, true)
            .override_global("EXCLUDED_IDS", ids.as_slice(), true)
            .override_global("EXCLUDED_LEVELS", levels.as_slice(), true)
            .override_global("NOTES_TCP", notes_tcp, true)
            .override_global("AFFINITY_SHARE", affinity_share, true)
            .override_global("OWN_PRIORITY", &OWN_PRIORITY, true)
            .override_global("SHORTCUT", &self.shortcut, true)
            .override_global("CLIENT_PORTS_FIRST", &self.client_ports_first, true)
            .override_global("CLIENT_PORTS", &self.client_ports, true)
            .override_global("HALF_OPEN_FLOWS", &self.half_open_flows, true)
            .override_global("COARSE_CLOCK", &self.coarse_clock, true)
            .override_global("IPV6_CHECKSUM", &self.ipv6_checksum, true)
            .override_global(aya_log::LEVEL, log, true);
    }
}
