//! Accepted differences between portmap and kube-proxy. `docs/kube-proxy.md` gives the reason of each.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};

use crate::compare::Difference;
use crate::model::{Family, Frontend};

/// A kind of difference that the test accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deviation {
    Sctp,
    SeveralServices,
}

impl Deviation {
    const ALL: [Self; 2] = [Self::Sctp, Self::SeveralServices];

    /// The deviation that explains a difference; `None` if the difference is not accepted.
    pub fn of(difference: &Difference, claims: &Claims) -> Option<Self> {
        let is_sctp = difference.frontend.protocol() == Some("SCTP") && difference.ours.is_none();
        if is_sctp {
            return Some(Self::Sctp);
        }
        (claims.of(&difference.frontend).len() > 1).then_some(Self::SeveralServices)
    }

    /// The beginning of the paragraph in `docs/kube-proxy.md` that gives the reason.
    pub fn paragraph(self) -> &'static str {
        match self {
            Self::Sctp => "SCTP is left out",
            Self::SeveralServices => "One address, several Services.",
        }
    }
}

/// The Services that claim each frontend, including those that do not get it.
#[derive(Debug, Default)]
pub struct Claims(BTreeMap<Frontend, Vec<Claim>>);

/// The claim of a Service on a frontend.
#[derive(Debug)]
pub struct Claim {
    kind: &'static str,
    /// `namespace/name` of the Service.
    pub service: String,
}

impl Claims {
    pub fn new(services: &[Service]) -> Self {
        let mut claims = Self::default();
        for service in services {
            claims.add(service);
        }
        claims
    }

    /// The claims on a frontend; empty if no Service claims it.
    pub fn of(&self, frontend: &Frontend) -> &[Claim] {
        self.0.get(frontend).map_or(&[], Vec::as_slice)
    }

    /// The kind of the frontend's address in its first claim, or `unknown` without a claim.
    pub fn kind(&self, frontend: &Frontend) -> &'static str {
        self.of(frontend).first().map_or("unknown", |claim| claim.kind)
    }

    fn add(&mut self, service: &Service) {
        let spec = service.spec.clone().unwrap_or_default();
        let cluster_ips = spec.cluster_ips.unwrap_or_default();
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.clone());
        let ingress: Vec<_> = status.unwrap_or_default().into_iter().filter_map(|ingress| ingress.ip).collect();
        let external_ips = spec.external_ips.unwrap_or_default();
        for address in cluster_ips.iter().filter_map(|address| address.parse().ok()) {
            self.insert(Frontend::OtherPorts(address), "other ports", service);
        }
        for port in spec.ports.iter().flatten() {
            for (addresses, kind) in [(&cluster_ips, "ClusterIP"), (&ingress, "LoadBalancer"), (&external_ips, "ExternalIP")] {
                for frontend in addresses.iter().filter_map(|address| frontend(address, port)) {
                    self.insert(frontend, kind, service);
                }
            }
            for (family, number) in Family::ALL.into_iter().filter_map(|family| Some((family, number(port.node_port?)?))) {
                self.insert(Frontend::NodePort(family, number, protocol(port)), "NodePort", service);
            }
        }
    }

    /// Adds a claim. A Service that names an address twice has one claim on it.
    fn insert(&mut self, frontend: Frontend, kind: &'static str, service: &Service) {
        let [namespace, name] = [&service.metadata.namespace, &service.metadata.name].map(Option::as_deref);
        let service = format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default());
        let claims = self.0.entry(frontend).or_default();
        if claims.iter().all(|claim| claim.service != service) {
            claims.push(Claim { kind, service });
        }
    }
}

fn frontend(address: &str, port: &ServicePort) -> Option<Frontend> {
    Some(Frontend::Address(SocketAddr::new(address.parse().ok()?, number(port.port)?), protocol(port)))
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok()
}

fn protocol(port: &ServicePort) -> String {
    port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())
}

#[test]
fn every_deviation_has_a_paragraph() {
    let document = include_str!("../../../../docs/kube-proxy.md");
    for deviation in Deviation::ALL {
        let paragraph = format!("\n**{}", deviation.paragraph());
        assert!(document.contains(&paragraph), "docs/kube-proxy.md has no paragraph that begins with {paragraph}");
    }
}
