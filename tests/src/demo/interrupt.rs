//! Ctrl-C and its kin: noted when they come, looked at between the actions of the demo, so that it always ends clean.

use std::fmt;

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

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

    /// Fails once a signal has come.
    pub fn check(&self) -> Result<(), Interrupted> {
        self.first.borrow().map_or(Ok(()), Err)
    }

    /// Returns when a signal comes.
    pub fn wait(&self) {
        let mut first = self.first.clone();
        // The senders live as long as the runtime does.
        drop(self.runtime.block_on(first.wait_for(Option::is_some)));
    }
}

async fn note(kind: SignalKind, mut signals: Signal, sender: watch::Sender<Option<Interrupted>>) {
    while signals.recv().await.is_some() {
        let number = u8::try_from(kind.as_raw_value()).unwrap_or_default();
        sender.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(Interrupted(number));
            is_first
        });
    }
}
