//! `portmap verify`: finds differences between objects and tables, and has the agent repair them.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portmap::maps::{ClientLocation, Item, Maps as _, bpf::BpfMaps, pin::Pins};
use portmap::model::{Endpoint, Frontend, Protocol};
use portmap_common::Choice;
use portmap_suites::command::{Outcome, finish, finish_with_input, in_time};
use serde_json::Value;

use crate::site::{Agent, Site, service};

/// A Service with two endpoints, a node port and a load balancer with source ranges.
const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.10
  loadBalancerSourceRanges: [192.0.2.0/24]
  sessionAffinity: ClientIP
  ports: [{name: http, port: 80, nodePort: 30080}]
status: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.0.2]}, {addresses: [10.244.0.3]}]
";

/// The agent of a site, which compares the tables only on request.
fn start(site: &Site) -> Result<Agent> {
    let mut agent = Agent::start(site.run(&["--compare-interval", "0", "--manifests"])?.arg(site.manifests()))?;
    agent.await_log("synced: ")?;
    Ok(agent)
}

fn site(name: &str) -> Result<Site> {
    let site = Site::new(name)?;
    site.write("web.yaml", WEB)?;
    site.write("empty.yaml", &service("empty", "10.96.0.11"))?;
    Ok(site)
}

/// Runs a subcommand with these arguments, and with the manifests of the site.
fn ask(site: &Site, command: &str, arguments: &[&str]) -> Result<Outcome> {
    let manifests = site.manifests();
    let manifests = manifests.to_str().context("the path is not UTF-8")?;
    site.ask(&[&[command, "--node-name", "node-1", "--manifests", manifests], arguments].concat())
}

fn verify(site: &Site, arguments: &[&str]) -> Result<Outcome> {
    ask(site, "verify", arguments)
}

/// The JSON of `portmap verify`, which ends with `code`.
fn report(site: &Site, code: i32, arguments: &[&str]) -> Result<Value> {
    let outcome = verify(site, &[&["-o", "json"], arguments].concat())?.expect(code)?;
    let report: Value = serde_json::from_str(&outcome.stdout)?;
    ensure!(report["equal"] == (code == 0), "{report:#}");
    Ok(report)
}

/// `portmap explain` finds no difference between the tables and the manifests of the site.
fn explain(site: &Site) -> Result<()> {
    let outcome = ask(site, "explain", &["10.96.0.10:80", "-o", "json"])?.expect(0)?;
    let json: Value = serde_json::from_str(&outcome.stdout)?;
    ensure!(json["explanations"][0]["kernel"]["agrees"] == true, "{json:#}");
    Ok(())
}

fn frontend(address: [u8; 4], port: u16) -> Frontend {
    Frontend { address: address.into(), port, protocol: Protocol::Tcp }
}

/// Changes the kernel's tables as another program could.
fn change(site: &Site, change: impl FnOnce(&mut BpfMaps) -> Result<()>) -> Result<()> {
    change(&mut BpfMaps::open(&Pins::new(site.world.bpffs()))?)
}

/// The number of the service entry of a frontend.
fn number(maps: &BpfMaps, frontend: &Frontend) -> Result<u32> {
    let snapshot = maps.read()?;
    let found = snapshot.frontends.iter().find(|(other, _)| other == frontend);
    Ok(found.context("the frontend is not in the tables")?.1.number)
}

#[test]
fn equal_tables_end_with_0() -> Result<()> {
    let site = site("verify-equal")?;
    site.ask(&["verify", "--manifests", "x"])?.expect_error(&["nothing is pinned"])?;
    let agent = start(&site)?;
    let outcome = verify(&site, &[])?.expect(0)?;
    ensure!(outcome.stdout.contains("the kernel's tables agree with the objects: "), "{outcome:#?}");
    assert!(outcome.stderr.is_empty(), "{outcome:#?}");
    let json = report(&site, 0, &[])?;
    ensure!(json["differences"] == Value::Array(vec![]) && json["frontends"].as_u64() > Some(3), "{json:#}");
    // The tables outlive the agent, and can be verified without it.
    agent.stop(Signal::SIGTERM)?;
    report(&site, 0, &["--repair"])?;
    Ok(())
}

