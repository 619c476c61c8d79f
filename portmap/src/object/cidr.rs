//! `networking.k8s.io/v1/ServiceCIDR`.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;

/// The ranges of a ServiceCIDR that can be read. One that is not ready yet gives no addresses out, but may hold some already.
pub fn cidrs(cidr: ServiceCIDR) -> Vec<IpNet> {
    let texts = cidr.spec.and_then(|spec| spec.cidrs).unwrap_or_default();
    texts.iter().filter_map(|text| text.parse::<IpNet>().ok()).map(|range| range.trunc()).collect()
}
