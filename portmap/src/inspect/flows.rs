//! The rows of `portmap flows`: one row per flow of a client outside the node.

use std::{collections::BTreeMap, net::IpAddr, str::FromStr};

use serde::Serialize;

use crate::{
    maps::{
        Snapshot,
        flows::list::{Flow, Phase},
    },
    model::{Frontend, ServicePort},
};

/// One flow. The names and values of its JSON are a stable contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// The client's address and port.
    pub client: String,
    /// The frontend's address, port and protocol, as in `portmap services`: `192.0.2.1:80/TCP`.
    pub frontend: String,
    /// The backend's address and port; none if the flow is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The Service, as `namespace/name`; none if no Service has the frontend any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The name of the Service port; empty if it has none.
    pub port: String,
    /// The address and port of this node that the backend sees as the client; none if it sees the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_behind: Option<String>,
    /// `half-open`, `established`, `closing`, `closed`, or `datagrams`.
    pub state: &'static str,
    /// The time since the first packet, in seconds.
    pub age_seconds: u64,
    /// The time since the last packet, in seconds.
    pub idle_seconds: u64,
}

/// The flows that are shown.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only flows to this Service.
    pub service: Option<ServiceName>,
    /// Only flows of this client.
    pub client: Option<IpAddr>,
}

/// The name of a Service, with or without its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// None: every namespace.
    namespace: Option<String>,
    name: String,
}

/// `NAME`, `NAME.NAMESPACE` or `NAMESPACE/NAME`. No name of a Service or namespace contains a dot or a slash.
impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = match (text.split_once('/'), text.split_once('.')) {
            (Some((namespace, name)), _) | (None, Some((name, namespace))) => (Some(namespace), name),
            (None, None) => (None, text),
        };
        let is_name = |text: &str| !text.is_empty() && !text.contains(['.', '/']);
        if is_name(name) && namespace.is_none_or(is_name) {
            Ok(Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
        } else {
            Err("expected NAME, NAME.NAMESPACE or NAMESPACE/NAME".to_owned())
        }
    }
}

impl ServiceName {
    /// Whether this is the name of the Service that owns a port.
    pub fn matches(&self, owner: &ServicePort) -> bool {
        self.name == owner.service.name()
            && self.namespace.as_ref().is_none_or(|namespace| namespace == owner.service.namespace())
    }
}

impl Filter {
    fn admits(&self, flow: &Flow, owner: Option<&ServicePort>) -> bool {
        self.client.is_none_or(|client| client == flow.client.ip())
            && self.service.as_ref().is_none_or(|service| owner.is_some_and(|owner| service.matches(owner)))
    }
}

/// The rows of these flows, in the order of frontends and clients. `tables` has the names of the Services.
pub fn rows(mut flows: Vec<Flow>, tables: &Snapshot, filter: &Filter) -> Vec<Row> {
    flows.sort_by_key(|flow| (flow.frontend, flow.client));
    let owners = Owners::new(tables);
    let rows = flows.iter().filter_map(|flow| {
        let owner = owners.of(flow);
        filter.admits(flow, owner).then(|| row(flow, owner))
    });
    rows.collect()
}

fn row(flow: &Flow, owner: Option<&ServicePort>) -> Row {
    let Flow { client, frontend, backend, hidden_behind, id: _, phase, age, idle } = flow;
    Row {
        protocol: frontend.protocol.name(),
        client: client.to_string(),
        frontend: frontend.to_string(),
        backend: backend.map(|backend| backend.to_string()),
        service: owner.map(|owner| owner.service.to_string()),
        port: owner.map(|owner| owner.port.to_string()).unwrap_or_default(),
        hidden_behind: hidden_behind.map(|address| address.to_string()),
        state: name(*phase),
        age_seconds: age.as_secs(),
        idle_seconds: idle.as_secs(),
    }
}

/// The Service ports of flows.
struct Owners<'a> {
    by_id: BTreeMap<u64, &'a ServicePort>,
    by_frontend: BTreeMap<Frontend, u64>,
}

impl<'a> Owners<'a> {
    fn new(tables: &'a Snapshot) -> Self {
        let ids = tables.frontends.iter().filter_map(|(frontend, found)| Some((*frontend, found.service?.id)));
        Self { by_id: tables.owners(), by_frontend: ids.collect() }
    }

