//! `portmap top`: the rates of new connections of each Service, and the part of each backend.

mod meter;
mod names;
mod reader;
mod screen;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use comfy_table::Cell;
use portmap::{
    inspect::top::{Order, Row, Seen},
    maps::{
        pin::Pins,
        trace::{Effect, Tracer},
    },
};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};

pub use meter::Meter;
use names::PodNames;
use screen::View;

use super::{
    PinsArguments, backends,
    output::{self, Format},
};

/// The longest time between two readings of events: in this time, not more may come than the kernel keeps.
const DRAIN: Duration = Duration::from_millis(50);

const NO_BACKENDS: &str = "the backends are not shown, because a portmap trace is running";

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pins: PinsArguments,
    /// Measure once, print the rates and exit
    #[arg(long)]
    once: bool,
    /// Output format, with --once
    #[arg(short, long, value_enum, default_value_t, requires = "once")]
    output: Format,
    /// Time between two readings of the counters
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    interval: u64,
    /// Order of the rows
    #[arg(long, value_enum, default_value_t)]
    sort: Order,
    #[command(flatten)]
    backends: backends::Arguments,
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        let pins = self.pins.open()?;
        pins.expect()?;
        let interval = Duration::from_secs(self.interval);
        let mut watched = Watched::start(&pins, self.sort)?;
        let mut names = PodNames::start(self.backends)?;
        if self.once {
            watched.wait(interval, |pause| {
                thread::sleep(pause);
                Ok(false)
            })?;
            watched.sample()?;
            names.name_now(&mut watched.rows);
            if let Some(warning) = names.warning() {
                output::warning(warning);
            }
            if !output::print_data(&watched.rows, self.output)? {
                print_table(&watched.rows)?;
            }
        } else if io::stdout().is_terminal() {
            let mut terminal = ratatui::try_init().context("failed to prepare the terminal")?;
            let shown = show(&mut terminal, &mut watched, &mut names, interval);
            ratatui::restore();
            shown?;
        } else {
            bail!("standard output is not a terminal; to print the rates once, give --once");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The rates, and what they are made of.
struct Watched {
    meter: Meter,
    /// None if another process traces: then nothing is known about backends.
    tracer: Option<Tracer>,
    seen: Seen,
    order: Order,
    rows: Vec<Row>,
}

impl Watched {
    fn start(pins: &Pins, order: Order) -> Result<Self> {
        let tracer = Tracer::start(pins, &[Effect::Forwarded])?;
        let meter = Meter::start(pins)?;
        let mut watched = Self { meter, tracer, seen: Seen::default(), order, rows: Vec::new() };
        watched.sample()?;
        Ok(watched)
    }

    /// Collects events for this time. `is_over` waits for a short time, and ends this wait early if it returns true. Returns
    /// whether it did.
    fn wait(&mut self, time: Duration, mut is_over: impl FnMut(Duration) -> Result<bool>) -> Result<bool> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            self.drain()?;
            if left.is_zero() {
                return Ok(false);
            }
            let pause = left.min(DRAIN);
            if is_over(pause)? {
                return Ok(true);
            }
        }
    }

    fn drain(&mut self) -> Result<()> {
        let Some(tracer) = &mut self.tracer else { return Ok(()) };
        tracer.keep()?;
        while let Some(traced) = tracer.read() {
            if let (Some(id), Some(backend)) = (traced.id, traced.backend) {
                self.seen.add(id, backend);
            }
        }
        Ok(())
    }

    /// Reads the counters, and makes the rows since the last reading.
    fn sample(&mut self) -> Result<()> {
        self.rows = self.meter.rows(&self.seen, self.order)?;
        Ok(())
    }
}

/// A key that the user pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Quit,
    Sort(Order),
    Reset,
}

/// Shows the rates until the user quits.
fn show(terminal: &mut DefaultTerminal, watched: &mut Watched, names: &mut PodNames, interval: Duration) -> Result<()> {
    // The first rates come soon, and the next ones after the interval.
    let mut time = interval.min(Duration::from_secs(1));
    loop {
        // Rows beyond the screen need no names.
        let most = usize::from(terminal.size()?.height).min(watched.rows.len());
        names.name(watched.rows.split_at_mut(most).0);
        let note = if watched.tracer.is_some() { names.warning() } else { Some(NO_BACKENDS) };
        let view = View { rows: &watched.rows, order: watched.order, note };
        terminal.draw(|frame| screen::draw(frame, &view))?;
        let mut pressed = None;
        if watched.wait(time, |pause| {
            pressed = key(pause)?;
            Ok(pressed.is_some())
        })? {
            match pressed {
                Some(Key::Quit) => return Ok(()),
                Some(Key::Sort(order)) => watched.order = order,
                Some(Key::Reset) => watched.seen.clear(),
                None => {}
            }
        }
        watched.sample()?;
        time = interval;
    }
}

/// Waits this long for a key. A change of the terminal's size ends the wait, too.
fn key(time: Duration) -> Result<Option<Key>> {
    if !event::poll(time)? {
        return Ok(None);
    }
    let Event::Key(key) = event::read()? else { return Ok(None) };
    if key.kind != KeyEventKind::Press {
        return Ok(None);
    }
    let Some(character) = key.code.as_char() else { return Ok((key.code == KeyCode::Esc).then_some(Key::Quit)) };
    Ok(match character {
        'c' if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
        'q' => Some(Key::Quit),
        'c' => Some(Key::Sort(Order::Connections)),
        'f' => Some(Key::Sort(Order::Failures)),
        'n' => Some(Key::Sort(Order::Name)),
        'z' => Some(Key::Reset),
        _ => None,
    })
}

fn print_table(rows: &[Row]) -> Result<()> {
    if rows.is_empty() {
        return output::print("no Services\n");
    }
    let mut table = output::new_table(&["SERVICE", "PORT", "NEW/S", "REFUSED/S", "DROPPED/S", "BACKENDS"]);
    for row in rows {
        let backends: Vec<String> =
            row.backends.iter().map(|share| format!("{} {:.0} %", share.text(), share.share * 100.0)).collect();
        table.add_row([
            Cell::new(&row.service),
            Cell::new(screen::port(row)),
            Cell::new(format!("{:.1}", row.forwarded_per_second)),
            Cell::new(format!("{:.1}", row.refused_per_second)),
            Cell::new(format!("{:.1}", row.dropped_per_second)),
            Cell::new(if backends.is_empty() { "-".to_owned() } else { backends.join(", ") }),
        ]);
    }
    output::print_table(&table)
}
