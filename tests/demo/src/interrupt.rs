//! Records the signals of Ctrl-C, termination and hangup. The demo checks for them between its steps, and then cleans up.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};
use tokio::runtime::Runtime;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

/// Time to wait for a signal after a failed step. A signal may end a child process before this process has recorded the signal.
const SIGNAL_DELAY: Duration = Duration::from_millis(100);

/// The error of a demo that a signal interrupted; holds the signal's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted(u8);

impl Interrupted {
    /// The exit code by the shells' convention: 128 plus the number of the signal.
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

/// Records the first signal. Later signals are ignored, so that they do not interrupt the clean-up.
#[derive(Debug)]
pub struct Interrupts {
    runtime: Runtime,
    first: watch::Receiver<Option<Interrupted>>,
}

impl Interrupts {
    /// Starts to record signals. From here on SIGINT, SIGTERM and SIGHUP do not end this process.
    pub fn listen() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("failed to start the runtime")?;
        let (sender, first) = watch::channel(None);
        let context = runtime.enter();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let signals = signal(kind).context("failed to listen for signals")?;
            runtime.spawn(record(kind, signals, sender.clone()));
        }
        drop(context);
        Ok(Self { runtime, first })
    }

    /// Fails if a signal has arrived. `outcome` is the result of the step before; after an error, the check waits a short time
    /// for a signal.
    pub fn check<T>(&self, outcome: &Result<T>) -> Result<(), Interrupted> {
        if outcome.is_err() {
            // Ctrl-C also ends the child processes, and the step may fail before the signal is recorded.
            drop(self.runtime.block_on(async { timeout(SIGNAL_DELAY, self.recorded()).await }));
        }
        self.first.borrow().map_or(Ok(()), Err)
    }

    /// Blocks until the future is ready, and returns its result. `None` if a signal arrives before.
    pub fn before_signal<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.runtime.block_on(async {
            tokio::select! {
                () = self.recorded() => None,
                result = future => Some(result),
            }
        })
    }

    /// Blocks until a signal arrives. Returns at once if one has arrived before.
    pub fn wait(&self) {
        self.runtime.block_on(self.recorded());
    }

    async fn recorded(&self) {
        // The wait fails only if all senders are dropped, and they live as long as the runtime.
        drop(self.first.clone().wait_for(Option::is_some).await);
    }
}

/// Blocks the signals in this thread. Later child processes inherit this, so Ctrl-C does not end them.
pub fn shield_children() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().context("failed to block signals")
}

async fn record(kind: SignalKind, mut signals: unix::Signal, sender: watch::Sender<Option<Interrupted>>) {
    while signals.recv().await.is_some() {
        let number = u8::try_from(kind.as_raw_value()).unwrap_or_default();
        sender.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(Interrupted(number));
            is_first
        });
    }
}
