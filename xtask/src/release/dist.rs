//! `cargo xtask dist`: an archive for each architecture, and checksums.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

use super::architecture::{Architecture, Architectures};
use super::{VERSION, bill, binary, directory, size, time};
use crate::screen::{Mark, Screen};
use crate::setup::{self, Purpose};
use crate::{files, oci, program, workspace};

/// The shells with completion scripts, and the name of each script.
const COMPLETIONS: [(&str, &str); 3] = [("bash", "portmap.bash"), ("fish", "portmap.fish"), ("zsh", "_portmap")];

/// The files of the workspace that an archive has.
const DOCUMENTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];

/// Build the release: a static program for each architecture, in archives
///
/// An archive has the program, completion scripts, manual pages, the licences of portmap and of all its dependencies, and the
/// bill of materials of these. Writes <target>/dist/portmap-VERSION-ARCH.tar.gz and SHA256SUMS. Two builds of one commit
/// give equal archives.
#[derive(clap::Args)]
pub struct DistArgs {
    #[command(flatten)]
    architectures: Architectures,
}

pub fn run(args: &DistArgs) -> Result<ExitCode> {
    setup::require(&[Purpose::Build, Purpose::Release])?;
    let directory = directory()?;
    let common = directory.join("common");
    files::remove(&common)?;
    files::create(&common)?;
    generate(&common)?;
    let mut archives = Vec::new();
    for architecture in args.architectures.selected() {
        archives.push(pack(*architecture, &common, &directory)?);
    }
    files::remove(&common)?;
    let sums =
        archives.iter().map(|archive| Ok(format!("{}  {}\n", sum(archive)?, name(archive)))).collect::<Result<String>>()?;
    files::write(&directory.join("SHA256SUMS"), &sums)?;
    for archive in &archives {
        let bytes = fs::metadata(archive)?.len();
        Screen::Stdout.marked(Mark::Done, &archive.display().to_string(), &size(bytes));
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the files that all archives have: documents, completion scripts, manual pages and licences.
fn generate(common: &Path) -> Result<()> {
    for document in DOCUMENTS {
        files::copy(&workspace::root().join(document), &common.join(document))?;
    }
    // Any architecture's program prints the same, and this machine runs its own.
    let portmap = binary::build(Architecture::own()?)?;
    let portmap = portmap.to_string_lossy();
    files::create(&common.join("completions"))?;
    for (shell, name) in COMPLETIONS {
        let script = program::output(program::command(&portmap).args(["completions", shell]))?;
        files::write(&common.join("completions").join(name), &script)?;
    }
    let pages = common.join("man/man1");
    files::create(&pages)?;
    program::run(program::command(&portmap).arg("man").arg("--dir").arg(&pages))?;
    bill::write(common)
}

/// Packs the archive of an architecture, and returns its path.
fn pack(architecture: Architecture, common: &Path, directory: &Path) -> Result<PathBuf> {
    let portmap = binary::build(architecture)?;
    let name = format!("portmap-{VERSION}-{}", architecture.name());
    let work = directory.join("partial");
    files::remove(&work)?;
    let root = work.join(&name);
    files::copy(&portmap, &root.join("portmap"))?;
    program::run(program::command("cp").arg("--recursive").arg(common.join(".")).arg(&root))?;
    program::run(program::command("chmod").args(["--recursive", "u=rwX,go=rX"]).arg(&work))?;
    let archive = directory.join(format!("{name}.tar"));
    oci::tar(&archive, &work, time()?)?;
    program::run(program::command("gzip").args(["--no-name", "--best", "--force"]).arg(&archive))?;
    files::remove(&work)?;
    Screen::Stderr.marked(Mark::Done, &format!("portmap for {}", architecture.name()), &size(fs::metadata(&portmap)?.len()));
    Ok(directory.join(format!("{name}.tar.gz")))
}

fn sum(file: &Path) -> Result<String> {
    Ok(oci::digest(file)?.trim_start_matches("sha256:").to_owned())
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
