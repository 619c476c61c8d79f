//! Manifests that another program writes while the agent reads them.

use std::fs::{self, File};
use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::{DNS, WEB, start, text};
use crate::site::{Agent, Site};

/// With `kubectl get services -o yaml > services.yaml`, the shell truncates the file first, and kubectl writes it later.
#[test]
fn an_empty_file_waits_for_its_writer() -> Result<()> {
    let (site, _agent) = start("written")?;
    let mut file = File::create(site.manifests().join("web.yaml"))?;
    // The agent gets notifications in order: the Service of the second file shows that it has noticed the change of the first.
    // It does not read the first soon, because the file is still open.
    site.write("dns.yaml", &text(DNS))?;
    site.await_services(&[WEB, DNS])?;
    file.write_all(text(("10.96.0.11", "web")).as_bytes())?;
    drop(file);
    site.await_services(&[("10.96.0.11", "web"), DNS])
}

/// Writes `text` in pieces of 16 bytes. Before the last piece, the tables must still have the Services `expected`.
fn write_slowly(site: &Site, text: &str, expected: &[(&str, &str)], mut write: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, next) = rest.split_at(rest.len().min(16));
        write(piece)?;
        rest = next;
        if !rest.is_empty() {
            let services: Vec<String> = site.services()?.into_values().collect();
            let names: Vec<String> = expected.iter().map(|(_, name)| format!("default/{name}")).collect();
            ensure!(services == names, "{rest:?} is not written yet, but the tables hold {services:?} instead of {names:?}");
        }
    }
    Ok(())
}

#[test]
fn a_slow_writer_removes_no_service() -> Result<()> {
    let site = Site::new("slow")?;
    let both = format!("{}---\n{}", text(WEB), text(DNS));
    site.write("all.yaml", &both)?;
    let _agent = site.start()?;
    let path = site.manifests().join("all.yaml");
    let next = both.replace("port: 80", "port: 80, name: http");
    // A writer that keeps the file open.
    let mut file = File::create(&path)?;
    write_slowly(&site, &next, &[WEB, DNS], |piece| Ok(file.write_all(piece.as_bytes())?))?;
    drop(file);
    site.await_services(&[WEB, DNS])?;
    // A writer that opens the file for each piece.
    let swapped = both.replace("name: web", "name: other");
    fs::write(&path, "")?;
    write_slowly(&site, &swapped, &[WEB, DNS], |piece| {
        Ok(File::options().append(true).open(&path)?.write_all(piece.as_bytes())?)
    })?;
    site.await_services(&[(WEB.0, "other"), DNS])?;
    // A deliberate removal is applied, also if the file is changed in place.
    fs::write(&path, text(DNS))?;
    site.await_services(&[DNS])
}

/// Number of times that the agent's threads waited, by their voluntary context switches.
fn wakes(agent: &Agent) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{}/task", agent.pid()))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += line.context("no count of context switches")?.trim().parse::<u64>()?;
    }
    Ok(sum)
}

#[test]
fn a_log_file_beside_the_manifests_does_not_wake_the_agent() -> Result<()> {
    const LINES: u32 = 20_000;
    let (site, agent) = start("log")?;
    let start = Instant::now();
    let before = wakes(&agent)?;
    for path in [site.manifests().join("agent.log"), site.world.directory().join("agent.log")] {
        let mut log = File::create(path)?;
        for number in 0..LINES {
            writeln!(log, "line {number}")?;
        }
    }
    // The agent still applies changes afterwards.
    site.write("dns.yaml", &text(DNS))?;
    site.await_services(&[WEB, DNS])?;
    let woken = wakes(&agent)? - before;
    // The allowance covers the agent's periodic work and the change.
    let allowed = 1_000 + 200 * start.elapsed().as_secs();
    ensure!(woken < allowed, "the agent was woken {woken} times, and {allowed} times are allowed");
    Ok(())
}
