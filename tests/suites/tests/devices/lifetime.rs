//! Programs outlive the agent, and are replaced without a gap. The cleanup removes them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use crate::node::Node;
use crate::view::{Direction, View, Way};

/// With these arguments, an agent cannot use the maps of an agent without arguments.
const SMALL: [&str; 2] = ["--max-services", "1000"];

/// The ids of the programs and of the links at `eth0`. Filters have no links.
fn ids(view: &View) -> Result<Vec<(u64, Option<u64>)>> {
    let id = |direction| {
        let programs = view.attached("eth0", direction)?;
        ensure!(programs.len() == 1, "{direction:?}: {programs:?}");
        let link = if view.way == Way::Tcx { Some(view.link("eth0", direction)?) } else { None };
        Ok((programs[0].id, link))
    };
    Direction::ALL.into_iter().map(id).collect()
}

/// Another agent replaces the programs on the same links. At each moment in between, each direction has one program.
#[test]
fn another_agent_replaces_the_programs_without_a_gap() -> Result<()> {
    for way in Way::all() {
        let mut node = Node::new("replace", way, &[])?;
        for arguments in [&[][..], &SMALL, &[]] {
            let before = ids(&node.view)?;
            node.stop()?;
            assert_eq!(ids(&node.view)?, before, "the programs outlive the agent");
            watched(&mut node, |node| node.start(arguments))?;
            let after = ids(&node.view)?;
            for ((old, old_link), (new, new_link)) in before.into_iter().zip(after) {
                assert_ne!(old, new, "the program is another one");
                assert_eq!(old_link, new_link, "the link is the same");
            }
        }
        node.await_devices(&["eth0 WAY outside 192.0.2.2"])?;
    }
    Ok(())
}

/// Runs `work`. Fails if a direction of `eth0` has another number of programs than one at any moment meanwhile.
fn watched(node: &mut Node, work: impl FnOnce(&mut Node) -> Result<()>) -> Result<()> {
    let view = node.view.clone();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| -> Result<u32> {
            let mut looks = 0;
            while !is_over.load(Ordering::Relaxed) {
                for direction in Direction::ALL {
                    let found = view.attached("eth0", direction)?;
                    ensure!(found.len() == 1, "{direction:?}: {found:?}");
                }
                looks += 1;
            }
            Ok(looks)
        });
        let worked = work(node);
        is_over.store(true, Ordering::Relaxed);
        let looks = watching.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the thread panicked")))?;
        ensure!(looks > 0, "nothing was looked at");
        worked
    })
}

/// An agent that attaches in the other way removes the programs of the earlier one.
#[test]
fn an_agent_changes_the_way_of_attaching() -> Result<()> {
    let [tcx, clsact] = Way::all()[..] else { return Ok(()) };
    let mut node = Node::new("way", tcx, &[])?;
    for way in [clsact, tcx] {
        node.stop()?;
        node.view.way = way;
        node.start(&[])?;
        node.view.expect_attached("eth0")?;
    }
    Ok(())
}

#[test]
fn the_cleanup_removes_the_programs() -> Result<()> {
    for way in Way::all() {
        let mut node = Node::new("cleanup", way, &[])?;
        node.stop()?;
        node.clean_up()?;
        node.view.expect_none("eth0")?;
        node.start(&["--cleanup-on-exit"])?;
        node.view.expect_attached("eth0")?;
        let status = node.agent.stop(Signal::SIGTERM)?;
        ensure!(status.success(), "{status}; {}", node.agent.log());
        node.view.expect_none("eth0")?;
        ensure!(!node.view.world.bpffs().exists(), "pins were left");
    }
    Ok(())
}

/// A device that goes while no agent runs leaves nothing behind.
#[test]
fn a_device_that_went_without_an_agent_is_forgotten() -> Result<()> {
    for way in Way::all() {
        let mut node = Node::new("forgotten", way, &["--devices", "eth*"])?;
        node.view.world.ip("link add eth1 type veth peer name far1")?;
        node.await_devices(&["eth0 WAY outside 192.0.2.2", "eth1 WAY outside 192.0.2.2"])?;
        node.stop()?;
        node.view.world.ip("link del eth1")?;
        node.start(&["--devices", "eth*"])?;
        node.await_devices(&["eth0 WAY outside 192.0.2.2"])?;
        let links = node.view.pinned_links()?;
        assert_eq!(links, if way == Way::Tcx { 2 } else { 0 }, "pinned links to devices");
    }
    Ok(())
}
