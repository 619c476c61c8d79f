//! Records the invalid or unsupported fields of an object, each as a sentence for users.

use std::{fmt::Display, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Maximum number of sentences for one object; further faults are only counted. An object may have tens of thousands of faults,
/// and each sentence is compared with the others, stored and logged.
const MOST: usize = 20;

/// Sentences for users about the invalid or unsupported fields of an object, in the order found. The first 20 different
/// sentences are kept; further faults are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    sentences: Vec<Box<str>>,
    is_refused: bool,
    /// The number of faults after the first [`MOST`] sentences.
    others: usize,
    /// The last sentence, which has the number `others`; `None` if it is 0.
    rest: Option<Box<str>>,
}

impl Faults {
    /// The sentences in the order found. If faults follow after 20 sentences, a last sentence has their number.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.sentences.iter().chain(&self.rest).map(AsRef::as_ref)
    }

    /// Whether an API server would reject the object because of one of the faults.
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Records a fault for which an API server would reject the object.
    pub fn add(&mut self, fault: impl Display) {
        self.record(fault);
        self.is_refused = true;
    }

    /// Records a fault that the API server accepts, for example a field that portmap does not support.
    pub fn record(&mut self, fault: impl Display) {
        if self.sentences.len() == MOST {
            self.others += 1;
            return self.rest = Some(format!("and {} more like these", self.others).into());
        }
        let fault = fault.to_string().into_boxed_str();
        if !self.sentences.contains(&fault) {
            self.sentences.push(fault);
        }
    }

    /// Parses an address as kube-proxy does, into its canonical form. Records a fault and returns `None` for an invalid text.
    pub fn address(&mut self, field: impl Display, text: &str) -> Option<IpAddr> {
        let address = parse_address(text);
        if address.is_none() {
            self.add(format_args!("{field} {text:?} is not an IP address, and is left out"));
        }
        address
    }

    /// Parses an address that other hosts can connect to. Records a fault and returns `None` for an invalid text, and for
    /// unspecified, loopback, link-local and multicast addresses.
    pub fn routed_address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let address = self.address(field, text)?;
        if is_routed(address) {
            return Some(address);
        }
        self.add(format_args!("{field} {text:?} cannot be the address of a Service, and is left out"));
        None
    }

    /// Parses an address range, and clears its host bits. Records a fault and returns `None` for an invalid text.
    pub fn range(&mut self, field: &str, text: &str) -> Option<IpNet> {
        let range = text.trim().split_once('/').and_then(|(address, bits)| {
            let address = parse_address(address)?;
            IpNet::new(address, bits.parse().ok()?).ok().map(|range| range.trunc())
        });
        if range.is_none() {
            self.add(format_args!("{field} {text:?} is not a CIDR, and is left out"));
        }
        range
    }

    /// Checks a port number. Returns `None` without a number, and for 0, which means the same. Records a fault and returns
    /// `None` for other numbers outside 1 to 65535.
    pub fn port(&mut self, field: &str, number: Option<i32>) -> Option<u16> {
        let number = number.filter(|number| *number != 0)?;
        let port = u16::try_from(number).ok();
        if port.is_none() {
            self.add(format_args!("{field} {number} is not between 1 and 65535 and is left out"));
        }
        port
    }
}

/// Parses as `ParseIPSloppy` of Kubernetes: IPv4 numbers may have leading zeros, and an IPv4-mapped address is an IPv4 address.
fn parse_address(text: &str) -> Option<IpAddr> {
    let exact: Option<IpAddr> = text.parse().ok();
    exact.or_else(|| without_leading_zeros(text)?.parse().ok()).map(|address| address.to_canonical())
}

fn without_leading_zeros(text: &str) -> Option<String> {
    let number = |number: &str| number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse::<u8>().ok()).flatten();
    let numbers: Option<Vec<String>> = text.split('.').map(|part| number(part).map(|number| number.to_string())).collect();
    Some(numbers?.join("."))
}

fn is_routed(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_address_have_one_canonical_form() {
        for (text, canonical) in
            [("010.096.000.010", "10.96.0.10"), ("::ffff:10.96.0.10", "10.96.0.10"), ("2001:DB8:0::018", "2001:db8::18")]
        {
            assert_eq!(parse_address(text), canonical.parse().ok(), "{text}");
        }
        for text in ["", "10.96.0", "10.96.0.256", "10.96.0.-1", "10.96.0.+1", "fe80::1%eth0", "localhost"] {
            assert_eq!(parse_address(text), None, "{text}");
        }
    }

    #[test]
    fn a_fault_is_recorded_once() {
        let mut faults = Faults::default();
        assert_eq!(faults.range("range", " 10.1.2.3/8 "), "10.0.0.0/8".parse().ok());
        assert_eq!(faults.range("range", "10.0.0.0/33"), None);
        assert_eq!(faults.range("range", "10.0.0.0/33"), None);
        assert_eq!(faults.routed_address("externalIP", "127.0.0.1"), None);
        assert_eq!(faults.iter().count(), 2);
    }

    #[test]
    fn many_faults_are_recorded_up_to_a_limit_and_counted() {
        let mut faults = Faults::default();
        for number in 0..MOST + 60_000 {
            faults.add(number);
        }
        assert_eq!(faults.iter().count(), MOST + 1);
        assert_eq!(faults.iter().last(), Some("and 60000 more like these"));
    }
}
