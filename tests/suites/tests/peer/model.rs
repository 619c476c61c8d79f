//! The behaviour of a proxy as data that can be compared, independent of the proxy's implementation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// The results of a proxy at every frontend.
pub type Model = BTreeMap<Frontend, Answer>;

/// A destination of clients, at which a proxy has a result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frontend {
    /// An address, a port and the name of a protocol.
    Address(SocketAddr, String),
    /// A node port: a family, a port and the name of a protocol.
    NodePort(Family, u16, String),
    /// The ports of a ClusterIP that its Service does not define.
    OtherPorts(IpAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    IPv4,
    IPv6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::IPv4, Self::IPv6];
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Frontend {
    /// `TCP`, `UDP` or `SCTP`; `None` for [`Self::OtherPorts`].
    pub fn protocol(&self) -> Option<&str> {
        match self {
            Self::Address(_, protocol) | Self::NodePort(_, _, protocol) => Some(protocol),
            Self::OtherPorts(_) => None,
        }
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address, protocol) => write!(f, "{address}/{protocol}"),
            Self::NodePort(family, port, protocol) => write!(f, "*:{port}/{protocol} ({family})"),
            Self::OtherPorts(address) => write!(f, "{address}, other ports"),
        }
    }
}

/// The results at one frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The result for clients on the node: its processes and its pods.
    pub inside: Verdict,
    /// The result for all other clients.
    pub outside: Verdict,
    /// The timeout of session affinity in seconds.
    pub affinity: Option<u64>,
    /// The admitted source ranges; `None` admits all clients.
    pub sources: Option<Vec<IpNet>>,
}

impl Answer {
    /// The same result for all clients, without affinity and source ranges.
    pub fn all(verdict: Verdict) -> Self {
        Self { inside: verdict.clone(), outside: verdict, affinity: None, sources: None }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inside, outside, affinity, sources } = self;
        write!(f, "{inside}")?;
        if outside != inside {
            write!(f, "; outside: {outside}")?;
        }
        if let Some(seconds) = affinity {
            write!(f, "; affinity {seconds} s")?;
        }
        if let Some(ranges) = sources {
            write!(f, "; only from {ranges:?}")?;
        }
        Ok(())
    }
}

/// The result of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The connection reaches one of these backends.
    Forward(BTreeSet<SocketAddr>),
    /// The connection is refused with an error.
    Refuse,
    /// The packets are dropped without an error.
    Drop,
}

impl Verdict {
    /// The name for counts: `forward`, `refuse` or `drop`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Forward(_) => "forward",
            Self::Refuse => "refuse",
            Self::Drop => "drop",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if let Self::Forward(backends) = self {
            let texts: Vec<_> = backends.iter().map(ToString::to_string).collect();
            write!(f, " to {}", texts.join(" "))?;
        }
        Ok(())
    }
}
