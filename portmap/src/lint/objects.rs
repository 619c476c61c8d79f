//! The objects that rules look at, reduced to ports, selectors and references, with their lines.

pub mod policy;
pub mod route;
pub mod service;
pub mod slice;
pub mod workload;

use std::fmt;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::de::Error as _;

use super::tree::Invalid;

/// The protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, the default.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Reads the protocol of a port.
    ///
    /// # Errors
    ///
    /// The API has no such protocol.
    pub fn read(text: Option<&str>) -> Result<Self, Invalid> {
        match text {
            None | Some("" | "TCP") => Ok(Self::Tcp),
            Some("UDP") => Ok(Self::Udp),
            Some("SCTP") => Ok(Self::Sctp),
            Some(other) => Err(Invalid::custom(format_args!("the protocol {other:?} is neither TCP, UDP nor SCTP"))),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A reference to a port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortRef {
    /// A number.
    Number(i32),
    /// A name.
    Name(String),
    /// A number that is written as a text.
    Quoted(String),
}

impl PortRef {
    /// Reads a port. `None` for zero and for an empty text, which the API reads as a missing port.
    pub fn read(port: &IntOrString) -> Option<Self> {
        match port {
            IntOrString::Int(0) => None,
            IntOrString::Int(number) => Some(Self::Number(*number)),
            IntOrString::String(text) if text.is_empty() => None,
            IntOrString::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => Some(Self::Quoted(text.clone())),
            IntOrString::String(text) => Some(Self::Name(text.clone())),
        }
    }
}

/// The number of [`PortRef::Quoted`] as people write it: without zeros before it.
pub fn unquoted(text: &str) -> &str {
    text.trim_start_matches('0')
}

impl fmt::Display for PortRef {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Name(text) | Self::Quoted(text) => write!(formatter, "{text:?}"),
        }
    }
}
