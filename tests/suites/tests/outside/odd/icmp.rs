//! ICMP errors about the answers of a Service, from a router between the Service and its client.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;

use super::build::{Built, Flow};
use super::check::{UDP, ones_sum};
use super::packets::Fate;

/// The name of the error with a wrong checksum.
pub const WRONG: &str = "a wrong checksum";

/// An ICMP error.
#[derive(Clone, Debug)]
pub struct Odd {
    pub name: &'static str,
    pub fate: Fate,
    pub packet: Vec<u8>,
}

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// An ICMP error with this type and code from `router`, which quotes a packet.
fn error(router: IpAddr, to: IpAddr, [kind, code]: [u8; 2], quoted: &[u8]) -> Result<Vec<u8>> {
    let mut message = [&[kind, code, 0, 0, 0, 0, 0, 0], quoted].concat();
    let mut pseudo = Vec::new();
    if let (IpAddr::V6(router), IpAddr::V6(to)) = (router, to) {
        let length = u32::try_from(message.len())?.to_be_bytes();
        pseudo = [&router.octets()[..], &to.octets(), &length, &[0, 0, 0, ICMPV6]].concat();
    }
    let checksum = !ones_sum([&pseudo[..], &message[..]]);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let flow = Flow { source: SocketAddr::new(router, 0), destination: SocketAddr::new(to, 0) };
    Ok(flow.packet(if to.is_ipv4() { ICMP } else { ICMPV6 }, &message)?.bytes)
}

/// Errors about an answer of `frontend` to `client`, sent by `router`.
pub fn errors(router: IpAddr, frontend: SocketAddr, client: SocketAddr) -> Result<Vec<Odd>> {
    let answer = Flow { source: frontend, destination: client };
    let whole = answer.packet(UDP, &answer.udp(b"a 8080/UDP from the test\n")?)?;
    let cut = |built: &Built, length: usize| built.bytes[..built.transport + length].to_vec();
    let is_v4 = client.is_ipv4();
    let [unreachable, too_late] = if is_v4 { [[3, 1], [11, 0]] } else { [[1, 3], [3, 0]] };
    let redirect = if is_v4 { [5, 1] } else { [137, 0] };
    // An echo request, which quotes nothing.
    let echo = if is_v4 { [8, 0] } else { [128, 0] };
    let extra = if is_v4 { vec![1, 1, 1, 0] } else { vec![UDP, 0, 1, 4, 0, 0, 0, 0] };
    let extended = answer.extended(if is_v4 { UDP } else { 60 }, &extra, &answer.udp(b"x")?)?;
    let stranger = Flow { source: frontend, destination: SocketAddr::new(client.ip(), 9) };
    let stranger = stranger.packet(UDP, &stranger.udp(b"x")?)?;
    let foreign = answer.packet(132, &answer.udp(b"x")?)?;
    let make = |name, fate, kind, quoted: &[u8]| -> Result<Odd> {
        Ok(Odd { name, fate, packet: error(router, frontend.ip(), kind, quoted)? })
    };
    let mut wrong = make(WRONG, Fate::Either, unreachable, &whole.bytes)?;
    // The network header of the error has no options, as that of the answer.
    wrong.packet[whole.transport + 2] ^= 0x55;
    let mut short = make("a quoted packet behind the end", Fate::Lost, unreachable, &whole.bytes)?;
    let (at, length): (usize, u16) = if is_v4 { (2, 28) } else { (4, 8) };
    short.packet[at..at + 2].copy_from_slice(&length.to_be_bytes());
    Ok(vec![
        make("the whole answer", Fate::Delivered, unreachable, &whole.bytes)?,
        make("the time to live has ended", Fate::Delivered, too_late, &whole.bytes)?,
        make("eight bytes of UDP", Fate::Delivered, unreachable, &cut(&whole, 8))?,
        make("four bytes of UDP", Fate::Either, unreachable, &cut(&whole, 4))?,
        make("three bytes of UDP", Fate::Lost, unreachable, &cut(&whole, 3))?,
        make("half a network header", Fate::Lost, unreachable, &whole.bytes[..12])?,
        make("nothing", Fate::Lost, unreachable, &[])?,
        make("options or extension headers", Fate::Either, unreachable, &extended.bytes)?,
        make("an answer to another port", Fate::Lost, unreachable, &stranger.bytes)?,
        make("another protocol", Fate::Lost, unreachable, &foreign.bytes)?,
        make("a redirect", Fate::Lost, redirect, &whole.bytes)?,
        make("an echo request", Fate::Lost, echo, &whole.bytes)?,
        wrong,
        short,
    ])
}
