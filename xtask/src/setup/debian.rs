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

/// What a mirror has under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebianSuite {
    /// A release, or its backports.
    Release(&'static str),
    /// What the security team has for a release.
    Security(&'static str),
}

/// The release whose packages are new enough for what this machine's own release has too old.
pub const NEWEST: DebianSuite = DebianSuite::Release("forky");
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"];

impl DebianSuite {
    fn name(self) -> &'static str {
        match self {
            Self::Release(name) | Self::Security(name) => name,
        }
    }

    /// How apt's sources call the archive that has it.
    fn label(self) -> &'static str {
        match self {
            Self::Release(_) => "Debian",
            Self::Security(_) => "Debian-Security",
        }
    }
}

/// The package lists of some suites, until dropped.
pub struct Archive {
    dir: PathBuf,
    suites: String,
}

impl Archive {
    /// Downloads the lists of these suites.
    pub fn open(suites: &[DebianSuite]) -> Result<Self> {
        let sources = suites.iter().map(|suite| source(*suite)).collect::<Result<Vec<_>>>()?.concat();
        let names: Vec<_> = suites.iter().map(|suite| suite.name()).collect();
        let archive = Self { dir: workspace::tools_dir()?.join("debian"), suites: names.join(", ") };
        // What an interrupted set-up left; only one works here at a time.
        fs::remove_dir_all(&archive.dir).ok();
        archive.configure(&sources).with_context(|| format!("failed to prepare {}", archive.dir.display()))?;
        let update = program::run(archive.apt("apt-get").args(["-q", "update"]));
        update.with_context(|| format!("failed to download the package lists of Debian {}", archive.suites))?;
        Ok(archive)
    }

    fn configure(&self, sources: &str) -> Result<()> {
        fs::create_dir_all(self.dir.join("lists/partial"))?;
        fs::create_dir_all(self.dir.join("cache/archives/partial"))?;
        fs::write(self.dir.join("status"), "")?;
        fs::write(self.dir.join("sources.list"), sources)?;
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

    /// The names of all packages that begin like this.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = program::output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Unpacks the newest package of this name whose version begins with `series` into `dir`.
    pub fn unpack(&self, package: &str, series: &str, dir: &Path) -> Result<()> {
        let table = program::output(self.apt("apt-cache").args(["madison", package]))?;
        let Some(version) = matching(&table, series) else {
            let offered = matching(&table, "").unwrap_or("none");
            bail!("Debian {} has no {package} {series}* (but {offered})", self.suites);
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

/// A line for apt's list of sources.
fn source(suite: DebianSuite) -> Result<String> {
    let keyring = KEYRINGS.into_iter().find(|path| Path::new(path).exists());
    let signed_by = keyring.map(|path| format!(" signed-by={path}")).unwrap_or_default();
    Ok(format!("deb [target=Packages{signed_by}] {} {} main\n", mirror(suite.label())?, suite.name()))
}

/// Where this machine's apt gets the archive of this label from.
fn mirror(label: &str) -> Result<String> {
    if program::find("apt-get").is_none() || program::find("dpkg-deb").is_none() {
        bail!("Debian's packages need apt, which this machine does not have");
    }
    if let Some(mirror) = known_mirror(label)? {
        return Ok(mirror);
    }
    // apt can tell whose a source is only once its lists were downloaded.
    apt::update().context("failed to learn this machine's Debian mirror")?;
    known_mirror(label)?
        .with_context(|| format!("no {label} mirror among the sources in /etc/apt (only Debian itself has a fitting package)"))
}

fn known_mirror(label: &str) -> Result<Option<String>> {
    let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
    let targets =
        program::output(program::command("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    let prefix = format!("Debian|{label}|");
    Ok(targets.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned))
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
