//! Runs the command `portmap`, and returns its exit code and output.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};
use portmap_harness::world::program;
use tempfile::TempDir;

/// The time limit of commands that run by [`in_time`], and of waits for an agent.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Environment variables that change the behaviour or the output of the command.
const VARIABLES: [&str; 5] = ["NODE_NAME", "NO_COLOR", "RUST_LOG", "KUBECONFIG", "TERM"];

/// The path of the command under test.
pub fn binary() -> Result<PathBuf> {
    program::find("portmap").context("build the command first: cargo build --release -p portmap")
}

/// Runs the command on this machine. Only for subcommands that attach nothing.
pub fn portmap(arguments: &[&str]) -> Result<Outcome> {
    finish(in_time(Command::new("timeout"))?.args(arguments))
}

/// Completes a command that ends in `timeout`: adds the time limit and the path of portmap.
pub fn in_time(mut timeout: Command) -> Result<Command> {
    timeout.args(["--signal=KILL", &PATIENCE.as_secs().to_string()]).arg(binary()?);
    Ok(timeout)
}

/// Runs a command to its end.
pub fn finish(command: &mut Command) -> Result<Outcome> {
    finish_with_input(command, "")
}

/// Runs a command with this standard input until it ends.
pub fn finish_with_input(command: &mut Command, input: &str) -> Result<Outcome> {
    clean(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("failed to run {command:?}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    // A command that does not read its input may end before all of it is written.
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()).ok());
        child.wait_with_output()
    })?;
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let outcome = Outcome { code: output.status.code(), stdout, stderr };
    ensure!(!outcome.stderr.contains("panicked"), "{command:?} panicked: {outcome:?}");
    Ok(outcome)
}

/// The first result of `find` for a received message; none within the time limit, and after the last message.
pub fn find<M, T>(messages: &Receiver<M>, limit: Duration, mut find: impl FnMut(M) -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        let message = messages.recv_timeout(end.saturating_duration_since(Instant::now())).ok()?;
        if let Some(found) = find(message) {
            return Some(found);
        }
    }
}

/// The lines of a command's output. A thread reads them, so that the command never waits for the test.
pub fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

/// Removes [`VARIABLES`] from the environment of a command.
pub fn clean(command: &mut Command) -> &mut Command {
    VARIABLES.iter().fold(command, |command, variable| command.env_remove(variable))
}

/// Exit code and output of a command.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output, with replacements for bytes that are not UTF-8.
    pub stdout: String,
    /// Standard error, as `stdout`.
    pub stderr: String,
}

impl Outcome {
    /// Fails if the exit code differs.
    pub fn expect(self, code: i32) -> Result<Self> {
        ensure!(self.code == Some(code), "the exit code should be {code}: {self:#?}");
        Ok(self)
    }

    /// Fails unless the exit code is 3 and standard error has one line, the error, which contains all parts. Ignores lines of
    /// level INFO. Fails if there is any standard output.
    pub fn expect_error(self, parts: &[&str]) -> Result<()> {
        let outcome = self.expect(3)?;
        let errors: Vec<&str> = outcome.stderr.lines().filter(|line| !line.contains(" INFO ")).collect();
        let says_all = errors.iter().all(|line| line.starts_with("error: ") && parts.iter().all(|part| line.contains(part)));
        ensure!(errors.len() == 1 && says_all, "expected one line with {parts:?}: {outcome:#?}");
        ensure!(outcome.stdout.is_empty(), "expected no output: {outcome:#?}");
        Ok(())
    }
}

/// Whether an environment variable asks to rewrite expected texts: it is 1.
pub fn is_update(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}

/// A copy of the command that every user may run.
pub fn public_copy() -> Result<(TempDir, PathBuf)> {
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let copy = directory.path().join("portmap");
    fs::copy(binary()?, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok((directory, copy))
}

/// Completes a `setpriv` command, so that it runs `portmap` as a user without privileges.
pub fn as_nobody(mut setpriv: Command, portmap: &PathBuf) -> Command {
    setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(portmap);
    setpriv
}
