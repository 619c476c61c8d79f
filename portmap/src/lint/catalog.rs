//! The rules: code, title, reason and remedy of each. `docs/lint.md` has an example of each code.

use std::fmt;

/// The severity of a finding. Later ones are graver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A fact to know, which is often intended.
    Note,
    /// Probably a mistake.
    Warning,
    /// A mistake: connections fail, or an API server rejects the object.
    Error,
}

impl Level {
    /// The word for the level, as all outputs show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// The stable code, for example `PM101`.
    pub code: &'static str,
    /// The highest level of its findings.
    pub level: Level,
    /// The mistake, as a phrase without a period.
    pub title: &'static str,
    /// The reason why it is a mistake, as one sentence without a period.
    pub why: &'static str,
    /// The general remedy, as one sentence without a period.
    pub mend: &'static str,
}

/// Declares the rules as constants, and a list of all.
macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $code:literal $level:ident $title:literal, why $why:literal, mend $mend:literal;)*) => {
        $($(#[$doc])* pub const $name: &Rule =
            &Rule { code: $code, level: Level::$level, title: $title, why: $why, mend: $mend };)*

        /// All rules in the order of their codes.
        pub const ALL: &[&Rule] = &[$($name),*];
    };
}

rules! {
    /// A document that cannot be read.
    INVALID = "PM001" Error "a document cannot be read",
        why "an API server rejects the document, and conclusions that depend on it are left out",
        mend "correct the document";
    /// An annotation with an unknown code.
    UNKNOWN_CODE = "PM002" Warning "an annotation ignores an unknown code",
        why "the annotation has no effect",
        mend "write codes of `portmap lint --list-rules`, separated by commas";
    /// A named targetPort without a container port.
    NO_SUCH_NAME = "PM101" Error "no selected pod has a container port with the name of the targetPort",
        why "the Service port gets no endpoints, so that connections to it fail",
        mend "write the name of a container port, or add the name to a container port";
    /// A named targetPort with another protocol.
    OTHER_PROTOCOL = "PM102" Error "the container port of the targetPort's name has another protocol",
        why "a name is looked up together with the protocol, so that the Service port gets no endpoints",
        mend "give both ports the same protocol";
    /// An undeclared number.
    UNDECLARED = "PM103" Note "no container declares the number of the targetPort",
        why "a container may serve an undeclared port, but a wrong number looks the same",
        mend "declare the port in the container, or correct the targetPort";
    /// Several numbers for one name.
    SEVERAL_NUMBERS = "PM104" Note "the name of the targetPort has different numbers in the selected pods",
        why "each endpoint gets the number of its own pod, which is valid, but may be a mistake",
        mend "use one number in all pods, unless a rollout changes it";
    /// A name that a part of the pods lacks.
    SOME_LACK_NAME = "PM105" Note "some selected pods lack the name of the targetPort",
        why "these pods get no connections of the Service port",
        mend "narrow the selector, or add the name to the container ports of all pods";
    /// A number in quotes.
    QUOTED_NUMBER = "PM106" Error "a port number is in quotes",
        why "a text is the name of a port, and an API server rejects a name without a letter",
        mend "remove the quotes";
    /// Ports without names.
    UNNAMED_PORTS = "PM107" Error "a Service has several ports, and some have no name",
        why "an API server requires a name for each port of a Service with several ports",
        mend "give each port a name";
    /// Equal ports.
    EQUAL_PORTS = "PM108" Error "two ports of a Service have the same name, or the same number and protocol",
        why "an API server rejects the Service",
        mend "change the name or the number of one port, or remove the port";
    /// A selector that selects nothing.
    NO_PODS = "PM110" Warning "the selector of a Service selects no pod",
        why "the Service has no endpoints, so that connections to it fail",
        mend "compare the selector with the labels of the pod template";
    /// A node port out of range.
    NODE_PORT_RANGE = "PM120" Error "a node port is out of range",
        why "an API server rejects a node port outside of its range",
        mend "choose a number in the range, or omit nodePort to get a free one";
    /// A node port that is used twice.
    NODE_PORT_TWICE = "PM121" Error "two Services have the same node port",
        why "an API server gives a node port to one Service, and rejects the other",
        mend "choose another number, or omit nodePort to get a free one";
    /// A load balancer that is open to all.
    OPEN_LOAD_BALANCER = "PM130" Note "a load balancer admits all clients",
        why "without loadBalancerSourceRanges, everybody who reaches the address can connect",
        mend "list the ranges of the clients in spec.loadBalancerSourceRanges";
    /// A probe on an unknown name.
    PROBE_NAME = "PM140" Error "a probe names a port that its container does not declare",
        why "the kubelet looks the name up in the probe's own container, so that the probe fails",
        mend "write the name or number of a port of this container";
    /// A probe on an undeclared number.
    PROBE_NUMBER = "PM141" Note "a probe uses a number that no container of the pod declares",
        why "a container may serve an undeclared port, but a wrong number looks the same",
        mend "declare the port in the container, or correct the probe";
    /// A policy for the Service's port.
    POLICY_PORT = "PM150" Error "a NetworkPolicy allows the port of a Service instead of its targetPort",
        why "a policy applies to the port of the pod, after the Service's address and port were translated",
        mend "allow the targetPort";
    /// A policy with an unknown name.
    POLICY_NAME = "PM151" Warning "a NetworkPolicy names a port that no selected pod declares",
        why "the name is looked up in the container ports of the pods, so that the entry allows nothing",
        mend "write the name of a container port, or a number";
    /// A route to an undefined port.
    ROUTE_PORT = "PM160" Error "an Ingress or a route uses a port that the Service does not have",
        why "an Ingress or a route uses a port of the Service, and never its targetPort",
        mend "write a port of the Service";
    /// A slice port without a Service port.
    SLICE_PORT = "PM170" Warning "a port of an EndpointSlice or of Endpoints matches no port of the Service",
        why "ports are joined by name and protocol, so that the Service does not use this port",
        mend "give the port the name and the protocol of a Service port";
    /// A Service port without a slice port.
    NO_SLICE_PORT = "PM171" Warning "a port of a Service without a selector is in none of its EndpointSlices",
        why "ports are joined by name and protocol, so that connections to this port fail",
        mend "add a port with this name and protocol to an EndpointSlice";
}

/// The rule with this code, in upper or lower case.
pub fn by_code(code: &str) -> Option<&'static Rule> {
    ALL.iter().copied().find(|rule| rule.code.eq_ignore_ascii_case(code))
}
