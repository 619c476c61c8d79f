//! The programs' walk from a destination to a backend, run by itself (`BPF_PROG_TEST_RUN`): what of a `connect()` is portmap's
//! own, without the socket around it.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use portmap::datapath::lookup::Lookup;
use portmap::maps::encode::{self, IpBytes};
use portmap::model::{self, Family};
use portmap_common::{Backend, PROBES, Probe, V4, V6};
use portmap_harness::listen::Protocol;
use portmap_harness::world::World;

use crate::cluster::{Cluster, PORT, service_address};
use crate::figures::Figures;
use crate::machine::Machine;
use crate::report::{Row, Section};
use crate::stages::{Scope, Stages};
use crate::tables::Tables;
use crate::{Report, Size, progress};

/// How often one batch of questions is asked to measure it with everything in the CPU's caches.
const HOT: u32 = 2000;

/// How often that is done.
const HOT_TURNS: u32 = 50;

/// How many batches are asked once each, to measure with what other look-ups left in the caches.
const BATCHES: u32 = 10_000;

/// Measure the programs' walk through the tables by itself, in nanoseconds
///
/// Spread: each look-up is for another of all Services. Hot: the same few over and over, all in the CPU's caches. Each look-up
/// includes reading the question from a packet and writing the answer to it, which a connection does not do.
#[derive(Args, Clone, Copy, Debug)]
pub struct Arguments {
    #[command(flatten)]
    size: Size,
}

/// Measures. Dropping the future removes everything that it made.
pub async fn run(arguments: Arguments) -> Result<Report> {
    let Arguments { size } = arguments;
    let machine = Machine::look();
    progress(&format!("loading {} Services × {} endpoints of each family", size.services, size.endpoints));
    let world = World::new("bench-lookup")?;
    let cluster = Cluster::new(size, Protocol::Tcp, &[Family::V4, Family::V6])?;
    let tables = Tables::create(&world, cluster.capacity())?;
    let (mut stages, _) = Stages::start(&tables)?;
    stages.pass(cluster.events(), Scope::Everything)?;
    let lookup = Lookup::load(tables.pins(), tables.capacity())?;
    progress("looking up");
    let ask4 = |probes: &mut [Probe<V4>], repeat| lookup.ask(probes, repeat);
    let ask6 = |probes: &mut [Probe<V6>], repeat| lookup.ask(probes, repeat);
    let mut sections = Vec::new();
    for (name, title, port, address, outcome) in [
        ("hit", "To a Service", PORT, service_address as fn(Family, u32) -> IpAddr, FORWARDED),
        ("miss", "To an address that is no Service's", PORT, elsewhere, LEFT_ALONE),
        ("undefined", "To a Service's address, at a port that it does not have", PORT + 1, service_address, REFUSED),
    ] {
        let mut rows = Vec::new();
        let questions = |family| Questions { family, size, port, address, outcome };
        rows.extend(measure(["IPv4 spread", "IPv4 hot"], &questions(Family::V4), ask4)?);
        // Moments in which a signal is noticed.
        tokio::task::yield_now().await;
        rows.extend(measure(["IPv6 spread", "IPv6 hot"], &questions(Family::V6), ask6)?);
        tokio::task::yield_now().await;
        sections.push(Section { name, title: title.to_owned(), unit: "ns", rows });
    }
    let about = "look-ups in the programs' tables, by the programs' own code".to_owned();
    Ok(Report { bench: "lookup", about, machine, size, connect: Vec::new(), programs: Vec::new(), sections, aims: Vec::new() })
}

/// `outcome` of a [`Probe`]: no Service has this destination.
const LEFT_ALONE: u32 = 0;

/// `outcome` of a [`Probe`]: a backend was chosen.
const FORWARDED: u32 = 1;

/// `outcome` of a [`Probe`]: the call is refused.
const REFUSED: u32 = 2;

/// An address that lies near no Service's: where almost all connections go.
fn elsewhere(family: Family, number: u32) -> IpAddr {
    match service_address(family, number) {
        IpAddr::V4(address) => (address.to_bits() ^ 1 << 31).to_be_bytes().into(),
        IpAddr::V6(address) => (address.to_bits() ^ 1 << 127).to_be_bytes().into(),
    }
}

/// What is asked, and what the answer should be.
struct Questions {
    family: Family,
    size: Size,
    port: u16,
    address: fn(Family, u32) -> IpAddr,
    outcome: u32,
}

/// Two rows: spread over all Services, and hot.
fn measure<A: IpBytes + Default>(
    names: [&'static str; 2],
    questions: &Questions,
    ask: impl Fn(&mut [Probe<A>], u32) -> Result<f64>,
) -> Result<[Row; 2]> {
    let asked = |batch: u32, repeat: u32| {
        let mut probes = questions.batch(batch)?;
        let nanoseconds = ask(&mut probes, repeat)?;
        let wrong = probes.iter().find(|probe| probe.outcome != questions.outcome);
        ensure!(wrong.is_none(), "a look-up had another outcome than {}: {wrong:?}", questions.outcome);
        Ok(nanoseconds)
    };
    let spread = (0..BATCHES).map(|batch| asked(batch, 1)).collect::<Result<_>>()?;
    let hot = (0..HOT_TURNS).map(|_| asked(0, HOT)).collect::<Result<_>>()?;
    let [spread_name, hot_name] = names;
    Ok([Row { name: spread_name, figures: Figures::of(spread) }, Row { name: hot_name, figures: Figures::of(hot) }])
}

impl Questions {
    /// As many as the program takes at once.
    fn batch<A: IpBytes + Default>(&self, batch: u32) -> Result<Vec<Probe<A>>> {
        let first = u64::from(batch) * PROBES as u64;
        (first..).take(PROBES).map(|index| self.probe(scatter(index, self.size.services))).collect()
    }

    fn probe<A: IpBytes + Default>(&self, service: u32) -> Result<Probe<A>> {
        let address = (self.address)(self.family, service);
        let frontend = model::Frontend { address, port: self.port, protocol: model::Protocol::Tcp };
        let frontend = encode::frontend(&frontend).context("the address is of the other family")?;
        Ok(Probe { frontend, outcome: u32::MAX, backend: Backend::default() })
    }
}

/// Numbers below `limit` that follow one another in no order that a cache could use, each as often as any other.
fn scatter(index: u64, limit: u32) -> u32 {
    let fraction = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    ((fraction * u64::from(limit)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_is_asked_about() {
        let mut times = [0; 100];
        for index in 0..10_000 {
            if let Some(times) = times.get_mut(scatter(index, 100) as usize) {
                *times += 1;
            }
        }
        assert!(times.iter().all(|times| (90..=110).contains(times)), "{times:?}");
    }
}
