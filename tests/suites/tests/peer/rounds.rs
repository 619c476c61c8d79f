//! The test itself: rounds that change random objects (except the first), wait for both proxies, and compare portmap with
//! kube-proxy.

use std::env;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use portmap_harness::agent::Agent;
use portmap_harness::control_plane::objects::ensure_namespace;
use portmap_harness::control_plane::proxy::Proxy;
use portmap_harness::control_plane::{ControlPlane, Program, binaries, binary};
use portmap_harness::say;
use portmap_harness::world::World;
use tokio::time::sleep;

use crate::apply::Applied;
use crate::compare::{Difference, compare};
use crate::deviation::Claims;
use crate::model::Model;
use crate::node::{self, NODE};
use crate::population::{NAMESPACES, Population};
use crate::random::Random;
use crate::tally::Tally;
use crate::{mark, proxy, tables};

/// The time limit until both proxies show the marker of a round.
const PATIENCE: Duration = Duration::from_mins(1);
/// The time limit from the marker to equal models. It is needed because a proxy applies a change in several steps.
const SETTLING: Duration = Duration::from_secs(5);
const INTERVAL: Duration = Duration::from_millis(20);
/// The agent has no HTTP servers here, because kube-proxy uses their ports.
const NOWHERE: [&str; 4] = ["--healthz-bind-address", "none", "--metrics-bind-address", "none"];

#[tokio::test]
async fn both_proxies_agree_on_random_objects() -> Result<()> {
    let seed = setting("PORTMAP_PEER_SEED")?.unwrap_or(seed_of_now()?);
    let rounds = setting("PORTMAP_PEER_ROUNDS")?.unwrap_or(30);
    let services = setting("PORTMAP_PEER_SERVICES")?.unwrap_or(60);
    say::figures(format_args!("PORTMAP_PEER_SEED={seed} PORTMAP_PEER_ROUNDS={rounds} PORTMAP_PEER_SERVICES={services}"));
    let begin = Instant::now();
    let mut site = Site::start().await?;
    println!("both have started: {:.1} s", begin.elapsed().as_secs_f32());
    let mut population = Population::new(Random::new(seed), services);
    let mut tally = Tally::default();
    // Further rounds run until all expected cases have occurred. There are at most four times the given number of rounds.
    let mut round = 0;
    while round <= rounds || round <= 4 * rounds && tally.check().is_err() {
        if round > 0 {
            population.change();
        }
        let outcome = site.compare(round, &population, &mut tally).await;
        outcome.with_context(|| format!("round {round} of PORTMAP_PEER_SEED={seed} PORTMAP_PEER_SERVICES={services}"))?;
        round += 1;
    }
    let took = begin.elapsed().as_secs_f32();
    say::figures(format_args!("{} rounds of changes, {took:.1} s in total\n{}{tally}", round - 1, site.applied));
    site.applied.check()?;
    tally.check()
}

/// A number from an environment variable; `None` if it is not set. Fails if it is not a number.
fn setting<T: FromStr>(name: &str) -> Result<Option<T>> {
    let Some(text) = env::var_os(name) else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.map(Some).with_context(|| format!("{name} should be a number, not {}", text.display()))
}

/// A seed from the current time, so that each run has other objects.
fn seed_of_now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs())
}

/// Waits until kube-proxy has written rules, before the Node gets a zone.
///
/// kube-proxy 1.37 may lose the zone that its Node has at the start (`NewNodeTopologyConfig` in its `server.go`): it subscribes to
/// the Node, which has been read already, and registers the receiver afterwards. If the first event comes in between, hints are
/// ignored until the zone changes.
async fn await_rules(proxy: &mut Proxy) -> Result<()> {
    let begin = Instant::now();
    while let Err(error) = proxy::read() {
        proxy.check_alive()?;
        ensure!(begin.elapsed() < PATIENCE, "kube-proxy has no rules after {PATIENCE:?}: {error:#}");
        sleep(INTERVAL).await;
    }
    Ok(())
}

/// The API server and both proxies, in the network namespace of a node. Fields are dropped in this order.
struct Site {
    agent: Agent,
    proxy: Proxy,
    applied: Applied,
    client: Client,
    _plane: ControlPlane,
    world: World,
}

