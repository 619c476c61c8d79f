//! The pod of a process, from the path of its cgroup and from the kubelet's directories of logs. Needs no API server.
//!
//! A container runtime puts the containers of a pod into cgroups below one whose name has the pod's UID, as in
//! `kubepods-burstable-pod<uid>.slice` (systemd; with `_` for `-`) or `kubepods/burstable/pod<uid>`. The kubelet keeps the logs of
//! a pod in the directory `<namespace>_<name>_<uid>`.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::model::ObjectName;

/// The shortest time between two readings of the kubelet's directories.
const PAUSE: Duration = Duration::from_secs(1);

/// The UID of a static pod has no hyphens.
const UID_LENGTHS: [usize; 2] = [36, 32];

/// The names of the pods on this node, by their UIDs. A pod that is removed keeps its name.
#[derive(Debug)]
pub struct Pods {
    logs: PathBuf,
    names: HashMap<String, ObjectName>,
    read: Option<Instant>,
}

impl Pods {
    /// The pods that have a directory in `logs`, usually `/var/log/pods` of the node. Reads nothing yet.
    pub fn new(logs: &Path) -> Self {
        Self { logs: logs.to_owned(), names: HashMap::new(), read: None }
    }

    /// The name of the pod with this UID. `None` if the kubelet has no directory for it; the directories are read at most once per
    /// second.
    pub fn name(&mut self, uid: &str) -> Option<&ObjectName> {
        if !self.names.contains_key(uid) && self.read.is_none_or(|read| read.elapsed() >= PAUSE) {
            self.read = Some(Instant::now());
            self.read_directories();
        }
        self.names.get(uid)
    }

    fn read_directories(&mut self) {
        let Ok(entries) = fs::read_dir(&self.logs) else { return };
        for entry in entries.flatten() {
            let parsed = entry.file_name().to_str().and_then(parse);
            self.names.extend(parsed);
        }
    }
}

/// The UID and the name of a pod, from the name of its directory of logs. No namespace and no name of a pod contains `_`.
fn parse(directory: &str) -> Option<(String, ObjectName)> {
    let mut parts = directory.split('_');
    let (Some(namespace), Some(name), Some(uid), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    Some((uid.to_owned(), ObjectName::new(namespace, name)))
}

/// The UID of the pod to which a cgroup belongs; `None` for cgroups of the host.
pub fn uid_of(cgroup: &Path) -> Option<String> {
    let names = cgroup.iter().filter_map(|name| name.to_str());
    names.filter_map(|name| name.strip_suffix(".slice").unwrap_or(name).rsplit_once("pod")).find_map(|(_, uid)| {
        let is_digit = |character: char| character.is_ascii_hexdigit() || character == '-';
        let uid = uid.replace('_', "-");
        (UID_LENGTHS.contains(&uid.len()) && uid.chars().all(is_digit)).then_some(uid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0b9ff50d-5a12-4c8e-8d6a-6a1f2c9f8a11";

    #[test]
    fn uids_are_found_in_the_paths_of_both_drivers() {
        let systemd = format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
        for path in [&systemd, &format!("{systemd}/cri-containerd-abc.scope"), &format!("kubepods/besteffort/pod{UID}/abc")] {
            assert_eq!(uid_of(Path::new(path)).as_deref(), Some(UID), "{path}");
        }
        let of_static_pod = "kubepods.slice/kubepods-pod0123456789abcdef0123456789abcdef.slice";
        assert_eq!(uid_of(Path::new(of_static_pod)).as_deref(), Some("0123456789abcdef0123456789abcdef"));
        for other in ["system.slice/ssh.service", "kubepods.slice", "kubepods/besteffort", "podman", ""] {
            assert_eq!(uid_of(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn names_come_from_the_directories_of_logs() -> std::io::Result<()> {
        let logs = tempfile::tempdir()?;
        fs::create_dir(logs.path().join(format!("shop_web-1_{UID}")))?;
        fs::create_dir(logs.path().join("other"))?;
        let mut pods = Pods::new(logs.path());
        assert_eq!(pods.name(UID), Some(&ObjectName::new("shop", "web-1")));
        assert_eq!(pods.name("other"), None);
        Ok(())
    }
}
