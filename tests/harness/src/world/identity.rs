//! The name of a [`World`](super::World). The names of its namespaces, its parent cgroup and its directories begin with it.

use std::fmt;
use std::fs;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};

const PREFIX: &str = "portmap-";

/// The unique name `portmap-<pid>-<number>-<name>`. By the process id, [`is_orphan`] finds the names that an ended process
/// left.
pub(super) struct Identity(String);

impl Identity {
    pub(super) fn next(name: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        check(name)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Self(format!("{PREFIX}{}-{number}-{name}", process::id())))
    }

    /// The name of a part of the [`World`](super::World), for example of the network namespace of the pod `name`.
    pub(super) fn member(&self, name: &str) -> String {
        format!("{self}-{name}")
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Fails unless a name has 1 to 63 lower case letters, digits and `-`. It becomes part of file names, and a bpffs allows no
/// dots.
pub(super) fn check(name: &str) -> Result<()> {
    let fits = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
    ensure!(
        (1..=63).contains(&name.len()) && name.chars().all(fits),
        "`{name}` is not a valid name: use 1 to 63 lower case letters, digits and `-`"
    );
    Ok(())
}

/// Whether the name belongs to a [`World`](super::World) whose process has ended. A zombie has ended: it has no
/// `/proc/<pid>/exe`. False for other names, and while a new process has the same id.
pub(super) fn is_orphan(name: &str) -> bool {
    creator(name).is_some_and(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_err())
}

fn creator(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
    let (pid, number, name) = (parts.next()?, parts.next()?, parts.next()?);
    number.parse::<u32>().ok().filter(|_| !name.is_empty())?;
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_knows_its_own() -> Result<()> {
        let identity = Identity::next("some-test")?;
        for name in [identity.to_string(), identity.member("pod-a")] {
            assert_eq!(creator(&name), Some(process::id()));
            assert!(!is_orphan(&name));
        }
        assert_ne!(Identity::next("some-test")?.to_string(), identity.to_string());
        Ok(())
    }

    #[test]
    fn only_worlds_are_orphans() {
        // No process has this id: /proc/sys/kernel/pid_max is at most 2^22.
        assert!(is_orphan("portmap-4194305-0-test"));
        for name in
            ["portmap", "portmap-", "portmap-4194305", "portmap-agent-0-a", "portmap-4194305-x-y", "other-4194305-0-test"]
        {
            assert!(!is_orphan(name), "{name}");
        }
    }

    #[test]
    fn names_are_those_of_pods() {
        assert!(check("pod-a").is_ok());
        for name in ["", "Pod", "pod.a", "a/b", "..", "a b"] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
