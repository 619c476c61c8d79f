//! Manifests that become invalid while the agent runs.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::{DNS, WEB, exchange, start, text};
use crate::site::replace;

#[test]
fn an_invalid_file_keeps_its_last_good_content() -> Result<()> {
    let (site, mut agent) = start("invalid")?;
    // The file is replaced by a rename. Slow writers are tested in `writers`.
    site.write("web.yaml~", "a: [1, 2\nb: }\n")?;
    replace(&site.manifests().join("web.yaml~"), &site.manifests().join("web.yaml"))?;
    let warning = agent.await_log("WARN")?;
    assert!(warning.contains("web.yaml") && warning.contains("its last valid content stays"), "{warning}");
    // Other files are still applied.
    site.write("dns.yaml", &text(DNS))?;
    site.await_services(&[WEB, DNS])?;
    site.write("web.yaml", &text(("10.96.0.11", "web")))?;
    site.await_services(&[("10.96.0.11", "web"), DNS])?;
    fs::remove_file(site.manifests().join("web.yaml"))?;
    site.await_services(&[DNS])
}

#[test]
fn a_typo_takes_no_service_away() -> Result<()> {
    let (site, mut agent) = start("typo")?;
    let typos = [
        ("ports: [{port: 80}]", "ports: 80", "its former state stays"),
        ("ports: [{port: 80}]", "ports: [{port: 8o}]", "its former state stays"),
        ("ports: [{port: 80}]", "ports: [{port: 99999}]", "stays as it was before: port 99999"),
        ("ports: [{port: 80}]", "prots: [{port: 80}]", "stays as it was before: it has no ports any more"),
        ("clusterIP:", "clusterIp:", "stays as it was before: it has no clusterIP any more"),
        ("clusterIP: 10.96.0.10", "clusterIP: 10.96.0", "stays as it was before: clusterIP"),
        ("kind: Service", "kind: Sevrice", "its former state stays"),
        ("apiVersion: v1", "apiVersion: v11", "its former state stays"),
        ("metadata: {name: web}", "metadata: {nmae: web}", "its former state stays"),
        ("kind: Service", "kin: Service", "its former state stays"),
    ];
    for (number, (right, wrong, part)) in typos.into_iter().enumerate() {
        exchange(&site, "web.yaml", &text(WEB).replace(right, wrong))?;
        let warning = agent.await_log("WARN")?;
        ensure!(warning.contains(part) && warning.contains("web.yaml"), "{wrong}: {warning}");
        // The warning shows that the agent has read the file. The marker is read later: its Service in the tables shows that
        // the earlier read removed nothing.
        let marker = (format!("10.96.1.{number}"), format!("marker-{number}"));
        exchange(&site, "marker.yaml", &text((&marker.0, &marker.1)))?;
        site.await_services(&[WEB, (&marker.0, &marker.1)]).with_context(|| wrong)?;
    }
    exchange(&site, "marker.yaml", "")?;
    exchange(&site, "web.yaml", &text(("10.96.0.11", "web")))?;
    fs::remove_file(site.manifests().join("marker.yaml"))?;
    site.await_services(&[("10.96.0.11", "web")])?;
    // A valid removal of the ClusterIP is applied.
    exchange(&site, "web.yaml", &text(("None", "web")))?;
    site.await_services(&[])
}

#[test]
fn a_repeated_error_is_logged_at_most_once_in_five_seconds() -> Result<()> {
    const ROUNDS: usize = 20;
    let (site, agent) = start("again")?;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        exchange(&site, "web.yaml", "a: [1, 2\nb: }\n")?;
        site.await_services(&[WEB])?;
        exchange(&site, "web.yaml", &text(WEB))?;
        site.await_services(&[WEB])?;
    }
    let periods = usize::try_from(start.elapsed().as_secs() / 5)?;
    let (_, log) = agent.stop(Signal::SIGTERM)?;
    let times = log.lines().filter(|line| line.contains("neither YAML nor JSON")).count();
    ensure!((1..=periods + 1).contains(&times), "the error was logged {times} times in {:?}:\n{log}", start.elapsed());
    Ok(())
}
