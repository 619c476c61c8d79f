//! Measures the programs of network devices alone, in nanoseconds per packet (`BPF_PROG_TEST_RUN`). The kernel repeats a
//! program on one packet in memory; no device receives or sends it.
//!
//! A hit rewrites the packet, so its repetition would be another packet. Therefore there are two Services, each with the other's
//! frontend as its backend ([`hooks`]). The client's port is below 1024, so it stays. Each run of a program turns the packet of
//! one flow into that of the other, and an even number of runs leaves it as it was.

mod frames;
mod hooks;

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use portmap::model::Family;
use portmap_harness::listen::Protocol;

use crate::figures::{Aim, Figures};
use crate::report::{Row, Section};
use frames::{Ends, Kind, frame, without_ip};
use hooks::{Hook, Hooks, backend, client, frontend, stranger};

/// Number of runs of a program in one measurement. It is even.
const HOT: u32 = 10_000;

/// Number of measurements of one packet.
const TURNS: u32 = 100;

/// Number of flows that are opened to measure their first packets.
const FLOWS: u32 = 2_000;

/// Limits of the p50 of each case, in nanoseconds per packet.
const AIMS: [(Outcome, f64); 2] = [(Outcome::Hit, 110.0), (Outcome::Miss, 55.0)];

/// The measured figures.
pub struct Packets {
    /// Times of the programs of both hooks, and their sizes.
    pub sections: Vec<Section>,
    /// The limits of hits and misses.
    pub aims: Vec<Aim>,
}

/// The result of a look-up for a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The packet belongs to a flow.
    Hit,
    /// The packet belongs to no Service.
    Miss,
}

/// The family and the protocol of packets, with the names of their rows in the report.
struct Case {
    family: Family,
    protocol: Protocol,
    hit: &'static str,
    miss: &'static str,
    first: &'static str,
}

const CASES: [Case; 4] = [
    case(Family::V4, Protocol::Tcp, ["hit, TCP, IPv4", "miss, TCP, IPv4", "first packet, TCP, IPv4"]),
    case(Family::V6, Protocol::Tcp, ["hit, TCP, IPv6", "miss, TCP, IPv6", "first packet, TCP, IPv6"]),
    case(Family::V4, Protocol::Udp, ["hit, UDP, IPv4", "miss, UDP, IPv4", "first packet, UDP, IPv4"]),
    case(Family::V6, Protocol::Udp, ["hit, UDP, IPv6", "miss, UDP, IPv6", "first packet, UDP, IPv6"]),
];

