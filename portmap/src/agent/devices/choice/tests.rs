use anyhow::Result;

use super::*;
use crate::kernel::devices::{DeviceAddress, LinkLayer};

const ETH0: u32 = 2;
const ETH1: u32 = 3;
const VETH: u32 = 4;
const TUNNEL: u32 = 5;

/// A node with `eth0`, whose network has the gateway, `eth1` with another network, a pod's device and a tunnel without routes.
fn network() -> Network {
    let device =
        |index, name: &str, kind, link_layer| NetDevice { index, name: name.to_owned(), kind, link_layer: Some(link_layer) };
    Network {
        devices: vec![
            device(1, "lo", DeviceKind::Loopback, LinkLayer::Ethernet),
            device(ETH0, "eth0", DeviceKind::Other, LinkLayer::Ethernet),
            device(ETH1, "eth1", DeviceKind::Other, LinkLayer::Ethernet),
            device(VETH, "veth0", DeviceKind::Other, LinkLayer::Ethernet),
            device(TUNNEL, "wg0", DeviceKind::Tunnel, LinkLayer::Bare),
        ],
        addresses: vec![address(ETH0, "192.0.2.2/24"), address(ETH0, "2001:db8::2/64"), address(ETH1, "198.51.100.2/24")],
        routes: vec![
            route(ETH0, "0.0.0.0/0", "192.0.2.1"),
            route(ETH0, "192.0.2.0/24", ""),
            route(ETH0, "fe80::/64", ""),
            route(ETH1, "198.51.100.0/24", ""),
            route(VETH, "10.244.0.2/32", ""),
            route(TUNNEL, "fe80::/64", ""),
            route(TUNNEL, "ff00::/8", ""),
        ],
    }
}

fn address(device: u32, network: &str) -> DeviceAddress {
    DeviceAddress { device, network: network.parse().expect("a network"), is_primary: true }
}

/// A route; without a gateway if that text is empty.
fn route(device: u32, destination: &str, gateway: &str) -> DeviceRoute {
    let gateway = Some(gateway).filter(|gateway| !gateway.is_empty()).map(|gateway| gateway.parse().expect("an address"));
    DeviceRoute { device, destination: destination.parse().expect("a network"), gateway, source: None }
}

fn node(addresses: &[&str]) -> PerFamily<Option<IpAddr>> {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    PerFamily::of(|family| addresses.iter().copied().find(|address| Family::of(*address) == family))
}

fn options(devices: &[&str], pods: &[&str]) -> DeviceOptions {
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a pattern")).collect::<Vec<_>>();
    let outside = if devices.is_empty() { DeviceSelection::Automatic } else { DeviceSelection::Named(parse(devices)) };
    DeviceOptions { outside, pods: parse(pods) }
}

/// The names of the chosen devices; those for pods with a `+`.
fn chosen(options: &DeviceOptions, network: &Network, node: &PerFamily<Option<IpAddr>>) -> Vec<String> {
    let name = |device: &Chosen| match device.entry.clients {
        DeviceClients::Outside => device.target.name.clone(),
        DeviceClients::Pods => format!("{}+", device.target.name),
    };
    choose(options, network, node).devices.values().map(name).collect()
}

/// The addresses on a device, as texts.
fn addresses(network: &Network, node: &PerFamily<Option<IpAddr>>, device: u32) -> [Option<String>; 2] {
    let all = options(&["*"], &["veth*"]);
    let PerFamily { v4, v6 } = choose(&all, network, node).devices[&device].entry.addresses;
    [v4, v6].map(|address| address.map(|address| address.to_string()))
}

#[test]
fn a_default_route_or_an_address_of_the_node_selects_a_device() {
    let (automatic, nobody) = (options(&[], &[]), node(&[]));
    assert_eq!(chosen(&automatic, &network(), &nobody), ["eth0"]);
    assert_eq!(chosen(&automatic, &network(), &node(&["198.51.100.2"])), ["eth0", "eth1"]);
    assert_eq!(chosen(&automatic, &network(), &node(&["203.0.113.1"])), ["eth0"], "an address of another host");
    let mut without = network();
    without.routes.remove(0);
    assert!(chosen(&automatic, &without, &nobody).is_empty());
    without.routes.push(route(ETH1, "::/0", "fe80::1"));
    assert_eq!(chosen(&automatic, &without, &nobody), ["eth1"], "IPv6 counts, too");
}

#[test]
fn routes_to_pods_of_other_nodes_select_a_device() {
    let automatic = options(&[], &[]);
    for (device, destination, gateway, name) in [
        (ETH1, "10.244.1.0/24", "198.51.100.3", "eth1"),
        (TUNNEL, "10.244.1.0/24", "10.244.1.0", "wg0"),
        (TUNNEL, "10.244.1.0/24", "", "wg0"),
    ] {
        let mut network = network();
        network.routes.push(route(device, destination, gateway));
        assert_eq!(chosen(&automatic, &network, &node(&[])), ["eth0", name]);
    }
}