#[test]
fn each_kind_of_difference_is_listed_by_frontend() -> Result<()> {
    let site = site("verify-kinds")?;
    let _agent = start(&site)?;
    let (missing, refused) = (frontend([10, 96, 0, 10], 80), frontend([10, 96, 0, 11], 80));
    let extra = frontend([10, 96, 0, 99], 99);
    change(&site, |maps| {
        maps.remove_frontend(&missing)?;
        let number = number(maps, &frontend([203, 0, 113, 1], 80))?;
        maps.store_choice(number, ClientLocation::Inside, Choice::default())?;
        let dropped = Choice { first: 1, count: 0 };
        maps.store_choice(self::number(maps, &refused)?, ClientLocation::Outside, dropped)?;
        maps.insert_frontend(&extra, number)
    })?;
    let json = report(&site, 1, &[])?;
    let rows = json["differences"].as_array().context("no differences")?;
    let row =
        |frontend: &Frontend| rows.iter().find(|row| row["frontend"] == frontend.to_string()).cloned().unwrap_or_default();
    ensure!(rows.len() == 4, "{json:#}");
    ensure!(row(&missing)["kind"] == "missing" && row(&missing)["service"] == "default/web", "{json:#}");
    ensure!(row(&extra)["kind"] == "extra", "{json:#}");
    let balancer = row(&frontend([203, 0, 113, 1], 80));
    ensure!(balancer["kind"] == "different" && balancer["backends"]["missing"][1] == "10.244.0.3:8080", "{json:#}");
    ensure!(balancer["fields"][0]["name"] == "action" && balancer["fields"][0]["found"] == "refuse", "{json:#}");
    ensure!(row(&refused)["fields"][0]["name"] == "externalAction", "{json:#}");
    let text = verify(&site, &[])?.expect(1)?.stdout;
    for part in [
        "missing in the kernel",
        "in the kernel, and not desired",
        "action is refuse instead of forward; backends lack 10.244.0.2:8080, 10.244.0.3:8080",
        "externalAction is drop instead of refuse",
        "4 frontends differ",
    ] {
        ensure!(text.contains(part), "{part} in\n{text}");
    }
    let yaml: Value = serde_saphyr::from_str(&verify(&site, &["-o", "yaml"])?.expect(1)?.stdout)?;
    ensure!(yaml == json, "{yaml:#}");
    Ok(())
}

/// Source ranges, endpoints and members are entries beside the frontends.
#[test]
fn other_entries_and_fields_are_compared() -> Result<()> {
    let site = site("verify-other")?;
    let mut agent = start(&site)?;
    let stray = Endpoint { address: [10, 244, 9, 9].into(), port: 9, local: false };
    change(&site, |maps| maps.insert(&[Item::Endpoint(1_000_000, stray)]))?;
    let json = report(&site, 1, &[])?;
    ensure!(json["differences"].as_array().is_some_and(Vec::is_empty), "{json:#}");
    ensure!(json["otherEntries"][0].as_str().is_some_and(|text| text.contains("10.244.9.9")), "{json:#}");
    let text = verify(&site, &[])?.expect(1)?.stdout;
    ensure!(text.contains("other entries: the agent would remove") && text.contains("and other entries differ"), "{text}");
    report(&site, 0, &["--repair"])?;
    agent.await_log("SIGUSR1 requests it")?;
    agent.await_log("repaired by 2 writes")?;
    let range = "198.51.100.0/24".parse()?;
    change(&site, |maps| {
        let snapshot = maps.read()?;
        let id = snapshot.names.iter().find(|(_, owner)| owner.as_ref().is_some_and(|owner| &*owner.port == "http"));
        maps.insert(&[Item::Range(id.context("no such Service")?.0, range)])
    })?;
    let json = report(&site, 1, &[])?;
    let field = &json["differences"][0]["fields"][0];
    ensure!(field["name"] == "sourceRanges" && field["desired"] == "[192.0.2.0/24]", "{json:#}");
    Ok(())
}

#[test]
fn the_agent_repairs_on_request() -> Result<()> {
    let site = site("verify-repair")?;
    let agent = start(&site)?;
    let removed = frontend([10, 96, 0, 10], 80);
    change(&site, |maps| maps.remove_frontend(&removed))?;
    let outcome = verify(&site, &["--repair"])?.expect(0)?;
    ensure!(outcome.stdout.contains("repaired") && outcome.stdout.contains("10.96.0.10:80/TCP"), "{outcome:#?}");
    assert!(outcome.stderr.is_empty(), "{outcome:#?}");
    change(&site, |maps| maps.remove_frontend(&removed))?;
    let json = report(&site, 0, &["--repair"])?;
    ensure!(json["repaired"][0]["frontend"] == "10.96.0.10:80/TCP", "{json:#}");
    // Without an agent nobody repairs, and a warning says so.
    agent.stop(Signal::SIGTERM)?;
    change(&site, |maps| maps.remove_frontend(&removed))?;
    let outcome = verify(&site, &["--repair"])?.expect(1)?;
    ensure!(outcome.stderr.contains("no agent is running") && outcome.stdout.contains("missing in the kernel"), "{outcome:#?}");
    Ok(())
}

