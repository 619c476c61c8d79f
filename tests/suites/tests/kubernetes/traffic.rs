//! A client that connects to two frontends during a whole test. No connection may fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow, ensure};
use portmap_harness::listen::Protocol;
use portmap_harness::pod_client::Answers;
use portmap_harness::world::{Client, World};

/// Number of connections in one call of the client.
const BATCH: u32 = 50;

/// A running client, in its own thread.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Answers>>,
}

impl Traffic {
    /// Connects to the frontends in turn until it is stopped.
    pub fn start(world: &World, frontends: [SocketAddr; 2]) -> Result<Self> {
        let client = world.client("traffic")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || connect(&client, frontends, &stopped));
        Ok(Self { stop, thread })
    }

    /// Stops the client, and fails if any connection failed.
    pub fn expect_no_errors(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let answers = self.thread.join().map_err(|_| anyhow!("the thread that connects panicked"))??;
        ensure!(!answers.replies.is_empty(), "no connection was made");
        ensure!(answers.errors.is_empty(), "not all connections were made:\n{answers}");
        Ok(())
    }
}

fn connect(client: &Client, frontends: [SocketAddr; 2], stop: &AtomicBool) -> Result<Answers> {
    let mut all = Answers::default();
    for frontend in frontends.into_iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let answers = client.connect(frontend, Protocol::Tcp, BATCH).context("failed to connect")?;
        for (reply, count) in answers.replies {
            *all.replies.entry(reply).or_default() += count;
        }
        for (error, count) in answers.errors {
            *all.errors.entry(error).or_default() += count;
        }
    }
    Ok(all)
}
