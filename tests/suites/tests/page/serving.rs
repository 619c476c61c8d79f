//! A running `portmap page` on a node, and its events.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use portmap_harness::agent::Agent;
use portmap_harness::patience::patience;
use portmap_harness::world::{World, program};
use portmap_suites::command;
use serde_json::Value;

/// The time limit of each wait, before scaling by [`patience`].
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running command. Dropping it kills the process.
pub struct Page {
    child: Child,
    /// The address of the page, with a slash at its end.
    pub url: String,
}

impl Page {
    /// Serves the page for the manifests and the tables of a node.
    pub fn start(world: &World) -> Result<Self> {
        let mut command = world.command(program::find("portmap")?);
        command.args(["page", "--port", "0", "--node-name", "node", "--manifests"]).arg(Agent::manifests(world));
        command.arg("--bpffs").arg(world.bpffs());
        let mut child = command.stdout(Stdio::piped()).spawn().context("failed to run portmap")?;
        let lines = command::lines(child.stdout.take().context("no standard output")?);
        let line = lines.recv_timeout(patience(PATIENCE)).context("the page does not start")?;
        let url = line.split([' ', ';']).find(|word| word.starts_with("http://")).context("no address")?.to_owned();
        Ok(Self { child, url })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The events of an open page. Dropping it closes the connection.
pub struct Events {
    curl: Child,
    lines: Receiver<String>,
}

impl Events {
    /// Reads the events for a search.
    pub fn open(world: &World, page: &Page, query: &str) -> Result<Self> {
        let mut command: Command = world.command("curl");
        command.args(["--silent", "--no-buffer", &format!("{}events?q={query}", page.url)]);
        let mut curl = command.stdout(Stdio::piped()).spawn().context("failed to run curl")?;
        let lines = command::lines(curl.stdout.take().context("no standard output")?);
        Ok(Self { curl, lines })
    }

    /// Waits for an event of this name with data that `find` accepts.
    pub fn wait<T>(&self, name: &str, find: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let (mut event, mut last) = (String::new(), Value::Null);
        let end = std::time::Instant::now() + patience(PATIENCE);
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else { bail!("no such event {name}; the last one was {last}") };
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut event);
            } else if let Some(data) = line.strip_prefix("data: ").filter(|_| event == name) {
                last = serde_json::from_str(data)?;
                if let Some(found) = find(&last) {
                    return Ok(found);
                }
            }
        }
    }

    /// Waits until the page has this Service with HTML that contains `text`.
    pub fn wait_for(&self, service: &str, text: &str) -> Result<()> {
        let id = format!("service/{service}");
        self.wait("services", |data| {
            let mut items = data["services"].as_array()?.iter();
            items.find(|item| item["id"] == *id && item["html"].as_str().is_some_and(|html| html.contains(text))).map(drop)
        })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.curl.kill().ok();
        self.curl.wait().ok();
    }
}
