//! `networking.k8s.io/v1/ServiceCIDR`.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDRSpec;

use crate::model::Family;

/// The fewest bits of a range that ClusterIPs are given from. Its addresses are dropped where no Service has them: a wider range
/// would take other hosts away.
const fn fewest_bits(family: Family) -> u8 {
    match family {
        Family::V4 => 8,
        Family::V6 => 32,
    }
}

/// A range that ClusterIPs may be given from, without the bits behind its mask; else why it cannot be one.
pub fn checked_cidr(range: IpNet) -> Result<IpNet, String> {
    let family = Family::of(range.addr());
    let fewest = fewest_bits(family);
    if range.prefix_len() < fewest {
        return Err(format!("{range} is too wide for a range of ClusterIPs: /{fewest} is the widest of {}", family.name()));
    }
    Ok(range.trunc())
}

/// The ranges of a ServiceCIDR that count, and why others do not. One that is not ready yet gives no addresses out, but may hold
/// some already.
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
    fn a_range_as_wide_as_no_clusters_is_left_out() {
        let texts = ["0.0.0.0/0", "11.0.0.0/7", "10.96.0.1/8", "fd00::/31", "fd00::1/32", "::/0", "10.96.0.0"];
        let spec = ServiceCIDRSpec { cidrs: Some(texts.map(str::to_owned).into()) };
        let (ranges, faults) = cidrs(spec);
        let kept: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        assert_eq!(kept, ["10.0.0.0/8", "fd00::/32"]);
        assert!(faults.len() == 5 && faults[0].contains("0.0.0.0/0") && faults[0].contains("/8"), "{faults:?}");
    }
}
