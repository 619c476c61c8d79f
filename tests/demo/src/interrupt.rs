//! Ctrl-C and its kin: noted when they come, looked at between the actions of the demo, so that it always ends clean.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};
use tokio::runtime::Runtime;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

/// How much later than its effects a signal may be noticed.
const LATE: Duration = Duration::from_millis(100);

/// The demo was asked to stop: not a failure of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted(u8);

impl Interrupted {
    /// What a shell expects of a program that a signal ended.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        self.0.saturating_add(128)
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Listens as long as it lives. A second signal changes nothing: cleaning up is not interrupted.
#[derive(Debug)]
pub struct Interrupts {
    runtime: Runtime,
    first: watch::Receiver<Option<Interrupted>>,
}

impl Interrupts {
    /// From here on these signals do not end the process.
    pub fn listen() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("failed to start the runtime")?;
        let (sender, first) = watch::channel(None);
        let context = runtime.enter();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let signals = signal(kind).context("failed to listen for signals")?;
            runtime.spawn(note(kind, signals, sender.clone()));
        }
        drop(context);
        Ok(Self { runtime, first })
    }

    /// Fails once a signal has come. `outcome` is that of the action before.
    pub fn check<T>(&self, outcome: &Result<T>) -> Result<(), Interrupted> {
        if outcome.is_err() {
            // Ctrl-C ends our children too, and their end may be noticed before the signal is.
            drop(self.runtime.block_on(async { timeout(LATE, self.noticed()).await }));
        }
        self.first.borrow().map_or(Ok(()), Err)
    }

    /// Returns when a signal comes.
    pub fn wait(&self) {
        self.runtime.block_on(self.noticed());
    }

    async fn noticed(&self) {
        // It cannot fail: the senders live as long as the runtime does.
        drop(self.first.clone().wait_for(Option::is_some).await);
    }
}

/// From here on the children of this thread are not ended by Ctrl-C either.
pub fn shield_children() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().context("failed to block signals")
}

async fn note(kind: SignalKind, mut signals: unix::Signal, sender: watch::Sender<Option<Interrupted>>) {
    while signals.recv().await.is_some() {
        let number = u8::try_from(kind.as_raw_value()).unwrap_or_default();
        sender.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(Interrupted(number));
            is_first
        });
    }
}
