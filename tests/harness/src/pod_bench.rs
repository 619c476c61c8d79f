//! `portmap-pod bench`: measures the time that portmap adds to a socket call. This is the client process only; the crate
//! `portmap-bench` makes the pods and fills the maps.
//!
//! It compares three arms ([`Arm`]): calls to a pod without portmap, to a pod with portmap, and to a Service with portmap. A
//! fourth arm is optional: calls to a Service with another proxy. A round measures one block of calls of each arm, in random
//! order. So disturbances of the machine affect all arms alike.
//!
//! A socket belongs to the cgroup of its process at the time of `socket()`. Hence one process can measure all arms: it moves
//! between a cgroup with portmap attached and a cgroup without. `measure` takes the times, `statistics` computes figures.

mod measure;
mod statistics;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use measure::Arms;
use statistics::SeededShuffle;

pub use statistics::{Ratios, Spread};

/// The arguments of `portmap-pod bench`.
#[derive(Args, Clone, Debug)]
pub struct Plan {
    /// A cgroup that portmap is not attached to
    #[arg(long, value_name = "DIR")]
    pub cgroup_clean: PathBuf,
    /// The cgroup that portmap is attached to
    #[arg(long, value_name = "DIR")]
    pub cgroup_portmap: PathBuf,
    /// Addresses and ports of pods, used in turn
    #[arg(long, value_name = "ADDR:PORT,…", value_delimiter = ',', required = true)]
    pub direct: Vec<SocketAddr>,
    /// Addresses and ports of pods for the arm `miss`, if they differ from those of the arm `clean`
    #[arg(long, value_name = "ADDR:PORT,…", value_delimiter = ',')]
    pub miss: Vec<SocketAddr>,
    /// Addresses and ports of Services, used in turn
    #[arg(long, value_name = "ADDR:PORT,…", value_delimiter = ',', required = true)]
    pub service: Vec<SocketAddr>,
    /// Addresses and ports of Services that another proxy serves, used in turn; without them there is no arm `peer`
    #[arg(long, value_name = "ADDR:PORT,…", value_delimiter = ',')]
    pub peer: Vec<SocketAddr>,
    /// Number of rounds; each arm is measured once per round
    #[arg(long, default_value_t = 100)]
    pub rounds: u32,
    /// Timed calls per arm and round
    #[arg(long, default_value_t = 200)]
    pub per_round: u32,
    /// Calls before the timed ones, which are not counted
    #[arg(long, default_value_t = 20)]
    pub warm_up: u32,
    /// Seed of the random order of the arms
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The call to time
    #[arg(long, value_enum, default_value_t = Work::TcpConnect)]
    pub work: Work,
}

/// The socket call that the benchmark times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// `connect()` of a new TCP socket.
    TcpConnect,
    /// `connect()` of a new UDP socket.
    UdpConnect,
    /// `connect()` of a new UDP socket, `send()` of a request and `recv()` of its reply.
    UdpConnected,
    /// `sendto()` and `recvfrom()` on an unconnected UDP socket, which is reused for the whole block.
    UdpUnconnected,
    /// `getpeername()` of a connected TCP socket.
    Getpeername,
    /// A request of a line and its reply on a TCP connection, which is reused for the whole block.
    TcpRequest,
}

impl Work {
    /// All calls. `portmap-bench connect` measures them if its command line selects none.
    pub const ALL: [Self; 5] =
        [Self::TcpConnect, Self::UdpConnect, Self::UdpConnected, Self::UdpUnconnected, Self::Getpeername];

    /// Whether the calls need a UDP server. Otherwise they need a TCP server.
    pub fn is_udp(self) -> bool {
        matches!(self, Self::UdpConnect | Self::UdpConnected | Self::UdpUnconnected)
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TcpConnect => "TCP connect()",
            Self::UdpConnect => "UDP connect()",
            Self::UdpConnected => "UDP connect(), send() and recv()",
            Self::UdpUnconnected => "UDP sendto() and recvfrom()",
            Self::Getpeername => "getpeername()",
            Self::TcpRequest => "TCP request and reply",
        })
    }
}

