//! The client in Go that the suite of sockets runs: built here, as there is no Go in a machine.

use std::path::Path;

use anyhow::Result;

use super::RootDirectory;
use crate::{program, workspace};

const SOURCE: &str = "tests/suites/tests/sockets/clients/main.go";
/// Where the suite looks before it builds one itself.
const PLACE: &str = "/portmap/portmap-go-client";

/// Without libraries, and without any module but the standard library. Where there is no Go the client is left out, and its test says so.
pub(super) fn add(root: &RootDirectory) -> Result<()> {
    if program::find("go").is_none() {
        return Ok(());
    }
    let mut build = program::command("go");
    build.args(["build", "-o"]).arg(root.inside(Path::new(PLACE))).arg(workspace::root().join(SOURCE));
    build.envs([("CGO_ENABLED", "0"), ("GO111MODULE", "off"), ("GOFLAGS", "")]);
    program::run(&mut build)
}