#[test]
fn a_port_of_a_bond_or_bridge_is_not_chosen_and_its_master_is() {
    let mut network = network();
    network.devices[1].kind = DeviceKind::Port;
    let bond = NetDevice { index: 6, name: "bond0".to_owned(), kind: DeviceKind::Other, link_layer: Some(LinkLayer::Ethernet) };
    network.devices.push(bond);
    network.routes.push(route(6, "0.0.0.0/0", "192.0.2.1"));
    assert_eq!(chosen(&options(&[], &[]), &network, &node(&["192.0.2.2"])), ["bond0"]);
    assert_eq!(chosen(&options(&["bond*", "eth*"], &[]), &network, &node(&[])), ["eth1", "bond0"]);
    assert_eq!(chosen(&options(&["eth0"], &[]), &network, &node(&[])), ["eth0"], "a port that is named");
}

#[test]
fn names_override_the_choice() {
    let network = network();
    let names = |devices: &[&str], pods: &[&str]| chosen(&options(devices, pods), &network, &node(&[]));
    assert_eq!(names(&["eth1"], &[]), ["eth1"]);
    assert_eq!(names(&["eth*", "lo"], &[]), ["lo", "eth0", "eth1"]);
    assert_eq!(names(&["*"], &[]), ["eth0", "eth1", "veth0", "wg0"], "not the loopback device");
    assert_eq!(names(&[], &["veth*"]), ["eth0", "veth0+"]);
    assert_eq!(names(&["*"], &["veth0"]), ["eth0", "eth1", "veth0+", "wg0"]);
    let none = DeviceOptions { outside: DeviceSelection::None, ..options(&[], &["veth*"]) };
    assert!(chosen(&none, &network, &node(&[])).is_empty());
}

#[test]
fn ports_of_a_bridge_may_lead_to_pods() {
    let mut network = network();
    network.devices[3].kind = DeviceKind::Port;
    assert_eq!(chosen(&options(&[], &["v*"]), &network, &node(&[])), ["eth0", "veth0+"]);
}

#[test]
fn absent_names_are_reported() {
    let absent = choose(&options(&["eth0", "nosuch0", "nosuch*"], &["tap0"]), &network(), &node(&[])).absent;
    assert_eq!(absent, ["nosuch0", "tap0"]);
}

#[test]
fn the_nodes_address_on_a_device_is_its_primary_one() {
    let mut network = network();
    let [v4, v6] = ["192.0.2.2", "2001:db8::2"].map(|text| Some(text.to_owned()));
    assert_eq!(addresses(&network, &node(&[]), ETH0), [v4.clone(), v6.clone()]);
    // A secondary or deprecated address is not used, even if it comes first.
    network.addresses.insert(0, DeviceAddress { is_primary: false, ..address(ETH0, "192.0.2.9/24") });
    network.addresses.insert(0, DeviceAddress { is_primary: false, ..address(ETH0, "2001:db8::9/64") });
    assert_eq!(addresses(&network, &node(&[]), ETH0), [v4.clone(), v6]);
    // Of several, the one in the network of the gateway; before that, the Node's.
    network.addresses.insert(0, address(ETH0, "203.0.113.2/24"));
    assert_eq!(addresses(&network, &node(&[]), ETH0)[0], v4);
    assert_eq!(addresses(&network, &node(&["203.0.113.2"]), ETH0)[0].as_deref(), Some("203.0.113.2"));
}

#[test]
fn a_device_without_an_address_gets_the_one_that_the_kernel_would_use() -> Result<()> {
    let mut network = network();
    let of = |network: &Network, node: &[&str]| addresses(network, &self::node(node), TUNNEL)[0].clone();
    network.addresses.swap(0, 2);
    assert_eq!(of(&network, &[]).as_deref(), Some("192.0.2.2"), "the address of the device with the default route");
    assert_eq!(of(&network, &["198.51.100.2"]).as_deref(), Some("198.51.100.2"), "the Node's");
    let mut preferring = route(TUNNEL, "10.244.1.0/24", "");
    preferring.source = Some("10.244.0.1".parse()?);
    network.routes.push(preferring);
    assert_eq!(of(&network, &["198.51.100.2"]).as_deref(), Some("10.244.0.1"), "the route's");
    network.routes.clear();
    assert_eq!(of(&network, &[]).as_deref(), Some("198.51.100.2"), "the first address of the host");
    network.addresses.clear();
    assert_eq!(addresses(&network, &node(&[]), ETH0), [None, None]);
    Ok(())
}

#[test]
fn a_device_without_ethernet_gets_the_programs_for_it() {
    let mut network = network();
    network.routes.push(route(TUNNEL, "10.244.1.0/24", ""));
    let devices = choose(&options(&[], &[]), &network, &node(&[])).devices;
    assert_eq!(devices[&ETH0].target.link_layer, LinkLayer::Ethernet);
    assert_eq!(devices[&TUNNEL].target.link_layer, LinkLayer::Bare);
}

#[test]
fn a_device_with_an_unknown_header_is_left_out() {
    let mut network = network();
    network.devices[1].link_layer = None;
    let choice = choose(&options(&[], &[]), &network, &node(&["192.0.2.2"]));
    assert_eq!((choice.devices.contains_key(&ETH0), choice.left_out), (false, vec!["eth0".to_owned()]));
    network.devices[2].link_layer = None;
    let choice = choose(&options(&["eth0"], &[]), &network, &node(&[]));
    assert_eq!(choice.left_out, ["eth0"], "a device that is not chosen is not named");
}
