//! The agent follows the devices, addresses and routes of the node.

use anyhow::Result;
use portmap_harness::world::{Families, World};

use crate::node::Node;
use crate::view::{Direction, View, Way};

/// A second device, whose other end is `far1`.
const SECOND: &str = "link add eth1 type veth peer name far1\nlink set far1 up\nlink set eth1 up";

#[test]
fn the_device_with_the_default_route_gets_the_programs() -> Result<()> {
    for way in Way::all() {
        let mut node = Node::new("default-route", way, &[])?;
        node.await_devices(&["eth0 WAY outside 192.0.2.2"])?;
        node.view.expect_attached("eth0")?;
        for other in ["lo", "far0", "pods"] {
            node.view.expect_none(other)?;
        }
        let log = node.agent.log();
        assert!(log.contains("serving clients outside the node on eth0"), "{log}");
        node.view.world.ip("route del default")?;
        node.await_devices(&[])?;
        node.view.expect_none("eth0")?;
        let log = node.agent.log();
        assert_eq!(log.matches("no network device leads to clients outside the node").count(), 1, "{log}");
    }
    Ok(())
}

/// The bridge has the Node's address. Its port, which leads to a pod, is left alone.
#[test]
fn the_device_with_the_nodes_address_gets_the_programs() -> Result<()> {
    for way in Way::all() {
        let mut node = Node::new("node-address", way, &[])?;
        let _pod = node.view.world.pod("a")?;
        node.set_node_address(Some(&node.view.world.ipv4().to_string()))?;
        node.await_devices(&["pods WAY outside 10.244.0.1", "eth0 WAY outside 192.0.2.2"])?;
        node.view.expect_attached("pods")?;
        // The Node object lacks its addresses for a moment. The loss of the default route shows that the agent has seen it.
        node.set_node_address(None)?;
        node.agent.wait_until("the address is missed", |agent| Ok(agent.log().contains("names no address of this host")))?;
        node.view.world.ip("route del default")?;
        node.await_devices(&["pods WAY outside 10.244.0.1"])?;
        node.view.expect_attached("pods")?;
        node.set_node_address(Some("192.0.2.2"))?;
        node.await_devices(&["eth0 WAY outside 192.0.2.2"])?;
        node.view.expect_none("pods")?;
    }
    Ok(())
}

#[test]
fn both_families_are_followed() -> Result<()> {
    if Families::here() != Families::Both {
        return Ok(());
    }
    for way in Way::all() {
        let mut node = Node::prepared(World::new("families")?, way, "addr add 2001:db8::2/64 dev eth0", &[])?;
        node.await_devices(&["eth0 WAY outside 192.0.2.2,2001:db8::2"])?;
        node.view
            .world
            .ip(&format!("{SECOND}\naddr add 2001:db8:1::2/64 dev eth1\nroute add default via 2001:db8:1::1 dev eth1"))?;
        // eth1 has no IPv4 address. That of the device with the default route is used.
        node.await_devices(&["eth0 WAY outside 192.0.2.2,2001:db8::2", "eth1 WAY outside 192.0.2.2,2001:db8:1::2"])?;
    }
    Ok(())
}

/// A device comes, gets another name and another address, and goes.
#[test]
fn a_device_is_followed_from_its_beginning_to_its_end() -> Result<()> {
    for way in Way::all() {
        let mut node = Node::new("life", way, &[])?;
        node.view
            .world
            .ip(&format!("{SECOND}\naddr add 198.51.100.2/24 dev eth1\nroute add 203.0.113.0/24 via 198.51.100.1"))?;
        let first = "eth0 WAY outside 192.0.2.2";
        node.await_devices(&[first, "eth1 WAY outside 198.51.100.2"])?;
        node.view.expect_attached("eth1")?;
        let before = [Direction::Ingress, Direction::Egress].map(|direction| node.view.attached("eth1", direction).ok());
        node.view.world.ip("addr add 198.51.100.3/24 dev eth1\naddr del 198.51.100.2/24 dev eth1")?;
        node.view.world.ip("addr replace 198.51.100.3/24 dev eth1\nroute replace 203.0.113.0/24 via 198.51.100.1")?;
        node.await_devices(&[first, "eth1 WAY outside 198.51.100.3"])?;
        node.set_node_address(Some("198.51.100.3"))?;
        node.view.world.ip("link set eth1 down\nlink set eth1 name uplink1\nlink set uplink1 up")?;
        node.await_devices(&[first, "uplink1 WAY outside 198.51.100.3"])?;
        let after = [Direction::Ingress, Direction::Egress].map(|direction| node.view.attached("uplink1", direction).ok());
        assert_eq!(before, after, "the programs stay");
        node.view.world.ip("link del uplink1")?;
        node.await_devices(&[first])?;
        // A device of the same name is another device.
        node.view.world.ip(&format!("{SECOND}\naddr add 198.51.100.3/24 dev eth1"))?;
        node.await_devices(&[first, "eth1 WAY outside 198.51.100.3"])?;
        node.view.expect_attached("eth1")?;
        let log = node.agent.log();
        assert!(!log.contains("ERROR") && !log.contains("detached"), "{log}");
    }
    Ok(())
}

#[test]
fn a_port_of_a_bridge_is_left_alone_and_the_bridge_gets_the_programs() -> Result<()> {
    let script = format!(
        "{SECOND}\nlink add br0 type bridge\nlink set eth1 master br0\nlink set br0 up\naddr add 198.51.100.2/24 dev br0\n\
         route add 203.0.113.0/24 via 198.51.100.1"
    );
    for way in Way::all() {
        let world = World::of("port", Families::V4)?;
        let mut node = Node::prepared(world, way, &script, &[])?;
        node.await_devices(&["eth0 WAY outside 192.0.2.2", "br0 WAY outside 198.51.100.2"])?;
        node.view.expect_attached("br0")?;
        node.view.expect_none("eth1")?;
    }
    Ok(())
}

/// A tunnel device without an Ethernet header, such as `WireGuard`, gets programs of its own.
#[test]
fn a_tunnel_to_other_nodes_gets_the_programs_for_its_packets() -> Result<()> {
    let script = "tuntap add dev tun0 mode tun\nlink set tun0 up\nroute add 10.244.1.0/24 dev tun0";
    for way in Way::all() {
        let world = World::of("tunnel", Families::V4)?;
        let mut node = Node::prepared(world, way, script, &[])?;
        node.await_devices(&["eth0 WAY outside 192.0.2.2", "tun0 WAY outside 192.0.2.2"])?;
        for direction in Direction::ALL {
            let programs = node.view.attached("tun0", direction)?;
            let names = programs.iter().map(|program| View::program_name(program.id)).collect::<Result<Vec<_>>>()?;
            assert_eq!(names, [format!("{}_bare", direction.name())]);
        }
    }
    Ok(())
}
