//! The capabilities that the agent needs, and whether it has them: `docs/security.md` says what for.

use anyhow::{Context, Result, ensure};
use rustix::thread::{CapabilitySet, capabilities};

type Named = (CapabilitySet, &'static str);

/// Without these nothing is translated.
const NEEDED: [Named; 3] =
    [(CapabilitySet::BPF, "CAP_BPF"), (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"), (CapabilitySet::PERFMON, "CAP_PERFMON")];

/// Without these the agent cannot look into pods' network namespaces.
const FOR_NAMESPACES: [Named; 2] = [(CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"), (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE")];

/// Fails where the agent cannot work, and warns of what it will not be able to do.
pub fn check() -> Result<()> {
    let held = capabilities(None).context("failed to ask for the own capabilities")?.effective;
    // It stands for the other two, as it did before there were any.
    let is_old_root = held.contains(CapabilitySet::SYS_ADMIN) && held.contains(CapabilitySet::NET_ADMIN);
    let missing = missing(held, &NEEDED);
    ensure!(
        missing.is_empty() || is_old_root,
        "portmap needs the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and lacks {}; run it as root, or in a privileged \
         container",
        missing.join(" and ")
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

fn missing(held: CapabilitySet, wanted: &[Named]) -> Vec<&'static str> {
    wanted.iter().filter(|(capability, _)| !held.contains(*capability)).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let held = CapabilitySet::BPF | CapabilitySet::SYS_ADMIN;
        assert_eq!(missing(held, &NEEDED), ["CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing(held, &FOR_NAMESPACES), ["CAP_SYS_PTRACE"]);
    }
}
