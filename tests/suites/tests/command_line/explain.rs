//! `portmap explain`: with an agent's tables, with files alone, and for a client in another network namespace.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portmap::maps::{ClientLocation, Maps as _, bpf::BpfMaps, pin::Pins};
use portmap::model::{Frontend, Protocol};
use portmap_common::Choice;
use portmap_suites::command::{Outcome, finish, finish_with_input, in_time, portmap};
use serde_json::Value;

use crate::site::{Agent, Site, service};

/// A Service with a ready and an unready endpoint, a node port, and a load balancer that admits 192.0.2.0/24.
const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.10
  externalTrafficPolicy: Local
  loadBalancerSourceRanges: [192.0.2.0/24]
  ports: [{name: http, port: 80, targetPort: web, nodePort: 30080}, {name: admin, port: 9000, targetPort: 9001}]
status: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.244.0.2], nodeName: node-2}
- {addresses: [10.244.0.3], nodeName: node-1, conditions: {ready: false}}
";

fn site(name: &str) -> Result<Site> {
    let site = Site::new(name)?;
    site.write("web.yaml", WEB)?;
    site.write("empty.yaml", &service("empty", "10.96.0.11"))?;
    Ok(site)
}

/// The arguments of `portmap explain` with the manifests of a site.
fn arguments<'a>(manifests: &'a Path, more: &[&'a str]) -> Result<Vec<&'a str>> {
    let manifests = manifests.to_str().context("the path is not UTF-8")?;
    let selections = ["explain", "--node-name", "node-1", "--service-cidr", "10.96.0.0/16", "--manifests", manifests];
    Ok([&selections, more].concat())
}

fn explain(site: &Site, more: &[&str]) -> Result<Outcome> {
    site.ask(&arguments(&site.manifests(), more)?)
}

/// The first explanation in the JSON of `portmap explain`, which ends with `code`.
fn report(site: &Site, code: i32, more: &[&str]) -> Result<Value> {
    let outcome = explain(site, &[&["-o", "json"], more].concat())?.expect(code)?;
    let report: Value = serde_json::from_str(&outcome.stdout)?;
    ensure!(report["connects"] == (code == 0), "{report:#}");
    Ok(report["explanations"][0].clone())
}

/// Starts an agent with the ranges of ClusterIPs of [`arguments`].
fn start(site: &Site) -> Result<Agent> {
    let flags = ["--compare-interval", "0", "--service-cidr", "10.96.0.0/16", "--manifests"];
    let mut agent = Agent::start(site.run(&flags)?.arg(site.manifests()))?;
    agent.await_log("synced: ")?;
    Ok(agent)
}

fn expect_lines(text: &str, lines: &[&str]) -> Result<()> {
    // Columns are as wide as the longest label, so runs of spaces are equal to one.
    let words: Vec<String> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in lines {
        ensure!(words.iter().any(|found| found == line), "{line:?} should be a line of\n{text}");
    }
    Ok(())
}

#[test]
fn a_connection_is_explained_in_order() -> Result<()> {
    let site = site("explain-chain")?;
    let _agent = start(&site)?;
    let outcome = explain(&site, &["10.96.0.10:80"])?.expect(0)?;
    assert!(outcome.stderr.is_empty(), "{outcome:#?}");
    expect_lines(
        &outcome.stdout,
        &[
            "destination 10.96.0.10:80/TCP",
            "seen from node node-1",
            "service shop/web: the address is its ClusterIP",
            "port 80/TCP, named http, node port 30080",
            "targetPort \"web\"",
            "endpoints 1 of 2 taken",
            "10.244.0.2:8080 taken ready",
            "10.244.0.3:8080 not taken not ready",
            "kernel the tables agree: forward to 10.244.0.2:8080",
            "verdict CONNECTS to 10.244.0.2:8080",
        ],
    )?;
    let labels: Vec<&str> =
        outcome.stdout.lines().filter_map(|line| line.split("  ").next()).filter(|it| !it.is_empty()).collect();
    ensure!(labels.first() == Some(&"destination") && labels.last().is_some_and(|it| it.starts_with("verdict")), "{labels:?}");
    ensure!(!outcome.stdout.contains('\x1b'), "colours belong to terminals: {outcome:?}");
    let json = report(&site, 0, &["10.96.0.10:80"])?;
    ensure!(json["kernel"]["agrees"] == true && json["endpoints"][1]["reason"]["code"] == "notReady", "{json:#}");
    let yaml = explain(&site, &["-o", "yaml", "10.96.0.10:80"])?.expect(0)?;
    let yaml: Value = serde_saphyr::from_str(&yaml.stdout)?;
    ensure!(yaml["explanations"][0] == json, "{yaml:#}");
    Ok(())
}

#[test]
fn a_service_is_found_by_its_name() -> Result<()> {
    let site = site("explain-name")?;
    let _agent = start(&site)?;
    let json = report(&site, 0, &["svc/web:http"])?;
    ensure!(json["frontend"] == "10.96.0.10:80/TCP", "{json:#}");
    ensure!(json["otherAddresses"] == serde_json::json!(["*:30080/TCP", "203.0.113.1:80/TCP"]), "{json:#}");
    let both = explain(&site, &["svc/web.shop"])?.expect(1)?;
    expect_lines(&both.stdout, &["destination 10.96.0.10:80/TCP", "destination 10.96.0.10:9000/TCP"])?;
    let text = explain(&site, &["svc/web:https"])?.expect(1)?.stdout;
    ensure!(text.contains("its ports are 80/TCP (http), 9000/TCP (admin)"), "{text}");
    ensure!(explain(&site, &["svc/nothing"])?.expect(1)?.stdout.contains("there is no Service nothing"));
    Ok(())
}

/// Each case: the destination, the action, and a part of the reason.
#[test]
fn each_nearest_reason_has_the_treatment_of_the_kernel() -> Result<()> {
    let site = site("explain-nearest")?;
    site.write("headless.yaml", &service("headless", "None"))?;
    site.write("udp.yaml", &service("udp", "10.96.0.12").replace("port: 80", "port: 53, protocol: UDP"))?;
    let label = "name: other, labels: {service.kubernetes.io/service-proxy-name: x}";
    site.write("other.yaml", &service("other", "10.96.0.13").replace("name: other", label))?;
    site.write("late.yaml", &service("late", "10.96.0.14").replace("ports:", "externalIPs: [203.0.113.1], ports:"))?;
    let _agent = start(&site)?;
    for (target, action, reason) in [
        ("10.96.0.10:81", "refuse", "no port 81/TCP; its ports are 80/TCP (http), 9000/TCP (admin)"),
        ("10.96.0.10:9001", "refuse", "9001 is the targetPort of port 9000"),
        ("10.96.0.10:9000", "refuse", "have the ports \"http\"/TCP (8080), and none is named \"admin\"/TCP"),
        ("10.96.0.11:80", "refuse", "it has no EndpointSlice"),
        ("10.96.0.12:53", "refuse", "53 is a port of UDP: append /udp"),
        ("10.96.0.13:80", "leave", "which another proxy serves"),
        ("10.96.7.7:80", "drop", "in the range of ClusterIPs 10.96.0.0/16, and no Service has it"),
        ("198.51.100.7:80", "leave", "no Service has the address 198.51.100.7"),
        ("198.51.100.7:30080", "leave", "30080/TCP is a node port of Service shop/web, but this node serves"),
        ("203.0.113.1:81", "leave", "none has the port 81/TCP: default/late (80/TCP); shop/web (80/TCP (http)"),
        ("svc/headless", "none", "is headless"),
    ] {
        let json = report(&site, 1, &[target])?;
        let text = json["reason"]["text"].as_str().unwrap_or_default();
        ensure!(json["action"] == action && text.contains(reason), "{target}: {json:#}");
        ensure!(json["kernel"]["agrees"] != false, "{target}: {json:#}");
    }
    let json = report(&site, 1, &["203.0.113.1:80"])?;
    ensure!(json["service"] == "default/late" && json["otherClaims"][0] == "shop/web", "{json:#}");
    Ok(())
}

#[test]
fn the_kernels_tables_decide() -> Result<()> {
    let site = site("explain-kernel")?;
    let agent = start(&site)?;
    let frontend = Frontend { address: [10, 96, 0, 10].into(), port: 80, protocol: Protocol::Tcp };
    let mut maps = BpfMaps::open(&Pins::new(site.world.bpffs()))?;
    let snapshot = maps.read()?;
    let number = snapshot.frontends.iter().find(|(other, _)| *other == frontend).context("no frontend")?.1.number;
    maps.store_choice(number, ClientLocation::Inside, Choice::default())?;
    let json = report(&site, 1, &["10.96.0.10:80"])?;
    ensure!(json["action"] == "refuse" && json["reason"]["code"] == "tablesDiffer", "{json:#}");
    ensure!(json["kernel"]["difference"]["backends"]["missing"][0] == "10.244.0.2:8080", "{json:#}");
    let text = explain(&site, &["10.96.0.10:80"])?.expect(1)?.stdout;
    ensure!(text.contains("THE TABLES DIFFER from the objects: refuse"), "{text}");
    maps.remove_frontend(&frontend)?;
    let json = report(&site, 1, &["10.96.0.10:80"])?;
    ensure!(json["kernel"]["difference"]["kind"] == "missing" && json["action"] == "refuse", "{json:#}");
    // The tables stay in force after the agent, and the programs stay attached.
    agent.stop(Signal::SIGTERM)?;
    report(&site, 0, &["203.0.113.1:80"])?;
    std::fs::remove_file(Pins::new(site.world.bpffs()).link("connect4"))?;
    let json = report(&site, 1, &["203.0.113.1:80"])?;
    ensure!(json["action"] == "leave" && json["kernel"]["detached"][0] == "connect4", "{json:#}");
    Ok(())
}

/// The world's network namespace is a client whose address no source range admits.
#[test]
fn a_client_in_another_namespace_has_its_own_rules() -> Result<()> {
    let site = site("explain-client")?;
    let _agent = start(&site)?;
    let process = site.world.command("sleep").arg("600").spawn().map(Sleeper)?;
    let id = process.0.id().to_string();
    let json = report(&site, 0, &["10.96.0.10:80", "--from-pid", &id])?;
    ensure!(json["client"].is_null(), "{json:#}");
    let json = report(&site, 1, &["203.0.113.1:80", "--from-pid", &id])?;
    ensure!(json["action"] == "drop" && json["reason"]["code"] == "notAdmitted", "{json:#}");
    let path = format!("/proc/{id}/ns/net");
    let by_path = report(&site, 1, &["203.0.113.1:80", "--from-netns", &path])?;
    ensure!(by_path == json, "{by_path:#}");
    let text = explain(&site, &["203.0.113.1:80", "--from-pid", &id])?.expect(1)?.stdout;
    ensure!(
        text.contains("source ranges admit 192.0.2.0/24") && text.contains("verdict") && text.contains("DROPPED"),
        "{text}"
    );
    explain(&site, &["10.96.0.10:80", "--from-pid", "4194304"])?.expect_error(&["found no process 4194304"])?;
    explain(&site, &["10.96.0.10:80", "--from-netns", "/etc/hostname"])?.expect_error(&["is no network namespace"])?;
    Ok(())
}

/// A process that ends with the test.
struct Sleeper(std::process::Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            self.0.wait().ok();
        }
    }
}

