//! `networking.k8s.io/v1/ServiceCIDR`.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDRSpec;

/// The ranges of a ServiceCIDR that can be read. One that is not ready yet gives no addresses out, but may hold some already.
pub fn cidrs(spec: ServiceCIDRSpec) -> Vec<IpNet> {
    let texts = spec.cidrs.unwrap_or_default();
    texts.iter().filter_map(|text| text.parse::<IpNet>().ok()).map(|range| range.trunc()).collect()
}
