//! The source address that the kernel chooses for a destination, and notifications of changes that may affect the choice.

use std::net::IpAddr;

use anyhow::{Context, Result};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::notifications;

/// The rtnetlink groups of links, and of the addresses, routes and rules of both families. When a link goes down, the kernel
/// removes its IPv4 routes without a notification of routes.
const GROUPS: u32 = (libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV4_RULE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE)
    .cast_unsigned()
    | 1 << (libc::RTNLGRP_IPV6_RULE - 1);

/// A socket that asks for routes of the network namespace that it was opened in.
pub struct Routes(Socket);

impl Routes {
    /// Opens a socket in the thread's network namespace.
    pub fn open() -> Result<Self> {
        let mut socket = open()?;
        socket.bind_auto().context("failed to bind a netlink socket")?;
        socket.connect(&SocketAddr::new(0, 0)).context("failed to connect a netlink socket")?;
        Ok(Self(socket))
    }

    /// The source address of an unbound socket that calls the destination. None if no route leads there, or the route names
    /// no source.
    pub fn source(&self, destination: IpAddr) -> Result<Option<IpAddr>> {
        let mut message = NetlinkMessage::new(header(), RouteNetlinkMessage::GetRoute(question(destination)).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0).context("failed to ask for a route")?;
        let (answer, _) = self.0.recv_from_full().context("failed to ask for a route")?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).context("failed to read a route")?;
        // The kernel answers with an error if there is no route, or if the route prohibits or drops the packets.
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) = answer.payload else { return Ok(None) };
        Ok(source_of(&route))
    }
}

/// Opens a non-blocking socket in the thread's network namespace that receives changes of links, addresses, routes and rules.
pub fn changes() -> Result<Socket> {
    notifications::open(GROUPS)
}

fn open() -> Result<Socket> {
    Socket::new(NETLINK_ROUTE).context("failed to open a netlink socket")
}

fn header() -> NetlinkHeader {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    header
}

fn question(destination: IpAddr) -> RouteMessage {
    let mut question = RouteMessage::default();
    (question.header.address_family, question.header.destination_prefix_length) = match destination {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    question.attributes.push(RouteAttribute::Destination(destination.into()));
    question
}

fn source_of(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::PrefSource(RouteAddress::Inet(address)) = attribute {
            return Some(IpAddr::from(*address));
        }
        if let RouteAttribute::PrefSource(RouteAddress::Inet6(address)) = attribute {
            return Some(IpAddr::from(*address));
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_reached_from_itself() -> Result<()> {
        let routes = Routes::open()?;
        let loopback: IpAddr = "127.0.0.1".parse()?;
        assert_eq!(routes.source(loopback)?, Some(loopback));
        // A reserved address has no route of its own; a default route may lead there.
        assert_eq!(routes.source("240.0.0.1".parse()?)?.filter(IpAddr::is_unspecified), None);
        Ok(())
    }
}
