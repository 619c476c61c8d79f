//! Source ranges of load balancer addresses: the ranges of clients that may connect.

use std::net::IpAddr;

use ipnet::IpNet;

use super::NodeContext;
use crate::model::{Family, object::Service};

/// The source ranges of a Service in a family, merged and sorted; `None` admits every client.
///
/// As in kube-proxy, source ranges that admit the node also admit the addresses of the load balancer. Such an address is often
/// an address of the node itself, by a route or on an interface. Then it is also the source address of the node's own
/// connections.
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

/// The load balancer addresses of a Service, in the families with source ranges.
pub fn guarded(service: &Service) -> Vec<IpAddr> {
    let is_guarded = |address: &IpAddr| service.source_ranges.get(Family::of(*address)).is_some();
    service.load_balancer_ips.iter().copied().filter(is_guarded).collect()
}

/// Whether one of the ranges, which must be merged and sorted, contains the address.
fn contains(ranges: &[IpNet], address: IpAddr) -> bool {
    let next = ranges.partition_point(|range| range.network() <= address);
    next.checked_sub(1).and_then(|index| ranges.get(index)).is_some_and(|range| range.contains(&address))
}
