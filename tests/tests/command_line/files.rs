//! Files that change under a running agent.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;

use anyhow::Result;

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
