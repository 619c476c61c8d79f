//! Makes the objects of the API server equal to the wanted ones, with several requests at a time and in no fixed order.

use std::fmt::{self, Debug};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::population::{Key, Kind, Object, Objects};

/// Number of concurrent requests.
const CONCURRENCY: usize = 8;

/// The objects that were written to the API server, and counts for the report of the test.
pub struct Applied {
    client: Client,
    objects: Objects,
    /// Number of objects to write or delete in all rounds, with the refused ones.
    writes: usize,
    /// Objects that the API server refused in all rounds, with the reason. Such an object does not exist, or lacks its status.
    refusals: Vec<String>,
}

impl Applied {
    pub fn new(client: Client) -> Self {
        Self { client, objects: Objects::new(), writes: 0, refusals: Vec::new() }
    }

    /// Makes the objects of the API server equal to `wanted`, except refused ones: deletes, creates and changes those that
    /// differ.
    pub async fn become_objects(&mut self, wanted: Objects) -> Result<()> {
        let gone = self.objects.keys().filter(|key| !wanted.contains_key(key)).map(|key| (key, None));
        let changed = wanted.iter().filter(|(key, object)| self.objects.get(key) != Some(object));
        let writes: Vec<_> = gone.chain(changed.map(|(key, object)| (key, Some(object)))).collect();
        self.writes += writes.len();
        let requests = writes.into_iter().map(|(key, object)| write(&self.client, key, object));
        let refusals: Vec<_> = stream::iter(requests).buffer_unordered(CONCURRENCY).try_collect().await?;
        self.refusals.extend(refusals.into_iter().flatten());
        self.objects = wanted;
        Ok(())
    }

    /// Fails if a tenth of the objects or more were refused: the random objects would then be unsuitable.
    pub fn check(&self) -> Result<()> {
        ensure!(self.refusals.len() * 10 < self.writes, "too much was refused: {self}");
        Ok(())
    }

    /// Fails if an object was refused.
    pub fn check_all(&self) -> Result<()> {
        ensure!(self.refusals.is_empty(), "an object was refused: {self}");
        Ok(())
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client: _, objects: _, writes, refusals } = self;
        writeln!(f, "{writes} objects written or deleted, {} refused by the API server", refusals.len())?;
        refusals.first().map_or(Ok(()), |first| writeln!(f, "  the first: {first}"))
    }
}

/// Writes or deletes an object. Returns the API server's reason if it refuses.
async fn write(client: &Client, key: &Key, object: Option<&Object>) -> Result<Option<String>> {
    let written = match key.kind {
        Kind::Service => write_to(&Api::<Service>::namespaced(client.clone(), key.namespace), &key.name, object).await,
        Kind::Slice => write_to(&Api::<EndpointSlice>::namespaced(client.clone(), key.namespace), &key.name, object).await,
    };
    written.with_context(|| format!("failed to write {key}"))
}

async fn write_to<K>(api: &Api<K>, name: &str, object: Option<&Object>) -> Result<Option<String>>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let Some(object) = object else { return delete(api, name).await.map(|()| None) };
    if apply(api, name, object).await?.is_none() {
        return Ok(None);
    }
    // The API server refused the change, usually because a field cannot be changed. So the object is deleted and created again.
    delete(api, name).await?;
    apply(api, name, object).await
}

async fn apply<K>(api: &Api<K>, name: &str, object: &Object) -> Result<Option<String>>
where
    K: Clone + Debug + DeserializeOwned,
{
    let Object { manifest, status } = object;
    let params = PatchParams::apply("portmap-tests").force();
    if let Some(reason) = refusal(api.patch(name, &params, &Patch::Apply(manifest)).await)? {
        return Ok(Some(format!("{reason}: {manifest}")));
    }
    match status {
        Some(status) => refusal(api.patch_status(name, &PatchParams::default(), &Patch::<&Value>::Merge(status)).await),
        None => Ok(None),
    }
}

/// Deletes an object. A missing object is no error.
async fn delete<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The API server's reason, if it answered with an error. It reports some refusals as internal errors. Fails without an answer.
fn refusal<T>(outcome: kube::Result<T>) -> Result<Option<String>> {
    match outcome {
        Err(kube::Error::Api(status)) => Ok(Some(status.message)),
        other => Ok(other.map(|_| None)?),
    }
}
