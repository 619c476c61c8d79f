//! `portmap-pod bench`: what portmap adds to a call, measured in one run. The process of the client does no more than that: the
//! crate `portmap-bench` makes the world around it, with all Services in the tables.
//!
//! Three arms take turns in blocks of connections, in an order that is shuffled in every round, so that whatever the machine
//! does meanwhile falls on all of them. A socket belongs to the cgroup that its process was in when it was made, hence one
//! process can do all three: it moves itself between a cgroup that portmap is attached to and one that it is not. `measure`
//! takes the times, `statistics` makes figures of them.

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
use statistics::Dice;

pub use statistics::{Ratios, Spread};

/// What to measure; the arguments of `portmap-pod bench`.
#[derive(Args, Clone, Debug)]
pub struct Plan {
    /// A cgroup that portmap is not attached to
    #[arg(long, value_name = "DIR")]
    pub cgroup_clean: PathBuf,
    /// The cgroup that portmap is attached to
    #[arg(long, value_name = "DIR")]
    pub cgroup_portmap: PathBuf,
    /// Pods' own addresses and ports, taken in turns
    #[arg(long, value_name = "ADDR:PORT,…", value_delimiter = ',', required = true)]
    pub direct: Vec<SocketAddr>,
    /// Addresses and ports of Services, taken in turns
    #[arg(long, value_name = "ADDR:PORT,…", value_delimiter = ',', required = true)]
    pub service: Vec<SocketAddr>,
    /// How often every arm gets its turn
    #[arg(long, default_value_t = 100)]
    pub rounds: u32,
    /// Connections that an arm makes in its turn
    #[arg(long, default_value_t = 200)]
    pub per_round: u32,
    /// Connections before them that do not count
    #[arg(long, default_value_t = 20)]
    pub warm_up: u32,
    /// The order of the arms follows from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// What is timed
    #[arg(long, value_enum, default_value_t = Work::TcpConnect)]
    pub work: Work,
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// `connect()` of a new TCP socket.
    TcpConnect,
    /// `connect()` of a new UDP socket.
    UdpConnect,
    /// `connect()` of a new UDP socket, a request, and its answer.
    UdpConnected,
    /// A request by an unconnected UDP socket that is kept, and its answer with its source.
    UdpUnconnected,
    /// `getpeername()` of a connected TCP socket.
    Getpeername,
}

impl Work {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::TcpConnect, Self::UdpConnect, Self::UdpConnected, Self::UdpUnconnected, Self::Getpeername];

    /// Whether the server has to speak UDP.
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
        })
    }
}

/// What a block of connections goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// Without portmap, to a pod: what the others are compared with.
    Clean,
    /// With portmap, to a pod: what everyone pays who connects to no Service.
    Miss,
    /// With portmap, to a Service.
    Hit,
}

impl Arm {
    const ALL: [Self; 3] = [Self::Clean, Self::Miss, Self::Hit];
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Clean => "clean",
            Self::Miss => "miss",
            Self::Hit => "hit",
        })
    }
}

/// The result of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What was timed.
    pub work: Work,
    /// How often every arm had its turn.
    pub rounds: u32,
    /// Connections per turn.
    pub per_round: u32,
    /// What the order of the turns followed from.
    pub seed: u64,
    /// The figures of each arm.
    pub arms: BTreeMap<Arm, Figures>,
}

/// What one arm took, in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Over all connections.
    #[serde(flatten)]
    pub all: Spread,
    /// The median of each round, in the order of the rounds.
    pub round_p50: Vec<u32>,
    /// Against the clean arm, each round by itself, then the median of the rounds.
    pub ratio: Ratios,
}

/// Measures from the network namespace that the process is in. The process ends up in one of the two cgroups.
pub fn run(plan: &Plan) -> Result<Report> {
    ensure!(plan.rounds > 0 && plan.per_round > 0, "nothing to measure: rounds and connections per round must not be 0");
    let mut arms = Arms::new(plan);
    let mut dice = Dice::new(plan.seed);
    let mut rounds: BTreeMap<Arm, Vec<Vec<u32>>> = BTreeMap::new();
    for _ in 0..plan.rounds {
        let mut order = Arm::ALL;
        dice.shuffle(&mut order);
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
