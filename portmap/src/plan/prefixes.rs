//! The address ranges (PREFIXES) in which a destination without a frontend costs a second look-up: the ServiceCIDRs, and
//! ranges around ClusterIPs outside of the ServiceCIDRs.

use std::net::IpAddr;

use ipnet::IpNet;
use portmap_common::PREFIXES;

use super::Step;
use crate::{
    maps::Prefix,
    model::{Family, PerFamily},
    resolve::claims::Owners,
};

/// Maximum number of ServiceCIDRs of each family; further ones are ignored. The other entries of PREFIXES are for covering
/// ranges.
const CIDRS: usize = 6;

/// The planner's model of PREFIXES, and its inputs.
#[derive(Debug)]
pub struct Prefixes {
    /// The prefixes in the map; `None` if another program wrote invalid prefixes.
    recorded: PerFamily<Option<Vec<Prefix>>>,
    /// Covering ranges: around ClusterIPs outside of the ServiceCIDRs, and ranges read from the map whose addresses do not
    /// count as unallocated. They only grow: a range that is too large costs calls to its addresses only a second look-up.
    covers: PerFamily<Vec<IpNet>>,
    cidrs: PerFamily<Vec<IpNet>>,
    owners: Owners,
}

impl Prefixes {
    /// A model of maps with these prefixes.
    pub fn new(recorded: PerFamily<Option<Vec<Prefix>>>) -> Self {
        let covers = PerFamily::of(|family| {
            let covers = recorded.get(family).iter().flatten().filter(|prefix| !prefix.allocated);
            covers.map(|prefix| prefix.range).collect()
        });
        Self { recorded, covers, cidrs: PerFamily::default(), owners: Owners::default() }
    }

    /// Whether two models have the same prefixes in the map.
    pub fn are_recorded_as(&self, other: &Self) -> bool {
        self.recorded == other.recorded
    }

    /// Sets the ServiceCIDRs. An address in them counts as unallocated only while the owners of all ClusterIPs are known.
    pub fn set_cidrs(&mut self, cidrs: &[IpNet], owners: Owners) {
        self.owners = owners;
        self.cidrs = PerFamily::of(|family| {
            let mut of_family: Vec<IpNet> = cidrs.iter().filter(|cidr| Family::of(cidr.addr()) == family).copied().collect();
            of_family.sort();
            of_family.dedup();
            of_family.truncate(CIDRS);
            of_family
        });
        for family in Family::ALL {
            let room = PREFIXES - self.cidrs.get(family).len();
            while self.covers.get(family).len() > room {
                if let Some(cover) = self.covers.get_mut(family).pop() {
                    widen_nearest(self.covers.get_mut(family), cover.addr(), cover.prefix_len());
                }
            }
        }
    }

    /// Ensures that a ClusterIP is in a ServiceCIDR or a covering range.
    pub fn cover(&mut self, address: IpAddr) {
        let family = Family::of(address);
        let room = PREFIXES - self.cidrs.get(family).len();
        let covers = self.covers.get_mut(family);
        if self.cidrs.get(family).iter().chain(&*covers).any(|range| range.contains(&address)) {
            return;
        }
        if covers.len() < room {
            return covers.push(around(address));
        }
        widen_nearest(covers, address, u8::MAX);
    }

    /// While owners of ClusterIPs are unknown, plans prefixes in which no address counts as unallocated.
    pub fn withdraw(&mut self, steps: &mut Vec<Step>) {
        if self.owners != Owners::Known {
            self.plan(false, steps);
        }
    }

    /// Plans the prefixes of both families. Addresses count as unallocated only if the owners of all ClusterIPs are known, and
    /// `is_complete`: no entry is left out for lack of room.
    pub fn plan(&mut self, is_complete: bool, steps: &mut Vec<Step>) {
        let is_complete = is_complete && self.owners == Owners::Known;
        for family in Family::ALL {
            let cidrs = self.cidrs.get(family);
            let covers = self.covers.get(family).iter().filter(|cover| !cidrs.iter().any(|cidr| cidr.contains(*cover)));
            let prefixes: Vec<Prefix> = cidrs
                .iter()
                .map(|range| Prefix { range: *range, allocated: is_complete })
                .chain(covers.map(|range| Prefix { range: *range, allocated: false }))
                .take(PREFIXES)
                .collect();
            if self.recorded.get(family).as_ref() != Some(&prefixes) {
                *self.recorded.get_mut(family) = Some(prefixes.clone());
                steps.push(Step::SetPrefixes(family, prefixes));
            }
        }
    }
}

