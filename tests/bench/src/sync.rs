//! Measures the time that the agent needs from objects in memory to the BPF maps.
//!
//! There are four measurements:
//!
//! - a full load into empty maps, as at the first start on a node;
//! - a restart on filled maps, as at an upgrade of the agent;
//! - a change of one endpoint, as in normal operation;
//! - one huge Service.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use portmap::maps::Capacity;
use portmap::model::Family;
use portmap::model::event::Event;
use portmap_harness::listen::Protocol;
use portmap_harness::world::World;

use crate::cluster::Cluster;
use crate::figures::{Aim, Figures};
use crate::huge::Huge;
use crate::machine::Machine;
use crate::report::{Row, Section};
use crate::stages::{Pass, Scope, Stages, Takeover};
use crate::tables::Tables;
use crate::{Report, Size, progress};

/// Limit of the median time of a full load, in milliseconds.
const AIM: f64 = 100.0;

/// Limit of the median time of one change of a huge Service, in milliseconds. Other objects wait during that time.
const LONGEST: f64 = 100.0;

/// Number of changes of one endpoint, each of another Service. Fewer if there are fewer Services.
const CHANGES: u32 = 1000;

/// Measure the time from objects in memory to the BPF maps
///
/// The time begins when the store gets the events, and ends after the last write. For a huge Service, it also includes the
/// conversion of the object to events. The objects, the maps and the loaded BPF programs exist before.
#[derive(Args, Clone, Copy, Debug)]
pub struct SyncArguments {
    #[command(flatten)]
    size: Size,
    /// Number of repetitions, each with new maps
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
}

/// The measurements of all repetitions.
#[derive(Default)]
struct Measured {
    loads: Vec<Pass>,
    restarts: Vec<(Takeover, Pass)>,
    changes: Vec<Pass>,
    huge: Vec<(Huge, [Vec<TimedChange>; 3])>,
}

/// The time to convert an object to events, and the times of the agent's stages (store to apply) for these events.
#[derive(Clone, Copy, Debug)]
struct TimedChange {
    convert: Duration,
    pass: Pass,
}

impl TimedChange {
    fn total(&self) -> Duration {
        self.convert + self.pass.total()
    }
}

/// Runs the measurement. Dropping the future removes everything that it made.
pub async fn run(arguments: SyncArguments) -> Result<Report> {
    let SyncArguments { size, repeat } = arguments;
    let machine = Machine::look();
    let cluster = Cluster::new(size, Protocol::Tcp, &[Family::V4])?;
    let mut measured = Measured { huge: Huge::ALL.map(|huge| (huge, Default::default())).into(), ..Measured::default() };
    for turn in 1..=repeat {
        progress(&format!("loading {} Services × {} endpoints, {turn} of {repeat}", size.services, size.endpoints));
        measure(&cluster, size, &mut measured)?;
        progress(&format!("one huge Service, {turn} of {repeat}"));
        measure_huge(cluster.capacity(), &mut measured)?;
        // Lets the runtime handle a signal.
        tokio::task::yield_now().await;
    }
    Ok(Report {
        bench: "sync",
        about: format!("from objects in memory to the BPF maps, {repeat} times, each with new maps"),
        machine,
        size,
        connect: Vec::new(),
        programs: Vec::new(),
        aims: aims(size, &measured),
        sections: sections(&measured),
    })
}

fn measure(cluster: &Cluster, size: Size, measured: &mut Measured) -> Result<()> {
    let world = World::new("bench-sync")?;
    let tables = Tables::create(&world, cluster.capacity())?;
    let (mut stages, _) = Stages::start(&tables)?;
    measured.loads.push(stages.pass(cluster.events(), Scope::Everything)?);
    drop(stages);

    let events = cluster.events();
    let (mut stages, takeover) = Stages::start(&tables)?;
    measured.restarts.push((takeover, stages.pass(events, Scope::Everything)?));

    let changes = CHANGES.min(size.services);
    for change in 0..changes {
        let number = u64::from(change) * u64::from(size.services) / u64::from(changes);
        let event = cluster.change(u32::try_from(number)?).context("the Service has no slice")?;
        measured.changes.push(stages.pass(vec![event], Scope::Changes)?);
    }
    Ok(())
}

/// For each huge Service: adds it to empty maps, removes one endpoint, and removes the Service.
fn measure_huge(capacity: Capacity, measured: &mut Measured) -> Result<()> {
    for (huge, [arrivals, changes, removals]) in &mut measured.huge {
        let world = World::new("bench-huge")?;
        let tables = Tables::create(&world, capacity)?;
        let (mut stages, _) = Stages::start(&tables)?;
        stages.pass(Huge::change(huge.slice(0)?), Scope::Changes)?;
        let (service, slice) = (huge.service()?, huge.slice(1)?);
        let gone = service.clone();
        arrivals.push(timed_change(&mut stages, || Huge::arrival(service))?);
        changes.push(timed_change(&mut stages, || Huge::change(slice))?);
        removals.push(timed_change(&mut stages, || Huge::removal(gone))?);
    }
    Ok(())
}

