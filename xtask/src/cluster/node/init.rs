//! The init process of a node: mounts the node's file systems, and starts containerd and kubelet.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::network;
use crate::cluster::addresses::{DNS, Node};
use crate::cluster::control_plane::KUBECONFIG;
use crate::cluster::layout::{TOOLS, WORK};
use crate::cluster::{cgroups, mounts};
use crate::{files, program};

/// The socket of containerd.
const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// Time limit for the start of containerd.
const START_LIMIT: Duration = Duration::from_mins(1);
/// The machine-wide settings that kubelet writes, and the values that it wants.
const SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Starts the programs of a node. Returns their names and process ids when kubelet has been started.
pub fn start(node: Node) -> Result<[(&'static str, Pid); 2]> {
    let (state, logs) = (directory("state", node), directory("logs", node));
    mount_all(&state, &logs)?;
    configure(&state, node)?;
    let containerd = spawn(&logs, "containerd", &["--config", &format!("{TOOLS}/containerd.toml")])?;
    wait_for_containerd()?;
    import_images()?;
    let addresses = format!("{},{}", node.v4(), node.v6());
    let labels = format!("topology.kubernetes.io/zone={}", node.zone());
    let configuration = state.join("kubelet.json").display().to_string();
    let kubelet = [
        ("--config", configuration.as_str()),
        ("--kubeconfig", KUBECONFIG),
        ("--hostname-override", &node.name()),
        ("--node-ip", &addresses),
        ("--node-labels", &labels),
        ("--v", "2"),
    ];
    let kubelet: Vec<&str> = kubelet.into_iter().flat_map(|(flag, value)| [flag, value]).collect();
    Ok([("containerd", containerd), ("kubelet", spawn(&logs, "kubelet", &kubelet)?)])
}

/// A directory of the node in `state` or `logs`.
fn directory(kind: &str, node: Node) -> PathBuf {
    Path::new(WORK).join(kind).join(node.name())
}

fn mount_all(state: &Path, logs: &Path) -> Result<()> {
    mounts::filesystem("proc", Path::new("/proc"), "")?;
    let hierarchies = cgroups::hierarchies()?;
    mounts::detach(Path::new("/sys"))?;
    mounts::filesystem("sysfs", Path::new("/sys"), "")?;
    mount_cgroups(&hierarchies)?;
    mounts::filesystem("bpf", Path::new("/sys/fs/bpf"), "mode=700")?;
    mounts::filesystem("tmpfs", Path::new("/run"), "mode=755")?;
    for (source, target) in [(state.join("var-lib"), "/var/lib"), (logs.join("var-log"), "/var/log")] {
        files::create(&source)?;
        mounts::bind(&source, Path::new(target))?;
    }
    hide_settings(state)?;
    // Mounts that kubelet makes for a pod, and those that a pod passes on, must be visible to both.
    mounts::make_shared()
}

/// Mounts the same hierarchies as on this machine. Each shows the node's cgroup as its root.
fn mount_cgroups(hierarchies: &[cgroups::Hierarchy]) -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    if hierarchies.iter().all(|hierarchy| hierarchy.path != root) {
        mounts::filesystem("tmpfs", root, "mode=755")?;
    }
    for hierarchy in hierarchies {
        files::create(&hierarchy.path)?;
        match &hierarchy.version_1 {
            Some(options) => mounts::filesystem("cgroup", &hierarchy.path, options)?,
            None => mounts::filesystem("cgroup2", &hierarchy.path, "")?,
        }
    }
    Ok(())
}

/// Mounts files over the machine-wide settings, so that kubelet does not change the machine.
fn hide_settings(state: &Path) -> Result<()> {
    let directory = state.join("settings");
    files::create(&directory)?;
    for (setting, value) in SETTINGS {
        let target = Path::new("/proc/sys").join(setting);
        if target.exists() {
            let file = directory.join(setting.replace('/', "-"));
            write(&file, value)?;
            mounts::bind(&file, &target)?;
        }
    }
    Ok(())
}

fn configure(state: &Path, node: Node) -> Result<()> {
    write(&state.join("resolv.conf"), &format!("nameserver {DNS}\n"))?;
    write(&state.join("kubelet.json"), &kubelet(&state.join("resolv.conf")).to_string())?;
    files::create(Path::new("/run/cni/configuration"))?;
    write(Path::new("/run/cni/configuration/pods.conflist"), &network::plugins(node).to_string())
}

/// The configuration of kubelet.
fn kubelet(resolv_conf: &Path) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        // A full disk or memory of this machine must not end pods.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
        // Kubelet 1.35 and newer refuse version 1 without this.
        "failCgroupV1": false,
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": false,
        "resolvConf": resolv_conf,
        // The default is below /usr.
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    })
}

fn wait_for_containerd() -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    while let Err(error) = UnixStream::connect(CONTAINERD) {
        ensure!(Instant::now() < deadline, "containerd does not listen on {CONTAINERD}: {error}");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn import_images() -> Result<()> {
    let images = Path::new(TOOLS).join("images");
    let entries = fs::read_dir(&images).with_context(|| format!("failed to list {}", images.display()))?;
    let archives = entries.flatten().map(|entry| entry.path());
    for archive in archives.filter(|path| path.extension().is_some_and(|extension| extension == "tar")) {
        program::output(Command::new("ctr").args(["--namespace", "k8s.io", "images", "import"]).arg(archive))?;
    }
    Ok(())
}

/// Starts a program with its output in `<name>.log`.
fn spawn(logs: &Path, name: &str, arguments: &[&str]) -> Result<Pid> {
    let path = logs.join(format!("{name}.log"));
    let log = File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
    let errors = log.try_clone().context("failed to duplicate a log's descriptor")?;
    let child = Command::new(name).args(arguments).stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
    let child = child.with_context(|| format!("failed to start {name}"))?;
    i32::try_from(child.id()).map(Pid::from_raw).context("the process id does not fit into 32 bits")
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("failed to write {}", file.display()))
}
