//! Addresses, ports and ranges in the JSON format of `nft -j`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};
use serde_json::Value;

/// The backends of a `dnat`: one address and port, or a map of several.
pub fn backends(at: &Value, number: Option<u16>) -> Result<BTreeSet<SocketAddr>> {
    if let Some(number) = number {
        return Ok([SocketAddr::new(address(at)?, number)].into());
    }
    let elements = at.pointer("/map/data/set").and_then(Value::as_array).context("a dnat without a port")?;
    let backend = |element: &Value| {
        let parts = &element[1]["concat"];
        Ok(SocketAddr::new(address(&parts[0])?, port(&parts[1])?))
    };
    elements.iter().map(backend).collect()
}

/// The ranges of a single address, of a prefix, or of all addresses from a first to a last one.
pub fn ranges(value: &Value) -> Result<Vec<IpNet>> {
    if let Some(prefix) = value.get("prefix") {
        let length = prefix["len"].as_u64().and_then(|length| u8::try_from(length).ok()).context("a prefix has a length")?;
        return Ok(vec![IpNet::new(address(&prefix["addr"])?, length)?]);
    }
    if let Some(ends) = value.get("range") {
        let subnets = match (address(&ends[0])?, address(&ends[1])?) {
            (IpAddr::V4(first), IpAddr::V4(last)) => IpSubnets::V4(Ipv4Subnets::new(first, last, 0)),
            (IpAddr::V6(first), IpAddr::V6(last)) => IpSubnets::V6(Ipv6Subnets::new(first, last, 0)),
            _ => bail!("a range of two families: {ends}"),
        };
        return Ok(subnets.collect());
    }
    Ok(vec![address(value)?.into()])
}

/// Parses the text of an address.
pub fn address(value: &Value) -> Result<IpAddr> {
    value.as_str().and_then(|text| text.parse().ok()).with_context(|| format!("{value} is no address"))
}

/// Parses a port number. Fails above 65535.
pub fn port(value: &Value) -> Result<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok()).with_context(|| format!("{value} is no port"))
}
