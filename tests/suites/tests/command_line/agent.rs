//! Start, stop, restart and cleanup of an agent, with its status before and after them.

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;
use portmap_harness::listen::Protocol;
use portmap_harness::world::Pod;
use serde_json::Value;

use crate::site::{Site, service};

/// The error of a connection to the ClusterIP of a Service without endpoints.
const TRANSLATED: &str = "ECONNREFUSED";
/// The error of the same connection while no programs are attached.
const LEFT_ALONE: &str = "ENETUNREACH";

fn site(name: &str) -> Result<Site> {
    let site = Site::new(name)?;
    site.write("web.yaml", &service("web", "10.96.0.10"))?;
    Ok(site)
}

fn expect_at_service(client: &Pod, error: &str) -> Result<()> {
    let answers = client.connect("10.96.0.10:80".parse()?, Protocol::Tcp, 1)?;
    ensure!(answers.errors == [(error.to_owned(), 1)].into(), "expected {error}, but got:\n{answers}");
    Ok(())
}

/// The failing checks of `portmap status`, as `name: text`. Fails unless `code` is the exit code, and agrees with `healthy`.
fn failing_checks(site: &Site, code: i32) -> Result<Vec<String>> {
    let json = site.ask(&["status", "-o", "json"])?.expect(code)?.stdout;
    let health: Value = serde_json::from_str(&json)?;
    ensure!(health["healthy"] == (code == 0), "{json}");
    let checks = health["checks"].as_array().cloned().unwrap_or_default();
    let bad = checks.iter().filter(|check| check["fine"] == false).map(|check| format!("{}: {}", check["name"], check["text"]));
    Ok(bad.collect())
}

#[test]
fn status_distinguishes_a_running_agent_from_a_stopped_one() -> Result<()> {
    let site = site("status")?;
    site.ask(&["status"])?.expect_error(&["nothing is pinned"])?;
    let agent = site.start()?;
    assert!(failing_checks(&site, 0)?.is_empty());
    let table = site.ask(&["status"])?.expect(0)?;
    assert!(table.stderr.is_empty() && !table.stdout.contains('\x1b'), "{table:#?}");
    for part in ["connect4", &format!("process {}", agent.pid()), "FRONTENDS_V4", "CAPACITY"] {
        assert!(table.stdout.contains(part), "{part} in {}", table.stdout);
    }
    agent.stop(Signal::SIGTERM)?;
    let failing = failing_checks(&site, 1)?;
    let [agent, source] = failing.as_slice() else { bail!("expected two failing checks, but got {failing:?}") };
    assert!(agent.contains("to start one: portmap run") && source.contains("no agent watches"), "{failing:?}");
    let table = site.ask(&["status"])?.expect(1)?.stdout;
    assert!(table.lines().any(|line| line.starts_with("agent") && line.contains("NOT OK")), "{table}");
    Ok(())
}

#[test]
fn the_tables_outlive_the_agent() -> Result<()> {
    let site = site("signal")?;
    let client = site.world.client("client")?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let agent = site.start()?;
        expect_at_service(&client, TRANSLATED)?;
        let (status, log) = agent.stop(signal)?;
        assert!(status.success() && log.contains(signal.as_str()), "{status}: {log}");
        site.await_services(&[("10.96.0.10", "web")])?;
        expect_at_service(&client, TRANSLATED)?;
    }
    Ok(())
}

/// The next agent applies the changes that were made while no agent ran.
#[test]
fn an_agent_takes_over_after_a_kill() -> Result<()> {
    let site = site("killed")?;
    let client = site.world.client("client")?;
    let (status, _) = site.start()?.stop(Signal::SIGKILL)?;
    assert!(!status.success());
    expect_at_service(&client, TRANSLATED)?;
    site.write("web.yaml", &service("dns", "10.96.0.53"))?;
    site.await_services(&[("10.96.0.10", "web")])?;
    let _agent = site.start()?;
    site.await_services(&[("10.96.0.53", "dns")])?;
    expect_at_service(&client, LEFT_ALONE)
}

