//! Requests to Services, and the answers that cases expect.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use portmap_harness::process::{Answer, Met, Process};
use portmap_suites::service_stage::Transport;

/// Sends a request to an address through a new socket.
pub fn ask(process: &Process, transport: Transport, address: SocketAddr) -> Met<Answer> {
    let socket = process.open_for(address, transport.protocol())?;
    if transport == Transport::UdpUnconnected {
        return socket.converse_with(address);
    }
    socket.connect(address)?;
    socket.converse()
}

/// Expects that each kind of socket gets an answer of `server` (`a 8080`), shown as that of the address. The server must see
/// the client as `client`.
pub fn expect_answers(process: &Process, address: SocketAddr, server: &str, client: IpAddr) -> Result<()> {
    for transport in Transport::ALL {
        let what = || format!("{transport:?} to {address}");
        let answer = ask(process, transport, address).with_context(what)?;
        expect(&answer, transport, server, client).with_context(what)?;
        ensure!(answer.source.is_none_or(|source| source == address), "{}: the answer is shown as {:?}", what(), answer.source);
    }
    Ok(())
}

/// Expects that an answer comes from `server` (`a 8080`), which sees the client as `client`.
pub fn expect(answer: &Answer, transport: Transport, server: &str, client: IpAddr) -> Result<()> {
    let who = format!("{server}/{}", transport.protocol());
    ensure!(answer.who == who, "expected an answer of {who}, but got {answer:?}");
    ensure!(answer.client.ip() == client, "{server} should see {client}, but saw {}", answer.client);
    Ok(())
}
