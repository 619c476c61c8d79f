//! What is wrong with an object: each a sentence for people.

use std::{fmt::Display, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// An object has no more sentences than this, and one that says how many more there would be: it may have tens of thousands of
/// faults, and each is compared with those before, kept and logged.
const MOST: usize = 20;

/// What an object says and cannot be meant, in the order found, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    sentences: Vec<Box<str>>,
    is_refused: bool,
    /// How many there would be beyond.
    others: usize,
    /// Says that.
    rest: Option<Box<str>>,
}

impl Faults {
    /// The sentences.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.sentences.iter().chain(&self.rest).map(AsRef::as_ref)
    }

    /// Whether an API server would have refused the object.
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Adds what no API server admits.
    pub fn add(&mut self, fault: impl Display) {
        self.note(fault);
        self.is_refused = true;
    }

    /// Adds what is right, and cannot be served.
    pub fn note(&mut self, fault: impl Display) {
        if self.sentences.len() == MOST {
            self.others += 1;
            return self.rest = Some(format!("and {} more like these", self.others).into());
        }
        let fault = fault.to_string().into_boxed_str();
        if !self.sentences.contains(&fault) {
            self.sentences.push(fault);
        }
    }

    /// An address as kube-proxy reads it, in its one canonical form.
    pub fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let address = parse_address(text);
        if address.is_none() {
            self.add(format_args!("{field} {text:?} is not an IP address, and is left out"));
        }
        address
    }

    /// An address that other hosts may send to.
    pub fn routed_address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let address = self.address(field, text)?;
        if is_routed(address) {
            return Some(address);
        }
        self.add(format_args!("{field} {text:?} is no address for a Service, and is left out"));
        None
    }

    /// An address range; bits behind the mask do not count.
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

    /// A port number; 0 and none stand for none.
    pub fn port(&mut self, field: &str, number: Option<i32>) -> Option<u16> {
        let number = number.filter(|number| *number != 0)?;
        let port = u16::try_from(number).ok();
        if port.is_none() {
            self.add(format_args!("{field} {number} is not between 1 and 65535 and is left out"));
        }
        port
    }
}

/// IPv4 numbers may have leading zeros, and an IPv4-mapped address is an IPv4 one: as Go's `ParseIPSloppy` has it.
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
    fn spellings_of_one_address_are_one() {
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
    fn a_fault_is_said_once() {
        let mut faults = Faults::default();
        assert_eq!(faults.range("range", " 10.1.2.3/8 "), "10.0.0.0/8".parse().ok());
        assert_eq!(faults.range("range", "10.0.0.0/33"), None);
        assert_eq!(faults.range("range", "10.0.0.0/33"), None);
        assert_eq!(faults.routed_address("externalIP", "127.0.0.1"), None);
        assert_eq!(faults.iter().count(), 2);
    }

    #[test]
    fn of_many_faults_some_are_said_and_the_rest_is_counted() {
        let mut faults = Faults::default();
        for number in 0..MOST + 60_000 {
            faults.add(number);
        }
        assert_eq!(faults.iter().count(), MOST + 1);
        assert_eq!(faults.iter().last(), Some("and 60000 more like these"));
    }
}
