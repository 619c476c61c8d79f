//! Reads the objects that an explanation needs: all of the files, or a few of the API server.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use anyhow::Result;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use portmap::{
    inspect::explain::{
        Explanation, Known,
        target::{ServiceTarget, Target},
        written::Written,
    },
    model::{
        ObjectName,
        event::{Event, Object, Wanted},
        object::{EndpointSlice, object_name, pods_of},
    },
    resolve::desired::Desired,
    source::{
        kube::list::{Lister, watched},
        manifests::{Manifests, Reading, Service as ManifestService},
    },
};
use tokio::runtime::Runtime;

use super::{client::ClientNamespace, kernel::Kernel};
use crate::cli::objects::{self, Origin, Source};

/// The objects for one explanation.
pub struct Objects {
    pub desired: Desired,
    written: BTreeMap<ObjectName, Written>,
    pods: BTreeMap<IpAddr, String>,
    pub warnings: Vec<String>,
}

impl Objects {
    /// Reads the objects. `local`: the addresses of the agent's interfaces.
    pub fn read(source: &Source, target: &Target, local: Vec<IpNet>) -> Result<Self> {
        match &source.origin {
            Origin::Manifests(paths) => Self::of_files(source, paths, target, local),
            Origin::Kube(lister, runtime) => Self::of_cluster(source, (lister, runtime), target, local),
        }
    }

    /// Reads the objects of all Services. `local`: the addresses of the agent's interfaces.
    pub fn read_all(source: &Source, local: Vec<IpNet>) -> Result<Self> {
        let (lister, runtime) = match &source.origin {
            Origin::Manifests(paths) => {
                let mut manifests = files(source, paths);
                let reading = manifests.read()?;
                return Ok(Self::of_reading(source, &manifests, reading, local));
            }
            Origin::Kube(lister, runtime) => (lister, runtime),
        };
        let wanted = &source.wanted;
        let lists = async {
            tokio::try_join!(
                watched::services(lister, ""),
                watched::all_slices(lister, wanted),
                watched::surroundings(lister, wanted)
            )
        };
        let (services, slices, surroundings) = runtime.block_on(lists)?;
        let mut read = Self::of_services(source, services, surroundings, local);
        read.add_slices(slices, wanted);
        Ok(read)
    }

    /// Explains a destination by the objects, the tables and, if there is one, a client.
    pub fn explain(&self, target: &Target, kernel: &Kernel, client: Option<&ClientNamespace>) -> Result<Vec<Explanation>> {
        let mut explanations = Vec::new();
        for (frontend, mut explanation) in self.known().explain(target) {
            if let Some(frontend) = frontend {
                let entry = self.desired.explain(&frontend).ok().map(|served| served.explained.entry);
                kernel.add(&mut explanation, &frontend, entry.clone())?;
                if let Some(client) = client {
                    client.add(&mut explanation, &frontend, entry.as_ref(), kernel)?;
                }
            }
            explanations.push(explanation);
        }
        Ok(explanations)
    }

    pub fn known(&self) -> Known<'_> {
        Known { desired: &self.desired, written: &self.written, pods: &self.pods }
    }

    /// Reads the Service that decides, its EndpointSlices, and the Services that claim its addresses. Reads all objects if others
    /// may have a part in the decision, and of YAML, which has to be parsed as a whole in any case.
    fn of_files(source: &Source, paths: &[PathBuf], target: &Target, local: Vec<IpNet>) -> Result<Self> {
        let mut manifests = files(source, paths);
        let reading = if source.is_repeatable() && source.is_json() {
            manifests.read_few(first_string(target), |manifests| deciding_strings(manifests, target))?
        } else {
            manifests.read()?
        };
        Ok(Self::of_reading(source, &manifests, reading, local))
    }

    fn of_reading(source: &Source, manifests: &Manifests, reading: Reading, local: Vec<IpNet>) -> Self {
        let written =
            manifests.services().map(|(name, service)| Written::new(name.clone(), service.is_ours, service.spec.clone()));
        Self {
            written: written.map(|written| (written.name.clone(), written)).collect(),
            pods: manifests.pods().map(|(address, name)| (address, name.to_string())).collect(),
            warnings: reading.warnings,
            desired: source.resolve(reading.objects, local),
        }
    }

    /// Lists Services first, then the EndpointSlices of the Service that decides.
    fn of_cluster(source: &Source, server: (&Lister, &Runtime), target: &Target, local: Vec<IpNet>) -> Result<Self> {
        let ((lister, runtime), wanted) = (server, &source.wanted);
        let both = async { tokio::try_join!(services(lister, target, wanted), watched::surroundings(lister, wanted)) };
        let (services, surroundings) = runtime.block_on(both)?;
        let mut read = Self::of_services(source, services, surroundings, local);
        if let Some(name) = read.known().service_of(target) {
            read.add_slices(runtime.block_on(watched::slices_of(lister, &name, wanted))?, wanted);
        }
        if read.desired.store().node().is_none() {
            let node = &wanted.node;
            read.warnings
                .push(format!("the cluster has no Node {node:?}; give the name of the node to stand on with --node-name"));
        }
        Ok(read)
    }

    /// Converts and resolves Services and other objects, without EndpointSlices.
    fn of_services(source: &Source, services: Vec<Service>, mut objects: Vec<Object>, local: Vec<IpNet>) -> Self {
        let wanted = &source.wanted;
        let written = services.iter().map(|service| {
            let spec = service.spec.clone().unwrap_or_default();
            Written::new(object_name(&service.metadata), wanted.is_ours(&service.metadata), spec)
        });
        let written = written.map(|written| (written.name.clone(), written)).collect();
        objects.extend(services.into_iter().map(|service| {
            if wanted.is_ours(&service.metadata) { Object::service(service) } else { Object::other_service(service) }
        }));
        Self { desired: source.resolve(objects, local), written, pods: BTreeMap::new(), warnings: Vec::new() }
    }

    fn add_slices(&mut self, slices: Vec<EndpointSlice>, wanted: &Wanted) {
        for slice in slices {
            self.pods.extend(pods_of(&slice).map(|(address, name)| (address, name.to_string())));
            self.desired.apply(Event::Changed(Object::slice(slice, &wanted.node)));
        }
        objects::resolve(&mut self.desired);
    }
}

