//! `portmap-pod share`: several threads send requests to many addresses through one UDP socket, as DNS forwarders do.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::listen::Protocol;
use crate::pod_client::{identity, name_of};
use crate::pod_server::READY;
use crate::pod_socket::{Domain, RawSocket};

/// Number of replies with the same source and server. The program prints each as a line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Source address that `recvfrom()` returned.
    pub source: SocketAddr,
    /// Pod and port of the replies, for example `pod-a 8080/UDP`.
    pub answer: String,
    /// Number of replies.
    pub count: u64,
}

/// Sends requests to all targets from `threads` threads until standard input ends, then prints each [`Heard`].
pub fn share(threads: u8, targets: &[SocketAddr]) -> Result<()> {
    let first = targets.first().context("no target address was given")?;
    let socket = RawSocket::open(Domain::of(*first), Protocol::Udp).context("failed to open a socket")?;
    let stop = AtomicBool::new(false);
    let heard = thread::scope(|scope| {
        let (socket, stop) = (&socket, &stop);
        let senders: Vec<_> = (0..threads).map(|number| scope.spawn(move || ask(socket, number, targets, stop))).collect();
        let receiver = scope.spawn(|| listen(socket, stop));
        writeln!(io::stdout(), "{READY}")?;
        let ended = io::copy(&mut io::stdin().lock(), &mut io::sink());
        stop.store(true, Ordering::Relaxed);
        for sender in senders {
            sender.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        ended.context("failed to read standard input")?;
        receiver.join().map_err(|_| anyhow!("a thread panicked"))?
    })?;
    for ((source, answer), count) in heard {
        let line = serde_json::to_string(&Heard { source, answer, count }).context("failed to write JSON")?;
        writeln!(io::stdout(), "{line}").context("failed to print")?;
    }
    Ok(())
}

/// Sends requests to the targets until `stop` is set. The thread's number determines the first target and the step width, so
/// the threads use different orders.
fn ask(socket: &RawSocket, number: u8, targets: &[SocketAddr], stop: &AtomicBool) -> Result<()> {
    let mut at = usize::from(number);
    while !stop.load(Ordering::Relaxed) {
        at += 1 + 2 * usize::from(number);
        if let Some(target) = targets.get(at % targets.len()) {
            socket.send("who", Some(*target)).with_context(|| format!("failed to send to {target}"))?;
        }
    }
    Ok(())
}

/// Counts the replies until `stop` is set and no reply arrives within the socket's time limit. Fails if the time limit passes
/// before `stop` is set.
fn listen(socket: &RawSocket, stop: &AtomicBool) -> Result<BTreeMap<(SocketAddr, String), u64>> {
    let mut heard = BTreeMap::new();
    loop {
        match socket.receive() {
            Ok(datagram) => {
                let source = datagram.source.context("a datagram has no source address")?;
                *heard.entry((source, identity(&datagram.text))).or_default() += 1;
            }
            Err(_) if stop.load(Ordering::Relaxed) => return Ok(heard),
            Err(error) => return Err(anyhow!("failed to receive: {}", name_of(&error))),
        }
    }
}
