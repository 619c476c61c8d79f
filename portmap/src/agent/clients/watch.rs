//! Watches of the network namespaces in which the source address of a call depends on links, addresses and routes.
//!
//! [`super::survey`] opens the sockets. The watches report which namespaces changed, so that a survey visits them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Result;
use netlink_sys::Socket;
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};

use crate::kernel::{namespaces::Id, notifications::Notifications};

/// The number of reports that may wait for the agent's loop.
const QUEUE: usize = 64;

/// The shortest time between two reports of one namespace.
const PAUSE: Duration = Duration::from_millis(500);

/// The watched namespaces, and the reports of their changes.
pub struct NamespaceWatches {
    tasks: BTreeMap<Id, Task>,
    sender: mpsc::Sender<Id>,
    receiver: mpsc::Receiver<Id>,
    changed: BTreeSet<Id>,
}

/// A task that is aborted when this is dropped.
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
    /// Returns after a change in a watched namespace.
    pub async fn changed(&mut self) {
        // The channel is never closed: `self.sender` is one of its senders.
        if let Some(id) = self.receiver.recv().await {
            self.changed.insert(id);
        }
    }

    /// The namespaces that have changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<Id> {
        std::mem::take(&mut self.changed)
    }

    /// Removes and returns the namespaces whose watch has failed.
    pub fn take_lost(&mut self) -> BTreeSet<Id> {
        let lost: BTreeSet<Id> = self.tasks.iter().filter(|(_, task)| task.0.is_finished()).map(|(id, _)| *id).collect();
        self.tasks.retain(|id, _| !lost.contains(id));
        lost
    }

    /// Watches the namespaces `watched` and no others. `opened` has the sockets of the new watches.
    pub fn keep(&mut self, watched: &BTreeSet<Id>, opened: Vec<(Id, Socket)>) {
        self.tasks.retain(|id, _| watched.contains(id));
        for (id, socket) in opened {
            self.tasks.insert(id, Task(tokio::spawn(watch(id, socket, self.sender.clone()))));
        }
    }
}

async fn watch(id: Id, socket: Socket, sender: mpsc::Sender<Id>) -> Result<()> {
    let notifications = Notifications::of(socket)?;
    loop {
        notifications.next().await?;
        sender.send(id).await?;
        sleep(PAUSE).await;
    }
}
