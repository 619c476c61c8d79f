//! Selects the node's addresses that serve node ports, by `--nodeport-addresses`. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;

use crate::{
    model::{Family, PerFamily, object::Node},
    resolve::claims::Yielding,
};

/// An item of `--nodeport-addresses`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Eligible {
    /// `primary`: the addresses of the Node object, at most one of each family, see [`Node::addresses`].
    Primary,
    /// `localhost`: the loopback and unspecified addresses, for clients in the host's network namespace.
    Localhost,
    /// `all`: every address of the node except loopback and link-local IPv6 addresses.
    All,
    /// A CIDR: the addresses of `all` in this range. If it has the loopback address and is not /0, also those of `localhost` in
    /// its family.
    Range(IpNet),
}

impl FromStr for Eligible {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "primary" => Ok(Self::Primary),
            "localhost" => Ok(Self::Localhost),
            "all" => Ok(Self::All),
            _ => text.parse().map(Self::Range).map_err(|_| "expected primary, localhost, all or a CIDR".to_owned()),
        }
    }
}

impl fmt::Display for Eligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("primary"),
            Self::Localhost => f.write_str("localhost"),
            Self::All => f.write_str("all"),
            Self::Range(range) => range.fmt(f),
        }
    }
}

/// The addresses that serve node ports, each with the Service addresses that take precedence over it. `None` if `primary` is
/// given and no Node object has an address.
///
/// `local` are the addresses of the node's interfaces, with their prefixes. If all items are ranges, node ports of a family
/// without a range are served on all addresses of that family, as for `all`.
pub fn addresses(eligible: &[Eligible], node: Option<&Node>, local: &[IpNet]) -> Option<BTreeMap<IpAddr, Yielding>> {
    let PerFamily { v4, v6 } = node.map(|node| node.addresses).unwrap_or_default();
    let named: Vec<IpAddr> = [v4, v6].into_iter().flatten().collect();
    let external = || local.iter().map(IpNet::addr).filter(|address| is_external(*address));
    let mut addresses = BTreeSet::new();
    for item in eligible {
        match item {
            Eligible::Primary if named.is_empty() => return None,
            Eligible::Primary => addresses.extend(named.iter().copied()),
            Eligible::Localhost => addresses.extend(LOOPBACK.iter().flatten()),
            Eligible::All => addresses.extend(external()),
            Eligible::Range(range) => {
                addresses.extend(external().filter(|address| range.contains(address)));
                let includes = |loopback: &&[IpAddr; 2]| range.prefix_len() > 0 && range.contains(&loopback[0]);
                addresses.extend(LOOPBACK.iter().filter(includes).flatten());
            }
        }
    }
    let is_range = |item: &Eligible| matches!(item, Eligible::Range(_));
    if eligible.iter().all(is_range) {
        for family in Family::ALL {
            let has = |item: &Eligible| matches!(item, Eligible::Range(range) if Family::of(range.addr()) == family);
            if !eligible.iter().any(has) {
                addresses.extend(external().filter(|address| Family::of(*address) == family));
            }
        }
    }
    // kube-proxy (IPVS) and load balancer speakers add Service addresses to interfaces as /32 or /128.
    let host_routes: BTreeSet<IpAddr> =
        local.iter().filter(|net| net.prefix_len() == net.max_prefix_len()).map(IpNet::addr).collect();
    let yielding = |address: &IpAddr| {
        if host_routes.contains(address) && !named.contains(address) { Yielding::ToServices } else { Yielding::ToClusterIps }
    };
    Some(addresses.into_iter().map(|address| (address, yielding(&address))).collect())
}

/// The loopback address and the unspecified address of each family. The kernel's `connect()` uses loopback for the unspecified
/// address.
const LOOPBACK: [[IpAddr; 2]; 2] = [
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
    [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
];

/// Whether other hosts may be able to connect to the address. Link-local IPv6 addresses are excluded: they are unique only per
/// interface.
fn is_external(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_unspecified(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unspecified() && !address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: [&str; 6] = ["127.0.0.1/8", "192.168.1.5/24", "10.0.0.1/32", "::1/128", "fd00::5/64", "fe80::1/64"];

    fn addresses(eligible: &[&str], primary: Option<&str>) -> Option<BTreeMap<IpAddr, Yielding>> {
        let eligible: Vec<Eligible> = eligible.iter().map(|text| text.parse().expect("eligible")).collect();
        let local: Vec<IpNet> = LOCAL.iter().map(|text| text.parse().expect("an address")).collect();
        let v4 = primary.map(|text| text.parse().expect("an address"));
        let node = Node { addresses: PerFamily { v4, v6: None }, ..Node::default() };
        super::addresses(&eligible, Some(&node), &local)
    }

    fn chosen(eligible: &[&str], primary: Option<&str>) -> Option<Vec<String>> {
        addresses(eligible, primary).map(|addresses| addresses.keys().map(ToString::to_string).collect())
    }

    fn these(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn keywords_and_ranges_may_be_combined() {
        assert_eq!(chosen(&["primary"], Some("192.168.1.5")), Some(these(&["192.168.1.5"])));
        assert_eq!(chosen(&["primary"], None), None);
        assert_eq!(chosen(&["all"], None), Some(these(&["10.0.0.1", "192.168.1.5", "fd00::5"])));
        assert_eq!(chosen(&["localhost"], None), Some(these(&["0.0.0.0", "127.0.0.1", "::", "::1"])));
        assert_eq!(chosen(&["192.168.0.0/16"], None), Some(these(&["192.168.1.5", "fd00::5"])));
        assert_eq!(chosen(&["192.168.0.0/16", "fd01::/16"], None), Some(these(&["192.168.1.5"])));
        assert_eq!(chosen(&["0.0.0.0/0", "fd00::/16"], None), Some(these(&["10.0.0.1", "192.168.1.5", "fd00::5"])));
        assert_eq!(chosen(&["primary", "10.0.0.0/8"], Some("192.168.1.5")), Some(these(&["10.0.0.1", "192.168.1.5"])));
    }

    #[test]
    fn loopback_is_selected_per_family() {
        assert_eq!(chosen(&["::1/128", "127.0.0.2/32"], None), Some(these(&["::", "::1"])));
        assert_eq!(chosen(&["127.0.0.0/8", "fd01::/16"], None), Some(these(&["0.0.0.0", "127.0.0.1"])));
        assert_eq!(chosen(&["::/0", "0.0.0.0/0"], None), Some(these(&["10.0.0.1", "192.168.1.5", "fd00::5"])));
    }

    #[test]
    fn an_address_without_a_network_yields_to_any_service() {
        let yielding = |primary| {
            let addresses = addresses(&["all"], primary).expect("addresses");
            ["10.0.0.1", "192.168.1.5"].map(|text| addresses.get(&text.parse().expect("an address")).copied())
        };
        assert_eq!(yielding(None), [Some(Yielding::ToServices), Some(Yielding::ToClusterIps)]);
        assert_eq!(yielding(Some("10.0.0.1")), [Some(Yielding::ToClusterIps); 2], "the Node names it");
    }
}
