//! Single packages out of a newer Debian, unpacked into a directory instead of installed.
//!
//! apt works with a configuration, lists and cache of its own in a directory of this workspace: nothing under /etc/apt or /var is touched, and
//! no root is needed. The mirror is the one that this machine's own apt uses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::apt;
use crate::{program, workspace};

/// The release whose packages are new enough.
const SUITE: &str = "forky";
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"];

/// The package lists of [`SUITE`], until dropped.
pub struct Archive {
    dir: PathBuf,
}

impl Archive {
    /// Downloads the lists.
    pub fn open() -> Result<Self> {
        let mirror = mirror()?;
        let archive = Self { dir: workspace::tools_dir()?.join("debian") };
        // What an interrupted set-up left; only one works here at a time.
        fs::remove_dir_all(&archive.dir).ok();
        archive.configure(&mirror).with_context(|| format!("failed to prepare {}", archive.dir.display()))?;
        let update = program::run(archive.apt("apt-get").args(["-q", "update"]));
        update.with_context(|| format!("failed to download the package lists of Debian {SUITE}"))?;
        Ok(archive)
    }

    fn configure(&self, mirror: &str) -> Result<()> {
        fs::create_dir_all(self.dir.join("lists/partial"))?;
        fs::create_dir_all(self.dir.join("cache/archives/partial"))?;
        fs::write(self.dir.join("status"), "")?;
        let keyring = KEYRINGS.into_iter().find(|path| Path::new(path).exists());
        let signed_by = keyring.map(|path| format!(" signed-by={path}")).unwrap_or_default();
        fs::write(self.dir.join("sources.list"), format!("deb [target=Packages{signed_by}] {mirror} {SUITE} main\n"))?;
        fs::write(self.dir.join("apt.conf"), self.apt_conf())?;
        Ok(())
    }

    /// The rest of the configuration, such as proxies, is the machine's.
    fn apt_conf(&self) -> String {
        let dir = self.dir.display();
        // apt's unprivileged user cannot enter every directory, hence the sandbox.
        format!(
            "Dir::Etc::sourcelist \"{dir}/sources.list\";\nDir::Etc::sourceparts \"/dev/null\";\n\
             Dir::State::lists \"{dir}/lists\";\nDir::State::status \"{dir}/status\";\nDir::Cache \"{dir}/cache\";\n\
             APT::Sandbox::User \"root\";\n"
        )
    }

    /// A program of apt's that sees nothing but this archive.
    fn apt(&self, name: &str) -> Command {
        let mut apt = program::command(name);
        apt.env("APT_CONFIG", self.dir.join("apt.conf")).current_dir(&self.dir);
        apt
    }

    /// Unpacks the newest package of this name whose version begins with `series` into `dir`.
    pub fn unpack(&self, package: &str, series: &str, dir: &Path) -> Result<()> {
        let table = program::output(self.apt("apt-cache").args(["madison", package]))?;
        let Some(version) = matching(&table, series) else {
            let offered = matching(&table, "").unwrap_or("none");
            bail!("Debian {SUITE} has no {package} {series}* (but {offered})");
        };
        program::run(self.apt("apt-get").args(["-q", "download", &format!("{package}={version}")]))?;
        let file = self.downloaded(package)?;
        program::run(program::command("dpkg-deb").arg("-x").args([&file, dir]))
    }

    fn downloaded(&self, package: &str) -> Result<PathBuf> {
        let prefix = format!("{package}_");
        let mut entries = fs::read_dir(&self.dir).with_context(|| format!("failed to list {}", self.dir.display()))?.flatten();
        let found = entries.find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        Ok(found.with_context(|| format!("failed to find the downloaded {package}"))?.path())
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next one.
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// Where this machine's apt gets Debian itself from.
fn mirror() -> Result<String> {
    if program::find("apt-get").is_none() || program::find("dpkg-deb").is_none() {
        bail!("Debian's packages need apt, which this machine does not have");
    }
    if let Some(mirror) = known_mirror()? {
        return Ok(mirror);
    }
    // apt can tell whose a source is only once its lists were downloaded.
    apt::update().context("failed to learn this machine's Debian mirror")?;
    known_mirror()?.context("no Debian mirror among the sources in /etc/apt (only Debian itself has a fitting package)")
}

fn known_mirror() -> Result<Option<String>> {
    let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
    let targets =
        program::output(program::command("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    Ok(targets.lines().find_map(|line| line.strip_prefix("Debian|Debian|")).map(str::to_owned))
}

/// The first version that begins with `series` in what `apt-cache madison` prints: `package | version | source` in each line.
fn matching<'a>(table: &'a str, series: &str) -> Option<&'a str> {
    let versions = table.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim);
    versions.into_iter().find(|version| version.starts_with(series))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_decides_which_version() {
        let table = "  rust-src | 1.98.0+dfsg1-1 | http://mirror forky/main amd64 Packages\n  rust-src | 1.97.1+dfsg1-1 | http://mirror\n";
        assert_eq!(matching(table, "1.97."), Some("1.97.1+dfsg1-1"));
        assert_eq!(matching(table, "1.9."), None);
        assert_eq!(matching(table, ""), Some("1.98.0+dfsg1-1"));
        assert_eq!(matching("", ""), None);
    }
}
