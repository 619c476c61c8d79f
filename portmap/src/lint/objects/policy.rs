//! NetworkPolicies, and label selectors.

use k8s_openapi::{api::networking::v1 as networking, apimachinery::pkg::apis::meta::v1::LabelSelector};

use super::{PortRef, Protocol};
use crate::lint::{
    head::{Head, Labels},
    tree::{Invalid, Line, Node},
};

/// A NetworkPolicy.
#[derive(Debug)]
pub struct Policy {
    /// Name and place.
    pub head: Head,
    /// The pods to which the policy applies.
    pub pods: Selector,
    /// The rules for connections to the pods; `None` if the policy does not limit these.
    pub ingress: Option<Vec<Allowance>>,
    /// The rules for connections from the pods; `None` if the policy does not limit these.
    pub egress: Option<Vec<Allowance>>,
}

/// A rule of a policy: it allows ports of peers.
#[derive(Debug)]
pub struct Allowance {
    /// The ports; all ports if there are none.
    pub ports: Vec<PolicyPort>,
    /// The peers; all peers if there are none.
    pub peers: Vec<Peer>,
}

/// A port that a rule allows.
#[derive(Debug)]
pub struct PolicyPort {
    /// The line of the port.
    pub line: Line,
    /// The protocol.
    pub protocol: Protocol,
    /// The port; `None` for all ports of the protocol.
    pub port: Option<PortRef>,
    /// The last port of a range that begins with `port`.
    pub end: Option<i32>,
}

/// Peers of a rule. A peer that is a range of addresses has neither selector.
#[derive(Debug)]
pub struct Peer {
    /// The pods.
    pub pods: Option<Selector>,
    /// The namespaces; the policy's own without it.
    pub namespaces: Option<Selector>,
}

/// A label selector.
#[derive(Debug, Default)]
pub struct Selector {
    /// Labels that have to be equal.
    pub labels: Labels,
    /// Further conditions.
    expressions: Vec<Expression>,
}

#[derive(Debug)]
struct Expression {
    key: String,
    operator: String,
    values: Vec<String>,
}

impl Policy {
    /// Reads a NetworkPolicy.
    ///
    /// # Errors
    ///
    /// A field has a wrong type, or a required field is missing.
    pub fn read(head: Head, object: &Node) -> Result<Self, Invalid> {
        let empty = Node::empty(object.line);
        let node = object.get("spec").unwrap_or(&empty);
        let spec: networking::NetworkPolicySpec = node.decode()?;
        let types = spec.policy_types.filter(|types| !types.is_empty());
        let has_egress = spec.egress.is_some();
        let limits = |direction, default| types.as_ref().map_or(default, |types| types.iter().any(|it| it == direction));
        let ingress = spec.ingress.into_iter().flatten().map(|rule| (rule.ports, rule.from));
        let egress = spec.egress.into_iter().flatten().map(|rule| (rule.ports, rule.to));
        Ok(Self {
            head,
            pods: spec.pod_selector.map(Selector::from).unwrap_or_default(),
            ingress: limits("Ingress", true).then(|| allowances(node.list("ingress"), ingress)).transpose()?,
            egress: limits("Egress", has_egress).then(|| allowances(node.list("egress"), egress)).transpose()?,
        })
    }
}

/// Ports and peers of a rule, as the API has them.
type Raw = (Option<Vec<networking::NetworkPolicyPort>>, Option<Vec<networking::NetworkPolicyPeer>>);

fn allowances(nodes: &[Node], rules: impl Iterator<Item = Raw>) -> Result<Vec<Allowance>, Invalid> {
    let allowance = |(node, (ports, peers)): (&Node, Raw)| {
        let ports = node.list("ports").iter().zip(ports.unwrap_or_default());
        Ok(Allowance {
            ports: ports.map(|(node, port)| PolicyPort::read(node, &port)).collect::<Result<_, _>>()?,
            peers: peers.unwrap_or_default().into_iter().map(Peer::from).collect(),
        })
    };
    nodes.iter().zip(rules).map(allowance).collect()
}

impl PolicyPort {
    fn read(node: &Node, port: &networking::NetworkPolicyPort) -> Result<Self, Invalid> {
        Ok(Self {
            line: node.line_of("port"),
            protocol: Protocol::read(port.protocol.as_deref()).map_err(|error| error.at(node.line_of("protocol")))?,
            port: port.port.as_ref().and_then(PortRef::read),
            end: port.end_port,
        })
    }

    /// Whether the entry allows this number of a pod. `number_of`: the number of a named port of the pod.
    pub fn allows(&self, number: i32, protocol: Protocol, number_of: impl Fn(&str) -> Option<i32>) -> bool {
        self.protocol == protocol
            && match &self.port {
                None => true,
                Some(PortRef::Number(first)) => (*first..=self.end.unwrap_or(*first)).contains(&number),
                Some(PortRef::Name(name)) => number_of(name) == Some(number),
                Some(PortRef::Quoted(text)) => text.parse() == Ok(number),
            }
    }
}

impl Allowance {
    /// Whether the rule allows this number of a pod, from or to some peer.
    pub fn allows(&self, number: i32, protocol: Protocol, number_of: impl Fn(&str) -> Option<i32>) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|port| port.allows(number, protocol, &number_of))
    }
}

impl From<networking::NetworkPolicyPeer> for Peer {
    fn from(peer: networking::NetworkPolicyPeer) -> Self {
        Self { pods: peer.pod_selector.map(Selector::from), namespaces: peer.namespace_selector.map(Selector::from) }
    }
}

impl From<LabelSelector> for Selector {
    fn from(selector: LabelSelector) -> Self {
        let expressions = selector.match_expressions.unwrap_or_default().into_iter().map(|expression| Expression {
            key: expression.key,
            operator: expression.operator,
            values: expression.values.unwrap_or_default(),
        });
        Self { labels: selector.match_labels.unwrap_or_default(), expressions: expressions.collect() }
    }
}

impl Selector {
    /// Whether the selector selects everything.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.expressions.is_empty()
    }

    /// Whether the further conditions hold.
    pub fn expressions_hold(&self, labels: &Labels) -> bool {
        self.expressions.iter().all(|Expression { key, operator, values }| {
            let value = labels.get(key);
            match operator.as_str() {
                "In" => value.is_some_and(|value| values.contains(value)),
                "NotIn" => !value.is_some_and(|value| values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
    }

    /// Whether the selector selects an object with these labels.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value)) && self.expressions_hold(labels)
    }
}
