//! Sets up the namespaces around the cluster, from inside.

use std::env;
use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};

use super::BRIDGE;
use crate::cluster::addresses::{CONTROL_PLANE, CONTROL_PLANE_V6};
use crate::cluster::layout::{INSIDE, Layout};
use crate::cluster::{mounts, network};
use crate::{files, workspace};

/// Mounts the cluster's directories and makes the network of the nodes.
pub fn run() -> Result<()> {
    mounts::make_private()?;
    mount_directories()?;
    mounts::filesystem("proc", Path::new("/proc"), "")?;
    make_network()
}

/// Mounts the cluster's directories at [`INSIDE`], a /tmp that has nothing but the workspace if it lies there, and the rest of the
/// root file system read-only.
///
/// The directories of this workspace may themselves be below one of these paths, so they are first joined elsewhere.
fn mount_directories() -> Result<()> {
    let layout = Layout::new()?;
    let joined = layout.work.join("inside");
    files::create(&joined)?;
    let program = env::current_exe().context("failed to get the path of this program")?;
    mounts::filesystem("tmpfs", &joined, "mode=755")?;
    let workspace = workspace::root();
    for (name, source) in [("tools", &*layout.tools), ("work", &*layout.work), ("workspace", workspace)] {
        files::create(&joined.join(name))?;
        mounts::bind(source, &joined.join(name))?;
    }
    File::create(joined.join("xtask")).context("failed to create a file")?;
    mounts::bind(&program, &joined.join("xtask"))?;
    mount(Some(&joined), INSIDE, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("failed to mount the cluster's directories at {INSIDE}"))?;
    let temporary = Path::new("/tmp");
    mounts::filesystem("tmpfs", temporary, "mode=1777")?;
    if workspace.starts_with(temporary) {
        files::create(workspace)?;
        mounts::bind(&Path::new(INSIDE).join("workspace"), workspace)?;
        mounts::make_read_only(workspace)?;
    }
    mounts::make_read_only(Path::new("/"))
}

fn make_network() -> Result<()> {
    network::configure(&format!(
        "link set lo up\n\
         link add {BRIDGE} type bridge\n\
         addr add {CONTROL_PLANE}/24 dev {BRIDGE}\n\
         addr add {CONTROL_PLANE_V6}/64 dev {BRIDGE} nodad\n\
         link set {BRIDGE} up\n"
    ))?;
    network::forward()
}
