//! The destruction of sockets (`SOCK_DESTROY` of sock_diag) in the thread's network namespace.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_sock_diag::{
    SockDiagDestroy, SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};

/// The cookie that matches any socket (`INET_DIAG_NOCOOKIE`).
const ANY_COOKIE: [u8; 8] = [0xff; 8];

/// Whether the kernel can destroy sockets (`CONFIG_INET_DIAG_DESTROY`).
pub fn is_supported() -> Result<bool> {
    let mut id = SocketId::new_v4();
    id.cookie = ANY_COOKIE;
    match destroy(&mut open()?, AF_INET, id)? {
        Outcome::Destroyed | Outcome::Gone => Ok(true),
        Outcome::Unsupported => Ok(false),
    }
}

/// Destroys UDP sockets that are still connected to the given peer. `sockets`: the peer of each socket, by the socket's
/// cookie. Returns the number of destroyed sockets.
pub fn destroy_udp(sockets: &BTreeMap<u64, SocketAddr>) -> Result<usize> {
    let mut netlink = open()?;
    let mut destroyed = 0;
    for family in [AF_INET, AF_INET6] {
        for id in connected(&mut netlink, family)? {
            let peer = SocketAddr::new(id.destination_address.to_canonical(), id.destination_port);
            if sockets.get(&u64::from_ne_bytes(id.cookie)) == Some(&peer)
                && destroy(&mut netlink, family, id)? == Outcome::Destroyed
            {
                destroyed += 1;
            }
        }
    }
    Ok(destroyed)
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Destroyed,
    Gone,
    Unsupported,
}

fn open() -> Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).context("failed to open a sock_diag socket")?;
    socket.bind_auto().context("failed to bind a sock_diag socket")?;
    socket.connect(&NetlinkAddr::new(0, 0)).context("failed to connect a sock_diag socket")?;
    Ok(socket)
}

fn connected(netlink: &mut Socket, family: u8) -> Result<Vec<SocketId>> {
    let id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    send(netlink, NLM_F_REQUEST | NLM_F_DUMP, SockDiagMessage::InetRequest(request(family, id)).into())?;
    let mut found = Vec::new();
    loop {
        let (answer, _) = netlink.recv_from_full().context("failed to list UDP sockets")?;
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<SockDiagMessage>::deserialize(rest).context("failed to read a list of UDP sockets")?;
            let length = (message.header.length as usize).next_multiple_of(4).max(1);
            if let NetlinkPayload::Done(_) = message.payload {
                return Ok(found);
            }
            if let NetlinkPayload::Error(error) = &message.payload {
                ensure!(error.code.is_none(), "failed to list UDP sockets: {}", error.to_io());
            }
            if let NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) = message.payload {
                found.push(response.header.socket_id);
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

fn destroy(netlink: &mut Socket, family: u8, id: SocketId) -> Result<Outcome> {
    let message = SockDiagDestroy::new(SockDiagMessage::InetRequest(request(family, id)));
    send(netlink, NLM_F_REQUEST | NLM_F_ACK, message.into())?;
    let (answer, _) = netlink.recv_from_full().context("failed to destroy a socket")?;
    let answer =
        NetlinkMessage::<SockDiagMessage>::deserialize(&answer).context("failed to read the answer to SOCK_DESTROY")?;
    let NetlinkPayload::Error(error) = answer.payload else { bail!("SOCK_DESTROY was answered by something else") };
    match error.to_io().raw_os_error() {
        _ if error.code.is_none() => Ok(Outcome::Destroyed),
        Some(libc::ENOENT) => Ok(Outcome::Gone),
        Some(libc::EOPNOTSUPP | libc::EINVAL) => Ok(Outcome::Unsupported),
        _ => Err(error.to_io()).context("failed to destroy a socket; portmap needs CAP_NET_ADMIN"),
    }
}

fn request(family: u8, socket_id: SocketId) -> InetRequest {
    InetRequest {
        family,
        protocol: IPPROTO_UDP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::ESTABLISHED,
        socket_id,
    }
}

fn send<M: NetlinkSerializable>(netlink: &mut Socket, flags: u16, payload: NetlinkPayload<M>) -> Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    netlink.send(&bytes, 0).context("failed to ask sock_diag")?;
    Ok(())
}
