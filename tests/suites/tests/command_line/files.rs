//! Files that change under a running agent.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::site::{Agent, Site, replace, service};

const WEB: (&str, &str) = ("10.96.0.10", "web");
const DNS: (&str, &str) = ("10.96.0.53", "dns");

fn text((address, name): (&str, &str)) -> String {
    service(name, address)
}

/// An agent with the Service `web` in its file.
fn start(name: &str) -> Result<(Site, Agent)> {
    let site = Site::new(name)?;
    site.write("web.yaml", &text(WEB))?;
    let agent = site.start()?;
    site.await_services(&[WEB])?;
    Ok((site, agent))
}

#[test]
fn changes_are_taken_up() -> Result<()> {
    let (site, _agent) = start("changes")?;
    site.write("dns.yaml", &text(DNS))?;
    site.await_services(&[WEB, DNS])?;
    site.write("web.yaml", &text(("10.96.0.11", "web")))?;
    site.await_services(&[("10.96.0.11", "web"), DNS])?;
    // As editors do it.
    site.write("web.yaml~", &text(("10.96.0.12", "web")))?;
    replace(&site.manifests().join("web.yaml~"), &site.manifests().join("web.yaml"))?;
    site.await_services(&[("10.96.0.12", "web"), DNS])
}

#[test]
fn a_file_that_is_deleted_takes_its_objects_away() -> Result<()> {
    let (site, _agent) = start("deleted")?;
    site.write("dns.yaml", &text(DNS))?;
    site.await_services(&[WEB, DNS])?;
    fs::remove_file(site.manifests().join("web.yaml"))?;
    site.await_services(&[DNS])?;
    // A name that is none of a manifest is as good as none.
    replace(&site.manifests().join("dns.yaml"), &site.manifests().join("dns.yaml.disabled"))?;
    site.await_services(&[])
}

#[test]
fn a_file_that_turns_invalid_keeps_its_last_good_content() -> Result<()> {
    let (site, mut agent) = start("invalid")?;
    // In one step: what happens while a file is written is another test's.
    site.write("web.yaml~", "a: [1, 2\nb: }\n")?;
    replace(&site.manifests().join("web.yaml~"), &site.manifests().join("web.yaml"))?;
    let warning = agent.await_log("WARN")?;
    assert!(warning.contains("web.yaml") && warning.contains("its last good content stays"), "{warning}");
    // The rest goes on.
    site.write("dns.yaml", &text(DNS))?;
    site.await_services(&[WEB, DNS])?;
    site.write("web.yaml", &text(("10.96.0.11", "web")))?;
    site.await_services(&[("10.96.0.11", "web"), DNS])?;
    fs::remove_file(site.manifests().join("web.yaml"))?;
    site.await_services(&[DNS])
}

/// `kubectl get services -o yaml > services.yaml` empties the file first, and takes its time.
#[test]
fn a_file_counts_once_it_is_written() -> Result<()> {
    let (site, _agent) = start("written")?;
    let mut file = File::create(site.manifests().join("web.yaml"))?;
    // When the agent has seen this, it has seen the other, too.
    site.write("dns.yaml", &text(DNS))?;
    site.await_services(&[WEB, DNS])?;
    file.write_all(text(("10.96.0.11", "web")).as_bytes())?;
    drop(file);
    site.await_services(&[("10.96.0.11", "web"), DNS])
}

/// Kubernetes mounts a ConfigMap as links into a directory that it replaces as a whole.
#[test]
fn a_mounted_config_map_is_followed() -> Result<()> {
    let site = Site::new("config-map")?;
    let directory = site.manifests();
    for (version, service) in [("..1", WEB), ("..2", DNS)] {
        fs::create_dir(directory.join(version))?;
        site.write(&format!("{version}/objects.yaml"), &text(service))?;
    }
    symlink("..1", directory.join("..data"))?;
    symlink("..data/objects.yaml", directory.join("objects.yaml"))?;
    let _agent = site.start()?;
    site.await_services(&[WEB])?;
    symlink("..2", directory.join("..data_tmp"))?;
    replace(&directory.join("..data_tmp"), &directory.join("..data"))?;
    site.await_services(&[DNS])
}

#[test]
fn a_single_file_is_followed_through_replacements() -> Result<()> {
    let site = Site::new("single")?;
    site.write("web.yaml", &text(WEB))?;
    let path = site.manifests().join("web.yaml");
    let mut agent = Agent::start(site.run(&["--manifests"])?.arg(&path))?;
    agent.await_log("synced: ")?;
    // Its neighbours were not asked for.
    site.write("dns.yaml", &text(DNS))?;
    site.write("web.yaml~", &text(("10.96.0.11", "web")))?;
    replace(&site.manifests().join("web.yaml~"), &path)?;
    site.await_services(&[("10.96.0.11", "web")])?;
    fs::remove_file(&path)?;
    site.await_services(&[])?;
    site.write("web.yaml", &text(WEB))?;
    site.await_services(&[WEB])
}

