//! Measures the look-up from a destination to a backend, without a socket (`BPF_PROG_TEST_RUN`). This is portmap's own share of
//! a `connect()`.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use aya::Pod;
use clap::Args;
use portmap::datapath::lookup::{Lookup, Probed};
use portmap::maps::encode::{self, IpBytes};
use portmap::model::{self, Family};
use portmap_common::{Backend, PROBES, Probe, V4, V6};
use portmap_harness::listen::Protocol;
use portmap_harness::world::World;

use crate::cluster::{Cluster, PORT, service_address};
use crate::figures::{Aim, Figures};
use crate::machine::Machine;
use crate::report::{Row, Section};
use crate::stages::{Scope, Stages};
use crate::tables::Tables;
use crate::{Report, Size, progress};

/// Number of repetitions of one batch. So many that the CPU's caches hold all its map entries.
const HOT: u32 = 2000;

/// Number of measurements of the batch that is repeated [`HOT`] times.
const HOT_TURNS: u32 = 50;

/// Number of batches that run once each. With many Services, each has other look-ups than the batch before, so the CPU's caches
/// hold few of its map entries.
const BATCHES: u32 = 10_000;

/// Measure the look-ups of the BPF programs alone, in nanoseconds
///
/// Spread: the look-ups are spread over all Services. Hot: the same few look-ups are repeated, so that the CPU's caches hold
/// their map entries. Each look-up includes reading the probe from a packet and writing the result to it, which a real
/// connection does not do.
#[derive(Args, Clone, Copy, Debug)]
pub struct LookupArguments {
    #[command(flatten)]
    size: Size,
}

/// Runs the measurement. Dropping the future removes everything that it made.
pub async fn run(arguments: LookupArguments) -> Result<Report> {
    let LookupArguments { size } = arguments;
    let machine = Machine::look();
    progress(&format!("loading {} Services × {} endpoints of each family", size.services, size.endpoints));
    let world = World::new("bench-lookup")?;
    let cluster = Cluster::new(size, Protocol::Tcp, &[Family::V4, Family::V6])?;
    let tables = Tables::create(&world, cluster.capacity())?;
    let (mut stages, _) = Stages::start(&tables)?;
    stages.pass(cluster.events(), Scope::Everything)?;
    let lookup = Lookup::load(tables.pins(), tables.capacity())?;
    progress("running look-ups");
    let mut sections = Vec::new();
    for (name, title, port, address, outcome, is_counted) in [
        ("hit", "To a Service", PORT, service_address as fn(Family, u32) -> IpAddr, FORWARDED, false),
        ("counted", "To a Service, with its counters", PORT, service_address, FORWARDED, true),
        ("miss", "To an address that belongs to no Service", PORT, unrelated_address, LEFT_ALONE, false),
        ("undefined", "To an undefined port of a Service's address", PORT + 1, service_address, REFUSED, false),
    ] {
        let run_v4 = |probes: &mut [Probe<V4>], repeat| ask(&lookup, is_counted, probes, repeat);
        let run_v6 = |probes: &mut [Probe<V6>], repeat| ask(&lookup, is_counted, probes, repeat);
        let mut rows = Vec::new();
        let case = |family| LookupCase { family, size, port, address, outcome };
        rows.extend(measure(["IPv4 spread", "IPv4 hot"], &case(Family::V4), run_v4)?);
        // Lets the runtime handle a signal.
        tokio::task::yield_now().await;
        rows.extend(measure(["IPv6 spread", "IPv6 hot"], &case(Family::V6), run_v6)?);
        tokio::task::yield_now().await;
        sections.push(Section { name, title: title.to_owned(), unit: "ns", rows });
    }
    let about = "look-ups in the BPF maps by the code of the BPF programs".to_owned();
    let aims = cost_of_counters(&sections);
    Ok(Report { bench: "lookup", about, machine, size, connect: Vec::new(), programs: Vec::new(), sections, aims })
}

fn ask<A: Probed>(lookup: &Lookup, is_counted: bool, probes: &mut [Probe<A>], repeat: u32) -> Result<f64>
where
    Probe<A>: Pod,
{
    if is_counted { lookup.ask_counted(probes, repeat) } else { lookup.ask(probes, repeat) }
}

/// The longest time for the counters of a Service, in nanoseconds.
const LONGEST: f64 = 20.0;

/// The differences between the first two sections, row by row.
fn cost_of_counters(sections: &[Section]) -> Vec<Aim> {
    let [hit, counted, ..] = sections else { return Vec::new() };
    let rows = hit.rows.iter().zip(&counted.rows);
    rows.map(|(hit, counted)| {
        let name = format!("counters, {}, ns, p50", hit.name);
        Aim::at_most(&name, LONGEST, counted.figures.p50 - hit.figures.p50)
    })
    .collect()
}

/// `outcome` of a [`Probe`]: no Service has this destination.
const LEFT_ALONE: u32 = 0;

/// `outcome` of a [`Probe`]: a backend was selected.
const FORWARDED: u32 = 1;

/// `outcome` of a [`Probe`]: the call is refused.
const REFUSED: u32 = 2;

/// An address that shares no prefix with any Service's address, like the destinations of most connections.
fn unrelated_address(family: Family, number: u32) -> IpAddr {
    match service_address(family, number) {
        IpAddr::V4(address) => (address.to_bits() ^ 1 << 31).to_be_bytes().into(),
        IpAddr::V6(address) => (address.to_bits() ^ 1 << 127).to_be_bytes().into(),
    }
}

/// The destinations of a series of look-ups, and the expected outcome.
struct LookupCase {
    family: Family,
    size: Size,
    port: u16,
    address: fn(Family, u32) -> IpAddr,
    outcome: u32,
}

/// Measures a case and returns two rows in nanoseconds: look-ups spread over all Services, and one batch of look-ups repeated.
fn measure<A: IpBytes + Default>(
    names: [&'static str; 2],
    case: &LookupCase,
    run: impl Fn(&mut [Probe<A>], u32) -> Result<f64>,
) -> Result<[Row; 2]> {
    let nanoseconds_of = |batch: u32, repeat: u32| {
        let mut probes = case.batch(batch)?;
        let nanoseconds = run(&mut probes, repeat)?;
        let wrong = probes.iter().find(|probe| probe.outcome != case.outcome);
        ensure!(wrong.is_none(), "a look-up had another outcome than {}: {wrong:?}", case.outcome);
        Ok(nanoseconds)
    };
    let spread = (0..BATCHES).map(|batch| nanoseconds_of(batch, 1)).collect::<Result<_>>()?;
    let hot = (0..HOT_TURNS).map(|_| nanoseconds_of(0, HOT)).collect::<Result<_>>()?;
    let [spread_name, hot_name] = names;
    Ok([Row { name: spread_name, figures: Figures::of(spread) }, Row { name: hot_name, figures: Figures::of(hot) }])
}

impl LookupCase {
    /// One batch of probes, as many as the BPF program handles per run.
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

/// Maps consecutive indexes to numbers below `limit`, evenly distributed, in an order that a CPU does not prefetch.
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
