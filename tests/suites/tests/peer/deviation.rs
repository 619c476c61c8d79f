//! Where portmap may differ from kube-proxy: each for a reason that `docs/kube-proxy.md` gives.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};

use crate::compare::Difference;
use crate::model::{Family, Frontend};

/// A difference that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deviation {
    Sctp,
    SeveralServices,
}

impl Deviation {
    const ALL: [Self; 2] = [Self::Sctp, Self::SeveralServices];

    /// The reason for a difference, if it is one of these.
    pub fn of(difference: &Difference, claims: &Claims) -> Option<Self> {
        let is_sctp = difference.frontend.protocol() == Some("SCTP") && difference.ours.is_none();
        if is_sctp {
            return Some(Self::Sctp);
        }
        (claims.of(&difference.frontend).len() > 1).then_some(Self::SeveralServices)
    }

    /// How the paragraph begins that argues for it.
    pub fn paragraph(self) -> &'static str {
        match self {
            Self::Sctp => "SCTP is left out",
            Self::SeveralServices => "One address, several Services.",
        }
    }
}

/// Who asks for which frontend, whether or not it is to have it.
#[derive(Debug, Default)]
pub struct Claims(BTreeMap<Frontend, Vec<Claim>>);

/// That of a Service for a frontend.
#[derive(Debug)]
pub struct Claim {
    kind: &'static str,
    /// `namespace/name`
    pub service: String,
}

impl Claims {
    /// Those of these Services.
    pub fn new(services: &[Service]) -> Self {
        let mut claims = Self::default();
        for service in services {
            claims.add(service);
        }
        claims
    }

    /// For a frontend.
    pub fn of(&self, frontend: &Frontend) -> &[Claim] {
        self.0.get(frontend).map_or(&[], Vec::as_slice)
    }

    /// How the address of a frontend came to its Service.
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

    /// An address that a Service names twice is one.
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
fn every_deviation_is_argued_for() {
    let document = include_str!("../../../../docs/kube-proxy.md");
    for deviation in Deviation::ALL {
        let paragraph = format!("\n**{}", deviation.paragraph());
        assert!(document.contains(&paragraph), "docs/kube-proxy.md has no paragraph that begins with {paragraph}");
    }
}