impl Site {
    async fn start() -> Result<Self> {
        // A build may need downloads, which are not possible from the world's network.
        binaries()?;
        binary(Program::Proxy)?;
        let world = World::new("peer")?;
        world.enter()?;
        let plane = ControlPlane::start().await?;
        let client = plane.admin()?;
        node::create(&client, &[world.ipv4().into(), world.ipv6().into()]).await?;
        for namespace in NAMESPACES {
            ensure_namespace(&client, namespace).await?;
        }
        let kubeconfig = plane.admin_kubeconfig().to_str().context("the path of the kubeconfig is not UTF-8")?;
        let agent = Agent::spawn_in_cluster(&world, &[&["--kubeconfig", kubeconfig], NOWHERE.as_slice()].concat())?;
        let mut proxy = plane.start_proxy(NODE)?;
        await_rules(&mut proxy).await?;
        Ok(Self { agent, proxy, applied: Applied::new(client.clone()), client, _plane: plane, world })
    }

    /// Applies the objects, and compares the models of both proxies.
    async fn compare(&mut self, round: u16, population: &Population, tally: &mut Tally) -> Result<()> {
        node::set_zone(&self.client, population.zone).await?;
        self.applied.become_objects(population.objects()).await?;
        let mark = mark::write(&self.client, round, population.zone).await?;
        self.await_mark(&mark).await?;
        let services = Api::<Service>::all(self.client.clone()).list(&ListParams::default()).await?;
        self.await_agreement(&Claims::new(&services.items), tally).await
    }

    /// Waits until both proxies show the marker.
    async fn await_mark(&mut self, mark: &Model) -> Result<()> {
        let shows = |model: &Model| mark.iter().all(|(frontend, answer)| model.get(frontend) == Some(answer));
        let begin = Instant::now();
        loop {
            // Reading fails at first, because neither proxy has tables.
            let (ours, theirs) = (tables::read(&self.agent, &self.world), proxy::read());
            let [is_ours, is_theirs] = [&ours, &theirs].map(|model| model.as_ref().is_ok_and(shows));
            if is_ours && is_theirs {
                return Ok(());
            }
            self.proxy.check_alive()?;
            ensure!(
                begin.elapsed() < PATIENCE,
                "not within {PATIENCE:?}: both show the marker {mark:?}\nportmap: {is_ours} {:?}\nkube-proxy: {is_theirs} {:?}\n{}",
                seen(&ours, mark),
                seen(&theirs, mark),
                self.agent.log()
            );
            sleep(INTERVAL).await;
        }
    }

    /// Waits until the models agree apart from accepted deviations, and counts the frontends. Fails after the time limit.
    async fn await_agreement(&self, claims: &Claims, tally: &mut Tally) -> Result<()> {
        let begin = Instant::now();
        loop {
            let (ours, theirs) = (tables::read(&self.agent, &self.world)?, proxy::read()?);
            let mut counted = tally.clone();
            let differences = compare(&ours, &theirs, claims, &mut counted);
            if differences.is_empty() {
                *tally = counted;
                return Ok(());
            }
            if begin.elapsed() > SETTLING {
                bail!("{}", self.describe(&differences, claims).await?);
            }
            sleep(INTERVAL).await;
        }
    }

    /// The differences, and the objects of the Services that claim the frontends.
    async fn describe(&self, differences: &[Difference], claims: &Claims) -> Result<String> {
        let mut text = format!("{} frontends differ\n", differences.len());
        let mut involved = Vec::new();
        for difference in differences {
            let services: Vec<_> = claims.of(&difference.frontend).iter().map(|claim| claim.service.as_str()).collect();
            writeln!(text, "{difference}\n  of Service {}", services.join(", "))?;
            involved.extend(services);
        }
        involved.sort_unstable();
        involved.dedup();
        for service in involved {
            writeln!(text, "\n{}", self.show(service).await?)?;
        }
        Ok(text)
    }

    /// A Service and its slices, as the API server has them.
    async fn show(&self, service: &str) -> Result<String> {
        let (namespace, name) = service.split_once('/').context("a Service has a namespace")?;
        let mut shown = Api::<Service>::namespaced(self.client.clone(), namespace).get(name).await?;
        shown.metadata.managed_fields = None;
        let mut text = serde_json::to_string(&shown)?;
        let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
        for mut slice in Api::<EndpointSlice>::namespaced(self.client.clone(), namespace).list(&of_service).await? {
            slice.metadata.managed_fields = None;
            write!(text, "\n  {}", serde_json::to_string(&slice)?)?;
        }
        Ok(text)
    }
}

/// The answers of a proxy to the frontends of the marker, or the reason why its tables cannot be read.
fn seen(model: &Result<Model>, mark: &Model) -> String {
    match model {
        Ok(model) => format!("{:?}", mark.keys().map(|frontend| (frontend, model.get(frontend))).collect::<Vec<_>>()),
        Err(error) => format!("{error:#}"),
    }
}
