//! Lists objects of the API server once, for subcommands, and asks for its version. Failed requests are not repeated.

pub mod everything;
pub mod watched;

use std::{
    fmt::{Debug, Display},
    time::Duration,
};

use anyhow::{Context as _, Result};
use kube::{Api, Client, api::ListParams};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{configuration::ClusterConfig, connection::new_client, connector::Connector};

/// The number of objects per request.
const PAGE: u32 = 500;

/// The time limit of [`Lister::version`].
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);

/// An API server to list objects from.
pub struct Lister {
    client: Client,
    server: String,
}

/// The answer to the list of a kind.
enum Answer<T> {
    Objects(Vec<T>),
    Forbidden,
    Unserved,
}

impl Lister {
    /// Configures the connection to the API server. Does not connect.
    ///
    /// # Errors
    ///
    /// There is no configuration, or it is invalid.
    pub async fn open(config: &ClusterConfig) -> Result<Self> {
        let config = config.read().await?;
        let server = config.cluster_url.to_string();
        Ok(Self { client: new_client(config, &Connector::new())?, server })
    }

    /// Asks for the version. Returns the server's URL and the version, as in `v1.34.0`.
    ///
    /// # Errors
    ///
    /// The API server does not answer within [`VERSION_TIMEOUT`].
    pub async fn version(self) -> Result<(String, String)> {
        let failed = || format!("failed to reach the API server {}", self.server);
        let answer = timeout(VERSION_TIMEOUT, self.client.apiserver_version()).await;
        let version = answer.with_context(failed)?.with_context(failed)?.git_version;
        Ok((self.server, version))
    }

    /// Lists a kind in its first version that the API server has. `versions`: for each version its API, and the conversion of
    /// its objects.
    async fn list<K, T, F>(
        &self,
        kind: impl Display,
        versions: impl Iterator<Item = (Api<K>, F)>,
        params: &ListParams,
    ) -> Result<Answer<T>>
    where
        K: Clone + Debug + DeserializeOwned,
        F: Fn(K) -> Result<T>,
    {
        for (api, convert) in versions {
            let error = match pages(&api, params, convert).await {
                Ok(objects) => return Ok(Answer::Objects(objects)),
                Err(error) => error,
            };
            match error.downcast_ref() {
                Some(kube::Error::Api(status)) if status.code == 404 => {}
                Some(kube::Error::Api(status)) if status.code == 403 => return Ok(Answer::Forbidden),
                _ => return Err(error).with_context(|| format!("failed to list {kind} at {}", self.server)),
            }
        }
        Ok(Answer::Unserved)
    }
}

/// Lists all pages.
async fn pages<K, T>(api: &Api<K>, params: &ListParams, convert: impl Fn(K) -> Result<T>) -> Result<Vec<T>>
where
    K: Clone + Debug + DeserializeOwned,
{
    let (mut objects, mut page) = (Vec::new(), params.clone().limit(PAGE));
    loop {
        let list = api.list(&page).await?;
        for object in list.items {
            objects.push(convert(object)?);
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(objects),
        }
    }
}
