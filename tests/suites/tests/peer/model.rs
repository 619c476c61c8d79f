//! What a proxy does, in terms that both proxies' tables can be told in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// Everything that a proxy does.
pub type Model = BTreeMap<Frontend, Answer>;

/// A destination of clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frontend {
    /// An address and port, and a protocol as Kubernetes writes it.
    Address(SocketAddr, String),
    /// A port and protocol of the node, of one family.
    NodePort(Family, u16, String),
    /// The ports of a ClusterIP that no Service defines.
    OtherPorts(IpAddr),
}

/// A family of addresses.
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
    /// `TCP`, `UDP` or `SCTP`; none where it is all of them.
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

/// What becomes of clients of a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of those on the node: its processes and its pods.
    pub inside: Verdict,
    /// Of those who come from elsewhere.
    pub outside: Verdict,
    /// For how many seconds a client stays with its backend, where there are any.
    pub affinity: Option<u64>,
    /// Who is admitted, if not everybody.
    pub sources: Option<Vec<IpNet>>,
}

impl Answer {
    /// The same for everybody.
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

/// What becomes of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets to one of these.
    Forward(BTreeSet<SocketAddr>),
    /// It is told at once.
    Refuse,
    /// It is not answered.
    Drop,
}

impl Verdict {
    /// In one word.
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
