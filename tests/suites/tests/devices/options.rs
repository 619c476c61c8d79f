//! The arguments `--devices`, `--pod-devices` and `--device-attach`.

use anyhow::Result;
use portmap_harness::agent::Agent;
use portmap_harness::kernel::Features;
use portmap_harness::world::{Families, World};

use crate::node::Node;
use crate::view::Way;

const SECOND: &str = "link add eth1 type veth peer name far1";

#[test]
fn names_override_the_choice() -> Result<()> {
    for way in Way::all() {
        let world = World::of("names", Families::V4)?;
        let mut node = Node::prepared(world, way, SECOND, &["--devices", "eth1,nosuch0"])?;
        node.await_devices(&["eth1 WAY outside 192.0.2.2"])?;
        node.view.expect_none("eth0")?;
        let log = node.agent.log();
        assert!(log.contains("there is no network device nosuch0; waiting for it"), "{log}");
        node.agent.wait_until("status tells of the absent device", |agent| {
            let status = String::from_utf8(agent.portmap(&["status"])?.stdout)?;
            Ok(status.contains("1 network devices of --devices or --pod-devices do not exist"))
        })?;
        node.view.world.ip("link add nosuch0 type veth peer name far2")?;
        node.await_devices(&["eth1 WAY outside 192.0.2.2", "nosuch0 WAY outside 192.0.2.2"])?;
        node.stop()?;
        // The programs of earlier choices are removed.
        node.start(&["--devices", "eth0"])?;
        node.await_devices(&["eth0 WAY outside 192.0.2.2"])?;
        for other in ["eth1", "nosuch0"] {
            node.view.expect_none(other)?;
        }
        node.stop()?;
        node.start(&["--devices", "none"])?;
        node.await_devices(&[])?;
        node.view.expect_none("eth0")?;
    }
    Ok(())
}

#[test]
fn pod_devices_are_marked() -> Result<()> {
    for way in Way::all() {
        let world = World::of("pods", Families::V4)?;
        let mut node = Node::prepared(world, way, SECOND, &["--pod-devices", "eth1,tap*"])?;
        node.await_devices(&["eth0 WAY outside 192.0.2.2", "eth1 WAY pods 192.0.2.2"])?;
        // A port of the bridge of pods.
        node.view.world.ip("link add tap7 type veth peer name far2\nlink set tap7 master pods")?;
        node.await_devices(&["eth0 WAY outside 192.0.2.2", "eth1 WAY pods 192.0.2.2", "tap7 WAY pods 192.0.2.2"])?;
        node.view.expect_attached("tap7")?;
    }
    Ok(())
}

#[test]
fn wrong_arguments_are_refused() -> Result<()> {
    let world = World::of("refused", Families::V4)?;
    let mut refused: Vec<(&[&str], &str)> = vec![
        (&["--devices", "e*h"], "a * may only be the last character"),
        (&["--devices", "none,eth0"], "none"),
        (&["--devices", "none", "--pod-devices", "eth0"], "none"),
        (&["--pod-devices", "a-name-that-is-too-long"], "no network device can have this name"),
    ];
    if !Features::here().has_device_links {
        refused.push((&["--device-attach", "tcx"], "no TCX links"));
    }
    for (arguments, expected) in refused {
        let mut agent = Agent::spawn(&world, arguments)?;
        let error = agent.wait_until("never", |_| Ok(false)).map_err(|error| format!("{error:#}")).err().unwrap_or_default();
        assert!(error.contains("the agent ended") && error.contains(expected), "{arguments:?}: {error}");
    }
    Ok(())
}
