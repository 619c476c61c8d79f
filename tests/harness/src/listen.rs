//! A port that a pod listens on: protocol and number, in the notation `8080/TCP` of Kubernetes.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// The protocols that portmap translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP connections.
    Tcp,
    /// UDP datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

impl FromStr for Protocol {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text.to_ascii_uppercase().as_str() {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            _ => bail!("`{text}` is not a protocol: give TCP or UDP"),
        }
    }
}

/// One port that a pod serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listen {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port number in the pod, which is the targetPort of a Service.
    pub port: u16,
}

impl Listen {
    /// The port `port`/TCP.
    #[must_use]
    pub fn tcp(port: u16) -> Self {
        Self { protocol: Protocol::Tcp, port }
    }

    /// The port `port`/UDP.
    #[must_use]
    pub fn udp(port: u16) -> Self {
        Self { protocol: Protocol::Udp, port }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

impl FromStr for Listen {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (port, protocol) =
            text.split_once('/').with_context(|| format!("`{text}` has no protocol: write it like 8080/TCP"))?;
        let port = port.parse().with_context(|| format!("`{port}` is not a port number"))?;
        Ok(Self { protocol: protocol.parse()?, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_is_written() -> anyhow::Result<()> {
        for listen in [Listen::tcp(8080), Listen::udp(53)] {
            assert_eq!(listen.to_string().parse::<Listen>()?, listen);
        }
        assert_eq!("53/udp".parse::<Listen>()?, Listen::udp(53));
        Ok(())
    }

    #[test]
    fn refuses_what_is_not_a_port_and_a_protocol() {
        for text in ["8080", "8080/SCTP", "http/TCP", "65536/TCP", ""] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
