//! The directories of the cluster's files, on this machine and inside the cluster's namespaces.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::{files, workspace};

/// The directory inside the namespaces over which everything below is mounted.
pub const INSIDE: &str = "/mnt";
/// [`Layout::tools`] inside the namespaces.
pub const TOOLS: &str = "/mnt/tools";
/// [`Layout::work`] inside the namespaces.
pub const WORK: &str = "/mnt/work";
/// This program inside the namespaces.
pub const XTASK: &str = "/mnt/xtask";

/// The search path for programs inside the namespaces. It begins with the programs of Kubernetes and of the container runtime.
pub const SEARCH_PATH: &str =
    "/mnt/tools/bin:/mnt/tools/debian/runtime/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The directories of the cluster on this machine.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Programs, packages and images. They stay for the next cluster.
    pub tools: PathBuf,
    /// The files of one cluster: `state`, which is removed with the cluster, and `logs`, which stay until the next one.
    pub work: PathBuf,
}

impl Layout {
    /// The directories of this workspace. Creates them.
    pub fn new() -> Result<Self> {
        let layout = Self { tools: workspace::tools_dir()?.join("cluster"), work: workspace::target_dir()?.join("cluster") };
        for directory in [layout.bin(), layout.images(), layout.work.clone()] {
            files::create(&directory)?;
        }
        Ok(layout)
    }

    /// The programs that are built from source.
    pub fn bin(&self) -> PathBuf {
        self.tools.join("bin")
    }

    /// The unpacked packages of Debian.
    pub fn debian(&self) -> PathBuf {
        self.tools.join("debian")
    }

    /// The images that each node imports, as archives.
    pub fn images(&self) -> PathBuf {
        self.tools.join("images")
    }

    /// The data of the cluster's programs.
    pub fn state(&self) -> PathBuf {
        self.work.join("state")
    }

    /// The logs of the cluster's programs and pods.
    pub fn logs(&self) -> PathBuf {
        self.work.join("logs")
    }

    /// Takes the lock of the cluster's directory, and removes the files of the last cluster. Fails if another process of this
    /// workspace runs a cluster. Dropping the file releases the lock.
    pub fn occupy(&self) -> Result<File> {
        let path = self.work.join("lock");
        let lock = File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
        if lock.try_lock().is_err() {
            bail!("another process runs a cluster in {}; wait for its end", self.work.display());
        }
        for directory in [self.state(), self.logs()] {
            files::remove(&directory)?;
            files::create(&directory)?;
        }
        Ok(lock)
    }
}
