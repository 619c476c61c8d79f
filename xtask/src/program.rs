//! Finds and runs other programs.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// Directories of `ip`, `nft` and `bpftool` in Debian, which are not on every user's PATH.
const SYSTEM_DIRS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The search path for programs: this workspace's own tools, PATH, cargo's programs and the system directories.
pub fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = own_tools().into_iter().chain(env::split_paths(&path)).collect();
    for dir in cargo_home().map(|home| home.join("bin")).into_iter().chain(SYSTEM_DIRS.map(PathBuf::from)) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    env::join_paths(dirs).unwrap_or(path)
}

/// The directory of cargo's downloads and installed programs.
pub fn cargo_home() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}

/// The directories of the programs that the set-up unpacked for this workspace: Go, if the system had no suitable package, and
/// promtool. Those that do not exist are left out.
fn own_tools() -> Vec<PathBuf> {
    let Ok(tools) = workspace::tools_dir() else { return Vec::new() };
    ["go/bin", "promtool/bin"].map(|dir| tools.join(dir)).into_iter().filter(|dir| dir.is_dir()).collect()
}

/// The path of the program `name` on [`search_path`], if it is installed.
pub fn find(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// A command that starts the program `name` from [`search_path`]. Its environment has the same path for its child processes.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", search_path());
    command
}

/// Runs a command to its end. Fails if the command fails. Its output goes to standard error, because standard output is for the
/// results of this program.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = describe(command);
    let status = command.stdout(Stdio::from(io::stderr())).status().with_context(|| format!("failed to start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// Runs a command to its end and returns its standard output. If the command fails, the error has the first non-empty line of
/// its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = describe(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("failed to start `{shown}`"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let reason = errors.lines().find(|line| !line.trim().is_empty()).unwrap_or("it printed no error");
        bail!("`{shown}` failed ({}): {}", output.status, reason.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command line as text.
fn describe(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Whether the effective user of this process is root.
pub fn is_root() -> bool {
    // The line is "Uid: real effective saved filesystem".
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uids.and_then(|uids| uids.split_whitespace().nth(1)) == Some("0")
}

/// The first dotted number in `text`: `[1, 26, 8]` in `go version go1.26.8 linux/amd64`. `None` without digits.
pub fn version(text: &str) -> Option<Vec<u32>> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let digits = text[start..].split(|c: char| !(c.is_ascii_digit() || c == '.')).next()?;
    digits.split('.').filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_out_of_what_programs_print() {
        assert_eq!(version("go version go1.26.8 linux/amd64"), Some(vec![1, 26, 8]));
        assert_eq!(version("bpf-linker 0.10.4\n"), Some(vec![0, 10, 4]));
        assert_eq!(version("1.97.0-nightly"), Some(vec![1, 97, 0]));
        assert_eq!(version("1.97.1+dfsg1-1"), Some(vec![1, 97, 1]));
        assert_eq!(version("devel"), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("go1.26.8") >= version("1.26.0"));
        assert!(version("go1.9") < version("1.21"));
        assert!(version("nonsense") < version("1"));
    }

    #[test]
    fn a_failure_names_the_command_and_its_reason() {
        let error =
            output(Command::new("sh").args(["-c", "echo; echo no luck >&2; exit 3"])).map_err(|error| error.to_string());
        assert_eq!(error, Err("`sh -c echo; echo no luck >&2; exit 3` failed (exit status: 3): no luck".into()));
    }
}
