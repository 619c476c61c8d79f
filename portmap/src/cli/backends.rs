//! The pods behind the backends of connections: by the EndpointSlices of a cluster, or by the Pods of manifests.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result};
use clap::Args;
use portmap::{
    model::{ObjectName, event::Wanted, object},
    source::{
        kube::list::{Lister, watched},
        manifests::Manifests,
    },
};
use tokio::time::timeout;

use super::optional_cluster;

/// The time for an answer of the API server. The lines wait for it.
const ANSWER: Duration = Duration::from_secs(1);

/// The time for which the pods of a Service are kept. A pod that gets the address of an earlier one has that one's name for as
/// long.
const KEEP: Duration = Duration::from_secs(10);

/// The shortest time between two readings for an unknown pod. A failed reading is followed by a longer pause.
const PAUSE: Duration = Duration::from_secs(2);

/// The lines wait for readings at most for this part of the time: a fifth.
const PART: u32 = 5;

/// The lines may wait for their part of this time at once, because the first connections may go to several Services.
const AT_ONCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct Arguments {
    /// Name the pods of backends by the Pods in this file or directory; repeatable
    #[arg(long, value_name = "PATH")]
    manifests: Vec<PathBuf>,
    /// Name the pods of backends by the EndpointSlices of this cluster [default: the pod's service account, or else no names]
    #[arg(long, value_name = "FILE", conflicts_with = "manifests")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current context]
    #[arg(long, value_name = "NAME", conflicts_with = "manifests")]
    context: Option<String>,
}

/// The pods behind backends.
pub struct Backends {
    origin: Option<Origin>,
    /// The pods of each scope.
    pods: HashMap<Option<ObjectName>, Pods>,
    /// The time until which the readings have taken their part.
    paid: Instant,
    has_failed: bool,
    /// The reason why the pods are not named, until the caller takes it.
    warning: Option<String>,
}

/// The place of the objects.
enum Origin {
    Kube(Lister),
    Manifests(Vec<PathBuf>),
}

/// Pods by their addresses.
struct Pods {
    names: HashMap<IpAddr, ObjectName>,
    read: Instant,
}

impl Arguments {
    /// Opens the source of the names. Reads no object yet.
    pub async fn open(self) -> Result<Backends> {
        let Self { manifests, kubeconfig, context } = self;
        let mut warning = None;
        let origin = if manifests.is_empty() {
            let is_default = kubeconfig.is_none() && context.is_none();
            match optional_cluster(kubeconfig, context) {
                None => None,
                Some(config) => match Lister::open(&config).await {
                    Ok(lister) => Some(Origin::Kube(lister)),
                    Err(error) if is_default => {
                        warning = Some(unnamed(&error));
                        None
                    }
                    Err(error) => return Err(error),
                },
            }
        } else {
            Some(Origin::Manifests(manifests))
        };
        Ok(Backends { origin, pods: HashMap::new(), paid: Instant::now(), has_failed: false, warning })
    }
}

impl Backends {
    /// The pod behind a backend of a Service; `None` if it is not known. Reads the pods again if they may have changed.
    pub async fn pod(&mut self, service: &ObjectName, address: IpAddr) -> Option<&ObjectName> {
        let origin = self.origin.as_ref()?;
        let scope = origin.scope(service);
        let is_current = |pods: &Pods| pods.read.elapsed() < if pods.names.contains_key(&address) { KEEP } else { PAUSE };
        if !self.pods.get(&scope).is_some_and(is_current) && Instant::now() + AT_ONCE >= self.paid {
            let read = Instant::now();
            let names = origin.pods(service).await;
            self.paid = self.paid.max(read) + read.elapsed() * PART;
            match names {
                Ok(names) => drop(self.pods.insert(scope.clone(), Pods { names, read })),
                Err(error) => self.fail(&error),
            }
        }
        self.pods.get(&scope)?.names.get(&address)
    }

    /// The reason why pods are not named, for the user. Only the first failure is returned, and only once.
    pub fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    fn fail(&mut self, error: &Error) {
        self.paid += AT_ONCE + PAUSE;
        if !self.has_failed {
            self.warning = Some(unnamed(error));
        }
        self.has_failed = true;
    }
}

impl Origin {
    /// The Service whose pods are read together; `None` if the pods of all Services are.
    fn scope(&self, service: &ObjectName) -> Option<ObjectName> {
        matches!(self, Self::Kube(_)).then(|| service.clone())
    }

    /// The pods of the Service's scope, by their addresses.
    async fn pods(&self, service: &ObjectName) -> Result<HashMap<IpAddr, ObjectName>> {
        let wanted = Wanted::default();
        match self {
            Self::Kube(lister) => {
                let slices = timeout(ANSWER, watched::slices_of(lister, service, &wanted)).await;
                let slices = slices.with_context(|| format!("the API server has not answered within {ANSWER:?}"))??;
                Ok(slices.iter().flat_map(object::pods_of).collect())
            }
            Self::Manifests(paths) => {
                let mut manifests = Manifests::new(paths.clone(), wanted);
                manifests.read()?;
                Ok(manifests.pods().map(|(address, name)| (address, name.clone())).collect())
            }
        }
    }
}

fn unnamed(error: &Error) -> String {
    format!("the pods of backends are not named: {}", portmap::error_text::of_error(error.as_ref()))
}