fn files(source: &Source, paths: &[PathBuf]) -> Manifests {
    Manifests::new(paths.to_owned(), source.wanted.clone())
}

/// The string that the Service that decides must have: its name, or its ClusterIP if it is written in the usual form.
fn first_string(target: &Target) -> String {
    match target {
        Target::Service(ServiceTarget { name, .. }) => name.clone(),
        Target::Frontend(frontend) => frontend.address.to_string(),
    }
}

/// The name and the ClusterIPs of the Service that decides: all objects with a part in the decision have one of these strings, if
/// all write an address alike. `None` if there is no such Service, or if it has other frontends.
fn deciding_strings(manifests: &Manifests, target: &Target) -> Option<Vec<String>> {
    let mut strings = Vec::new();
    for (name, ManifestService { spec, has_ingress, .. }) in
        manifests.services().filter(|(name, it)| is_meant(target, name, &it.spec))
    {
        let is_other_type = spec.type_.as_deref().is_some_and(|kind| kind != "ClusterIP");
        if is_other_type || spec.external_ips.is_some() || *has_ingress {
            return None;
        }
        strings.push(name.name().to_owned());
        strings.extend(cluster_ips(spec).cloned());
    }
    (!strings.is_empty()).then_some(strings)
}

fn is_meant(target: &Target, service: &ObjectName, spec: &ServiceSpec) -> bool {
    match target {
        Target::Service(ServiceTarget { name, .. }) => service.name() == name,
        Target::Frontend(frontend) => cluster_ips(spec).any(|text| text.parse() == Ok(frontend.address)),
    }
}

fn cluster_ips(spec: &ServiceSpec) -> impl Iterator<Item = &String> {
    spec.cluster_ip.iter().chain(spec.cluster_ips.iter().flatten())
}

/// The Services that may have a part in the decision. If the address is a ClusterIP, they are those with this ClusterIP: it wins
/// over all other claims.
async fn services(lister: &Lister, target: &Target, wanted: &Wanted) -> Result<Vec<Service>> {
    let first = match target {
        Target::Frontend(frontend) => format!("spec.clusterIP={}", frontend.address),
        Target::Service(ServiceTarget { name, .. }) => format!("metadata.name={name}"),
    };
    let mut services = watched::services(lister, &first).await?;
    let needs_all = match target {
        Target::Frontend(_) => services.is_empty(),
        Target::Service(_) => services.iter().any(has_external_addresses),
    };
    if needs_all {
        let known: BTreeSet<ObjectName> = services.iter().map(|service| object_name(&service.metadata)).collect();
        let mut all = watched::all_services(lister, wanted).await?;
        all.retain(|service| !known.contains(&object_name(&service.metadata)));
        services.extend(all);
    }
    Ok(services)
}

/// Whether other Services may claim the same addresses.
fn has_external_addresses(service: &Service) -> bool {
    let has_ips = service.spec.as_ref().is_some_and(|spec| spec.external_ips.iter().flatten().next().is_some());
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    has_ips || status.is_some_and(|status| status.ingress.iter().flatten().next().is_some())
}
