//! The capabilities that the agent needs, and whether it has them: `docs/security.md` says what for.

use anyhow::{Context, Result, ensure};
use aya::util::KernelVersion;
use rustix::{
    process::{Resource, getrlimit},
    thread::{CapabilitySet, capabilities},
};

type Named = (CapabilitySet, &'static str);

/// Without these nothing is translated.
const NEEDED: [Named; 3] =
    [(CapabilitySet::BPF, "CAP_BPF"), (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"), (CapabilitySet::PERFMON, "CAP_PERFMON")];

/// Without it there is no room for the maps, where [`locks_memory`].
const FOR_MEMORY: Named = (CapabilitySet::SYS_RESOURCE, "CAP_SYS_RESOURCE");

/// Without these the agent cannot look into pods' network namespaces.
const FOR_NAMESPACES: [Named; 2] = [(CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"), (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE")];

/// Fails where the agent cannot work, and warns of what it will not be able to do.
pub fn check() -> Result<()> {
    let held = capabilities(None).context("failed to ask for the own capabilities")?.effective;
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
            "without {}: connected UDP sockets in pods stay with endpoints that end, and source ranges admit no client in a pod \
             that is not bound to an address",
            missing.join(" and ")
        );
    }
    Ok(())
}

fn needed(locks_memory: bool) -> Vec<Named> {
    NEEDED.into_iter().chain(locks_memory.then_some(FOR_MEMORY)).collect()
}

/// Whether maps count against a limit (`RLIMIT_MEMLOCK`) that has to be raised for them: kernels before 5.11.
fn locks_memory() -> bool {
    let is_old = KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 11, 0));
    is_old && getrlimit(Resource::Memlock).maximum.is_some()
}

/// `CAP_SYS_ADMIN` stands for those that were made out of it.
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
