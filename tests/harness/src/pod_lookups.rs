//! `portmap-pod lookups`: sends UDP queries in pairs, as resolvers do that look up the IPv4 and the IPv6 addresses of a name.
//!
//! Both queries of a pair leave through one socket at the same moment, from two threads. With a proxy that uses NAT, both may
//! make a conntrack entry, and the query of the second entry is lost. The server is [`crate::pod_server`].

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::pod_client::connected_udp;

/// The queries of a lookup. The server replies to any datagram.
const QUERIES: [&[u8]; 2] = [b"A\n", b"AAAA\n"];

/// The number of lookups at the same time.
const PARALLEL: u32 = 8;

/// The answers to a series of lookups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookups {
    /// Number of queries that were answered. Each lookup has two queries.
    pub answered: u32,
    /// Number of queries without an answer within the time limit.
    pub unanswered: u32,
    /// Microseconds from the queries to the second answer, of the slowest lookup with two answers.
    pub slowest_us: u64,
}

impl Lookups {
    /// Makes `count` lookups, each through a new socket; some at the same time. `patience` limits the time for each answer; it
    /// must not be zero. Fails if a socket fails for another reason.
    pub fn gather(address: SocketAddr, count: u32, patience: Duration) -> Result<Self> {
        thread::scope(|scope| {
            let share = |number| count / PARALLEL + u32::from(number < count % PARALLEL);
            let threads: Vec<_> =
                (0..PARALLEL).map(|number| scope.spawn(move || series(address, share(number), patience))).collect();
            let mut all = Self::default();
            for thread in threads {
                all.add(&thread.join().map_err(|_| anyhow!("a thread panicked"))??);
            }
            Ok(all)
        })
    }

    fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.unanswered += other.unanswered;
        self.slowest_us = self.slowest_us.max(other.slowest_us);
    }
}

impl fmt::Display for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answered, unanswered, slowest_us } = self;
        write!(f, "{answered} queries answered, {unanswered} not; the slowest lookup took {slowest_us} µs")
    }
}

/// Makes `count` lookups, one after the other.
fn series(address: SocketAddr, count: u32, patience: Duration) -> io::Result<Lookups> {
    let mut all = Lookups::default();
    for _ in 0..count {
        all.add(&one(address, patience)?);
    }
    Ok(all)
}

/// Sends both queries at the same moment, and waits for two answers.
fn one(address: SocketAddr, patience: Duration) -> io::Result<Lookups> {
    let socket = connected_udp(address, patience)?;
    let together = Barrier::new(QUERIES.len());
    let send = |query: &[u8]| {
        together.wait();
        let started = Instant::now();
        socket.send(query).map(|_| started)
    };
    let [first, second] = QUERIES;
    let started = thread::scope(|scope| {
        let other = scope.spawn(|| send(second));
        let started = send(first)?;
        let other = other.join().map_err(|_| io::Error::other("a thread panicked"))??;
        Ok::<_, io::Error>(started.min(other))
    })?;
    let mut lookup = Lookups::default();
    for _ in QUERIES {
        match socket.recv(&mut [0; 512]) {
            Ok(_) => lookup.answered += 1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => lookup.unanswered += 1,
            Err(error) => return Err(error),
        }
    }
    if lookup.unanswered == 0 {
        lookup.slowest_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    }
    Ok(lookup)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_lost_query_is_counted() -> Result<()> {
        let server = UdpSocket::bind("127.0.0.1:0")?;
        let address = server.local_addr()?;
        let answers = thread::spawn(move || -> io::Result<()> {
            // Only the first query of the two lookups stays without an answer.
            for number in 0..4 {
                let (_, peer) = server.recv_from(&mut [0; 512])?;
                if number > 0 {
                    server.send_to(b"answer", peer)?;
                }
            }
            Ok(())
        });
        let lookups = Lookups::gather(address, 2, Duration::from_millis(500))?;
        assert_eq!((lookups.answered, lookups.unanswered), (3, 1));
        assert!((1..500_000).contains(&lookups.slowest_us), "{lookups}");
        answers.join().map_err(|_| anyhow!("the server panicked"))??;
        Ok(())
    }
}
