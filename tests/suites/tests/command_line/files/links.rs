//! Manifests behind symbolic links. The agent notices changes of the target file, of the link, and of links in the path.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Result;

use super::{DNS, WEB, start_on, text};
use crate::site::{Site, replace};

/// Changes the target of a symbolic link atomically, by a rename.
fn relink(target: &str, link: &Path) -> Result<()> {
    let next = link.with_file_name(".next");
    symlink(target, &next)?;
    replace(&next, link)
}

/// Kubernetes mounts a ConfigMap as links into a directory, and replaces the directory as a whole.
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
fn a_link_as_the_path_is_followed() -> Result<()> {
    let site = Site::new("link-given")?;
    let elsewhere = site.world.directory().join("elsewhere");
    fs::create_dir(&elsewhere)?;
    fs::write(elsewhere.join("one"), text(WEB))?;
    let link = site.manifests().join("objects.yaml");
    symlink("../elsewhere/one", &link)?;
    let _agent = start_on(&site, &link)?;
    site.await_services(&[WEB])?;
    // The target file is changed in place, and then replaced.
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
    // A link that is created later is followed too.
    fs::write(elsewhere.join("dns"), text(("10.96.0.52", "dns")))?;
    symlink(elsewhere.join("dns"), site.manifests().join("dns.yaml"))?;
    site.await_services(&[WEB, ("10.96.0.52", "dns")])?;
    fs::write(elsewhere.join("dns"), text(DNS))?;
    site.await_services(&[WEB, DNS])?;
    fs::remove_file(elsewhere.join("dns"))?;
    site.await_services(&[WEB])
}

/// Some deployments keep each release in its own directory, and a symbolic link to the current one.
#[test]
fn a_link_in_the_path_is_followed() -> Result<()> {
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
    // The agent ignores changes in the directory of the previous release.
    fs::write(releases.join("2/deep/manifests/web.yaml"), text(("10.96.0.12", "web")))?;
    fs::write(releases.join("3/deep/manifests/dns.yaml"), text(DNS))?;
    site.await_services(&[("10.96.0.11", "web"), DNS])
}
