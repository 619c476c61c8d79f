//! Directories of pins in which other programs pinned objects.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use portmap_common::ABI_VERSION;
use portmap_harness::links::Link;
use portmap_harness::world::Group;

use super::{Shared, bpftool, cleanup, everything, leave_pins, make, notes, pin_map, text};
use crate::site::{Agent, Site};

/// Adds directories, symbolic links, and pins of maps and of a program, none of them made by portmap. Returns the paths that
/// cleanup must keep and name.
fn pin_foreign_objects(site: &Site, root: &Path, elsewhere: &Shared) -> Result<Vec<PathBuf>> {
    let set = root.join(ABI_VERSION.to_string()).join("0");
    let links = Link::to(&site.world.cgroup(Group::Clients))?;
    let program = links.first().context("nothing is attached")?.program.to_string();
    for directory in [root.join("tc"), root.join("03"), root.join("sockets-x"), set.join("GRACE_d"), root.join("7")] {
        make(&directory, 0o700)?;
    }
    make(&root.join("7/0"), 0o700)?;
    let maps = [
        root.join("STATE"),
        root.join("tc/STATE"),
        root.join("03/STATE"),
        set.join("OTHER"),
        set.join("link_other"),
        root.join("7/STATE"),
    ];
    for path in maps.iter().chain([&root.join("7/0/link_connect4"), &root.join(notes()).join("STATE"), &set.join("SOCKETS")]) {
        pin_map(path)?;
    }
    bpftool(&["prog", "pin", "id", &program, &text(&set.join("UDP_SOCKETS"))])?;
    symlink(elsewhere.path("STATE"), root.join("7/0/STATE"))?;
    symlink(elsewhere.0.path(), root.join("8"))?;
    let left =
        ["8", "tc", "03", "sockets-x", "STATE", "7/STATE", "7/0/link_connect4", "7/0/STATE", &format!("{}/STATE", notes())];
    let left: Vec<PathBuf> = left.iter().map(|name| root.join(name)).collect();
    Ok(left
        .into_iter()
        .chain(["GRACE_d", "OTHER", "link_other", "SOCKETS", "UDP_SOCKETS"].map(|name| set.join(name)))
        .collect())
}

/// Cleanup keeps objects that are not portmap's, also under names that portmap uses.
#[test]
fn cleanup_keeps_and_names_foreign_pins() -> Result<()> {
    let site = Site::new("others-pins")?;
    let root = leave_pins(&site)?;
    let set = root.join(ABI_VERSION.to_string()).join("0");
    let elsewhere = Shared::mount()?;
    pin_map(&elsewhere.path("STATE"))?;
    let left = pin_foreign_objects(&site, &root, &elsewhere)?;
    let outcome = cleanup(&root)?.expect(1)?;
    for path in left {
        let line = format!("error: left {}: ", path.display());
        assert!(outcome.stderr.lines().any(|error| error.starts_with(&line)), "{line} {outcome:#?}");
        assert!(fs::symlink_metadata(&path).is_ok(), "{} is gone", path.display());
    }
    assert_eq!(outcome.stderr.lines().count(), 14, "{outcome:#?}");
    assert!(elsewhere.path("STATE").exists() && root.join("tc/STATE").exists() && root.join("03/STATE").exists());
    // Only the five foreign entries are left in the directory of the agent's maps.
    assert_eq!(fs::read_dir(&set)?.count(), 5);
    assert!(Link::to(&site.world.cgroup(Group::Clients))?.is_empty(), "programs are attached");
    // The second cleanup finds no pin of portmap, and changes nothing.
    let before = everything(&root)?;
    cleanup(&root)?.expect_error(&[&text(&root), "nothing was removed", &text(&root.join("tc"))])?;
    assert_eq!(everything(&root)?, before);
    Ok(())
}

/// The next agent removes the maps of the previous one, and `--cleanup-on-exit` removes its own. Both keep foreign pins.
#[test]
fn an_agent_keeps_and_names_foreign_pins() -> Result<()> {
    let mut site = Site::new("others-set")?;
    let root = leave_pins(&site)?;
    let version = root.join(ABI_VERSION.to_string());
    pin_map(&version.join("0/OTHER"))?;
    site.max_services = 32;
    let mut agent = Agent::start(site.run(&["--cleanup-on-exit", "--manifests"])?.arg(site.manifests()))?;
    agent.await_log(&format!("left {}: ", version.join("0/OTHER").display()))?;
    assert_eq!(everything(&version.join("0"))?, [version.join("0/OTHER")]);
    let (status, log) = agent.stop(Signal::SIGTERM)?;
    assert_eq!(status.code(), Some(3), "{log}");
    // A repeated warning within seconds is logged once.
    assert!(log.contains("were left") && log.contains("0/OTHER"), "{log}");
    assert_eq!(everything(&root)?, [version.clone(), version.join("0"), version.join("0/OTHER")]);
    Ok(())
}

/// An object that replaces the pin of a link is neither detached nor removed.
#[test]
fn a_foreign_pin_in_place_of_a_link_is_kept() -> Result<()> {
    let site = Site::new("no-link")?;
    let link = leave_pins(&site)?.join(ABI_VERSION.to_string()).join("0/link_connect4");
    fs::remove_file(&link)?;
    pin_map(&link)?;
    site.run_in_time(&["--manifests", &text(&site.manifests())])?.expect_error(&[
        &text(&link),
        "not portmap's",
        "remove it",
    ])?;
    assert!(link.exists());
    Ok(())
}
