//! The example manifests: reads and edits them. `port` computes the expected backends from them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use portmap::model::Family;
use portmap_common::AddressKind;
use serde_json::Value;

use crate::pod;
use crate::port::Port;

/// The separator between two objects of a file.
const SEPARATOR: &str = "\n---\n";

/// The Service and Pod manifests of a directory, in memory.
#[derive(Clone, Debug, Default)]
pub struct Examples {
    /// Text of each file, by file name.
    files: BTreeMap<String, String>,
    /// All Pods, sorted by address.
    pods: Vec<Pod>,
    /// All Services, each with the name of its file.
    services: Vec<(String, Service)>,
}

/// An edit that replaces a text in one object of one file.
#[derive(Clone, Copy, Debug)]
pub struct Edit {
    /// The file's name.
    pub file: &'static str,
    /// `metadata.name` of the object.
    pub object: &'static str,
    /// The text to replace. It must occur exactly once in the object.
    pub from: &'static str,
    /// The text that replaces `from`.
    pub to: &'static str,
}

impl Examples {
    /// Reads the `*.yaml` files of a directory. Fails at objects other than Services and Pods.
    pub fn read(directory: &Path) -> Result<Self> {
        let context = || format!("failed to read the examples in {}; set their directory with --examples", directory.display());
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(directory).with_context(context)? {
            let path = entry.with_context(context)?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
                files.insert(name, text);
            }
        }
        Self::parse(files)
    }

    fn parse(files: BTreeMap<String, String>) -> Result<Self> {
        let mut examples = Self::default();
        for (file, text) in &files {
            examples.add_file(file, text).with_context(|| format!("failed to read {file}"))?;
        }
        let addresses = examples.pods.iter().map(pod::addresses).collect::<Result<Vec<_>>>()?;
        let mut pods: Vec<_> = addresses.into_iter().zip(examples.pods).collect();
        pods.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(Self { files, pods: pods.into_iter().map(|(_, pod)| pod).collect(), services: examples.services })
    }

    fn add_file(&mut self, file: &str, text: &str) -> Result<()> {
        for object in serde_saphyr::from_multiple::<Value>(text)? {
            match object["kind"].as_str() {
                Some("Service") => self.services.push((file.to_owned(), serde_json::from_value(object)?)),
                Some("Pod") => self.pods.push(serde_json::from_value(object)?),
                Some(kind) => bail!("the demo supports only Services and Pods, not {kind}"),
                None => bail!("an object has no kind"),
            }
        }
        Ok(())
    }

    /// Names and texts of the files.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// All Pods, sorted by address.
    #[must_use]
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// The ports of all Services, each at every clusterIP, load balancer address and node port. External IPs are left out.
    pub fn all_ports(&self) -> Result<Vec<Port>> {
        let ports = self.services.iter().map(|(_, service)| Port::all(service, &self.pods));
        Ok(ports.collect::<Result<Vec<_>>>()?.concat())
    }

    /// The ports of a Service as [`Port::all`] lists them (without external IPs), and the name of the Service's file.
    pub fn ports(&self, service: &str) -> Result<(&str, Vec<Port>)> {
        let found = self.services.iter().find(|(_, candidate)| candidate.metadata.name.as_deref() == Some(service));
        let (file, found) = found.with_context(|| format!("the examples have no Service {service}"))?;
        let ports = Port::all(found, &self.pods).with_context(|| format!("failed to read the Service {service}"))?;
        Ok((file, ports))
    }

    /// The first port of a Service at its first clusterIP, and the name of the Service's file.
    pub fn port(&self, service: &str) -> Result<(&str, Port)> {
        let (file, ports) = self.ports(service)?;
        let port = ports.into_iter().next().with_context(|| format!("Service {service} has no port"))?;
        Ok((file, port))
    }

    /// The first port of a Service at an address of this kind and family, and the name of the Service's file. Fails if there is
    /// none; external IPs are never found.
    pub fn port_at(&self, service: &str, kind: AddressKind, family: Family) -> Result<(&str, Port)> {
        let (file, ports) = self.ports(service)?;
        let port = ports.into_iter().find(|port| port.kind == kind && Family::of(port.address.ip()) == family);
        let port = port.with_context(|| format!("Service {service} has no {} {kind:?}", family.name()))?;
        Ok((file, port))
    }

    /// Edits a file in memory and returns its new text. Later calls use the edited manifests. Fails unless the text to replace
    /// occurs exactly once in the object.
    pub fn edit(&mut self, edit: &Edit) -> Result<String> {
        let Edit { file, object, from, to } = *edit;
        let text = self.files.get(file).with_context(|| format!("the examples have no file {file}"))?;
        let is_object = |document: &str| document.lines().any(|line| line == format!("  name: {object}"));
        let edited = |document: &str| if is_object(document) { document.replace(from, to) } else { document.to_owned() };
        let matches =
            text.split(SEPARATOR).filter(|document| is_object(document)).map(|document| document.matches(from).count());
        ensure!(matches.sum::<usize>() == 1, "{file}: the demo edits `{from}`, which must occur exactly once in {object}");
        let text = text.split(SEPARATOR).map(edited).collect::<Vec<_>>().join(SEPARATOR);
        self.add(file, &text)?;
        Ok(text)
    }

    /// Adds a file in memory, or replaces it. Later calls use its objects too.
    pub fn add(&mut self, file: &str, text: &str) -> Result<()> {
        let mut files = self.files.clone();
        files.insert(file.to_owned(), text.to_owned());
        *self = Self::parse(files)?;
        Ok(())
    }
}
