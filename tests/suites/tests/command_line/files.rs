//! Manifests that are changed, replaced or deleted while the agent runs.

mod invalid;
mod links;
mod writers;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::site::{Agent, Site, replace, service};

const WEB: (&str, &str) = ("10.96.0.10", "web");

const DNS: (&str, &str) = ("10.96.0.53", "dns");

fn text((address, name): (&str, &str)) -> String {
    service(name, address)
}

/// Starts an agent with the Service `web` in one file. Returns when the tables have the Service.
fn start(name: &str) -> Result<(Site, Agent)> {
    let site = Site::new(name)?;
    site.write("web.yaml", &text(WEB))?;
    let agent = site.start()?;
    site.await_services(&[WEB])?;
    Ok((site, agent))
}

/// Replaces or creates a manifest atomically, by a rename.
fn exchange(site: &Site, file: &str, text: &str) -> Result<()> {
    let next = site.manifests().join(".next");
    fs::write(&next, text)?;
    replace(&next, &site.manifests().join(file))
}

/// Starts an agent on this path and waits until it has synced.
fn start_on(site: &Site, path: &Path) -> Result<Agent> {
    let mut agent = Agent::start(site.run(&["--manifests"])?.arg(path))?;
    agent.await_log("synced: ")?;
    Ok(agent)
}

#[test]
fn changed_files_are_applied() -> Result<()> {
    let (site, _agent) = start("changes")?;
    site.write("dns.yaml", &text(DNS))?;
    site.await_services(&[WEB, DNS])?;
    site.write("web.yaml", &text(("10.96.0.11", "web")))?;
    site.await_services(&[("10.96.0.11", "web"), DNS])?;
    // Some editors save by writing a new file and renaming it.
    site.write("web.yaml~", &text(("10.96.0.12", "web")))?;
    replace(&site.manifests().join("web.yaml~"), &site.manifests().join("web.yaml"))?;
    site.await_services(&[("10.96.0.12", "web"), DNS])
}

#[test]
fn a_deleted_file_removes_its_objects() -> Result<()> {
    let (site, _agent) = start("deleted")?;
    site.write("dns.yaml", &text(DNS))?;
    site.await_services(&[WEB, DNS])?;
    fs::remove_file(site.manifests().join("web.yaml"))?;
    site.await_services(&[DNS])?;
    // A file without the suffix of a manifest is ignored.
    replace(&site.manifests().join("dns.yaml"), &site.manifests().join("dns.yaml.disabled"))?;
    site.await_services(&[])
}

#[test]
fn a_single_file_is_followed_through_replacements() -> Result<()> {
    let site = Site::new("single")?;
    site.write("web.yaml", &text(WEB))?;
    let path = site.manifests().join("web.yaml");
    let mut agent = Agent::start(site.run(&["--manifests"])?.arg(&path))?;
    agent.await_log("synced: ")?;
    // The agent watches one file, and ignores others in its directory.
    site.write("dns.yaml", &text(DNS))?;
    site.write("web.yaml~", &text(("10.96.0.11", "web")))?;
    replace(&site.manifests().join("web.yaml~"), &path)?;
    site.await_services(&[("10.96.0.11", "web")])?;
    fs::remove_file(&path)?;
    site.await_services(&[])?;
    site.write("web.yaml", &text(WEB))?;
    site.await_services(&[WEB])
}

/// Some deployments unpack a new directory, and rename it to the name of the old one.
#[test]
fn a_replaced_directory_is_followed() -> Result<()> {
    let (site, _agent) = start("replaced")?;
    let next = site.world.directory().join("next");
    fs::create_dir(&next)?;
    fs::write(next.join("dns.yaml"), text(DNS))?;
    replace(&site.manifests(), &site.world.directory().join("previous"))?;
    replace(&next, &site.manifests())?;
    site.await_services(&[DNS])?;
    // Further changes in the new directory are followed too.
    site.write("web.yaml", &text(WEB))?;
    site.await_services(&[WEB, DNS])
}

#[test]
fn status_has_a_note_for_a_node_of_another_name() -> Result<()> {
    let site = Site::new("other-node")?;
    site.write("web.yaml", &text(WEB).replace("ports:", "internalTrafficPolicy: Local, ports:"))?;
    site.write("node.yaml", "{apiVersion: v1, kind: Node, metadata: {name: node-7}}")?;
    let _agent = site.start()?;
    let has_note = || -> Result<bool> {
        let health: Value = serde_json::from_str(&site.ask(&["status", "-o", "json"])?.expect(0)?.stdout)?;
        let notes = health["notes"].as_array().cloned().unwrap_or_default();
        Ok(notes.iter().any(|note| note.as_str().is_some_and(|note| note.contains("no Node of the agent's --node-name"))))
    };
    await_note(&has_note, true)?;
    site.write("node.yaml", "{apiVersion: v1, kind: Node, metadata: {name: node-1}}")?;
    await_note(&has_note, false)
}

fn await_note(has_note: &impl Fn() -> Result<bool>, expected: bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while has_note()? != expected {
        ensure!(Instant::now() < deadline, "expected the note of the status: {expected}");
    }
    Ok(())
}
