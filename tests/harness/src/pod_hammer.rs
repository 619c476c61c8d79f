//! `portmap-pod hammer`: threads that ask who is at some addresses, as fast as they can, and note when they connected.
//!
//! The times are those of the system's monotonic clock: whoever changed the tables meanwhile can compare them with its own.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::listen::Protocol;
use crate::pod_client::{identity, name_of};
use crate::pod_server::READY;
use crate::pod_socket::{Domain, Socket};

/// What is asked.
#[derive(Args, Clone, Debug)]
pub struct Targets {
    /// Addresses for TCP; repeatable
    #[arg(long, value_name = "ADDR:PORT")]
    pub tcp: Vec<SocketAddr>,
    /// Addresses for connected UDP sockets; repeatable
    #[arg(long, value_name = "ADDR:PORT")]
    pub connected: Vec<SocketAddr>,
    /// Addresses for UDP sockets that are not connected; repeatable
    #[arg(long, value_name = "ADDR:PORT")]
    pub unconnected: Vec<SocketAddr>,
}

/// How a target is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Manner {
    /// A connection.
    Tcp,
    /// A connected UDP socket.
    Connected,
    /// A UDP socket that is not connected.
    Unconnected,
}

/// One socket's life. On standard output each is a line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Visit {
    /// How it was asked.
    pub manner: Manner,
    /// Who was asked.
    pub target: SocketAddr,
    /// Before the call that chose a backend, by [`now`].
    pub start: Duration,
    /// After that call.
    pub end: Duration,
    /// Who answered, as in `pod-a 8080/TCP`, or the name of the error.
    pub answer: Result<String, String>,
}

/// How often a target was asked in a manner with the same outcome. On standard output each is a line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tally {
    /// How it was asked.
    pub manner: Manner,
    /// Who was asked.
    pub target: SocketAddr,
    /// Who answered, or the name of the error, as in a [`Visit`].
    pub answer: Result<String, String>,
    /// How often.
    pub count: u64,
}

/// A way to ask, and a target.
type Asked = (Manner, SocketAddr);

/// Asks in so many threads until standard input ends, then prints every [`Visit`] as a line of JSON.
pub fn hammer(threads: u8, targets: &Targets) -> Result<()> {
    work_until_told(threads, targets, |visits| visits.map(|(_, visit)| visit).collect())
}

/// As [`hammer`], but prints each [`Tally`], so that it can go on for long.
pub fn tally(threads: u8, targets: &Targets) -> Result<()> {
    work_until_told(threads, targets, |visits| {
        let mut counts: BTreeMap<(Asked, Result<String, String>), u64> = BTreeMap::new();
        for (asked, visit) in visits {
            *counts.entry((asked, visit.answer)).or_default() += 1;
        }
        let tally = |(((manner, target), answer), count)| Tally { manner, target, answer, count };
        counts.into_iter().map(tally).collect()
    })
}

/// Each thread makes visits until standard input ends, and something printable of them.
fn work_until_told<T: Serialize + Send>(
    threads: u8,
    targets: &Targets,
    digest: impl Fn(&mut dyn Iterator<Item = (Asked, Visit)>) -> Vec<T> + Sync,
) -> Result<()> {
    let stop = AtomicBool::new(false);
    let targets = targets.all();
    let visits = thread::scope(|scope| {
        let (targets, stop, digest) = (&targets, &stop, &digest);
        let work = move |number| digest(&mut visits(number, targets, stop));
        let workers: Vec<_> = (0..threads).map(|number| scope.spawn(move || work(number))).collect();
        writeln!(io::stdout(), "{READY}")?;
        let ended = io::copy(&mut io::stdin().lock(), &mut io::sink());
        stop.store(true, Ordering::Relaxed);
        let visits = workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow!("a thread panicked")));
        let visits = visits.collect::<Result<Vec<_>>>();
        ended.context("failed to read standard input")?;
        visits
    })?;
    let mut output = BufWriter::new(io::stdout().lock());
    for visit in visits.iter().flatten() {
        serde_json::to_writer(&mut output, visit).context("failed to print")?;
        writeln!(output).context("failed to print")?;
    }
    output.flush().context("failed to print")
}

impl Targets {
    fn all(&self) -> Vec<Asked> {
        let Self { tcp, connected, unconnected } = self;
        let manners = [(Manner::Tcp, tcp), (Manner::Connected, connected), (Manner::Unconnected, unconnected)];
        manners.into_iter().flat_map(|(manner, targets)| targets.iter().map(move |target| (manner, *target))).collect()
    }
}

/// All targets in turn; each thread begins elsewhere, and goes in steps of its own.
fn visits<'a>(number: u8, targets: &'a [Asked], stop: &'a AtomicBool) -> impl Iterator<Item = (Asked, Visit)> + 'a {
    let order = (usize::from(number)..).step_by(1 + usize::from(number));
    let asked = order.filter_map(|at| targets.get(at.checked_rem(targets.len())?).copied());
    asked.take_while(|_| !stop.load(Ordering::Relaxed)).map(|(manner, target)| ((manner, target), visit(manner, target)))
}

fn visit(manner: Manner, target: SocketAddr) -> Visit {
    let (mut start, mut end) = (now(), now());
    let mut ask = || -> io::Result<String> {
        let protocol = if manner == Manner::Tcp { Protocol::Tcp } else { Protocol::Udp };
        let socket = Socket::open(Domain::of(target), protocol)?;
        start = now();
        let chosen = if manner == Manner::Unconnected { socket.send("who", Some(target)) } else { socket.connect(target) };
        end = now();
        chosen?;
        if manner != Manner::Unconnected {
            socket.send("who", None)?;
        }
        let answer = identity(&socket.receive()?.text);
        socket.reset()?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| name_of(&error));
    Visit { manner, target, start, end, answer }
}

/// The time since the machine started, the same in every process.
#[must_use]
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    // It is never negative.
    Duration::try_from(time).unwrap_or_default()
}
