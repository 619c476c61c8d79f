//! The ports that the kernel gives to connections of the network namespace's own processes.

use std::{fmt, fs, ops::RangeInclusive, path::Path};

use anyhow::{Context, Result};

/// The directory of the network namespace's sysctls.
const SYSCTLS: &str = "/proc/sys/net/ipv4";

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port, which is not below the first.
    pub last: u16,
}

impl PortRange {
    /// Parses `FIRST-LAST`. Port 0 is no port.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.trim().split_once('-')?;
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first > 0 && first <= last).then_some(Self { first, last })
    }

    /// Whether both ranges have a port in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The ports as a range.
    pub fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The ports from which the kernel chooses the source port of a connection: `net.ipv4.ip_local_port_range`.
pub fn local() -> Result<PortRange> {
    let text = read("ip_local_port_range")?;
    let mut ends = text.split_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(PortRange { first, last }),
        _ => anyhow::bail!("net.ipv4.ip_local_port_range is {text:?}"),
    }
}

/// Whether the kernel keeps all ports of a range away from connections: `net.ipv4.ip_local_reserved_ports`.
pub fn is_reserved(range: PortRange) -> Result<bool> {
    Ok(covers(&read("ip_local_reserved_ports")?, range))
}

/// Adds a range to `net.ipv4.ip_local_reserved_ports`. The ports that are reserved already stay.
pub fn reserve(range: PortRange) -> Result<()> {
    let reserved = read("ip_local_reserved_ports")?;
    let path = Path::new(SYSCTLS).join("ip_local_reserved_ports");
    let all = if reserved.is_empty() { range.to_string() } else { format!("{reserved},{range}") };
    fs::write(&path, all).with_context(|| format!("failed to write {}", path.display()))
}

fn read(name: &str) -> Result<String> {
    let path = Path::new(SYSCTLS).join(name);
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// Whether a list such as `1-9,20` has all ports of the range. The kernel sorts its list and joins adjacent ranges.
fn covers(list: &str, range: PortRange) -> bool {
    let one = |port: &str| port.parse().ok().map(|port| PortRange { first: port, last: port });
    let mut ranges = list.split(',').filter_map(|part| PortRange::parse(part).or_else(|| one(part)));
    ranges.any(|reserved| reserved.first <= range.first && range.last <= reserved.last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> PortRange {
        PortRange::parse(text).expect("a range")
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(PortRange::parse("1024-29999"), Some(PortRange { first: 1_024, last: 29_999 }));
        for wrong in ["", "-", "5", "0-5", "9-8", "1-65536", "a-b", "1-2-3"] {
            assert_eq!(PortRange::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ranges_overlap_at_their_ends() {
        assert!(range("1-5").overlaps(range("5-9")));
        assert!(range("5-9").overlaps(range("1-5")));
        assert!(range("1-9").overlaps(range("4-5")));
        assert!(!range("1-4").overlaps(range("5-9")));
    }

    #[test]
    fn a_list_covers_a_range_or_not() {
        assert!(covers("1024-29999", range("1024-29999")));
        assert!(covers("7,1000-30000", range("1024-29999")));
        assert!(!covers("1025-29999", range("1024-29999")));
        assert!(!covers("", range("1024-29999")));
        assert!(covers("7", range("7-7")));
    }
}
