//! Downloads single packages of other Debian releases, and unpacks them into a directory instead of installing them.
//!
//! apt uses a separate configuration, lists and cache in a directory of this workspace. The mirror is that of this machine's
//! own apt. Root is needed only if the machine's own package lists must be downloaded first, to find the mirror.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::apt;
use crate::{program, workspace};

/// A suite of a Debian archive: a named set of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebianSuite {
    /// A release, or its backports.
    Release(&'static str),
    /// The security updates of a release.
    Security(&'static str),
}

/// The release for packages that are too old in this machine's own release.
pub const NEWEST: DebianSuite = DebianSuite::Release("forky");
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"];

impl DebianSuite {
    fn name(self) -> &'static str {
        match self {
            Self::Release(name) | Self::Security(name) => name,
        }
    }

    /// apt's label of the archive that has the suite.
    fn label(self) -> &'static str {
        match self {
            Self::Release(_) => "Debian",
            Self::Security(_) => "Debian-Security",
        }
    }
}

/// The package lists of some suites, in a directory `debian` of this workspace that is removed on drop. A process must have
/// only one at a time.
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
        // Removes the files of an interrupted process. The set-up holds its lock here; the download of kernels holds no lock.
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

    /// The apt configuration of this archive. Other settings, such as proxies, come from the machine's configuration.
    fn apt_conf(&self) -> String {
        let dir = self.dir.display();
        // The sandbox user is root, because apt's unprivileged user cannot enter every directory.
        format!(
            "Dir::Etc::sourcelist \"{dir}/sources.list\";\nDir::Etc::sourceparts \"/dev/null\";\n\
             Dir::State::lists \"{dir}/lists\";\nDir::State::status \"{dir}/status\";\nDir::Cache \"{dir}/cache\";\n\
             APT::Sandbox::User \"root\";\n"
        )
    }

    /// A command of `apt-get` or `apt-cache` that uses this archive only.
    fn apt(&self, name: &str) -> Command {
        let mut apt = program::command(name);
        apt.env("APT_CONFIG", self.dir.join("apt.conf")).current_dir(&self.dir);
        apt
    }

    /// The names of all packages of the suites that begin with `prefix`.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = program::output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads a package in the newest version that begins with `series`, and unpacks it into `dir`.
    pub fn unpack(&self, package: &str, series: &str, dir: &Path) -> Result<()> {
        let table = program::output(self.apt("apt-cache").args(["madison", package]))?;
        let Some(version) = matching(&table, series) else {
            let newest = matching(&table, "").unwrap_or("none");
            bail!("Debian {} has no {package} {series}*; its newest version is {newest}", self.suites);
        };
        program::run(self.apt("apt-get").args(["-q", "download", &format!("{package}={version}")]))?;
        extract(&self.downloaded(package)?, dir)
    }

    /// Downloads packages in their newest versions with all packages that they depend on, and unpacks them into `dir`. Their
    /// installation scripts do not run.
    pub fn unpack_with_dependencies(&self, packages: &[&str], dir: &Path) -> Result<()> {
        let mut download = self.apt("apt-get");
        download.args(["-q", "-y", "--no-install-recommends", "--download-only", "install"]).args(packages);
        program::run(&mut download).with_context(|| format!("failed to download packages of Debian {}", self.suites))?;
        packages_in(&self.dir.join("cache/archives"))?.iter().try_for_each(|file| extract(file, dir))
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
        // If this fails, the next `open` removes the directory.
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// The package files in a directory.
pub(super) fn packages_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("failed to list {}", dir.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect())
}

/// Unpacks a package file into `dir`.
pub(super) fn extract(file: &Path, dir: &Path) -> Result<()> {
    program::run(program::command("dpkg-deb").arg("-x").args([file, dir]))
}

/// The line of a suite for apt's list of sources.
fn source(suite: DebianSuite) -> Result<String> {
    let keyring = KEYRINGS.into_iter().find(|path| Path::new(path).exists());
    let signed_by = keyring.map(|path| format!(" signed-by={path}")).unwrap_or_default();
    Ok(format!("deb [target=Packages{signed_by}] {} {} main\n", mirror(suite.label())?, suite.name()))
}

/// The URL of the mirror from which this machine's apt gets the archive of this label. Fails if apt has no source of this
/// label.
fn mirror(label: &str) -> Result<String> {
    if program::find("apt-get").is_none() || program::find("dpkg-deb").is_none() {
        bail!("apt-get or dpkg-deb is missing, and Debian's packages need both");
    }
    if let Some(mirror) = known_mirror(label)? {
        return Ok(mirror);
    }
    // apt knows the label of a source only after the download of its lists.
    apt::update().context("failed to find this machine's Debian mirror")?;
    known_mirror(label)?
        .with_context(|| format!("the sources in /etc/apt have no {label} mirror, and only Debian has a suitable package"))
}

fn known_mirror(label: &str) -> Result<Option<String>> {
    let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
    let targets =
        program::output(program::command("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    let prefix = format!("Debian|{label}|");
    Ok(targets.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned))
}

/// The newest version that begins with `series` in the output of `apt-cache madison`, whose lines are
/// `package | version | source` with the newest version first.
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
