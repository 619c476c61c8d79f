//! The agent's own check that programs listen for the backends of its node: the log and the metric.

use anyhow::{Context as _, Result, ensure};
use portmap_harness::dual_stack::Both;
use portmap_harness::listen::Protocol;
use portmap_suites::command::portmap;

use crate::doctor::{BOTH, Clinic, listen};
use crate::site::Agent;

const METRICS: &str = "127.0.0.1:10249";

/// Starts an agent that checks each second.
fn start(clinic: &Clinic) -> Result<Agent> {
    let arguments = ["--listening-interval", "1", "--metrics-bind-address", METRICS, "--manifests"];
    let mut agent = Agent::start(clinic.site.run(&arguments)?.arg(clinic.site.manifests()))?;
    agent.await_log("synced: ")?;
    Ok(agent)
}

/// The value of `portmap_backends_not_listening`.
fn silent(clinic: &Clinic) -> Result<u64> {
    let url = format!("http://{METRICS}/metrics");
    let output = clinic.site.world.command("curl").args(["--silent", "--max-time", "5", &url]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let value = text.lines().find_map(|line| line.strip_prefix("portmap_backends_not_listening "));
    value.and_then(|value| value.parse().ok()).with_context(|| format!("no metric: {text}"))
}

#[test]
fn a_mistake_is_reported_until_it_ends() -> Result<()> {
    const ENDED: &str = "no local backend is without a listening program any more";
    let clinic = Clinic::without_agent("listening", 11)?;
    let process = clinic.process()?;
    let udp = listen(&process, Protocol::Udp, "[::]:8080")?;
    let mut agent = start(&clinic)?;
    let Both { v4, v6 } = clinic.at;
    for address in [v4.to_string(), v6.to_string()] {
        let line =
            agent.await_log(&format!("port 80/TCP → targetPort 8080: {address} listens on 8080/UDP, not on 8080/TCP"))?;
        ensure!(line.contains("WARN") && line.contains("Service default/web "), "{line}");
    }
    ensure!(silent(&clinic)? == 2, "two backends have no program");

    let tcp = listen(&process, Protocol::Tcp, "[::]:8080")?;
    let line = agent.await_log(ENDED)?;
    ensure!(line.contains("INFO") && line.contains("Service default/web port t (TCP)"), "{line}");
    ensure!(silent(&clinic)? == 0, "the programs listen");

    // A wrong targetPort is another mistake, also of the port that was well.
    clinic.site.write("web.yaml", &clinic.manifest(8081))?;
    for protocol in BOTH {
        let line = agent.await_log(&format!("port 80/{protocol} → targetPort 8081: {v4} listens on 8080, not on 8081"))?;
        ensure!(line.contains("WARN"), "{line}");
    }
    clinic.site.write("web.yaml", &clinic.manifest(8080))?;
    for name in ["t (TCP)", "u (UDP)"] {
        agent.await_log(&format!("Service default/web port {name}: {ENDED}"))?;
    }
    drop((tcp, udp));
    Ok(())
}

/// Each mistake is logged once, although many checks find it.
#[test]
fn a_lasting_mistake_is_logged_once() -> Result<()> {
    let clinic = Clinic::without_agent("listening-once", 12)?;
    let mut agent = start(&clinic)?;
    let Both { v4, .. } = clinic.at;
    let of_udp = format!("port 80/UDP → targetPort 8080: {v4} listens on no UDP port");
    agent.await_log(&of_udp)?;
    let process = clinic.process()?;
    let _tcp = listen(&process, Protocol::Tcp, "[::]:8080")?;
    agent.await_log("Service default/web port t (TCP): no local backend")?;
    // The check that noticed this has found the mistake of UDP again.
    let (_, log) = agent.stop(nix::sys::signal::Signal::SIGTERM)?;
    ensure!(log.matches(&of_udp).count() == 1, "{log}");
    Ok(())
}

#[test]
fn the_check_can_be_disabled() -> Result<()> {
    let clinic = Clinic::without_agent("listening-off", 13)?;
    let arguments = ["--listening-interval", "0", "--metrics-bind-address", METRICS, "--manifests"];
    let mut agent = Agent::start(clinic.site.run(&arguments)?.arg(clinic.site.manifests()))?;
    agent.await_log("synced: ")?;
    ensure!(silent(&clinic)? == 0, "no check has run");
    Ok(())
}

#[test]
fn events_need_a_cluster() -> Result<()> {
    let wrong = portmap(&["run", "--events", "--manifests", "x"])?.expect(2)?;
    ensure!(wrong.stderr.contains("cannot be used with"), "{wrong:?}");
    Ok(())
}
