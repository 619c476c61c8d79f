//! Puts load on an API server: creates many objects, and changes `EndpointSlices` at a steady rate.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Number of concurrent requests.
const CONNECTIONS: usize = 8;

/// Creates objects in an existing namespace, in any order. Fails at the first object that the API server refuses.
pub async fn create_all<K>(client: &Client, namespace: &str, objects: impl Iterator<Item = K>) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let api: &Api<K> = &Api::namespaced(client.clone(), namespace);
    stream::iter(objects.map(Ok))
        .try_for_each_concurrent(CONNECTIONS, async |object| {
            let name = object.meta().name.clone().unwrap_or_default();
            api.create(&PostParams::default(), &object).await.with_context(|| format!("failed to create {name}"))?;
            Ok(())
        })
        .await
}

/// Patches `EndpointSlices` (name and merge patch) at the rate `each_second`. Returns the achieved rate per second, which is
/// lower if the API server is slow.
pub async fn change_slices(
    client: &Client,
    namespace: &str,
    changes: impl Iterator<Item = (String, Value)>,
    each_second: u32,
) -> Result<f64> {
    let api: &Api<EndpointSlice> = &Api::namespaced(client.clone(), namespace);
    let mut ticks = interval(Duration::from_secs(1) / each_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let paced = stream::unfold((ticks, changes), async |(mut ticks, mut changes)| {
        let change = changes.next()?;
        ticks.tick().await;
        Some((change, (ticks, changes)))
    });
    let started = Instant::now();
    let outcomes = paced.map(|(name, change)| async move {
        let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await;
        patched.with_context(|| format!("failed to change {name}"))
    });
    let mut count = 0_u32;
    let mut outcomes = Box::pin(outcomes.buffer_unordered(CONNECTIONS));
    while outcomes.try_next().await?.is_some() {
        count += 1;
    }
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}
