//! Reads the objects and the counters again and again, in a thread of its own, while somebody views the page.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use portmap::{
    error_text,
    inspect::{
        explain::target::Target,
        top::{Order, Row, Seen},
    },
    kernel::uptime,
};
use tokio::sync::watch;

use crate::cli::{
    PinsArguments,
    explain::{self, Kernel, Objects, Report},
    objects::{Files, Source, agent_addresses},
    top::Meter,
};

/// Time between two readings of the counters.
const TICK: Duration = Duration::from_secs(1);

/// Pause after a reading of the objects, as a multiple of its duration. It limits the CPU time for many objects.
const REST: u32 = 50;

/// Longest pause between two readings of an API server without an agent on this node.
const WITHOUT_AGENT: Duration = Duration::from_secs(5);

/// The longest pause if the agent's writes or the times of files tell about changes.
const LONGEST: Duration = Duration::from_mins(1);

/// The objects of one reading.
#[derive(Default)]
pub struct Board {
    /// The objects; none before the first reading.
    pub objects: Option<Objects>,
    /// The reason why the last reading failed.
    pub problem: Option<String>,
}

/// The current objects and rates, for all viewers.
pub struct Boards {
    source: Arc<Source>,
    pins: PinsArguments,
    board: watch::Sender<Arc<Board>>,
    rates: watch::Sender<Arc<[Row]>>,
}

impl Boards {
    /// Reads the objects once, so that wrong arguments fail at once, and starts the thread.
    ///
    /// # Errors
    ///
    /// The objects cannot be read.
    pub fn start(source: Arc<Source>, pins: PinsArguments) -> Result<Arc<Self>> {
        let mut reader = BoardReader { source: source.clone(), pins: pins.clone(), last: None };
        let board = Board { objects: Some(reader.read()?), problem: None };
        let boards = Self { source, pins, board: watch::Sender::new(Arc::new(board)), rates: watch::Sender::new([].into()) };
        let boards = Arc::new(boards);
        let writer = boards.clone();
        thread::Builder::new().name("page".into()).spawn(move || writer.follow(reader)).context("failed to start a thread")?;
        Ok(boards)
    }

    /// The objects, now and after each change.
    pub fn boards(&self) -> watch::Receiver<Arc<Board>> {
        let mut boards = self.board.subscribe();
        boards.mark_changed();
        boards
    }

    /// The rates of all Service ports, after each reading.
    pub fn rates(&self) -> watch::Receiver<Arc<[Row]>> {
        self.rates.subscribe()
    }

    /// The name of the node whose view is shown.
    pub fn node(&self) -> &str {
        &self.source.wanted.node
    }

    /// The kernel's tables at this moment, or the reason why they cannot be read.
    pub fn kernel(&self) -> Kernel {
        Kernel::open(&self.pins)
    }

    /// Explains a destination anew, as `portmap explain` does.
    pub fn explain(&self, target: &Target) -> Result<Report> {
        Ok(explain::explain(&self.source, target, &self.kernel(), None)?.0)
    }

    fn follow(&self, mut reader: BoardReader) {
        let mut meter = None;
        loop {
            thread::sleep(TICK);
            // Nothing is read while nobody views the page.
            if self.board.receiver_count() == 0 {
                meter = None;
                continue;
            }
            // Without an agent, or while another one replaces its tables, there are no rates.
            let rows = self.rows(&mut meter).unwrap_or_default();
            self.rates.send_replace(rows.into());
            let written = meter.as_ref().and_then(|meter| meter.last_sync().ok());
            if reader.is_due(written) {
                let (objects, problem) = match reader.read() {
                    Ok(objects) => (Some(objects), None),
                    Err(error) => (None, Some(error_text::of_error(error.as_ref()))),
                };
                self.board.send_modify(|board| *board = Arc::new(Board { objects, problem }));
            }
        }
    }

    /// The rates since the last call; none at the first one. After an error the next call is a first one.
    fn rows(&self, meter: &mut Option<Meter>) -> Result<Vec<Row>> {
        let Some(mut running) = meter.take() else {
            *meter = Some(Meter::start(&self.pins.open()?)?);
            return Ok(Vec::new());
        };
        let rows = running.rows(&Seen::default(), Order::Name)?;
        *meter = Some(running);
        Ok(rows)
    }
}

/// Reads the objects when they may have changed.
struct BoardReader {
    source: Arc<Source>,
    pins: PinsArguments,
    last: Option<Reading>,
}

/// The times of a reading.
struct Reading {
    began: Instant,
    took: Duration,
    /// The begin in seconds since boot.
    uptime: u64,
    /// The files at the begin; none of an API server.
    files: Option<Files>,
}

impl BoardReader {
    fn read(&mut self) -> Result<Objects> {
        let (began, uptime, files) = (Instant::now(), uptime::now().as_secs(), self.source.files());
        let objects = self.network().and_then(|network| {
            let (local, _) = network.map(agent_addresses).transpose()?.unwrap_or_default();
            Objects::read_all(&self.source, local)
        });
        self.last = Some(Reading { began, took: began.elapsed(), uptime, files });
        objects
    }

    fn network(&self) -> Result<Option<u64>> {
        Kernel::open(&self.pins).network()
    }

    /// Whether the objects may have changed since the last reading. `written`: when the agent last wrote or compared; none without
    /// an agent.
    fn is_due(&self, written: Option<u64>) -> bool {
        let Some(Reading { began, took, uptime, files }) = &self.last else { return true };
        let elapsed = began.elapsed();
        if !self.source.is_repeatable() || elapsed < *took * REST {
            return false;
        }
        let is_written = written.is_some_and(|written| written >= *uptime);
        let pause = if files.is_none() && written.is_none() { WITHOUT_AGENT } else { LONGEST };
        is_written || *files != self.source.files() || elapsed >= pause
    }
}