#[test]
fn cleanup_refuses_while_an_agent_runs() -> Result<()> {
    let site = site("cleanup")?;
    let client = site.world.client("client")?;
    let agent = site.start()?;
    let pins = site.world.bpffs().to_string_lossy();
    for arguments in [&["cleanup"][..], &["cleanup", "--drain"]] {
        site.ask(arguments)?.expect_error(&["an agent is running", &pins, "--force"])?;
    }
    expect_at_service(&client, TRANSLATED)?;
    assert!(failing_checks(&site, 0)?.is_empty());
    agent.stop(Signal::SIGTERM)?;
    let outcome = site.ask(&["cleanup"])?.expect(0)?;
    assert!(outcome.stdout.contains("connect4") && outcome.stdout.contains("FRONTENDS_V4"), "{outcome:#?}");
    assert!(!site.world.bpffs().exists() && outcome.stderr.is_empty(), "{outcome:#?}");
    expect_at_service(&client, LEFT_ALONE)?;
    // A second cleanup finds nothing, and succeeds.
    site.ask(&["cleanup"])?.expect(0).map(drop)
}

#[test]
fn a_drain_without_connections_ends_at_once() -> Result<()> {
    let site = site("drain")?;
    let client = site.world.client("client")?;
    site.start()?.stop(Signal::SIGTERM)?;
    let outcome = site.ask(&["cleanup", "--drain"])?.expect(0)?;
    assert!(outcome.stdout.contains("waiting for 0 open TCP connections") && outcome.stderr.is_empty(), "{outcome:#?}");
    assert!(outcome.stdout.contains("FLOWS_V4") && !site.world.bpffs().exists(), "{outcome:#?}");
    expect_at_service(&client, LEFT_ALONE)?;
    // A second drain finds nothing, and succeeds.
    site.ask(&["cleanup", "--drain"])?.expect(0).map(drop)
}

/// `cleanup --force` removes pins and links of a running agent. The agent must end, because it cannot serve clients any more.
#[test]
fn a_forced_cleanup_detaches_at_once_and_ends_the_agent() -> Result<()> {
    let site = site("force")?;
    let client = site.world.client("client")?;
    let agent = site.start()?;
    expect_at_service(&client, TRANSLATED)?;
    site.ask(&["cleanup", "--force"])?.expect(0)?;
    assert!(!site.world.bpffs().exists());
    expect_at_service(&client, LEFT_ALONE)?;
    site.ask(&["status"])?.expect_error(&["nothing is pinned"])?;
    // The agent notices the cleanup at the next change at the latest.
    site.write("dns.yaml", &service("dns", "10.96.0.53"))?;
    let (status, log) = agent.await_end()?;
    assert!(!status.success(), "{status}: {log}");
    Ok(())
}

#[test]
fn an_agent_reads_standard_input() -> Result<()> {
    let site = site("stdin")?;
    let mut command = site.run(&["--manifests", "-"])?;
    let mut agent = crate::site::Agent::start(command.stdin(std::fs::File::open(site.manifests().join("web.yaml"))?))?;
    agent.await_log("synced: ")?;
    site.await_services(&[("10.96.0.10", "web")])?;
    let (status, log) = agent.stop(Signal::SIGTERM)?;
    assert!(status.success(), "{status}: {log}");
    Ok(())
}

#[test]
fn an_agent_starts_on_an_empty_directory() -> Result<()> {
    let site = Site::new("empty")?;
    let _agent = site.start()?;
    assert!(failing_checks(&site, 0)?.is_empty());
    let table = site.ask(&["services"])?.expect(0)?;
    assert!(table.stdout.contains("no frontends") && table.stderr.is_empty(), "{table:#?}");
    site.write("web.yaml", &service("web", "10.96.0.10"))?;
    site.await_services(&[("10.96.0.10", "web")])
}