#[test]
fn files_alone_suffice() -> Result<()> {
    let site = site("explain-files")?;
    let manifests = site.manifests();
    let more = ["--bpffs", "/nonexistent", "10.96.0.10:80"];
    let outcome = portmap(&arguments(&manifests, &more)?)?.expect(0)?;
    ensure!(outcome.stdout.contains("not read, so the objects alone are explained: "), "{outcome:#?}");
    let json = portmap(&[&arguments(&manifests, &more)?[..], &["-o", "json"]].concat())?.expect(0)?;
    let json: Value = serde_json::from_str(&json.stdout)?;
    ensure!(json["explanations"][0]["kernel"]["agrees"].is_null() && json["node"] == "node-1", "{json:#}");
    let mut command = in_time(Command::new("timeout"))?;
    command.args(["explain", "--bpffs", "/nonexistent", "--manifests", "-", "10.96.0.10:80"]);
    finish_with_input(&mut command, WEB)?.expect(0)?;
    Ok(())
}

#[test]
fn wrong_input_is_explained() -> Result<()> {
    for target in
        ["", "web", "10.96.0.10", "10.96.0.10:0", "10.96.0.10:65536", "10.96.0.10:80/sctp", "svc/", "svc/web:", "fd00::1:80"]
    {
        let outcome = portmap(&["explain", target, "--manifests", "/nonexistent"])?.expect(2)?;
        ensure!(outcome.stderr.contains("error: ") && outcome.stdout.is_empty(), "{target}: {outcome:#?}");
    }
    portmap(&["explain"])?.expect(2)?;
    portmap(&["explain", "10.96.0.10:80", "--from-pid", "1", "--from-netns", "a"])?.expect(2)?;
    portmap(&["explain", "10.96.0.10:80", "--manifests", "/nonexistent"])?.expect_error(&["/nonexistent", "No such file"])?;
    portmap(&["explain", "svc/web", "--kubeconfig", "/nonexistent"])?.expect_error(&["failed to read the kubeconfig"])?;
    Ok(())
}