const fn case(family: Family, protocol: Protocol, [hit, miss, first]: [&'static str; 3]) -> Case {
    Case { family, protocol, hit, miss, first }
}

/// Measures the programs with this number of further Services in the maps. Removes everything that it made.
pub fn measure(services: u32) -> Result<Packets> {
    let hooks = Hooks::load(services)?;
    for case in &CASES {
        establish(&hooks, case)?;
    }
    let mut subjects = Vec::new();
    for hook in Hook::ALL {
        subjects.extend(subjects_of(&hooks, hook)?);
    }
    for _ in 0..TURNS {
        for subject in &mut subjects {
            subject.repeat(&hooks)?;
        }
    }
    let (mut sections, mut aims) = (Vec::new(), Vec::new());
    for hook in Hook::ALL {
        let mut rows = Vec::new();
        for Subject { name, times, limit, .. } in subjects.extract_if(.., |subject| subject.hook == hook) {
            let figures = Figures::of(times);
            let aim = |limit| Aim::at_most(&format!("{}, {name}, ns per packet, p50", hook.name()), limit, figures.p50);
            aims.extend(limit.map(aim));
            rows.push(Row { name, figures });
        }
        if hook == Hook::Ingress {
            for case in &CASES {
                rows.push(Row { name: case.first, figures: first_packets(&hooks, case)? });
            }
        }
        sections.push(Section { name: hook.name(), title: format!("Program {}", hook.name()), unit: "ns per packet", rows });
    }
    sections.push(hooks.sizes()?);
    Ok(Packets { sections, aims })
}

/// A packet that a program gets many times. The packets take turns, so that each is measured in quick and in slow moments.
struct Subject {
    hook: Hook,
    name: &'static str,
    packet: Vec<u8>,
    /// The limit of the p50, in nanoseconds per packet.
    limit: Option<f64>,
    /// The times of one run, each the mean of [`HOT`] runs, in nanoseconds.
    times: Vec<f64>,
}

impl Subject {
    /// Measures the time of one run, from many runs.
    fn repeat(&mut self, hooks: &Hooks) -> Result<()> {
        let mut frame = self.packet.clone();
        self.times.push(hooks.run(self.hook, &mut frame, HOT)?);
        ensure!(frame == self.packet, "{}: the packet has not come back to its first form", self.hook.name());
        Ok(())
    }
}

/// The packets that a program gets many times.
fn subjects_of(hooks: &Hooks, hook: Hook) -> Result<Vec<Subject>> {
    let subject = |name, packet, limit| Subject { hook, name, packet, limit, times: Vec::new() };
    let mut subjects = vec![subject("no IP packet", without_ip(), None)];
    for (outcome, limit) in AIMS {
        for case in &CASES {
            let name = if outcome == Outcome::Hit { case.hit } else { case.miss };
            subjects.push(subject(name, packet_of(hooks, hook, outcome, case)?, Some(limit)));
        }
    }
    Ok(subjects)
}

/// Opens the flows of a client to both Services, as a client and its backends do.
fn establish(hooks: &Hooks, case: &Case) -> Result<()> {
    let (to, from) = (Ends::between(client(case.family, 0), frontend(case.family)), answer(case));
    for (hook, kind, ends) in steps(case.protocol, to, from) {
        hooks.run(hook, &mut frame(kind, ends)?, 2)?;
    }
    Ok(())
}

/// The packets from the opening of a flow to the client's first answer.
fn steps(protocol: Protocol, to: Ends, from: Ends) -> [(Hook, Kind, Ends); 3] {
    let kinds = match protocol {
        Protocol::Tcp => [Kind::Syn, Kind::SynAck, Kind::Ack],
        Protocol::Udp => [Kind::Datagram; 3],
    };
    [(Hook::Ingress, kinds[0], to), (Hook::Egress, kinds[1], from), (Hook::Ingress, kinds[2], to)]
}

/// The ends of an answer to the first client.
fn answer(case: &Case) -> Ends {
    Ends::between(backend(case.family), client(case.family, 0))
}

/// A packet with this outcome. Checks the outcome with one run.
fn packet_of(hooks: &Hooks, hook: Hook, outcome: Outcome, case: &Case) -> Result<Vec<u8>> {
    let other = |end: SocketAddr| if outcome == Outcome::Hit { end } else { stranger(case.family) };
    let ends = match hook {
        Hook::Ingress => Ends::between(client(case.family, 0), other(frontend(case.family))),
        Hook::Egress => Ends::between(other(backend(case.family)), client(case.family, 0)),
    };
    let packet = frame(Kind::later(case.protocol), ends)?;
    let mut once = packet.clone();
    hooks.run(hook, &mut once, 1)?;
    ensure!((once != packet) == (outcome == Outcome::Hit), "{}: the program has changed {ends:?} wrongly", hook.name());
    Ok(packet)
}

/// The time of the run that opens a flow. Each flow has another client, and gets its answer, so that it is not half open.
fn first_packets(hooks: &Hooks, case: &Case) -> Result<Figures> {
    let mut times = Vec::new();
    for number in 1..=FLOWS {
        let client = client(case.family, number);
        let (to, from) = (Ends::between(client, frontend(case.family)), Ends::between(backend(case.family), client));
        let mut durations = Vec::new();
        for (hook, kind, ends) in steps(case.protocol, to, from) {
            let packet = frame(kind, ends)?;
            let mut changed = packet.clone();
            durations.push(hooks.run(hook, &mut changed, 1)?);
            ensure!(changed != packet, "{}: the program has not changed {ends:?}", hook.name());
        }
        times.extend(durations.first());
    }
    Ok(Figures::of(times))
}
