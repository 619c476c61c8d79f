//! A gate on the way to the API server, through which all bytes of a client go, or not.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use anyhow::{Context, Result, anyhow};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::world::World;

/// What becomes of connections. Those that there are end with every change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They lead to the API server.
    Open,
    /// They are reset.
    Reset,
    /// They are accepted, stay, and lead nowhere, as when a firewall has forgotten them.
    Silent,
}

/// A gate, open at first. It is there until dropped.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    porter: JoinHandle<()>,
}

impl Gate {
    /// Sets one up on a port of loopback.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("failed to listen on 127.0.0.1")?;
        Self::attend(listener, server)
    }

    /// As [`Self::start`], on an address of the node of a world, which may be one that it has for this. The server is reached from
    /// where this process is.
    pub fn start_on_node(world: &World, address: SocketAddr, server: SocketAddr) -> Result<Self> {
        // The socket stays in the network namespace that it was made in.
        let listen = || {
            world.enter()?;
            std::net::TcpListener::bind(address).with_context(|| format!("failed to listen on {address}"))
        };
        let listener = thread::scope(|scope| scope.spawn(listen).join()).map_err(|_| anyhow!("the thread panicked"))??;
        listener.set_nonblocking(true)?;
        Self::attend(TcpListener::from_std(listener)?, server)
    }

    fn attend(listener: TcpListener, server: SocketAddr) -> Result<Self> {
        let address = listener.local_addr()?;
        let mode = watch::Sender::new(Mode::Open);
        let porter = tokio::spawn(attend(listener, server, mode.subscribe()));
        Ok(Self { address, mode, porter })
    }

    /// What a client of the API server is told.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Opens or closes it. Silent connections stay silent until the next change, which resets them.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.porter.abort();
    }
}

async fn attend(listener: TcpListener, server: SocketAddr, mode: watch::Receiver<Mode>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(treat(client, server, mode.clone()));
    }
}

async fn treat(mut client: TcpStream, server: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let began_in = *mode.borrow_and_update();
    if began_in == Mode::Open {
        tokio::select! {
            // However it ends, both ends see it.
            _ = pass(&mut client, server) => return,
            _ = mode.changed() => {}
        }
    }
    while *mode.borrow_and_update() == Mode::Silent {
        if mode.changed().await.is_err() {
            return;
        }
    }
    // Closing with this set sends a reset.
    client.set_zero_linger().ok();
}

async fn pass(client: &mut TcpStream, server: SocketAddr) -> Result<()> {
    let mut upstream = TcpStream::connect(server).await?;
    copy_bidirectional(client, &mut upstream).await?;
    Ok(())
}
