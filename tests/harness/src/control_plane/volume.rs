//! The files of a pod's service account, as a kubelet keeps them: one symbolic link is replaced, and all of them are others.
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

/// The link to the version in force.
const DATA: &str = "..data";
const TOKEN: &str = "token";

/// Mounts a volume where a pod has it, seen by nobody else, and becomes a program.
const IN_POD: &str = "mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount && \
                      mount --bind \"$1\" /run/secrets/kubernetes.io/serviceaccount && shift && exec \"$@\"";

/// What a service account's volume holds.
pub(super) struct Contents<'a> {
    pub(super) authority: &'a str,
    pub(super) namespace: &'a str,
    pub(super) token: &'a str,
}

/// A volume, and the port of the API server on this machine that it is for.
#[derive(Debug)]
pub struct Volume {
    directory: TempDir,
    api_port: u16,
    version: u32,
}

impl Volume {
    /// One that is there for as long as the result.
    pub(super) fn new(api_port: u16, contents: &Contents<'_>) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("portmap-service-account-").tempdir()?;
        let mut volume = Self { directory, api_port, version: 0 };
        for (name, _) in contents.files() {
            symlink(Path::new(DATA).join(name), volume.path().join(name)).context("failed to link a file of the volume")?;
        }
        volume.replace(contents)?;
        Ok(volume)
    }

    /// Puts others in the place of all files, at one moment.
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
        fs::rename(next, self.path().join(DATA)).context("failed to put the volume's next version in force")
    }

    /// The token in force.
    pub fn token(&self) -> Result<String> {
        fs::read_to_string(self.path().join(TOKEN)).context("failed to read the volume's token")
    }

    /// A program that finds the API server as in a pod: by its environment, and the files where a pod has them. Needs root.
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
