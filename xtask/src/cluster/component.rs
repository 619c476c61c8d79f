//! A program of the cluster as a child process, with its output in a log.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::interruption::Interruption;

/// Time limit until a program is ready. A busy machine with two processors needed 20 s.
const START_LIMIT: Duration = Duration::from_mins(2);
/// Number of log lines in an error.
const TAIL_LINES: usize = 20;

/// A running program. The enclosure ends it.
#[derive(Debug)]
pub struct Component {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Component {
    /// Starts a program with its output in `<name>.log`, in the directory `logs`.
    pub fn spawn(name: &str, command: &mut Command, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
        let errors = output.try_clone().context("failed to duplicate a log's descriptor")?;
        let child = command.stdout(output).stderr(errors).spawn().with_context(|| format!("failed to start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Fails with the end of the log if the program has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait().with_context(|| format!("failed to get the status of {}", self.name))? {
            Some(status) => bail!("{} ended ({status}); {}", self.name, self.tail()),
            None => Ok(()),
        }
    }

    /// Repeats `probe` until it succeeds. Fails if the program ends, or after [`START_LIMIT`].
    pub fn ready(&mut self, interruption: &Interruption, probe: impl Fn() -> Result<()>) -> Result<()> {
        let mut ended = None;
        let result = interruption.until(START_LIMIT, || {
            if let Err(error) = self.check() {
                ended = Some(error);
                return Ok(());
            }
            probe()
        });
        ended
            .map_or(result, Err)
            .with_context(|| format!("{} does not become ready; its log: {}", self.name, self.log.display()))
    }

    fn tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        format!("{} ends with:\n{end}", self.log.display())
    }
}
