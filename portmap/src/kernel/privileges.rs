//! Checks the agent's capabilities. `docs/security.md` explains why the agent needs each of them.

use anyhow::{Context, Result, ensure};
use aya::util::KernelVersion;
use rustix::{
    process::{Resource, getrlimit},
    thread::{CapabilitySet, capabilities},
};

type Named = (CapabilitySet, &'static str);

/// The capabilities without which the agent does not start.
const NEEDED: [Named; 3] =
    [(CapabilitySet::BPF, "CAP_BPF"), (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"), (CapabilitySet::PERFMON, "CAP_PERFMON")];

/// The capability that raises `RLIMIT_MEMLOCK` for the maps, on kernels where [`locks_memory`] is true.
const FOR_MEMORY: Named = (CapabilitySet::SYS_RESOURCE, "CAP_SYS_RESOURCE");

/// The capabilities for entering network namespaces of pods. The agent also starts without them.
const FOR_NAMESPACES: [Named; 2] = [(CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"), (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE")];

/// Fails if a needed capability is missing. Logs a warning if a capability for network namespaces is missing.
pub fn check() -> Result<()> {
    let held = capabilities(None).context("failed to read the own capabilities")?.effective;
    let needed = needed(locks_memory());
    let missing = missing(with_implied(held), &needed);
    ensure!(
        missing.is_empty(),
        "portmap lacks {}; run it as root, or in a privileged container: it needs {}",
        missing.join(" and "),
        names(&needed).join(", ")
    );
    let missing = self::missing(held, &FOR_NAMESPACES);
    if !missing.is_empty() {
        tracing::warn!(
            "without {}: connected UDP sockets in pods stay with their endpoints after these end, and source ranges admit a \
             client in a pod only if its socket is bound to an admitted address",
            missing.join(" and ")
        );
    }
    Ok(())
}

/// The capabilities of the agent that this process lacks.
pub fn lacking() -> Result<Vec<&'static str>> {
    let held = capabilities(None).context("failed to read the own capabilities")?.effective;
    let mut lacking = missing(with_implied(held), &needed(locks_memory()));
    lacking.extend(missing(held, &FOR_NAMESPACES));
    Ok(lacking)
}

fn needed(locks_memory: bool) -> Vec<Named> {
    NEEDED.into_iter().chain(locks_memory.then_some(FOR_MEMORY)).collect()
}

/// Whether maps count against `RLIMIT_MEMLOCK` (on kernels before 5.11), and this limit is finite.
fn locks_memory() -> bool {
    let is_old = KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 11, 0));
    is_old && getrlimit(Resource::Memlock).maximum.is_some()
}

/// `CAP_SYS_ADMIN` includes `CAP_BPF` and `CAP_PERFMON`, which were split off from it in 5.8.
fn with_implied(held: CapabilitySet) -> CapabilitySet {
    if held.contains(CapabilitySet::SYS_ADMIN) { held | CapabilitySet::BPF | CapabilitySet::PERFMON } else { held }
}

fn missing(held: CapabilitySet, wanted: &[Named]) -> Vec<&'static str> {
    let missing: Vec<Named> = wanted.iter().copied().filter(|(capability, _)| !held.contains(*capability)).collect();
    names(&missing)
}

fn names(capabilities: &[Named]) -> Vec<&'static str> {
    capabilities.iter().map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let held = CapabilitySet::BPF | CapabilitySet::SYS_ADMIN;
        assert_eq!(missing(held, &NEEDED), ["CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing(with_implied(held), &NEEDED), ["CAP_NET_ADMIN"]);
        assert_eq!(missing(held, &FOR_NAMESPACES), ["CAP_SYS_PTRACE"]);
        assert_eq!(missing(with_implied(held | CapabilitySet::NET_ADMIN), &needed(true)), ["CAP_SYS_RESOURCE"]);
    }
}
