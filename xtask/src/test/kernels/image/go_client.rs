//! Builds the Go client of the suite `sockets`. It is built on this machine, because the ramdisk has no Go.

use std::path::Path;

use anyhow::Result;

use super::RootDirectory;
use crate::{program, workspace};

const SOURCE: &str = "tests/suites/tests/sockets/clients/main.go";
/// The path of the client in the ramdisk. The suite uses it instead of building the client.
const CLIENT: &str = "/portmap/portmap-go-client";

/// Builds the client, statically linked and only with the standard library. Without Go the client is left out, and its test
/// fails in the virtual machine.
pub(super) fn add(root: &RootDirectory) -> Result<()> {
    if program::find("go").is_none() {
        return Ok(());
    }
    let mut build = program::command("go");
    build.args(["build", "-o"]).arg(root.inside(Path::new(CLIENT))).arg(workspace::root().join(SOURCE));
    build.envs([("CGO_ENABLED", "0"), ("GO111MODULE", "off"), ("GOFLAGS", "")]);
    program::run(&mut build)
}
