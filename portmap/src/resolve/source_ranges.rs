//! Whom the addresses of a load balancer admit.

use std::net::IpAddr;

use ipnet::IpNet;

use super::NodeContext;
use crate::model::{Family, object::Service};

/// The source ranges of a Service in a family, collapsed and in order; none: everybody is admitted.
///
/// As kube-proxy has it: where the list admits the node, each address of the load balancer is admitted too. Such an address is often
/// the node's own, by a route or on an interface, and then the source of what the node sends there.
pub fn ranges(service: &Service, family: Family, node: &NodeContext) -> Option<Vec<IpNet>> {
    let ranges = service.source_ranges.get(family).as_deref()?;
    let mut all = ranges.to_vec();
    if node.addresses.iter().any(|address| contains(ranges, *address)) {
        let addresses = service.load_balancer_ips.iter().copied().filter(|address| Family::of(*address) == family);
        all.extend(addresses.filter(|address| !contains(ranges, *address)).map(IpNet::from));
        if all.len() > ranges.len() {
            all = IpNet::aggregate(&all);
            all.sort();
        }
    }
    Some(all)
}

/// The addresses of a Service's load balancer that admit only some.
pub fn guarded(service: &Service) -> Vec<IpAddr> {
    let is_guarded = |address: &IpAddr| service.source_ranges.get(Family::of(*address)).is_some();
    service.load_balancer_ips.iter().copied().filter(is_guarded).collect()
}

/// Whether one of these ranges, which are collapsed and in order, contains the address.
fn contains(ranges: &[IpNet], address: IpAddr) -> bool {
    let next = ranges.partition_point(|range| range.network() <= address);
    next.checked_sub(1).and_then(|index| ranges.get(index)).is_some_and(|range| range.contains(&address))
}
