//! The answers of the server, and its events.

use anyhow::{Context as _, Result, ensure};
use portmap_harness::listen::Protocol;
use portmap_harness::world::World;
use portmap_suites::service_objects::{Endpoint, PORT, Service, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::Stage;

use crate::serving::{Events, start};

/// A stage with the Services `web`, with two endpoints, and `empty`, without any.
pub fn stage(name: &str) -> Result<Stage> {
    let mut stage = Stage::new(name, &["a", "b"], &[])?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods)), Service::new("empty", 2)])?;
    Ok(stage)
}

/// The answer to a request: headers and body as text.
fn ask(world: &World, url: &str, header: &str) -> Result<String> {
    let output = world.command("curl").args(["--silent", "--include", "--max-time", "10", "--header", header, url]).output()?;
    String::from_utf8(output.stdout).context("the answer is no text")
}

#[test]
fn the_page_shows_services_ports_and_pods() -> Result<()> {
    let stage = stage("page-shows")?;
    let page = start(&stage.world)?;
    let answer = ask(&stage.world, &page.url, "Accept: text/html")?;
    for part in ["HTTP/1.1 200", "default/web", "10.96.0.1", "80/TCP", ":8080<", "default/empty", "REFUSED"] {
        ensure!(answer.contains(part), "{part} is missing in {answer}");
    }
    let found = ask(&stage.world, &format!("{}?q=empty", page.url), "Accept: text/html")?;
    ensure!(!found.contains("default/web<") && found.contains("default/empty"), "{found}");
    // Text of a query is no HTML.
    let odd = ask(&stage.world, &format!("{}?q=%3Cscript%3E", page.url), "Accept: text/html")?;
    ensure!(odd.contains("0 of") && !odd.contains("<script>"), "{odd}");
    let explained = ask(&stage.world, &format!("{}explain?target=10.96.0.1:80", page.url), "Accept: text/html")?;
    ensure!(explained.contains("CONNECTS to one of 2 backends") && explained.contains("the tables agree"), "{explained}");
    Ok(())
}

#[test]
fn other_names_and_invalid_requests_are_refused() -> Result<()> {
    let stage = stage("page-refuses")?;
    let page = start(&stage.world)?;
    let answer = ask(&stage.world, &page.url, "Host: example.com")?;
    ensure!(answer.starts_with("HTTP/1.1 403") && !answer.contains("default/web"), "{answer}");
    let answer = ask(&stage.world, &format!("{}explain?target=nonsense", page.url), "Accept: text/html")?;
    ensure!(answer.starts_with("HTTP/1.1 400") && answer.contains("expected ADDRESS:PORT"), "{answer}");
    let output = stage.world.command("curl").args(["--silent", "--include", "--request", "POST", &page.url]).output()?;
    ensure!(output.stdout.starts_with(b"HTTP/1.1 405"), "{output:?}");
    // The page is for this machine only.
    let port = page.url.trim_end_matches('/').rsplit(':').next().context("no port")?;
    let output = stage.world.command("ss").args(["-Hltn", &format!("sport = :{port}")]).output()?;
    let listening = String::from_utf8_lossy(&output.stdout);
    ensure!(listening.lines().count() == 1 && listening.contains(&format!("127.0.0.1:{port}")), "{listening}");
    Ok(())
}

#[test]
fn a_used_port_and_a_missing_file_are_errors() -> Result<()> {
    let stage = stage("page-errors")?;
    let page = start(&stage.world)?;
    let port = page.url.trim_end_matches('/').rsplit(':').next().context("no port")?;
    let manifests = portmap_harness::agent::Agent::manifests(&stage.world);
    let manifests = manifests.to_str().context("no text")?;
    let output = stage.agent.portmap(&["page", "--port", port, "--manifests", manifests])?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3) && message.contains("choose another one with --port"), "{message}");
    let output = stage.agent.portmap(&["page", "--port", "0", "--manifests", "/nonexistent"])?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3) && message.contains("/nonexistent"), "{message}");
    Ok(())
}

#[test]
fn changes_and_rates_are_events() -> Result<()> {
    let mut stage = stage("page-events")?;
    let page = start(&stage.world)?;
    let events = Events::open(&stage.world, &page, "web")?;
    events.wait_for("default/web", "8080")?;
    // The first reading of the counters has no rates yet, so the client connects until there are some.
    let (web, empty) = (cluster_ip(1).at(Via::V4, PORT), cluster_ip(2).at(Via::V4, PORT));
    let rate = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            // A receiver of lines belongs to one thread.
            let events = Events::open(&stage.world, &page, "web")?;
            events.wait("rates", |rates| {
                let web = rates["default/web/tcp/TCP"]["flows"].as_bool()?;
                (web && rates["default/empty/tcp/TCP"]["fails"].as_bool()?).then(|| rates.clone())
            })
        });
        while !reading.is_finished() {
            stage.client.connect(web, Protocol::Tcp, 1)?;
            stage.client.connect(empty, Protocol::Tcp, 1)?;
        }
        reading.join().unwrap_or_else(|_| anyhow::bail!("the thread panicked"))
    })?;
    let text = rate["default/empty/tcp/TCP"]["text"].as_str().context("no text")?;
    ensure!(text.ends_with("refused/s"), "{rate}");
    let moved: Vec<Endpoint> = endpoints(&stage.pods).into_iter().map(|endpoint| endpoint.port(9090)).collect();
    stage.apply(&[Service::new("web", 1).endpoints(moved)])?;
    events.wait_for("default/web", ":9090<")?;
    stage.apply(&[])?;
    events.wait("services", |data| data["services"].as_array()?.is_empty().then_some(()))
}
