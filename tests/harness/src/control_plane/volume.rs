//! The files of a pod's service account, in the layout of a kubelet. Replacing one symbolic link changes all files at once.
//!
//! ```text
//! ca.crt, namespace, token → ..data/…
//! ..data                   → ..2
//! ```

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// The symbolic link to the directory of the current version.
const DATA: &str = "..data";
const TOKEN: &str = "token";

/// Shell script that mounts the volume at its path in a pod, in a private mount namespace, and executes a program.
const IN_POD: &str = "mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount && \
                      mount --bind \"$1\" /run/secrets/kubernetes.io/serviceaccount && shift && exec \"$@\"";

/// The contents of a service account's volume.
pub(super) struct Contents<'a> {
    pub(super) authority: &'a str,
    pub(super) namespace: &'a str,
    pub(super) token: &'a str,
}

/// A service account's volume. Dropping this removes its directory.
#[derive(Debug)]
pub struct Volume {
    directory: TempDir,
    /// The port of the API server on 127.0.0.1.
    api_port: u16,
    /// Number of the current version, from 1.
    version: u32,
}

impl Volume {
    /// Makes the directory of a volume with these contents, in version 1.
    pub(super) fn new(api_port: u16, contents: &Contents<'_>) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("portmap-service-account-").tempdir()?;
        let mut volume = Self { directory, api_port, version: 0 };
        for (name, _) in contents.files() {
            symlink(Path::new(DATA).join(name), volume.path().join(name)).context("failed to link a file of the volume")?;
        }
        volume.replace(contents)?;
        Ok(volume)
    }

    /// Writes the contents as a new version, and replaces all files at the same moment.
    pub(super) fn replace(&mut self, contents: &Contents<'_>) -> Result<()> {
        self.version += 1;
        let version = format!("..{}", self.version);
        let directory = self.path().join(&version);
        fs::create_dir(&directory).with_context(|| format!("failed to make {}", directory.display()))?;
        for (name, text) in contents.files() {
            fs::write(directory.join(name), text).with_context(|| format!("failed to write the volume's {name}"))?;
        }
        let next = self.path().join("..data_tmp");
        symlink(version, &next).context("failed to link the volume's next version")?;
        fs::rename(next, self.path().join(DATA)).context("failed to replace the volume's current version")
    }

    /// Reads the token of the current version.
    pub fn token(&self) -> Result<String> {
        fs::read_to_string(self.path().join(TOKEN)).context("failed to read the volume's token")
    }

    /// A command that finds the API server as in a pod: by environment variables, and by the files at their usual path. Needs
    /// root.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", IN_POD, "sh"]).arg(self.path());
        command.args(["env", "KUBERNETES_SERVICE_HOST=127.0.0.1"]).arg(format!("KUBERNETES_SERVICE_PORT={}", self.api_port));
        command.arg(program);
        command
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Contents<'_> {
    fn files(&self) -> [(&'static str, &str); 3] {
        [("ca.crt", self.authority), ("namespace", self.namespace), (TOKEN, self.token)]
    }
}
