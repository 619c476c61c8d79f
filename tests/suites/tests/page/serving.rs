//! `portmap page` on a node, and the events of an open page.

use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context as _, Result};
use portmap_harness::agent::Agent;
use portmap_harness::patience::patience;
use portmap_harness::running::Running;
use portmap_harness::world::{World, program};
use portmap_suites::command;
use portmap_suites::page::Page;
use serde_json::Value;

/// The time limit of each wait, before scaling by [`patience`].
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Serves the page for the manifests and the tables of a node.
pub fn start(world: &World) -> Result<Page> {
    let (manifests, bpffs) = (Agent::manifests(world).display().to_string(), world.bpffs().display().to_string());
    let arguments = ["--node-name", "node", "--manifests", &manifests, "--bpffs", &bpffs];
    Page::start(world.command(program::find("portmap")?), &arguments)
}

/// The events of an open page. Dropping it closes the connection.
pub struct Events {
    _curl: Running,
    lines: Receiver<String>,
}

impl Events {
    /// Reads the events for a search.
    pub fn open(world: &World, page: &Page, query: &str) -> Result<Self> {
        let mut command: Command = world.command("curl");
        command.args(["--silent", "--no-buffer", &format!("{}events?q={query}", page.url)]);
        let mut curl = Running(command.stdout(Stdio::piped()).spawn().context("failed to run curl")?);
        let lines = command::lines(curl.stdout.take().context("no standard output")?);
        Ok(Self { _curl: curl, lines })
    }

    /// Waits for an event of this name with data that `find` accepts.
    pub fn wait<T>(&self, name: &str, find: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let (mut event, mut last) = (String::new(), Value::Null);
        let found = command::find(&self.lines, patience(PATIENCE), |line| {
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut event);
                return None;
            }
            let data = line.strip_prefix("data: ").filter(|_| event == name)?;
            match serde_json::from_str(data) {
                Ok(data) => last = data,
                Err(error) => return Some(Err(error)),
            }
            find(&last).map(Ok)
        });
        Ok(found.with_context(|| format!("no such event {name}; the last one was {last}"))??)
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
