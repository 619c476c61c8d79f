//! The lines of `portmap trace`.

pub mod pods;

use jiff::Timestamp;
use serde::Serialize;

use super::flows::ServiceName;
use crate::{
    maps::trace::{Effect, Origin, Traced},
    model::{ObjectName, ServicePort},
};

/// One connection or datagram. The names and values of its JSON are a stable contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The time, to the microsecond.
    pub time: Timestamp,
    /// `connect`, `sendmsg`, or `packet` for a client outside the node.
    pub call: &'static str,
    /// The pod of the client, as `namespace/name`; none for processes of the node and clients outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The UID of the pod, if its name is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The id of the process, in the initial namespace of ids; none for a packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    /// The name of the process; none for a packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The address and port of a client outside the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The device that received the packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The address, port and protocol that the client asked for, as in `portmap services`: `10.96.0.10:80/TCP`.
    pub frontend: String,
    /// The Service, as `namespace/name`; none if no Service has the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The name of the Service port; empty if it has none.
    pub port: String,
    /// `forwarded`, `refused`, `dropped`, `no-such-port` or `no-service`.
    pub result: &'static str,
    /// The backend's address and port; none unless forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The pod of the backend, as `namespace/name`, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_pod: Option<String>,
}

/// The names of a traced connection, as far as they are known.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The Service port of the destination; any port of the Service for [`Effect::NoSuchPort`].
    pub service: Option<ServicePort>,
    /// The pod of the process.
    pub pod: Option<ObjectName>,
    /// The UID of the pod of the process.
    pub pod_uid: Option<String>,
    /// The device that received the packet.
    pub device: Option<String>,
    /// The pod of the backend.
    pub backend: Option<ObjectName>,
}

/// The connections that are shown.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only connections to this Service.
    pub service: Option<ServiceName>,
    /// Only connections of the pod with this name, name with namespace (`namespace/name`), or UID.
    pub pod: Option<String>,
    /// Only connections of the process with this id.
    pub process: Option<u32>,
    /// Only connections of clients outside the node.
    pub is_outside: bool,
}

impl Filter {
    /// Whether a connection with these names is shown.
    pub fn admits(&self, traced: &Traced, names: &Names) -> bool {
        let process = match traced.origin {
            Origin::Call { process, .. } => Some(process),
            Origin::Packet { .. } => None,
        };
        let is_pod = |wanted: &String| {
            let has_name = names.pod.as_ref().is_some_and(|pod| pod.name() == wanted || pod.to_string() == *wanted);
            has_name || names.pod_uid.as_ref() == Some(wanted)
        };
        self.service.as_ref().is_none_or(|wanted| names.service.as_ref().is_some_and(|owner| wanted.matches(owner)))
            && self.pod.as_ref().is_none_or(is_pod)
            && self.process.is_none_or(|wanted| process == Some(wanted))
            && (!self.is_outside || process.is_none())
    }
}

/// The row of a traced connection. `boot`: the time of day at boot, for the clock of events.
pub fn row(traced: &Traced, names: Names, boot: Timestamp) -> Row {
    let Traced { time, origin, asked, id: _, backend, effect } = traced;
    let (call, process, command, client) = match origin {
        Origin::Call { call, process, command, cgroup: _ } => (*call, Some(*process), Some(command.clone()), None),
        Origin::Packet { client, device: _ } => ("packet", None, None, Some(client.to_string())),
    };
    let port = names.service.as_ref().filter(|_| *effect != Effect::NoSuchPort).map(|owner| owner.port.to_string());
    Row {
        time: (boot + *time).round(jiff::Unit::Microsecond).unwrap_or(boot),
        call,
        pod_uid: names.pod_uid.filter(|_| names.pod.is_none()),
        pod: names.pod.map(|pod| pod.to_string()),
        process,
        command,
        client,
        device: names.device,
        frontend: asked.to_string(),
        service: names.service.map(|owner| owner.service.to_string()),
        port: port.unwrap_or_default(),
        result: name(*effect),
        backend: backend.map(|backend| backend.to_string()),
        backend_pod: names.backend.map(|pod| pod.to_string()),
    }
}

/// The name of an effect in the output.
pub fn name(effect: Effect) -> &'static str {
    match effect {
        Effect::Forwarded => "forwarded",
        Effect::Refused => "refused",
        Effect::Dropped => "dropped",
        Effect::NoSuchPort => "no-such-port",
        Effect::NoService => "no-service",
    }
}

impl Row {
    /// The client as text: `p/namespace/pod command[process]`, `command[process]` on the node, or `address:port (device)`.
    pub fn client_text(&self) -> String {
        match (&self.client, &self.device) {
            (Some(client), Some(device)) => format!("{client} ({device})"),
            (Some(client), None) => client.clone(),
            (None, _) => {
                let process = format!("{}[{}]", self.command.as_deref().unwrap_or_default(), self.process.unwrap_or_default());
                match self.pod.as_ref().or(self.pod_uid.as_ref()) {
                    Some(pod) => format!("p/{pod} {process}"),
                    None => process,
                }
            }
        }
    }

    /// The Service as text: `s/namespace/name:port`; `-` without one.
    pub fn service_text(&self) -> String {
        match (&self.service, self.port.as_str()) {
            (Some(service), "") => format!("s/{service}"),
            (Some(service), port) => format!("s/{service}:{port}"),
            (None, _) => "-".to_owned(),
        }
    }

    /// The result as text: `p/namespace/pod:port (address:port)`, `address:port` without the pod's name, or the error with its
    /// reason.
    pub fn result_text(&self) -> String {
        match (self.result, &self.backend) {
            (_, Some(backend)) => match (&self.backend_pod, backend.rsplit_once(':')) {
                (Some(pod), Some((_, port))) => format!("p/{pod}:{port} ({backend})"),
                _ => backend.clone(),
            },
            ("refused", _) => "refused: no endpoint can be used".to_owned(),
            ("dropped", _) => "dropped: by a traffic policy or a source range".to_owned(),
            ("no-such-port", _) => "refused: the Service has no such port".to_owned(),
            (_, None) => "dropped: no Service has this address".to_owned(),
        }
    }
}