    /// The Service port of a flow. If the flow is from an earlier set of maps, its id is not in NAMES. If it is refused, its id
    /// may be 0, for a port that the Service does not define. Then the result is the Service port that has the frontend now.
    fn of(&self, flow: &Flow) -> Option<&'a ServicePort> {
        let by_id = flow.backend.and_then(|_| self.by_id.get(&flow.id));
        by_id.or_else(|| self.by_id.get(self.by_frontend.get(&flow.frontend)?)).copied()
    }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::HalfOpen => "half-open",
        Phase::Established => "established",
        Phase::Closing => "closing",
        Phase::Closed => "closed",
        Phase::Datagrams => "datagrams",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        maps::FollowedFrontend,
        model::{ObjectName, Protocol},
    };

    fn frontend(port: u16) -> Frontend {
        Frontend { address: IpAddr::from([192, 0, 2, 1]), port, protocol: Protocol::Tcp }
    }

    fn flow(port: u16, client: u8, id: u64) -> Flow {
        Flow {
            client: ([198, 51, 100, client], 40_000).into(),
            frontend: frontend(port),
            backend: Some(([10, 244, 0, 2], 8080).into()),
            hidden_behind: None,
            id,
            phase: Phase::Established,
            age: Duration::from_secs(7),
            idle: Duration::from_secs(3),
        }
    }

    /// Service port 1 `default/web`, Service port 2 `other/web` with the frontend at port 81.
    fn tables() -> Snapshot {
        let owner = |namespace| ServicePort {
            service: ObjectName::new(namespace, "web"),
            port: "http".into(),
            protocol: Protocol::Tcp,
        };
        let service = portmap_common::Service { id: 2, ..portmap_common::Service::default() };
        Snapshot {
            names: vec![(1, Some(owner("default"))), (2, Some(owner("other")))],
            frontends: vec![(
                frontend(81),
                FollowedFrontend { number: 0, service: Some(service), inside: None, outside: None },
            )],
            ..Snapshot::default()
        }
    }

    fn shown(filter: &Filter) -> Vec<(String, String)> {
        let flows = vec![flow(81, 2, 99), flow(80, 3, 1), flow(80, 1, 1), flow(82, 1, 98)];
        let rows = rows(flows, &tables(), filter);
        rows.into_iter().map(|row| (row.client, row.service.unwrap_or_default())).collect()
    }

    fn these(rows: &[(&str, &str)]) -> Vec<(String, String)> {
        rows.iter().map(|(client, service)| (format!("{client}:40000"), (*service).to_owned())).collect()
    }

    #[test]
    fn flows_are_sorted_and_named_by_their_id_or_else_their_frontend() {
        let all = [
            ("198.51.100.1", "default/web"),
            ("198.51.100.3", "default/web"),
            ("198.51.100.2", "other/web"),
            ("198.51.100.1", ""),
        ];
        assert_eq!(shown(&Filter::default()), these(&all));
    }

    #[test]
    fn filters_select_flows() {
        let of_service = |name: &str| Filter { service: name.parse().ok(), client: None };
        let web = these(&[("198.51.100.1", "default/web"), ("198.51.100.3", "default/web"), ("198.51.100.2", "other/web")]);
        assert_eq!(shown(&of_service("web")), web);
        assert_eq!(shown(&of_service("web.default")), web[..2]);
        assert_eq!(shown(&of_service("other/web")), web[2..]);
        assert_eq!(shown(&of_service("other")), []);
        let client = Filter { service: None, client: Some([198, 51, 100, 1].into()) };
        assert_eq!(shown(&client), these(&[("198.51.100.1", "default/web"), ("198.51.100.1", "")]));
    }

    #[test]
    fn names_of_services_are_parsed() {
        let name = |namespace: Option<&str>, name: &str| {
            Ok(ServiceName { namespace: namespace.map(str::to_owned), name: name.to_owned() })
        };
        assert_eq!("web".parse(), name(None, "web"));
        assert_eq!("web.default".parse(), name(Some("default"), "web"));
        assert_eq!("default/web".parse(), name(Some("default"), "web"));
        for wrong in ["", "/", ".", "a/", "/a", "a.", ".a", "a/b/c", "a.b.c", "a/b.c"] {
            assert!(wrong.parse::<ServiceName>().is_err(), "{wrong}");
        }
    }
}