/// The destination of a block of calls, and whether portmap is attached to the cgroup of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// Calls to a pod, without portmap. The times of the other arms are compared with these.
    Clean,
    /// Calls to a pod, with portmap attached. This is the cost for destinations that belong to no Service.
    Miss,
    /// Calls to a Service, with portmap attached.
    Hit,
    /// Calls to a Service that another proxy serves, without portmap.
    Peer,
}

impl Plan {
    /// The arms that the plan has addresses for.
    fn arms(&self) -> Vec<Arm> {
        let peer = (!self.peer.is_empty()).then_some(Arm::Peer);
        [Arm::Clean, Arm::Miss, Arm::Hit].into_iter().chain(peer).collect()
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Clean => "clean",
            Self::Miss => "miss",
            Self::Hit => "hit",
            Self::Peer => "peer",
        })
    }
}

/// The result of one run of `portmap-pod bench`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The call that was timed.
    pub work: Work,
    /// Number of rounds; each measures every [`Arm`] once.
    pub rounds: u32,
    /// Number of timed calls of each [`Arm`] in a round.
    pub per_round: u32,
    /// Seed of the random order in which each round measures every [`Arm`].
    pub seed: u64,
    /// The times of the calls of each [`Arm`].
    pub arms: BTreeMap<Arm, Figures>,
}

/// The times of one [`Arm`], in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Distribution over the calls of all rounds.
    #[serde(flatten)]
    pub all: Spread,
    /// The median of each round, in the order of the rounds.
    pub round_p50: Vec<u32>,
    /// The time of this arm divided by the time of [`Arm::Clean`] in the same round; the median over the rounds.
    pub ratio: Ratios,
}

/// Runs the benchmark in the network namespace of this process. Afterwards the process is in one of the two cgroups of the
/// plan.
pub fn run(plan: &Plan) -> Result<Report> {
    ensure!(plan.rounds > 0 && plan.per_round > 0, "nothing to measure: --rounds and --per-round must not be 0");
    let mut arms = Arms::new(plan);
    let mut shuffle = SeededShuffle::new(plan.seed);
    let mut rounds: BTreeMap<Arm, Vec<Vec<u32>>> = BTreeMap::new();
    for _ in 0..plan.rounds {
        let mut order = plan.arms();
        shuffle.shuffle(&mut order);
        for arm in order {
            let times = arms.block(arm).with_context(|| format!("failed to measure the arm `{arm}`"))?;
            rounds.entry(arm).or_default().push(times);
        }
    }
    Ok(report(plan, &rounds))
}

fn report(plan: &Plan, rounds: &BTreeMap<Arm, Vec<Vec<u32>>>) -> Report {
    let spreads = |rounds: &Vec<Vec<u32>>| rounds.iter().map(|times| Spread::of(times)).collect::<Vec<_>>();
    let clean = rounds.get(&Arm::Clean).map(spreads).unwrap_or_default();
    let figures = |(arm, rounds): (&Arm, &Vec<Vec<u32>>)| {
        let spreads = spreads(rounds);
        let figures = Figures {
            all: Spread::of(&rounds.concat()),
            round_p50: spreads.iter().map(|spread| spread.p50).collect(),
            ratio: Ratios::between(&spreads, &clean),
        };
        (*arm, figures)
    };
    let Plan { rounds: count, per_round, seed, work, .. } = *plan;
    Report { work, rounds: count, per_round, seed, arms: rounds.iter().map(figures).collect() }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { work, rounds, per_round, seed, arms } = self;
        writeln!(f, "{work} in µs, {rounds} rounds of {per_round} per arm, seed {seed}")?;
        writeln!(f, "{:<6}{:>8}{:>8}{:>8}{:>8}{:>11}{:>11}", "arm", "p50", "p90", "p99", "mean", "p50 ratio", "p99 ratio")?;
        for (arm, Figures { all, ratio, .. }) in arms {
            write!(f, "{arm:<6}")?;
            for nanoseconds in [all.p50, all.p90, all.p99, all.mean] {
                write!(f, "{:>8.2}", f64::from(nanoseconds) / 1e3)?;
            }
            writeln!(f, "{:>11.3}{:>11.3}", ratio.p50, ratio.p99)?;
        }
        Ok(())
    }
}
