//! Builds the suites as programs, with `cargo test --no-run`.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use crate::workspace;

/// The program of a suite.
#[derive(Debug, PartialEq, Eq)]
pub struct SuiteBinary {
    /// The suite's name, which is the name of its directory.
    pub name: String,
    /// The path of the program.
    pub path: PathBuf,
}

/// Builds the suites of these names in release mode, and returns their programs.
pub fn build(names: &[&str]) -> Result<Vec<SuiteBinary>> {
    let mut cargo = workspace::cargo();
    cargo.arg("test").args(workspace::SELECTION).args(["--no-run", "--color", "never"]);
    cargo.args(names.iter().flat_map(|name| ["--test", name]));
    let output = cargo.stdin(Stdio::null()).stdout(Stdio::null()).output().context("failed to start cargo test")?;
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "failed to build the suites:\n{messages}");
    Ok(messages.lines().filter_map(parse).collect())
}

/// Parses a line such as `  Executable tests/sockets/main.rs (target/release/deps/sockets-0123456789abcdef)`.
fn parse(line: &str) -> Option<SuiteBinary> {
    let (source, path) = line.trim_start().strip_prefix("Executable ")?.split_once(" (")?;
    let name = source.strip_prefix("tests/")?.strip_suffix("/main.rs")?;
    Some(SuiteBinary { name: name.to_owned(), path: workspace::root().join(path.strip_suffix(')')?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_suites_are_parsed_from_cargos_messages() {
        let suite = parse("  Executable tests/sockets/main.rs (target/release/deps/sockets-0123)")
            .map(|suite| (suite.name, suite.path));
        assert_eq!(suite, Some(("sockets".into(), workspace::root().join("target/release/deps/sockets-0123"))));
        assert_eq!(parse("  Executable unittests src/lib.rs (target/release/deps/portmap-0123)"), None);
        assert_eq!(parse("    Finished `release` profile [optimized] target(s) in 0.52s"), None);
    }
}
