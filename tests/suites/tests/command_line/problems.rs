//! Problems that do not end the agent: it reports them, and serves the remaining objects. Without an API
//! server it keeps the tables.

use std::fs;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::site::{Agent, Site, service};

/// A kubeconfig for port 1 of the node, where no server listens.
pub const NOBODY: &str = "
apiVersion: v1
kind: Config
clusters: [{name: nobody, cluster: {server: 'http://127.0.0.1:1'}}]
users: [{name: nobody, user: {}}]
contexts: [{name: nobody, context: {cluster: nobody, user: nobody}}]
current-context: nobody
";

#[test]
fn an_unreachable_api_server_is_retried() -> Result<()> {
    let site = Site::new("unreachable")?;
    site.write("web.yaml", &service("web", "10.96.0.10"))?;
    site.start()?.stop(Signal::SIGTERM)?;
    let kubeconfig = site.world.directory().join("kubeconfig");
    fs::write(&kubeconfig, NOBODY)?;
    let mut agent = Agent::start(site.run(&["--kubeconfig"])?.arg(&kubeconfig))?;
    let server = agent.await_log("watching")?;
    assert!(server.contains("http://127.0.0.1:1"), "{server}");
    let warning = agent.await_log("watch Services")?;
    assert!(warning.contains("trying again") && warning.contains("Connection refused"), "{warning}");
    let status = site.ask(&["status"])?.expect(1)?.stdout;
    assert!(status.lines().any(|line| line.starts_with("synced") && line.contains("NOT OK")), "{status}");
    // An agent that is not synced changes no table.
    site.await_services(&[("10.96.0.10", "web")])?;
    let (status, log) = agent.stop(Signal::SIGTERM)?;
    assert!(status.success(), "{status}: {log}");
    Ok(())
}

#[test]
fn services_that_do_not_fit_are_left_out() -> Result<()> {
    let site = Site { max_services: 2, ..Site::new("full")? };
    for number in 1..=3 {
        let name = format!("web-{number}");
        site.write(&format!("{name}.yaml"), &service(&name, &format!("10.96.0.{number}")))?;
    }
    let mut agent = Agent::start(site.run(&["--manifests"])?.arg(site.manifests()))?;
    let error = agent.await_log("left out")?;
    assert!(error.contains("ERROR") && error.contains("default/web-3") && error.contains("--max-services"), "{error}");
    site.await_services(&[("10.96.0.1", "web-1"), ("10.96.0.2", "web-2")])?;
    let status = site.ask(&["status"])?.expect(1)?.stdout;
    assert!(status.lines().any(|line| line.starts_with("room") && line.contains("--max-services")), "{status}");
    fs::remove_file(site.manifests().join("web-1.yaml"))?;
    agent.await_log("all frontends have room again")?;
    site.await_services(&[("10.96.0.2", "web-2"), ("10.96.0.3", "web-3")])?;
    site.ask(&["status"])?.expect(0).map(drop)
}

/// One Service has an invalid address, and another has the ClusterIP of an older Service.
#[test]
fn invalid_objects_are_named_once_and_others_are_served() -> Result<()> {
    let site = Site::new("bad-objects")?;
    site.write("broken.yaml", &service("broken", "10.96.0"))?;
    for (name, day) in [("late", 2), ("early", 1)] {
        let name_and_time = format!("name: {name}, creationTimestamp: '2024-05-0{day}T10:00:00Z'");
        let text = service(name, "10.96.0.10").replace(&format!("name: {name}"), &name_and_time);
        site.write(&format!("{name}.yaml"), &text)?;
    }
    let agent = site.start()?;
    site.await_services(&[("10.96.0.10", "early")])?;
    site.write("dns.yaml", &service("dns", "10.96.0.53"))?;
    site.await_services(&[("10.96.0.10", "early"), ("10.96.0.53", "dns")])?;
    // The other Service with this ClusterIP gets the frontend.
    fs::remove_file(site.manifests().join("early.yaml"))?;
    site.await_services(&[("10.96.0.10", "late"), ("10.96.0.53", "dns")])?;
    let (_, log) = agent.stop(Signal::SIGTERM)?;
    let warnings = |part: &str| log.lines().filter(|line| line.contains("WARN") && line.contains(part)).count();
    assert_eq!(warnings("default/broken"), 1, "{log}");
    assert_eq!(warnings("default/late"), 1, "{log}");
    Ok(())
}
