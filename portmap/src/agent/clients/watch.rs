//! Word of changes in namespaces with several addresses: which of them is the source depends on links, addresses and routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use anyhow::{Context as _, Result};
use netlink_sys::Socket;
use rustix::process::{Resource, getrlimit};
use tokio::{io::unix::AsyncFd, sync::mpsc, task::JoinHandle, time::sleep};

use crate::kernel::namespaces::Id;

/// Namespaces that are watched. Each takes a file and is kept alive until the next look finds nobody in it.
const WATCHED: u64 = 256;

/// The share of the files that the agent may open which is for these.
const SHARE: u64 = 8;

/// Words that may wait.
const QUEUE: usize = 64;

/// Between two words of one namespace, however often it changes.
const PAUSE: Duration = Duration::from_millis(500);

/// How many namespaces may be watched.
pub fn room() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from((files / SHARE).min(WATCHED)).unwrap_or_default()
}

/// The namespaces that are watched.
pub struct NamespaceWatches {
    tasks: BTreeMap<Id, Task>,
    sender: mpsc::Sender<Id>,
    receiver: mpsc::Receiver<Id>,
    changed: BTreeSet<Id>,
}

/// Ends when it is dropped.
struct Task(JoinHandle<Result<()>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Default for NamespaceWatches {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        Self { tasks: BTreeMap::new(), sender, receiver, changed: BTreeSet::new() }
    }
}

impl NamespaceWatches {
    /// Returns after a change.
    pub async fn word(&mut self) {
        // There is always a sender: this one's.
        if let Some(id) = self.receiver.recv().await {
            self.changed.insert(id);
        }
    }

    /// The namespaces that have changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<Id> {
        std::mem::take(&mut self.changed)
    }

    /// The namespaces that cannot be watched any more since the last call.
    pub fn take_lost(&mut self) -> BTreeSet<Id> {
        let lost: BTreeSet<Id> = self.tasks.iter().filter(|(_, task)| task.0.is_finished()).map(|(id, _)| *id).collect();
        self.tasks.retain(|id, _| !lost.contains(id));
        lost
    }

    /// Watches these and no others, with sockets for those that were not watched before.
    pub fn keep(&mut self, watched: &BTreeSet<Id>, opened: Vec<(Id, Socket)>) {
        self.tasks.retain(|id, _| watched.contains(id));
        for (id, socket) in opened {
            self.tasks.insert(id, Task(tokio::spawn(watch(id, socket, self.sender.clone()))));
        }
    }
}

async fn watch(id: Id, socket: Socket, sender: mpsc::Sender<Id>) -> Result<()> {
    // SAFETY: the socket has one file for its whole life, which is that of the registration.
    let socket = unsafe { AsyncFd::register(socket) }?;
    loop {
        drain(&socket).await?;
        sender.send(id).await?;
        sleep(PAUSE).await;
    }
}

/// Waits for a change, and reads all that there are. Which they were does not matter: everything is asked anew. Nor does it if some
/// were lost (ENOBUFS).
async fn drain(socket: &AsyncFd<Socket>) -> Result<()> {
    let is_lost = |error: &io::Error| error.raw_os_error() == Some(libc::ENOBUFS);
    let mut guard = socket.readable().await.context("failed to listen for changes of routes")?;
    loop {
        match guard.try_io(|socket| socket.get_ref().recv_from_full()) {
            Ok(Err(error)) if !is_lost(&error) => return Err(error).context("failed to listen for changes of routes"),
            Ok(_) => {}
            Err(_) => return Ok(()),
        }
    }
}
