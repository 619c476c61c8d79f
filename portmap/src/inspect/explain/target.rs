//! The argument of `portmap explain`: an address and port, or a Service.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use crate::model::{Frontend, Protocol};

/// The destination to explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `ADDRESS:PORT[/PROTOCOL]`.
    Frontend(Frontend),
    /// `svc/NAME[.NAMESPACE][:PORT][/PROTOCOL]`.
    Service(ServiceTarget),
}

/// A Service, and which of its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTarget {
    /// The namespace; none if not given.
    pub namespace: Option<String>,
    /// The name of the Service.
    pub name: String,
    /// The port; none for all ports.
    pub port: Option<PortTarget>,
    /// The protocol; none for all protocols.
    pub protocol: Option<Protocol>,
}

/// A port of a Service, by its number or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortTarget {
    /// `port` of the Service port.
    Number(u16),
    /// `name` of the Service port.
    Name(String),
}

impl PortTarget {
    /// Whether a Service port has this number or name.
    pub fn matches(&self, number: u16, name: &str) -> bool {
        match self {
            Self::Number(wanted) => *wanted == number,
            Self::Name(wanted) => wanted == name,
        }
    }
}

impl fmt::Display for PortTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => write!(f, "{name:?}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frontend(frontend) => frontend.fmt(f),
            Self::Service(service) => service.fmt(f),
        }
    }
}

impl fmt::Display for ServiceTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "svc/{}", self.name)?;
        self.namespace.iter().try_for_each(|namespace| write!(f, ".{namespace}"))?;
        match &self.port {
            Some(PortTarget::Number(number)) => write!(f, ":{number}")?,
            Some(PortTarget::Name(name)) => write!(f, ":{name}")?,
            None => {}
        }
        self.protocol.iter().try_for_each(|protocol| write!(f, "/{protocol}"))
    }
}

const EXPECTED: &str = "expected ADDRESS:PORT[/udp] (an IPv6 address in brackets) or svc/NAME[.NAMESPACE][:PORT][/udp]";

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let service = ["svc/", "service/", "services/"].iter().find_map(|prefix| text.strip_prefix(prefix));
        let (rest, protocol) = protocol(service.unwrap_or(text))?;
        if service.is_some() {
            return self::service(rest, protocol).map(Self::Service).ok_or_else(|| EXPECTED.to_owned());
        }
        let address: SocketAddr = rest.parse().map_err(|_| without_port(rest))?;
        if address.port() == 0 {
            return Err("no Service has the port 0".to_owned());
        }
        let protocol = protocol.unwrap_or(Protocol::Tcp);
        Ok(Self::Frontend(Frontend { address: address.ip().to_canonical(), port: address.port(), protocol }))
    }
}

/// Splits off the protocol.
fn protocol(text: &str) -> Result<(&str, Option<Protocol>), String> {
    let Some((rest, name)) = text.rsplit_once('/') else { return Ok((text, None)) };
    match name.to_ascii_lowercase().as_str() {
        "tcp" => Ok((rest, Some(Protocol::Tcp))),
        "udp" => Ok((rest, Some(Protocol::Udp))),
        "sctp" => Err("portmap does not translate SCTP: the kernel runs no program for it".to_owned()),
        _ => Err(EXPECTED.to_owned()),
    }
}

fn service(text: &str, protocol: Option<Protocol>) -> Option<ServiceTarget> {
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let mut labels = name.split('.');
    let (name, namespace) = (labels.next()?, labels.next());
    // The rest of a DNS name: `web.default.svc.cluster.local`.
    let is_service = labels.next().is_none_or(|label| label == "svc");
    let is_name =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !is_service || !is_name(name) || !namespace.is_none_or(is_name) {
        return None;
    }
    let port = match port {
        None => None,
        Some(text) => Some(match text.parse() {
            Ok(number) => PortTarget::Number(number),
            Err(_) if is_name(text) && text.contains(|c: char| c.is_ascii_lowercase()) => PortTarget::Name(text.to_owned()),
            Err(_) => return None,
        }),
    };
    Some(ServiceTarget { namespace: namespace.map(str::to_owned), name: name.to_owned(), port, protocol })
}

fn without_port(text: &str) -> String {
    if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return format!("{text} has no port: {EXPECTED}");
    }
    EXPECTED.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, String> {
        text.parse::<Target>().map(|target| target.to_string())
    }

    #[test]
    fn targets_are_parsed() {
        for (text, wanted) in [
            ("10.96.0.10:80", "10.96.0.10:80/TCP"),
            ("10.96.0.10:53/udp", "10.96.0.10:53/UDP"),
            ("[fd00::1]:80/TCP", "[fd00::1]:80/TCP"),
            ("[::ffff:10.96.0.10]:80", "10.96.0.10:80/TCP"),
            ("svc/web", "svc/web"),
            ("service/web.shop:http", "svc/web.shop:http"),
            ("svc/web.shop.svc.cluster.local:80/udp", "svc/web.shop:80/UDP"),
        ] {
            assert_eq!(shown(text), Ok(wanted.to_owned()));
        }
    }

    #[test]
    fn wrong_targets_are_explained() {
        for text in
            ["", "web", "10.96.0.10", "10.96.0.10:65536", "svc/", "svc/a.b.c", "svc/web:", "svc/web:-1", "svc/a/b", "x/udp"]
        {
            let error = shown(text).expect_err(text);
            assert!(error.contains("expected ADDRESS:PORT"), "{text}: {error}");
        }
        assert_eq!(shown("10.96.0.10:80/sctp").map_err(|error| error.contains("SCTP")), Err(true));
        assert_eq!(shown("10.96.0.10:0").map_err(|error| error.contains("port 0")), Err(true));
    }
}
