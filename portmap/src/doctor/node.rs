//! The node: the kernel's features, the cgroup, the pins, the capabilities of this process, and answers to refused clients.

use std::path::Path;

use anyhow::Result;
use portmap_common::{DESTROYS_SOCKETS, SETS_ERRORS, State};

use super::Check;
use crate::{
    datapath::cgroup::Cgroup,
    kernel::{
        bpf,
        limits::{CANNOT_SET_ERRORS, KEEPS_UDP_SOCKETS},
        privileges,
    },
    maps::{flows::sweep::UNANSWERED, pin::Pins},
};

/// Checks the kernel's features. STATE has those that the agent has found.
pub fn kernel(state: &State) -> Check {
    let mut missing = Vec::new();
    if state.flags & SETS_ERRORS == 0 {
        missing.push(CANNOT_SET_ERRORS.to_owned());
    }
    if state.flags & DESTROYS_SOCKETS == 0 {
        missing.push(format!("this kernel cannot destroy sockets: {KEEPS_UDP_SOCKETS}"));
    }
    if matches!(bpf::has_device_links(), Ok(false)) {
        missing.push("this kernel is older than 6.6: the programs at devices are filters of tc".to_owned());
    }
    if missing.is_empty() {
        Check::ok("kernel", "the kernel has all features that portmap uses")
    } else {
        Check::note("kernel", missing.join("; "))
    }
}

/// Opens the cgroup with this path, or else the root of the node's cgroups. Returns the check instead if this fails.
pub fn cgroup(path: Option<&Path>) -> Result<Cgroup, Check> {
    Cgroup::open(path).map_err(|error| Check::not_ok("cgroup", format!("{error:#}")))
}

/// Checks the directory of the pins, which [`Pins::expect`] has found.
pub fn pins(pins: &Pins) -> Check {
    Check::ok("bpffs", format!("the tables are pinned in {}", pins.set().display()))
}

/// Checks the capabilities of this process.
pub fn capabilities() -> Result<Check> {
    const NAME: &str = "capabilities";
    let lacking = privileges::lacking()?;
    Ok(if lacking.is_empty() {
        Check::ok(NAME, "this process has all capabilities that the agent needs")
    } else {
        Check::note(NAME, format!("this process lacks {}: some checks may see less; run it as root", lacking.join(", ")))
    })
}

/// Checks whether the node's packet filter drops the answers to refused clients outside the node.
pub fn firewall(state: &State) -> Check {
    match state.unanswered {
        0 => Check::ok("firewall", "no refused client outside the node was without an answer at the last sweep"),
        count => Check::not_ok("firewall", format!("{count} {UNANSWERED}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::CheckResult;

    #[test]
    fn refusals_without_an_answer_are_a_mistake() {
        let mut state: State = bpf::value_of(&[]);
        assert_eq!(firewall(&state).result, CheckResult::Ok);
        state.unanswered = 3;
        assert_eq!(firewall(&state).result, CheckResult::NotOk);
        assert!(firewall(&state).text.starts_with("3 refused connections"));
    }
}
