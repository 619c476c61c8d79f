//! A steady series of short connections and datagrams from the client outside the node, while a test changes the proxies.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use portmap_harness::listen::Protocol;
use portmap_harness::world::Pod;

use crate::dial::{Outcome, dial, enter};

/// The pause of a thread between two requests.
const PAUSE: Duration = Duration::from_millis(20);
/// The time limit of a request. It admits two repetitions of a lost SYN.
pub const LIMIT: Duration = Duration::from_secs(5);

/// A frontend, and the server that should answer there, as in `a 8080/TCP`.
#[derive(Clone, Debug)]
pub struct Target {
    pub protocol: Protocol,
    pub address: SocketAddr,
    pub server: String,
}

/// A running series. Dropping this ends it after the current requests.
pub struct Series {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Report>>>,
}

/// The requests of a series.
#[derive(Debug, Default)]
pub struct Report {
    /// Number of requests.
    pub count: usize,
    /// The longest request.
    pub longest: Duration,
    /// A text for each request without the expected answer.
    pub failures: Vec<String>,
}

impl Series {
    /// Starts a thread for each target, in the network namespace of the client. The client has an address of each family.
    pub fn start(client: &Pod, targets: &[Target]) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let work = |target: &Target| {
            let (target, is_over, namespace) = (target.clone(), Arc::clone(&is_over), client.namespace().to_owned());
            let from = if target.address.is_ipv4() { client.ipv4().into() } else { client.ipv6().into() };
            thread::spawn(move || enter(&namespace).map(|()| Report::of(from, &target, &is_over)))
        };
        let threads = targets.iter().map(work).collect();
        Self { is_over, threads }
    }

    /// Ends the series. Fails if a request was not answered by its server.
    pub fn finish(mut self) -> Result<Report> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut total = Report::default();
        for thread in self.threads.drain(..) {
            let Report { count, longest, failures } = thread.join().map_err(|_| anyhow!("a thread panicked"))??;
            total.count += count;
            total.longest = total.longest.max(longest);
            total.failures.extend(failures);
        }
        let first = total.failures.first().map_or("", String::as_str);
        ensure!(total.failures.is_empty(), "{} of {} requests failed, the first: {first}", total.failures.len(), total.count);
        ensure!(total.count > 0, "there was no request");
        Ok(total)
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Report {
    fn of(from: IpAddr, target: &Target, is_over: &AtomicBool) -> Self {
        let (mut report, begin) = (Self::default(), Instant::now());
        while !is_over.load(Ordering::Relaxed) {
            let start = Instant::now();
            let outcome = dial((from, 0).into(), target.protocol, target.address, LIMIT);
            report.count += 1;
            report.longest = report.longest.max(start.elapsed());
            if !matches!(&outcome, Outcome::Answered(who, _) if *who == target.server) {
                report.failures.push(format!("{target:?} after {:?}: {outcome:?}", begin.elapsed()));
            }
            // The rate of a client, not a wait for an event.
            thread::sleep(PAUSE);
        }
        report
    }
}
