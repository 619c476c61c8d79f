//! A TCP proxy before the API server, which forwards connections, resets them or keeps them silent.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use anyhow::{Context, Result, anyhow};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::world::World;

/// The handling of connections. Setting [`Self::Silent`] also makes existing connections silent. Setting any other mode resets
/// existing connections, even if that mode is already set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// New connections are forwarded to the API server.
    Open,
    /// New connections are reset.
    Reset,
    /// Clients' connections stay open, but carry no data, as after a firewall lost its state. Those to the API server close.
    Silent,
}

/// A running proxy, at first in [`Mode::Open`]. Dropping this stops it.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    task: JoinHandle<()>,
}

impl Gate {
    /// Starts a proxy on a free port of 127.0.0.1, before the API server at `server`.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("failed to listen on 127.0.0.1")?;
        Self::serve(listener, server)
    }

    /// As [`Self::start`], but listens on an address and port of the node of `world`. The connection to the server starts in
    /// this process's own network namespace.
    pub fn start_on_node(world: &World, address: SocketAddr, server: SocketAddr) -> Result<Self> {
        // The listening socket stays in the network namespace of the node, in which it is made.
        let listen = || {
            world.enter()?;
            std::net::TcpListener::bind(address).with_context(|| format!("failed to listen on {address}"))
        };
        let listener = thread::scope(|scope| scope.spawn(listen).join()).map_err(|_| anyhow!("the thread panicked"))??;
        listener.set_nonblocking(true)?;
        Self::serve(TcpListener::from_std(listener)?, server)
    }

    fn serve(listener: TcpListener, server: SocketAddr) -> Result<Self> {
        let address = listener.local_addr()?;
        let mode = watch::Sender::new(Mode::Open);
        let task = tokio::spawn(accept_connections(listener, server, mode.subscribe()));
        Ok(Self { address, mode, task })
    }

    /// The proxy's URL, `https://<address>:<port>`, which clients use instead of the API server's.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Sets the mode. Silent connections stay silent until another mode is set, which resets them.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept_connections(listener: TcpListener, server: SocketAddr, mode: watch::Receiver<Mode>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(handle(client, server, mode.clone()));
    }
}

async fn handle(mut client: TcpStream, server: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let initial_mode = *mode.borrow_and_update();
    if initial_mode == Mode::Open {
        tokio::select! {
            // Both connections close when `forward` ends, so client and server notice.
            _ = forward(&mut client, server) => return,
            _ = mode.changed() => {}
        }
    }
    while *mode.borrow_and_update() == Mode::Silent {
        if mode.changed().await.is_err() {
            return;
        }
    }
    // With a linger time of zero, closing the socket sends a reset.
    client.set_zero_linger().ok();
}

async fn forward(client: &mut TcpStream, server: SocketAddr) -> Result<()> {
    let mut upstream = TcpStream::connect(server).await?;
    copy_bidirectional(client, &mut upstream).await?;
    Ok(())
}