/// As a deployment does that unpacks beside and renames.
#[test]
fn a_directory_that_is_replaced_is_followed() -> Result<()> {
    let (site, _agent) = start("replaced")?;
    let next = site.world.directory().join("next");
    fs::create_dir(&next)?;
    fs::write(next.join("dns.yaml"), text(DNS))?;
    replace(&site.manifests(), &site.world.directory().join("previous"))?;
    replace(&next, &site.manifests())?;
    site.await_services(&[DNS])?;
    // And so it goes on.
    site.write("web.yaml", &text(WEB))?;
    site.await_services(&[WEB, DNS])
}

/// Replaces a manifest in one step.
fn exchange(site: &Site, file: &str, text: &str) -> Result<()> {
    let next = site.manifests().join(".next");
    fs::write(&next, text)?;
    replace(&next, &site.manifests().join(file))
}

/// An agent on this path, once it has synced.
fn start_on(site: &Site, path: &Path) -> Result<Agent> {
    let mut agent = Agent::start(site.run(&["--manifests"])?.arg(path))?;
    agent.await_log("synced: ")?;
    Ok(agent)
}

/// Has a link lead elsewhere, in one step.
fn relink(target: &str, link: &Path) -> Result<()> {
    let next = link.with_file_name(".next");
    symlink(target, &next)?;
    replace(&next, link)
}

#[test]
fn a_link_that_is_given_is_followed_to_its_file_and_through_its_replacement() -> Result<()> {
    let site = Site::new("link-given")?;
    let elsewhere = site.world.directory().join("elsewhere");
    fs::create_dir(&elsewhere)?;
    fs::write(elsewhere.join("one"), text(WEB))?;
    let link = site.manifests().join("objects.yaml");
    symlink("../elsewhere/one", &link)?;
    let _agent = start_on(&site, &link)?;
    site.await_services(&[WEB])?;
    // In place, and replaced where it lies.
    fs::write(elsewhere.join("one"), text(DNS))?;
    site.await_services(&[DNS])?;
    fs::write(elsewhere.join("two"), text(WEB))?;
    replace(&elsewhere.join("two"), &elsewhere.join("one"))?;
    site.await_services(&[WEB])?;
    fs::write(elsewhere.join("three"), text(DNS))?;
    relink("../elsewhere/three", &link)?;
    site.await_services(&[DNS])?;
    fs::write(elsewhere.join("three"), text(WEB))?;
    site.await_services(&[WEB])
}

#[test]
fn links_in_a_directory_are_followed_to_their_files() -> Result<()> {
    let site = Site::new("links-inside")?;
    let elsewhere = site.world.directory().join("elsewhere");
    fs::create_dir(&elsewhere)?;
    fs::write(elsewhere.join("web"), text(WEB))?;
    symlink("../elsewhere/hop", site.manifests().join("web.yaml"))?;
    symlink("web", elsewhere.join("hop"))?;
    let _agent = site.start()?;
    site.await_services(&[WEB])?;
    fs::write(elsewhere.join("web"), text(DNS))?;
    site.await_services(&[DNS])?;
    fs::write(elsewhere.join("other"), text(WEB))?;
    relink("other", &elsewhere.join("hop"))?;
    site.await_services(&[WEB])?;
    // One that comes later counts as much.
    fs::write(elsewhere.join("dns"), text(("10.96.0.52", "dns")))?;
    symlink(elsewhere.join("dns"), site.manifests().join("dns.yaml"))?;
    site.await_services(&[WEB, ("10.96.0.52", "dns")])?;
    fs::write(elsewhere.join("dns"), text(DNS))?;
    site.await_services(&[WEB, DNS])?;
    fs::remove_file(elsewhere.join("dns"))?;
    site.await_services(&[WEB])
}

/// As deployments keep their releases.
#[test]
fn a_link_on_the_way_is_followed() -> Result<()> {
    let site = Site::new("releases")?;
    let releases = site.world.directory().join("releases");
    for (release, service) in [("1", WEB), ("2", DNS), ("3", ("10.96.0.11", "web"))] {
        let directory = releases.join(release).join("deep/manifests");
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("objects.yaml"), text(service))?;
    }
    symlink("1", releases.join("current"))?;
    let _agent = start_on(&site, &releases.join("current/deep/manifests"))?;
    site.await_services(&[WEB])?;
    relink("2", &releases.join("current"))?;
    site.await_services(&[DNS])?;
    fs::write(releases.join("2/deep/manifests/web.yaml"), text(WEB))?;
    site.await_services(&[WEB, DNS])?;
    relink("3", &releases.join("current"))?;
    site.await_services(&[("10.96.0.11", "web")])?;
    // The one before is nobody's any more.
    fs::write(releases.join("2/deep/manifests/web.yaml"), text(("10.96.0.12", "web")))?;
    fs::write(releases.join("3/deep/manifests/dns.yaml"), text(DNS))?;
    site.await_services(&[("10.96.0.11", "web"), DNS])
}

/// How often the agent's threads have been woken.
fn wakes(agent: &Agent) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{}/task", agent.pid()))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += line.context("no count of switches")?.trim().parse::<u64>()?;
    }
    Ok(sum)
}

