//! The place of a cluster's configuration, and its reading.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// The place of the configuration of an API server: a kubeconfig and its context, as kubectl has them.
#[derive(Clone, Debug, Default)]
pub struct ClusterConfig {
    /// The kubeconfig file; none: `$KUBECONFIG`, `~/.kube/config`, or the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; none: its current context. A pod's service account has no contexts.
    pub context: Option<String>,
}

impl ClusterConfig {
    /// Reads the configuration.
    ///
    /// # Errors
    ///
    /// There is no configuration, it is invalid, or it lacks the context.
    pub async fn read(&self) -> Result<Config> {
        let file = match (&self.kubeconfig, &self.context) {
            (None, None) => return Config::infer().await.context(NOWHERE),
            (None, Some(_)) => Kubeconfig::read().context(NOWHERE)?,
            (Some(path), _) => {
                Kubeconfig::read_from(path).with_context(|| format!("failed to read the kubeconfig {}", path.display()))?
            }
        };
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        Config::from_custom_kubeconfig(file, &options).await.with_context(|| {
            let path = self.kubeconfig.as_ref().map_or_else(String::new, |path| format!(" {}", path.display()));
            format!("failed to use the kubeconfig{path}")
        })
    }
}

const NOWHERE: &str = "found no cluster: give a kubeconfig with --kubeconfig, or a directory of objects with --manifests";
