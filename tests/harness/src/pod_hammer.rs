//! `portmap-pod hammer`: threads that send requests to some addresses as fast as possible, and record the time of each call or,
//! with `--tally`, count the replies.
//!
//! The times are those of the monotonic clock, which all processes share. A test can compare them with the times of its
//! changes.

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
use crate::pod_socket::{Domain, RawSocket};

/// The addresses that receive requests.
#[derive(Args, Clone, Debug)]
pub struct Targets {
    /// Addresses for TCP; repeatable
    #[arg(long, value_name = "ADDR:PORT")]
    pub tcp: Vec<SocketAddr>,
    /// Addresses for connected UDP sockets; repeatable
    #[arg(long, value_name = "ADDR:PORT")]
    pub connected: Vec<SocketAddr>,
    /// Addresses for unconnected UDP sockets; repeatable
    #[arg(long, value_name = "ADDR:PORT")]
    pub unconnected: Vec<SocketAddr>,
}

/// The kind of socket that sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Manner {
    /// A TCP socket.
    Tcp,
    /// A connected UDP socket.
    Connected,
    /// An unconnected UDP socket (`sendto()`).
    Unconnected,
}

/// One request through its own socket. The program prints each as a line of JSON, unless it runs with `--tally`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Visit {
    /// The kind of socket.
    pub manner: Manner,
    /// The address to which the client sent the request, for example that of a Service.
    pub target: SocketAddr,
    /// Time ([`now`]) before the call in which portmap selects a backend: `sendto()` of an unconnected socket, else
    /// `connect()`.
    pub start: Duration,
    /// Time ([`now`]) after the call in which portmap selects a backend.
    pub end: Duration,
    /// Pod and port of the reply, for example `pod-a 8080/TCP`, or the name of the error.
    pub answer: Result<String, String>,
}

/// Number of requests of one thread with the same kind of socket, target and outcome. With `--tally`, the program prints each
/// as a line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tally {
    /// The kind of socket.
    pub manner: Manner,
    /// The address to which the clients sent the requests.
    pub target: SocketAddr,
    /// Pod and port of the replies, or the name of the error, as in [`Visit::answer`].
    pub answer: Result<String, String>,
    /// Number of requests.
    pub count: u64,
}

/// A kind of socket, and the address for its requests.
type Target = (Manner, SocketAddr);

/// Sends requests from `threads` threads until standard input ends, then prints every [`Visit`] as a line of JSON.
pub fn hammer(threads: u8, targets: &Targets) -> Result<()> {
    run_until_stdin_ends(threads, targets, |visits| visits.map(|(_, visit)| visit).collect())
}

/// As [`hammer`], but prints each [`Tally`] instead. The memory stays small, because it keeps counters only: it can run for
/// hours.
pub fn tally(threads: u8, targets: &Targets) -> Result<()> {
    run_until_stdin_ends(threads, targets, |visits| {
        let mut counts: BTreeMap<(Target, Result<String, String>), u64> = BTreeMap::new();
        for (target, visit) in visits {
            *counts.entry((target, visit.answer)).or_default() += 1;
        }
        let tally = |(((manner, target), answer), count)| Tally { manner, target, answer, count };
        counts.into_iter().map(tally).collect()
    })
}

/// Runs the threads until standard input ends. `summarize` reduces the requests of each thread to results, which are printed as
/// lines of JSON.
fn run_until_stdin_ends<T: Serialize + Send>(
    threads: u8,
    targets: &Targets,
    summarize: impl Fn(&mut dyn Iterator<Item = (Target, Visit)>) -> Vec<T> + Sync,
) -> Result<()> {
    let stop = AtomicBool::new(false);
    let targets = targets.all();
    let visits = thread::scope(|scope| {
        let (targets, stop, summarize) = (&targets, &stop, &summarize);
        let work = move |number| summarize(&mut visits(number, targets, stop));
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
    fn all(&self) -> Vec<Target> {
        let Self { tcp, connected, unconnected } = self;
        let manners = [(Manner::Tcp, tcp), (Manner::Connected, connected), (Manner::Unconnected, unconnected)];
        manners.into_iter().flat_map(|(manner, targets)| targets.iter().map(move |target| (manner, *target))).collect()
    }
}

/// Sends requests to the targets until `stop` is set. Thread `number` begins with the target at this index, and advances by
/// `number` + 1 targets.
fn visits<'a>(number: u8, targets: &'a [Target], stop: &'a AtomicBool) -> impl Iterator<Item = (Target, Visit)> + 'a {
    let order = (usize::from(number)..).step_by(1 + usize::from(number));
    let in_turn = order.filter_map(|at| targets.get(at.checked_rem(targets.len())?).copied());
    in_turn.take_while(|_| !stop.load(Ordering::Relaxed)).map(|(manner, target)| ((manner, target), visit(manner, target)))
}

fn visit(manner: Manner, target: SocketAddr) -> Visit {
    let (mut start, mut end) = (now(), now());
    let mut ask = || -> io::Result<String> {
        let protocol = if manner == Manner::Tcp { Protocol::Tcp } else { Protocol::Udp };
        let socket = RawSocket::open(Domain::of(target), protocol)?;
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

/// The monotonic clock (`CLOCK_MONOTONIC`): time since boot without suspend, the same in every process.
#[must_use]
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    // The monotonic clock is never negative, so the conversion does not fail.
    Duration::try_from(time).unwrap_or_default()
}