/// The tables are read by look-ups, so the time does not grow with their size.
#[test]
fn large_tables_are_explained_quickly() -> Result<()> {
    let mut site = site("explain-large")?;
    site.max_services = 12_000;
    let many = (0..10_000_u16).map(|number| {
        let [high, low] = number.to_be_bytes();
        service(&format!("s{number}"), &format!("10.96.{}.{low}", high + 1))
    });
    let all = site.world.directory().join("many.yaml");
    std::fs::write(&all, many.collect::<Vec<_>>().join("---\n"))?;
    let mut agent = Agent::start(site.run(&["--manifests"])?.arg(site.manifests()).arg("--manifests").arg(&all))?;
    agent.await_log("synced: ")?;
    // The objects of one Service, so that the time is that of the tables.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let begin = Instant::now();
        explain(&site, &["10.96.0.10:80"])?.expect(0)?;
        best = best.min(begin.elapsed());
    }
    ensure!(best < Duration::from_millis(100), "it took {best:?}");
    Ok(())
}

/// A destination has two forms, and the client two options.
#[test]
fn the_help_names_the_forms_of_a_destination() -> Result<()> {
    let outcome = finish(in_time(Command::new("timeout"))?.args(["explain", "--help"]))?.expect(0)?;
    for part in ["ADDRESS:PORT[/udp]", "svc/NAME[.NAMESPACE][:PORT]", "--from-pid", "--from-netns", "Exit codes"] {
        ensure!(outcome.stdout.contains(part), "{outcome:#?}");
    }
    Ok(())
}