/// The agent does not know the objects that were given to `verify`, so a comparison does not add them.
#[test]
fn differences_that_the_agent_does_not_see_remain() -> Result<()> {
    let site = site("verify-others")?;
    let _agent = start(&site)?;
    let other = site.world.directory().join("other.yaml");
    std::fs::write(&other, service("other", "10.96.0.12"))?;
    let other = other.to_str().context("the path is not UTF-8")?;
    let outcome = verify(&site, &["--manifests", other, "--repair"])?.expect(1)?;
    ensure!(outcome.stdout.contains("10.96.0.12:80/TCP") && outcome.stdout.contains("1 frontend differs"), "{outcome:#?}");
    Ok(())
}

/// A rollout that changes endpoints all the time is no difference.
#[test]
fn changes_under_way_are_no_differences() -> Result<()> {
    let site = site("verify-churn")?;
    let _agent = start(&site)?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| -> Result<()> {
            let mut round = 0_u8;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                round = round.wrapping_add(1);
                let partial = site.world.directory().join("partial");
                std::fs::write(&partial, WEB.replace("10.244.0.3", &format!("10.244.1.{round}")))?;
                crate::site::replace(&partial, &site.manifests().join("web.yaml"))?;
                std::thread::sleep(std::time::Duration::from_millis(30));
            }
            Ok(())
        });
        let reports = (0..10).try_for_each(|_| report(&site, 0, &[]).map(drop));
        let explanations = (0..10).try_for_each(|_| explain(&site));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        churn.join().map_err(|_| anyhow::anyhow!("the churn crashed"))??;
        reports.and(explanations)
    })
}

#[test]
fn a_frontend_without_room_is_explained() -> Result<()> {
    let mut site = site("verify-room")?;
    site.max_services = 1;
    let _agent = start(&site)?;
    let json = report(&site, 1, &[])?;
    let reasons: Vec<&str> =
        json["differences"].as_array().into_iter().flatten().filter_map(|row| row["reason"].as_str()).collect();
    ensure!(!reasons.is_empty() && reasons.iter().all(|reason| reason.contains("SERVICES is full with 1 entries")), "{json:#}");
    Ok(())
}

#[test]
fn node_ports_on_each_address_are_verified_from_another_namespace() -> Result<()> {
    let site = site("verify-node-ports")?;
    let mut agent = Agent::start(site.run(&["--nodeport-addresses", "localhost", "--manifests"])?.arg(site.manifests()))?;
    agent.await_log("synced: ")?;
    let localhost = ["--nodeport-addresses", "localhost"];
    let json = report(&site, 0, &localhost)?;
    ensure!(json["frontends"] == 5, "{json:#}");
    let json = report(&site, 1, &["--nodeport-addresses", "127.0.0.2/32"])?;
    ensure!(json["differences"][0]["frontend"] == "0.0.0.0:30080/TCP", "{json:#}");
    // On this machine, outside of the world's network namespace.
    let mut command = in_time(Command::new("timeout"))?;
    command.args(["verify", "--node-name", "node-1", "--bpffs"]).arg(site.world.bpffs()).args(localhost);
    let outcome = finish(command.arg("--manifests").arg(site.manifests()))?.expect(0)?;
    assert!(outcome.stderr.is_empty(), "{outcome:#?}");
    Ok(())
}

#[test]
fn wrong_input_and_standard_input() -> Result<()> {
    let site = site("verify-input")?;
    let _agent = start(&site)?;
    site.ask(&["verify", "--manifests", "/nonexistent"])?.expect_error(&["/nonexistent", "No such file"])?;
    site.ask(&["verify", "--kubeconfig", "/nonexistent"])?.expect_error(&["failed to read the kubeconfig /nonexistent"])?;
    let unreachable = "{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}], \
                       clusters: [{name: a, cluster: {server: \"http://127.0.0.1:1\"}}], users: [{name: a, user: {}}]}";
    let kubeconfig = site.world.directory().join("kubeconfig");
    std::fs::write(&kubeconfig, unreachable)?;
    let kubeconfig = kubeconfig.to_str().context("the path is not UTF-8")?;
    site.ask(&["verify", "--kubeconfig", kubeconfig])?.expect_error(&["failed to list", "at http://127.0.0.1:1"])?;
    let mut command = in_time(site.world.command("timeout"))?;
    command.args(["verify", "--node-name", "node-1", "--manifests", "-", "--bpffs"]).arg(site.world.bpffs());
    let text = format!("{WEB}---\n{}", service("other", "10.96.0.12"));
    let outcome = finish_with_input(&mut command, &text)?.expect(1)?;
    ensure!(outcome.stdout.contains("10.96.0.12:80/TCP") && outcome.stdout.contains("10.96.0.11:80/TCP"), "{outcome:#?}");
    Ok(())
}
