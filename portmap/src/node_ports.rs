//! On which of the node's addresses node ports are served. Pure.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use ipnet::IpNet;

use crate::{
    object::Node,
    table::{Family, PerFamily},
};

/// An item of `--nodeport-addresses`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Eligible {
    /// The addresses that the Node object names.
    Primary,
    /// The loopback address, for clients in the host's network namespace. IPv4 only, as kube-proxy has it.
    Localhost,
    /// Every address of the node but loopback.
    All,
    /// The addresses in this range.
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

/// The addresses that node ports are served on; none while the Node object has to name one and does not.
///
/// `local` are the addresses of the node's interfaces. A family that only ranges of the other are given for is served on all.
pub fn addresses(eligible: &[Eligible], node: Option<&Node>, local: &[IpAddr]) -> Option<BTreeSet<IpAddr>> {
    let outward = || local.iter().copied().filter(|address| is_outward(*address));
    let mut addresses = BTreeSet::new();
    for item in eligible {
        match item {
            Eligible::Primary => {
                let PerFamily { v4, v6 } = node.map(|node| node.addresses).unwrap_or_default();
                if v4.is_none() && v6.is_none() {
                    return None;
                }
                addresses.extend([v4, v6].into_iter().flatten());
            }
            Eligible::Localhost => addresses.extend(loopback()),
            Eligible::All => addresses.extend(outward()),
            Eligible::Range(range) => {
                addresses.extend(outward().filter(|address| range.contains(address)));
                if range.prefix_len() > 0 && range.contains(&IpAddr::from(Ipv4Addr::LOCALHOST)) {
                    addresses.extend(loopback());
                }
            }
        }
    }
    let is_range = |item: &Eligible| matches!(item, Eligible::Range(_));
    if eligible.iter().all(is_range) {
        for family in Family::ALL {
            let has = |item: &Eligible| matches!(item, Eligible::Range(range) if Family::of(range.addr()) == family);
            if !eligible.iter().any(has) {
                addresses.extend(outward().filter(|address| Family::of(*address) == family));
            }
        }
    }
    Some(addresses)
}

/// A connection to no address goes to the loopback address.
fn loopback() -> [IpAddr; 2] {
    [Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into()]
}

/// Whether another host could name it. Link-local addresses are only told apart by their interface.
fn is_outward(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_unspecified(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unspecified() && !address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: [&str; 6] = ["127.0.0.1", "192.168.1.5", "10.0.0.1", "::1", "fd00::5", "fe80::1"];

    fn chosen(eligible: &[&str], primary: Option<&str>) -> Option<Vec<String>> {
        let eligible: Vec<Eligible> = eligible.iter().map(|text| text.parse().expect("eligible")).collect();
        let local: Vec<IpAddr> = LOCAL.iter().map(|text| text.parse().expect("an address")).collect();
        let v4 = primary.map(|text| text.parse().expect("an address"));
        let node = Node { addresses: PerFamily { v4, v6: None }, ..Node::default() };
        addresses(&eligible, Some(&node), &local).map(|addresses| addresses.iter().map(ToString::to_string).collect())
    }

    fn these(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn words_and_ranges_may_be_combined() {
        assert_eq!(chosen(&["primary"], Some("192.168.1.5")), Some(these(&["192.168.1.5"])));
        assert_eq!(chosen(&["primary"], None), None);
        assert_eq!(chosen(&["all"], None), Some(these(&["10.0.0.1", "192.168.1.5", "fd00::5"])));
        assert_eq!(chosen(&["localhost"], None), Some(these(&["0.0.0.0", "127.0.0.1"])));
        assert_eq!(chosen(&["192.168.0.0/16"], None), Some(these(&["192.168.1.5", "fd00::5"])));
        assert_eq!(chosen(&["192.168.0.0/16", "fd01::/16"], None), Some(these(&["192.168.1.5"])));
        assert_eq!(chosen(&["0.0.0.0/0", "fd00::/16"], None), Some(these(&["10.0.0.1", "192.168.1.5", "fd00::5"])));
        assert_eq!(chosen(&["primary", "10.0.0.0/8"], Some("192.168.1.5")), Some(these(&["10.0.0.1", "192.168.1.5"])));
    }
}
