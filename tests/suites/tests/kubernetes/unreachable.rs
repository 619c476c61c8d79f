//! Nothing listens at the address of the API server at first. The agent names the address in its log, and keeps trying.

use std::fs;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, socket};
use portmap_harness::world::World;
use serde_json::json;

use crate::agent::Agent;
use crate::tables;

const WARNING: &str = "WARN failed to watch Services";

#[tokio::test]
async fn an_unreachable_api_server_is_named_and_retried() -> Result<()> {
    let world = World::new("unreachable")?;
    let (socket, address) = closed_port()?;
    let kubeconfig = world.directory().join("kubeconfig");
    fs::write(&kubeconfig, kubeconfig_of(&format!("https://{address}"))).context("failed to write a kubeconfig")?;

    let agent = Agent::start(&world, &kubeconfig, &[]).await?;
    agent.await_log(WARNING).await?;
    let status = tables::status(&world)?;
    ensure!(!status.healthy && !status.synced() && status.is_fine("programs"), "{status:?}");

    listen(&socket, Backlog::new(8)?).context("failed to listen")?;
    accept(TcpListener::from(socket)).await.context("the agent should keep trying")?;

    let log = agent.log()?.0;
    let warning = log.lines().find(|line| line.contains(WARNING)).unwrap_or_default();
    ensure!(warning.contains(&address), "the warning should name the address: {warning}");
    agent.terminate()
}

/// A port without a listener. It stays reserved while the descriptor is open.
fn closed_port() -> Result<(OwnedFd, String)> {
    let socket =
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context("failed to create a socket")?;
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).context("failed to bind to 127.0.0.1")?;
    let address: SockaddrIn = getsockname(socket.as_raw_fd()).context("failed to read a socket's address")?;
    Ok((socket, address.to_string()))
}

fn kubeconfig_of(server: &str) -> String {
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "nobody", "user": {"token": "none"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "nobody"}}],
        "current-context": "test",
    });
    kubeconfig.to_string()
}

async fn accept(listener: TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::time::timeout(crate::wait::PATIENCE, listener.accept()).await.context("no connection arrives")??;
    Ok(())
}