#[test]
fn a_file_that_grows_beside_the_manifests_costs_nothing() -> Result<()> {
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
    // It also hears of what follows.
    site.write("dns.yaml", &text(DNS))?;
    site.await_services(&[WEB, DNS])?;
    let woken = wakes(&agent)? - before;
    // For what it does from time to time, and for the change.
    let allowed = 1_000 + 200 * start.elapsed().as_secs();
    ensure!(woken < allowed, "the agent was woken {woken} times, and {allowed} times are allowed");
    Ok(())
}

/// `text`, in pieces; after each the tables must hold what they held.
fn write_slowly(site: &Site, text: &str, expected: &[(&str, &str)], mut write: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, next) = rest.split_at(rest.len().min(16));
        write(piece)?;
        rest = next;
        if !rest.is_empty() {
            let services: Vec<String> = site.services()?.into_values().collect();
            let names: Vec<String> = expected.iter().map(|(_, name)| format!("default/{name}")).collect();
            ensure!(services == names, "with {rest:?} still to be written the tables hold {services:?}, and not {names:?}");
        }
    }
    Ok(())
}

#[test]
fn a_slow_writer_takes_no_service_away() -> Result<()> {
    let site = Site::new("slow")?;
    let both = format!("{}---\n{}", text(WEB), text(DNS));
    site.write("all.yaml", &both)?;
    let _agent = site.start()?;
    let path = site.manifests().join("all.yaml");
    let next = both.replace("port: 80", "port: 80, name: http");
    // One that keeps the file open.
    let mut file = File::create(&path)?;
    write_slowly(&site, &next, &[WEB, DNS], |piece| Ok(file.write_all(piece.as_bytes())?))?;
    drop(file);
    site.await_services(&[WEB, DNS])?;
    // One that opens it for each piece.
    let swapped = both.replace("name: web", "name: other");
    fs::write(&path, "")?;
    write_slowly(&site, &swapped, &[WEB, DNS], |piece| {
        Ok(File::options().append(true).open(&path)?.write_all(piece.as_bytes())?)
    })?;
    site.await_services(&[(WEB.0, "other"), DNS])?;
    // What is taken out on purpose goes, also in place.
    fs::write(&path, text(DNS))?;
    site.await_services(&[DNS])
}

#[test]
fn a_typo_takes_no_service_away() -> Result<()> {
    let (site, mut agent) = start("typo")?;
    let typos = [
        ("ports: [{port: 80}]", "ports: 80", "it was before stays"),
        ("ports: [{port: 80}]", "ports: [{port: 8o}]", "it was before stays"),
        ("ports: [{port: 80}]", "ports: [{port: 99999}]", "stays as it was before: port 99999"),
        ("ports: [{port: 80}]", "prots: [{port: 80}]", "stays as it was before: it has no ports any more"),
        ("clusterIP:", "clusterIp:", "stays as it was before: it has no clusterIP any more"),
        ("clusterIP: 10.96.0.10", "clusterIP: 10.96.0", "stays as it was before: clusterIP"),
        ("kind: Service", "kind: Sevrice", "it was before stays"),
        ("apiVersion: v1", "apiVersion: v11", "it was before stays"),
        ("metadata: {name: web}", "metadata: {nmae: web}", "it was before stays"),
        ("kind: Service", "kin: Service", "it was before stays"),
    ];
    for (number, (right, wrong, said)) in typos.into_iter().enumerate() {
        exchange(&site, "web.yaml", &text(WEB).replace(right, wrong))?;
        let warning = agent.await_log("WARN")?;
        ensure!(warning.contains(said) && warning.contains("web.yaml"), "{wrong}: {warning}");
        // When the agent has seen this, it has seen the other, too.
        let marker = (format!("10.96.1.{number}"), format!("marker-{number}"));
        exchange(&site, "marker.yaml", &text((&marker.0, &marker.1)))?;
        site.await_services(&[WEB, (&marker.0, &marker.1)]).with_context(|| wrong)?;
    }
    exchange(&site, "marker.yaml", "")?;
    exchange(&site, "web.yaml", &text(("10.96.0.11", "web")))?;
    fs::remove_file(site.manifests().join("marker.yaml"))?;
    site.await_services(&[("10.96.0.11", "web")])?;
    // What is meant is done.
    exchange(&site, "web.yaml", &text(("None", "web")))?;
    site.await_services(&[])
}

#[test]
fn trouble_that_comes_and_goes_is_said_once_in_some_seconds() -> Result<()> {
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
    let (_, said) = agent.stop(Signal::SIGTERM)?;
    let times = said.lines().filter(|line| line.contains("neither YAML nor JSON")).count();
    ensure!((1..=periods + 1).contains(&times), "said {times} times in {:?}:\n{said}", start.elapsed());
    Ok(())
}

#[test]
fn a_node_of_another_name_is_a_note_of_the_status() -> Result<()> {
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
        ensure!(Instant::now() < deadline, "the status should have the note: {expected}");
    }
    Ok(())
}