/// The range around a ClusterIP: /20 or /112, in which other ClusterIPs of the cluster probably are.
fn around(address: IpAddr) -> IpNet {
    let bits = if address.is_ipv4() { 20 } else { 112 };
    IpNet::new(address, bits).map_or_else(|_| IpNet::from(address), |range| range.trunc())
}

/// Widens one covering range so that it contains the range `address`/`bits`. Selects the covering range with the most
/// leading bits in common.
fn widen_nearest(covers: &mut [IpNet], address: IpAddr, bits: u8) {
    let common = |cover: &IpNet| common_bits(cover.addr(), address).min(cover.prefix_len()).min(bits);
    if let Some(cover) = covers.iter_mut().max_by_key(|cover| common(cover)) {
        *cover = IpNet::new(address, common(cover)).map_or(*cover, |range| range.trunc());
    }
}

/// The number of leading bits that two addresses of one family share.
fn common_bits(one: IpAddr, other: IpAddr) -> u8 {
    let bits = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    };
    u8::try_from(bits).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(prefixes: &mut Prefixes) -> Vec<String> {
        let mut steps = Vec::new();
        prefixes.plan(true, &mut steps);
        let texts = prefixes.recorded.get(Family::V4).iter().flatten();
        texts.map(|prefix| format!("{}{}", prefix.range, if prefix.allocated { "!" } else { "" })).collect()
    }

    #[test]
    fn every_cluster_ip_lies_in_one_of_a_handful() {
        let mut prefixes = Prefixes::new(PerFamily::default());
        prefixes.set_cidrs(&["10.96.0.0/16".parse().expect("a range")], Owners::Known);
        let addresses: Vec<IpAddr> = (0..40_u8).map(|number| IpAddr::from([10, 90 + number, number, 1])).collect();
        for address in &addresses {
            prefixes.cover(*address);
        }
        let planned = planned(&mut prefixes);
        assert!(planned.len() <= PREFIXES, "{planned:?}");
        assert!(planned.contains(&"10.96.0.0/16!".to_owned()), "{planned:?}");
        let ranges: Vec<IpNet> = prefixes.recorded.v4.iter().flatten().map(|prefix| prefix.range).collect();
        assert!(addresses.iter().all(|address| ranges.iter().any(|range| range.contains(address))), "{ranges:?}");
    }

    #[test]
    fn ranges_that_come_later_leave_no_cluster_ip_uncovered() {
        let mut prefixes = Prefixes::new(PerFamily::default());
        let addresses: Vec<IpAddr> = (0..8_u8).map(|number| IpAddr::from([20 + number, 1, 1, 1])).collect();
        for address in &addresses {
            prefixes.cover(*address);
        }
        let cidrs = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"].map(|range| range.parse().expect("a range"));
        prefixes.set_cidrs(&cidrs, Owners::Known);
        assert!(planned(&mut prefixes).len() <= PREFIXES);
        let ranges: Vec<IpNet> = prefixes.recorded.v4.iter().flatten().map(|prefix| prefix.range).collect();
        assert!(addresses.iter().all(|address| ranges.iter().any(|range| range.contains(address))), "{ranges:?}");
    }

    #[test]
    fn what_is_in_force_is_not_planned_again() {
        let mut prefixes = Prefixes::new(PerFamily::default());
        prefixes.cover([10, 96, 0, 1].into());
        assert_eq!(planned(&mut prefixes), ["10.96.0.0/20"]);
        let mut again = Prefixes::new(prefixes.recorded.clone());
        again.cover([10, 96, 0, 2].into());
        let mut steps = Vec::new();
        again.plan(true, &mut steps);
        assert!(steps.is_empty(), "{steps:?}");
    }

    /// While owners are unknown, the ranges stay in PREFIXES: calls to ports that a ClusterIP does not define are still
    /// refused.
    #[test]
    fn nothing_is_nobodys_while_it_is_unknown_who_else_has_an_address() {
        let mut prefixes = Prefixes::new(PerFamily::default());
        let cidrs = ["10.96.0.0/16".parse().expect("a range")];
        for (owners, expected) in
            [(Owners::Known, "10.96.0.0/16!"), (Owners::Unknown, "10.96.0.0/16"), (Owners::Known, "10.96.0.0/16!")]
        {
            prefixes.set_cidrs(&cidrs, owners);
            assert_eq!(planned(&mut prefixes), [expected]);
        }
    }
}
