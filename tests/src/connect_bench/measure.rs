//! Blocks of timed `connect()` calls, each in the cgroup of its arm.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};

use super::{Arm, Plan};
use crate::listen::Protocol;

/// The three arms, ready to be measured in any order.
pub(super) struct Arms<'p> {
    plan: &'p Plan,
    next_service: usize,
}

impl<'p> Arms<'p> {
    pub(super) fn new(plan: &'p Plan) -> Self {
        Self { plan, next_service: 0 }
    }

    /// The times of one block in nanoseconds, in the order in which they were taken.
    pub(super) fn block(&mut self, arm: Arm) -> Result<Vec<u32>> {
        enter(match arm {
            Arm::Clean => &self.plan.cgroup_clean,
            Arm::Miss | Arm::Hit => &self.plan.cgroup_portmap,
        })?;
        for _ in 0..self.plan.warm_up {
            self.sample(arm)?;
        }
        (0..self.plan.per_round).map(|_| self.sample(arm)).collect()
    }

    fn sample(&mut self, arm: Arm) -> Result<u32> {
        let address = match arm {
            Arm::Clean | Arm::Miss => self.plan.direct,
            Arm::Hit => {
                self.next_service += 1;
                self.plan.service[self.next_service % self.plan.service.len()]
            }
        };
        time_connect(address, self.plan.protocol)
            .with_context(|| format!("failed to connect to {address}/{}", self.plan.protocol))
    }
}

fn enter(cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0").with_context(|| format!("failed to enter the cgroup {}", cgroup.display()))
}

/// Only the call itself is timed. More than four seconds count as four.
fn time_connect(address: SocketAddr, protocol: Protocol) -> nix::Result<u32> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if protocol == Protocol::Tcp {
        // Closing resets the connection: no TIME_WAIT piles up and no port is used up.
        setsockopt(&socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    }
    let address = SockaddrStorage::from(address);
    let start = Instant::now();
    connect(socket.as_raw_fd(), &address)?;
    Ok(u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX))
}
