//! Conversion of `networking.k8s.io/v1/ServiceCIDR`: the ranges from which ClusterIPs are allocated.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDRSpec;

use crate::model::Family;

/// The minimum prefix length of a range of ClusterIPs. Connections to addresses of the range without a Service are dropped, so
/// a wider range could block connections to other hosts.
const fn min_prefix_len(family: Family) -> u8 {
    match family {
        Family::V4 => 8,
        Family::V6 => 32,
    }
}

/// Checks a range of ClusterIPs. Returns the range without host bits.
///
/// # Errors
///
/// A range that is wider than /8 (IPv4) or /32 (IPv6).
pub fn checked_cidr(range: IpNet) -> Result<IpNet, String> {
    let family = Family::of(range.addr());
    let minimum = min_prefix_len(family);
    if range.prefix_len() < minimum {
        return Err(format!("{range} is too wide for a range of ClusterIPs: /{minimum} is the widest of {}", family.name()));
    }
    Ok(range.trunc())
}

/// The valid ranges of a ServiceCIDR, and a text for each invalid range. The condition `Ready` is ignored: addresses of a
/// ServiceCIDR that is not ready may already be allocated.
pub fn cidrs(spec: ServiceCIDRSpec) -> (Vec<IpNet>, Vec<String>) {
    let mut faults = Vec::new();
    let mut check = |text: &String| {
        let range = text.parse::<IpNet>().map_err(|_| format!("{text:?} is not a CIDR")).and_then(checked_cidr);
        range.map_err(|fault| faults.push(fault)).ok()
    };
    let ranges = spec.cidrs.unwrap_or_default().iter().filter_map(&mut check).collect();
    (ranges, faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_is_too_wide_is_left_out() {
        let texts = ["0.0.0.0/0", "11.0.0.0/7", "10.96.0.1/8", "fd00::/31", "fd00::1/32", "::/0", "10.96.0.0"];
        let spec = ServiceCIDRSpec { cidrs: Some(texts.map(str::to_owned).into()) };
        let (ranges, faults) = cidrs(spec);
        let kept: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        assert_eq!(kept, ["10.0.0.0/8", "fd00::/32"]);
        assert!(faults.len() == 5 && faults[0].contains("0.0.0.0/0") && faults[0].contains("/8"), "{faults:?}");
    }
}
