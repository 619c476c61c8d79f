//! `cargo xtask image`: the container image, with nothing in it but the program.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::architecture::{Architecture, Architectures};
use super::{VERSION, binary, directory, size, time};
use crate::oci::{Archive, Image};
use crate::screen::{Mark, Screen};
use crate::setup::{self, Purpose};
use crate::{files, program, workspace};

/// The program's path in the image. It is in PATH, so that `kubectl exec … -- portmap status` works.
const PROGRAM: &str = "usr/local/bin/portmap";

/// Build the container image for all architectures, without a daemon
///
/// The image has nothing but the statically linked program. Writes <target>/dist/portmap-VERSION-image.tar, an OCI image layout
/// with an index over the architectures. Two builds of one commit give the same digest. To load it: ctr images import, podman
/// load, or skopeo copy oci-archive:FILE docker://…
#[derive(clap::Args)]
pub struct ImageArgs {
    #[command(flatten)]
    architectures: Architectures,
    /// Name of the image in the archive
    #[arg(long, value_name = "NAME:TAG", default_value_t = name())]
    name: String,
    /// Archive to write [default: <target>/dist/portmap-VERSION-image.tar]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(args: &ImageArgs) -> Result<ExitCode> {
    setup::require(&[Purpose::Build, Purpose::Release])?;
    let programs = args.architectures.selected().iter().map(|architecture| Ok((*architecture, binary::build(*architecture)?)));
    let programs = programs.collect::<Result<Vec<_>>>()?;
    let default = directory()?.join(format!("portmap-{VERSION}-image.tar"));
    let archive = args.output.as_deref().unwrap_or(&default);
    let digest = pack(&programs, &args.name, archive)?;
    let bytes = fs::metadata(archive).with_context(|| format!("failed to look at {}", archive.display()))?.len();
    let about = format!("{digest}, {} for {} architectures", size(bytes), programs.len());
    Screen::Stdout.marked(Mark::Done, &archive.display().to_string(), &about);
    Ok(ExitCode::SUCCESS)
}

/// The name of the image in the chart of this version, without a registry.
pub fn name() -> String {
    format!("portmap:{VERSION}")
}

/// Packs one program for each architecture as the image with this name. Returns the digest of the index.
pub fn pack(programs: &[(Architecture, PathBuf)], name: &str, archive: &Path) -> Result<String> {
    let work = archive.with_extension("roots");
    files::remove(&work)?;
    let mut images = Vec::new();
    for (architecture, portmap) in programs {
        let root = work.join(architecture.name());
        let program = root.join(PROGRAM);
        files::copy(portmap, &program)?;
        fs::set_permissions(&program, Permissions::from_mode(0o755)).context("failed to set the mode of the program")?;
        let labels = json!({
            "org.opencontainers.image.title": "portmap",
            "org.opencontainers.image.description": "eBPF Service port translator for Kubernetes",
            "org.opencontainers.image.version": VERSION,
            "org.opencontainers.image.revision": revision(),
            "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
        });
        let settings = json!({"Entrypoint": ["portmap"], "Cmd": ["run"], "Labels": labels});
        images.push(Image { architecture: architecture.image_name(), layers: vec![root], settings });
    }
    let digest = Archive { names: &[name.to_owned()], images: &images, created: time()? }.pack(archive)?;
    files::remove(&work)?;
    Ok(digest)
}

/// The commit; empty without git.
fn revision() -> String {
    let mut git = program::command("git");
    let printed = program::output(git.args(["rev-parse", "HEAD"]).current_dir(workspace::root())).unwrap_or_default();
    printed.trim().to_owned()
}
