//! The rules for one client: source ranges, session affinity, and node ports of loopback addresses.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{Explanation, Why};
use crate::model::{Endpoint, Family};

/// A client: a network namespace, as the programs see it.
#[derive(Clone, Debug)]
pub struct Client {
    /// The addresses of the namespace, without loopback and link-local ones.
    pub addresses: Vec<IpAddr>,
    /// The source address that the kernel would choose for the call; none if there is no route.
    pub source: Option<IpAddr>,
    /// Whether the namespace is the host's.
    pub is_host: bool,
}

impl Client {
    /// Whether source ranges admit a call of an unbound socket to an address of this family, with the reason.
    ///
    /// The same rule as that of the programs: the only address of a pod decides, else the source that the kernel would choose.
    /// If that is unknown, all addresses must be admitted.
    pub fn admission(&self, family: Family, ranges: &[IpNet]) -> (bool, String) {
        let own: Vec<IpAddr> = self.addresses.iter().copied().filter(|address| Family::of(*address) == family).collect();
        let is_admitted = |address: &IpAddr| ranges.iter().any(|range| range.contains(address));
        let verb = |admitted| if admitted { "is admitted" } else { "is not admitted" };
        let deciding = match own.as_slice() {
            [] => return (false, format!("the client has no {} address, so no source range admits it", family.name())),
            [only] if !self.is_host => Some(*only),
            _ => self.source.filter(|source| Family::of(*source) == family),
        };
        if let Some(address) = deciding {
            let admitted = is_admitted(&address);
            return (admitted, format!("the client's source address {address} {}", verb(admitted)));
        }
        match own.iter().find(|address| !is_admitted(address)) {
            None => (true, "all addresses of the client are admitted".to_owned()),
            Some(address) => (false, format!("the client's address {address} is not admitted, and its route is unknown")),
        }
    }
}

impl Explanation {
    /// Adds the rules for a client. `ranges` are the source ranges of the frontend, if it has any.
    pub fn add_client(&mut self, client: &Client, address: IpAddr, ranges: Option<&[IpNet]>) {
        let is_loopback = address.is_loopback() || address.is_unspecified();
        if is_loopback && !client.is_host && self.kind.is_some() {
            self.deny("leave", "hostOnly", "the client is not in the host's network namespace".to_owned());
        }
        let Some(ranges) = ranges else { return };
        let (is_admitted, text) = client.admission(Family::of(address), ranges);
        if is_admitted {
            self.client.push(text);
        } else {
            self.deny("drop", "notAdmitted", text);
        }
    }

    /// Adds the session of the client: the endpoint that it keeps, and the seconds since its last call.
    pub fn add_session(&mut self, endpoint: &Endpoint, seconds: u64) {
        let backend = SocketAddr::new(endpoint.address, endpoint.port);
        self.client.push(format!("session affinity: this client keeps {backend}; its last call was {seconds} s ago"));
    }

    fn deny(&mut self, action: &'static str, code: &'static str, text: String) {
        (self.action, self.connects) = (action, false);
        self.client.push(text.clone());
        self.reason = Some(Why { code, text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(addresses: &[&str], source: Option<&str>) -> bool {
        let parse = |text: &&str| text.parse::<IpAddr>().expect("an address");
        let client =
            Client { addresses: addresses.iter().map(parse).collect(), source: source.as_ref().map(parse), is_host: false };
        client.admission(Family::V4, &["192.0.2.0/24".parse().expect("a range")]).0
    }

    #[test]
    fn the_source_decides_else_all_addresses() {
        assert!(admission(&["192.0.2.1", "2001:db8::1"], None), "one address of the family");
        assert!(!admission(&["198.51.100.1"], None));
        assert!(!admission(&[], None) && !admission(&["2001:db8::1"], None), "no address");
        assert!(admission(&["192.0.2.1", "198.51.100.1"], Some("192.0.2.1")));
        assert!(!admission(&["192.0.2.1", "198.51.100.1"], Some("198.51.100.1")));
        assert!(!admission(&["192.0.2.1", "198.51.100.1"], None));
        assert!(admission(&["192.0.2.1", "192.0.2.2"], None));
    }
}
