//! From objects in memory to the kernel's tables: how long the agent takes.
//!
//! Four times: everything into empty tables, as at the first start on a node; everything against tables that hold it already, as
//! when the agent is replaced; one endpoint of one Service, as all day long; and one Service as large as they get.

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

/// What the median of full loads may take, in milliseconds.
const AIM: f64 = 100.0;

/// What any object may take in the median, in milliseconds: all others wait for it.
const LONGEST: f64 = 100.0;

/// How many changes are made, each to another Service.
const CHANGES: u32 = 1000;

/// Measure what the agent does: from objects in memory to the kernel's tables
///
/// The clock runs from the moment the events are handed to the store until the last write returned. The objects are made before, and
/// the maps are created and the programs loaded before.
#[derive(Args, Clone, Copy, Debug)]
pub struct Arguments {
    #[command(flatten)]
    size: Size,
    /// How often everything is loaded into new tables
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
}

/// What was measured in all repeats.
#[derive(Default)]
struct Measured {
    loads: Vec<Pass>,
    restarts: Vec<(Takeover, Pass)>,
    changes: Vec<Pass>,
    huge: Vec<(Huge, [Vec<Whole>; 3])>,
}

/// A pass, and the conversion of the object before it.
#[derive(Clone, Copy, Debug)]
struct Whole {
    convert: Duration,
    pass: Pass,
}

impl Whole {
    fn total(&self) -> Duration {
        self.convert + self.pass.total()
    }
}

/// Measures. Dropping the future removes everything that it made.
pub async fn run(arguments: Arguments) -> Result<Report> {
    let Arguments { size, repeat } = arguments;
    let machine = Machine::look();
    let cluster = Cluster::new(size, Protocol::Tcp, &[Family::V4])?;
    let mut measured = Measured { huge: Huge::ALL.map(|huge| (huge, Default::default())).into(), ..Measured::default() };
    for turn in 1..=repeat {
        progress(&format!("loading {} Services × {} endpoints, {turn} of {repeat}", size.services, size.endpoints));
        measure(&cluster, size, &mut measured)?;
        progress(&format!("one huge Service, {turn} of {repeat}"));
        measure_huge(cluster.capacity(), &mut measured)?;
        // A moment in which a signal is noticed.
        tokio::task::yield_now().await;
    }
    Ok(Report {
        bench: "sync",
        about: format!("from objects in memory to the kernel's tables, {repeat} times, each with new tables"),
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

/// Each shape arrives in empty tables, has one endpoint less, and goes.
fn measure_huge(capacity: Capacity, measured: &mut Measured) -> Result<()> {
    for (huge, [arrivals, changes, removals]) in &mut measured.huge {
        let world = World::new("bench-huge")?;
        let tables = Tables::create(&world, capacity)?;
        let (mut stages, _) = Stages::start(&tables)?;
        stages.pass(Huge::change(huge.slice(0)?), Scope::Changes)?;
        let (service, slice) = (huge.service()?, huge.slice(1)?);
        let gone = service.clone();
        arrivals.push(whole(&mut stages, || Huge::arrival(service))?);
        changes.push(whole(&mut stages, || Huge::change(slice))?);
        removals.push(whole(&mut stages, || Huge::removal(gone))?);
    }
    Ok(())
}

fn whole(stages: &mut Stages, convert: impl FnOnce() -> Vec<Event>) -> Result<Whole> {
    let started = Instant::now();
    let events = convert();
    let convert = started.elapsed();
    Ok(Whole { convert, pass: stages.pass(events, Scope::Changes)? })
}

fn aims(size: Size, measured: &Measured) -> Vec<Aim> {
    let total = figures(&measured.loads, Pass::total, 1e3);
    let rewrites = measured.restarts.iter().map(|(_, pass)| writes(pass)).fold(0.0, f64::max);
    let load = Aim::at_most("everything into empty tables, p50 in ms", AIM, total.p50);
    let restart = Aim::at_most("writes of a restart that finds everything in place", 0.0, rewrites);
    let longest = |all: &[Vec<Whole>; 3]| all.iter().map(|all| figures(all, Whole::total, 1e3).p50).fold(0.0, f64::max);
    let longest = measured.huge.iter().map(|(_, all)| longest(all)).fold(0.0, f64::max);
    let longest = Aim::at_most("any change of one huge Service, p50 in ms", LONGEST, longest);
    [load].into_iter().filter(|_| size == Size::AIMED_AT).chain([restart, longest]).collect()
}

fn sections(measured: &Measured) -> Vec<Section> {
    let Measured { loads, restarts, changes, huge } = measured;
    let taken_over: Vec<Takeover> = restarts.iter().map(|(takeover, _)| *takeover).collect();
    let compared: Vec<Pass> = restarts.iter().map(|(_, pass)| *pass).collect();
    let takeover = |name, time: fn(&Takeover) -> Duration| Row { name, figures: figures(&taken_over, time, 1e3) };
    let mut restart = vec![
        takeover("open", |takeover| takeover.open),
        takeover("grace period", |takeover| takeover.wait),
        takeover("read", |takeover| takeover.read),
        takeover("adopt", |takeover| takeover.adopt),
    ];
    restart.extend(stages(&compared, 1e3));
    let mut sections = vec![
        Section { name: "load", title: title("Everything into empty tables", loads), unit: "ms", rows: stages(loads, 1e3) },
        Section { name: "restart", title: title("A restart on the same tables", &compared), unit: "ms", rows: restart },
        Section {
            name: "change",
            title: title("One endpoint of one Service", changes),
            unit: "µs",
            rows: stages(changes, 1e6),
        },
    ];
    sections.extend(huge.iter().map(|(huge, all)| section_of_huge(*huge, all)));
    sections
}

fn section_of_huge(huge: Huge, [arrivals, changes, removals]: &[Vec<Whole>; 3]) -> Section {
    let passes: Vec<Pass> = arrivals.iter().map(|whole| whole.pass).collect();
    let row = |name, all: &[Whole], time: fn(&Whole) -> Duration| Row { name, figures: figures(all, time, 1e3) };
    let mut rows = vec![row("convert", arrivals, |whole| whole.convert)];
    rows.extend(stages(&passes, 1e3));
    rows.push(row("arrival as a whole", arrivals, Whole::total));
    rows.push(row("an endpoint less", changes, Whole::total));
    rows.push(row("removal", removals, Whole::total));
    Section { name: huge.name, title: title(huge.title, &passes), unit: "ms", rows }
}

fn title(what: &str, passes: &[Pass]) -> String {
    format!("{what} ({} writes)", passes.first().map_or(0, |pass| pass.writes))
}

fn stages(passes: &[Pass], scale: f64) -> Vec<Row> {
    let row = |name, time: fn(&Pass) -> Duration| Row { name, figures: figures(passes, time, scale) };
    vec![
        row("store", |pass| pass.store),
        row("resolve", |pass| pass.resolve),
        row("plan", |pass| pass.plan),
        row("apply", |pass| pass.apply),
        row("all four", Pass::total),
    ]
}

/// In seconds divided by `scale`.
fn figures<T>(measured: &[T], time: impl Fn(&T) -> Duration, scale: f64) -> Figures {
    Figures::of(measured.iter().map(|one| time(one).as_secs_f64() * scale).collect())
}

fn writes(pass: &Pass) -> f64 {
    u32::try_from(pass.writes).map_or(f64::INFINITY, f64::from)
}
