//! `portmap-pod flood`: sends TCP SYNs from many source addresses that belong to no host, as in an attack.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use etherparse::PacketBuilder;
use nix::errno::Errno;
use pnet_datalink::{DataLinkSender, MacAddr};

use crate::pod_server::READY;
use crate::pod_wire;
use crate::random::Random;

/// Number of packets between two pauses: at most 20,000 packets a second.
const BURST: u64 = 20;

const PAUSE: Duration = Duration::from_millis(1);

/// The arguments of `portmap-pod flood`.
#[derive(Args, Clone, Debug)]
pub struct Flood {
    /// The network interface that sends the packets
    pub device: String,
    /// The Ethernet address of the next router
    pub router: MacAddr,
    /// The beginning of the sources: an address whose last 16 bits are replaced
    pub sources: IpAddr,
    /// Addresses and ports that receive the packets in turn
    #[arg(required = true)]
    pub targets: Vec<SocketAddr>,
    /// Maximum number of packets
    #[arg(long, default_value_t = 1_000_000)]
    pub count: u64,
}

/// Sends packets until standard input ends, but not more than [`Flood::count`]. Then prints their number.
pub fn flood(flood: &Flood) -> Result<()> {
    let (mut sender, _) = pod_wire::open(&flood.device)?;
    let stop = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let worker = scope.spawn(|| send_all(flood, &mut *sender, &stop));
        writeln!(io::stdout(), "{READY}")?;
        io::copy(&mut io::stdin().lock(), &mut io::sink()).context("failed to read standard input")?;
        stop.store(true, Ordering::Relaxed);
        worker.join().map_err(|_| anyhow!("a thread panicked"))?
    })?;
    writeln!(io::stdout(), "{sent}").context("failed to print")
}

fn send_all(flood: &Flood, sender: &mut dyn DataLinkSender, stop: &AtomicBool) -> Result<u64> {
    let mut random = Random::new(1);
    let mut sent = 0;
    for target in flood.targets.iter().cycle() {
        if sent == flood.count || stop.load(Ordering::Relaxed) {
            break;
        }
        match pod_wire::send(sender, &syn(flood, *target, &mut random)?) {
            Err(error) if !is_lost(&error) => return Err(error),
            Ok(()) | Err(_) => sent += 1,
        }
        if sent % BURST == 0 {
            // The pause sets the pace: the processor must also serve the clients of the test.
            thread::sleep(PAUSE);
        }
    }
    Ok(sent)
}

/// Whether a queue of the kernel was full. A flood goes on.
fn is_lost(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    error == Some(Errno::ENOBUFS as i32)
}

/// The frame of a SYN from a random source.
fn syn(flood: &Flood, target: SocketAddr, random: &mut Random) -> Result<Vec<u8>> {
    let [high, low] = u16::try_from(random.below(1 << 16))?.to_be_bytes();
    let port = 1024 + u16::try_from(random.below(60_000))?;
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 1, 0], flood.router.octets());
    let network = match (flood.sources, target.ip()) {
        (IpAddr::V4(sources), IpAddr::V4(target)) => {
            let [a, b, ..] = sources.octets();
            link.ipv4([a, b, high, low], target.octets(), 64)
        }
        (IpAddr::V6(sources), IpAddr::V6(target)) => {
            let mut source = sources.octets();
            source[14..].copy_from_slice(&[high, low]);
            link.ipv6(source, target.octets(), 64)
        }
        _ => bail!("sources and targets are of different IP families"),
    };
    let packet = network.tcp(port, target.port(), u32::try_from(random.below(1 << 30))?, 64_000).syn();
    let mut frame = Vec::with_capacity(packet.size(0));
    packet.write(&mut frame, &[]).context("failed to build a packet")?;
    Ok(frame)
}