fn timed_change(stages: &mut Stages, convert: impl FnOnce() -> Vec<Event>) -> Result<TimedChange> {
    let started = Instant::now();
    let events = convert();
    let convert = started.elapsed();
    Ok(TimedChange { convert, pass: stages.pass(events, Scope::Changes)? })
}

fn aims(size: Size, measured: &Measured) -> Vec<Aim> {
    let total = figures(&measured.loads, Pass::total, 1e3);
    let rewrites = measured.restarts.iter().map(|(_, pass)| writes(pass)).fold(0.0, f64::max);
    let load = Aim::at_most("full load into empty maps, p50 in ms", AIM, total.p50);
    let restart = Aim::at_most("writes of a restart with unchanged objects", 0.0, rewrites);
    let longest =
        |all: &[Vec<TimedChange>; 3]| all.iter().map(|all| figures(all, TimedChange::total, 1e3).p50).fold(0.0, f64::max);
    let longest = measured.huge.iter().map(|(_, all)| longest(all)).fold(0.0, f64::max);
    let longest = Aim::at_most("any change of one huge Service, p50 in ms", LONGEST, longest);
    [load].into_iter().filter(|_| size == Size::AIMED_AT).chain([restart, longest]).collect()
}

fn sections(measured: &Measured) -> Vec<Section> {
    let Measured { loads, restarts, changes, huge } = measured;
    let takeovers: Vec<Takeover> = restarts.iter().map(|(takeover, _)| *takeover).collect();
    let passes: Vec<Pass> = restarts.iter().map(|(_, pass)| *pass).collect();
    let takeover = |name, time: fn(&Takeover) -> Duration| Row { name, figures: figures(&takeovers, time, 1e3) };
    let mut restart = vec![
        takeover("open", |takeover| takeover.open),
        takeover("grace period", |takeover| takeover.wait),
        takeover("read", |takeover| takeover.read),
        takeover("adopt", |takeover| takeover.adopt),
    ];
    restart.extend(stages(&passes, 1e3));
    let mut sections = vec![
        Section { name: "load", title: title("Full load into empty maps", loads), unit: "ms", rows: stages(loads, 1e3) },
        Section { name: "restart", title: title("Restart on the same maps", &passes), unit: "ms", rows: restart },
        Section { name: "change", title: title("Change of one endpoint", changes), unit: "µs", rows: stages(changes, 1e6) },
    ];
    sections.extend(huge.iter().map(|(huge, all)| section_of_huge(*huge, all)));
    sections
}

fn section_of_huge(huge: Huge, [arrivals, changes, removals]: &[Vec<TimedChange>; 3]) -> Section {
    let passes: Vec<Pass> = arrivals.iter().map(|whole| whole.pass).collect();
    let row = |name, all: &[TimedChange], time: fn(&TimedChange) -> Duration| Row { name, figures: figures(all, time, 1e3) };
    let mut rows = vec![row("convert", arrivals, |whole| whole.convert)];
    rows.extend(stages(&passes, 1e3));
    rows.push(row("addition, total", arrivals, TimedChange::total));
    rows.push(row("removal of an endpoint, total", changes, TimedChange::total));
    rows.push(row("removal of the Service, total", removals, TimedChange::total));
    Section { name: huge.name, title: title(huge.title, &passes), unit: "ms", rows }
}

fn title(text: &str, passes: &[Pass]) -> String {
    format!("{text} ({} writes)", passes.first().map_or(0, |pass| pass.writes))
}

fn stages(passes: &[Pass], scale: f64) -> Vec<Row> {
    let row = |name, time: fn(&Pass) -> Duration| Row { name, figures: figures(passes, time, scale) };
    vec![
        row("store", |pass| pass.store),
        row("resolve", |pass| pass.resolve),
        row("plan", |pass| pass.plan),
        row("apply", |pass| pass.apply),
        row("total", Pass::total),
    ]
}

/// The figures of one time of each measurement; `scale` is the number of units per second.
fn figures<T>(measured: &[T], time: impl Fn(&T) -> Duration, scale: f64) -> Figures {
    Figures::of(measured.iter().map(|one| time(one).as_secs_f64() * scale).collect())
}

fn writes(pass: &Pass) -> f64 {
    u32::try_from(pass.writes).map_or(f64::INFINITY, f64::from)
}
