//! Packets that are unusual or wrong, for a Service with one endpoint.

use std::net::SocketAddr;

use anyhow::Result;
use portmap_harness::dual_stack::Via;

use super::build::{Built, Flow};
use super::check::{TCP, UDP};

/// What becomes of a packet, seen from the endpoint. A packet that arrives must always be translated correctly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Delivered,
    /// It does not arrive: it is dropped, or left as it is.
    Lost,
    /// It may arrive.
    Either,
}

/// An unusual packet.
#[derive(Clone, Debug)]
pub struct Odd {
    pub name: String,
    pub fate: Fate,
    pub protocol: u8,
    pub flow: Flow,
    pub built: Built,
}

/// Makes packets with different source ports.
pub struct Maker {
    source: SocketAddr,
    destination: SocketAddr,
    pub made: Vec<Odd>,
}

/// TCP flags: the last byte.
mod flag {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
    pub const URG: u8 = 32;
    pub const ECE: u8 = 64;
    pub const CWR: u8 = 128;
}

impl Maker {
    /// Makes packets from `source`, whose port is the first one, to `destination`.
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        Self { source, destination, made: Vec::new() }
    }

    /// Adds a packet that `build` makes for a new source port.
    fn add(&mut self, name: &str, fate: Fate, protocol: u8, build: impl FnOnce(Flow) -> Result<Built>) -> Result<()> {
        self.source.set_port(self.source.port() + 1);
        self.add_from(self.source, name, fate, protocol, build)
    }

    /// As [`Self::add`], with this source.
    fn add_from(
        &mut self,
        source: SocketAddr,
        name: &str,
        fate: Fate,
        protocol: u8,
        build: impl FnOnce(Flow) -> Result<Built>,
    ) -> Result<()> {
        let flow = Flow { source, destination: self.destination };
        self.made.push(Odd { name: name.to_owned(), fate, protocol, flow, built: build(flow)? });
        Ok(())
    }

    /// Makes the packets of this family.
    pub fn all(&mut self, via: Via) -> Result<()> {
        self.udp()?;
        self.tcp()?;
        self.sources()?;
        self.lengths(via)?;
        match via {
            Via::V6 => self.extensions(),
            Via::V4 | Via::Mapped => self.options().and_then(|()| self.headers()),
        }
    }

    fn udp(&mut self) -> Result<()> {
        self.add("an ordinary datagram", Fate::Delivered, UDP, |flow| flow.packet(UDP, &flow.udp(b"who")?))?;
        self.add("an empty datagram", Fate::Delivered, UDP, |flow| flow.packet(UDP, &flow.udp(b"")?))?;
        self.add("a datagram without a checksum", Fate::Either, UDP, |flow| {
            let mut transport = flow.udp(b"who")?;
            transport[6..8].fill(0);
            flow.packet(UDP, &transport)
        })?;
        self.add("a datagram with a wrong checksum", Fate::Either, UDP, |flow| {
            let mut transport = flow.udp(b"who")?;
            transport[6] ^= 1;
            flow.packet(UDP, &transport)
        })?;
        self.add("a datagram that claims to be longer", Fate::Either, UDP, |flow| {
            let mut transport = flow.udp(b"who")?;
            transport[4..6].copy_from_slice(&500_u16.to_be_bytes());
            flow.packet(UDP, &transport)
        })?;
        for length in [0, 2, 4, 7] {
            let name = format!("a UDP header of {length} bytes");
            self.add(&name, Fate::Lost, UDP, |flow| flow.packet(UDP, &flow.udp(b"")?[..length]))?;
        }
        for protocol in [0x21, 0x84, 0x88] {
            let name = format!("a packet of the protocol {protocol}");
            self.add(&name, Fate::Lost, protocol, |flow| flow.packet(protocol, &flow.udp(b"who")?))?;
        }
        Ok(())
    }

    fn tcp(&mut self) -> Result<()> {
        use flag::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG};
        for (flags, fate) in [
            (SYN, Fate::Delivered),
            (SYN | ECE | CWR, Fate::Delivered),
            (SYN | PSH | URG, Fate::Either),
            (SYN | ACK, Fate::Lost),
            (SYN | FIN, Fate::Lost),
            (SYN | RST, Fate::Lost),
            (ACK, Fate::Lost),
            (FIN | ACK, Fate::Lost),
            (RST, Fate::Lost),
            (FIN | PSH | URG, Fate::Lost),
            (0, Fate::Lost),
            (u8::MAX, Fate::Lost),
        ] {
            let name = format!("a TCP packet with the flags {flags:#010b}");
            self.add(&name, fate, TCP, |flow| flow.packet(TCP, &flow.tcp(flags, b"")?))?;
        }
        self.add("a SYN with data", Fate::Delivered, TCP, |flow| flow.packet(TCP, &flow.tcp(SYN, b"who\n")?))?;
        self.add("a SYN whose header claims to be longer than the packet", Fate::Either, TCP, |flow| {
            let mut transport = flow.tcp(SYN, b"")?;
            transport[12] = 0xf0;
            flow.packet(TCP, &transport)
        })?;
        for length in [0, 4, 8, 13, 14, 17] {
            let name = format!("a TCP header of {length} bytes");
            self.add(&name, Fate::Lost, TCP, |flow| flow.packet(TCP, &flow.tcp(SYN, b"")?[..length]))?;
        }
        Ok(())
    }

    /// Sources that no client has. The kernel routes no packet from most of them.
    fn sources(&mut self) -> Result<()> {
        let own = self.source.ip();
        // The kernel forwards IPv6 packets from `::` and from a link-local address through the interface that received them.
        let (others, routed): (&[&str], &[&str]) = if own.is_ipv4() {
            (&["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"], &[])
        } else {
            (&["::1", "ff02::1"], &["::", "fe80::1"])
        };
        let others = others.iter().map(|source| (*source, Fate::Lost));
        let sources: Vec<_> = others.chain(routed.iter().map(|source| (*source, Fate::Either))).collect();
        for (protocol, name) in [(UDP, "UDP"), (TCP, "TCP")] {
            let build = |flow: Flow| {
                let transport = if protocol == UDP { flow.udp(b"who")? } else { flow.tcp(flag::SYN, b"")? };
                flow.packet(protocol, &transport)
            };
            self.add_from(SocketAddr::new(own, 0), &format!("{name} from port 0"), Fate::Lost, protocol, build)?;
            for (source, fate) in &sources {
                let name = format!("{name} from {source}");
                self.add_from(SocketAddr::new(source.parse()?, 45_000), &name, *fate, protocol, build)?;
            }
            let name = format!("{name} from the node's own address");
            self.add_from(SocketAddr::new(self.destination.ip(), 45_000), &name, Fate::Either, protocol, build)?;
        }
        Ok(())
    }

    /// Packets whose length differs from the one in the network header.
    fn lengths(&mut self, via: Via) -> Result<()> {
        let at = if via == Via::V6 { 4 } else { 2 };
        self.add("a packet in a longer frame", Fate::Delivered, UDP, |flow| {
            let mut built = flow.packet(UDP, &flow.udp(b"who")?)?;
            built.bytes.extend([0xaa; 30]);
            Ok(built)
        })?;
        self.add("a transport header outside of the packet", Fate::Lost, UDP, |flow| {
            let mut built = flow.packet(UDP, &flow.udp(b"who")?)?;
            let length: u16 = if via == Via::V6 { 0 } else { 20 };
            built.bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
            Ok(built)
        })?;
        self.add("a packet that claims to be longer", Fate::Lost, UDP, |flow| {
            let mut built = flow.packet(UDP, &flow.udp(b"who")?)?;
            built.bytes[at..at + 2].copy_from_slice(&900_u16.to_be_bytes());
            Ok(built)
        })
    }

    fn options(&mut self) -> Result<()> {
        for (name, options, fate) in [
            ("options that do nothing", &[1, 1, 1, 0][..], Fate::Delivered),
            ("the option router alert", &[148, 4, 0, 0], Fate::Delivered),
            ("the longest options", &[1; 40], Fate::Delivered),
            ("a source route", &[131, 7, 4, 10, 244, 1, 2, 0], Fate::Lost),
            ("an option of length 0", &[7, 0, 0, 0], Fate::Lost),
        ] {
            self.add(name, fate, UDP, |flow| flow.extended(UDP, options, &flow.udp(b"who")?))?;
            self.add(name, fate, TCP, |flow| flow.extended(TCP, options, &flow.tcp(flag::SYN, b"")?))?;
        }
        Ok(())
    }

    /// IPv4 headers that contradict themselves, and fragments.
    fn headers(&mut self) -> Result<()> {
        let with = |change: fn(&mut [u8])| {
            move |flow: Flow| {
                let mut built = flow.packet(UDP, &flow.udp(b"who is there?...")?)?;
                change(&mut built.bytes);
                Ok(built)
            }
        };
        self.add("version 5", Fate::Lost, UDP, with(|bytes| bytes[0] = 0x55))?;
        self.add("version 6 in a frame of IPv4", Fate::Lost, UDP, with(|bytes| bytes[0] = 0x65))?;
        self.add("a header of 16 bytes", Fate::Lost, UDP, with(|bytes| bytes[0] = 0x44))?;
        self.add("a header that is longer than the packet", Fate::Lost, UDP, with(|bytes| bytes[0] = 0x4f))?;
        self.add("a later fragment without the first", Fate::Lost, UDP, with(|bytes| bytes[7] = 1))?;
        self.add("only a first fragment", Fate::Either, UDP, with(|bytes| bytes[6] = 0x20))?;
        self.add("a first fragment without the TCP flags", Fate::Lost, TCP, |flow| {
            let mut built = flow.packet(TCP, &flow.tcp(flag::SYN, b"")?[..8])?;
            built.bytes[6] = 0x20;
            Ok(built)
        })
    }

    fn extensions(&mut self) -> Result<()> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const AUTHENTICATION: u8 = 51;
        const NOTHING: u8 = 59;
        const DESTINATION: u8 = 60;
        let padding = |next: u8| vec![next, 0, 1, 4, 0, 0, 0, 0];
        let chain = |count: usize, last: u8| -> Vec<u8> {
            (0..count).flat_map(|at| padding(if at + 1 == count { last } else { DESTINATION })).collect()
        };
        for (name, first, extra, fate) in [
            ("options for each hop", HOP_BY_HOP, padding(UDP), Fate::Delivered),
            ("options for the destination", DESTINATION, padding(UDP), Fate::Delivered),
            (
                "options for each hop and the destination",
                HOP_BY_HOP,
                [padding(DESTINATION), padding(UDP)].concat(),
                Fate::Delivered,
            ),
            ("four extension headers", DESTINATION, chain(4, UDP), Fate::Delivered),
            ("five extension headers", DESTINATION, chain(5, UDP), Fate::Lost),
            ("an extension header that is longer than the packet", DESTINATION, vec![UDP, 200, 1, 4, 0, 0, 0, 0], Fate::Lost),
            ("a routing header", ROUTING, vec![UDP, 0, 2, 0, 0, 0, 0, 0], Fate::Lost),
            ("a routing header with a hop", ROUTING, [&[UDP, 2, 0, 1][..], &[0; 20]].concat(), Fate::Lost),
            ("an authentication header", AUTHENTICATION, [&[UDP, 4][..], &[0; 22]].concat(), Fate::Lost),
            ("no next header", NOTHING, Vec::new(), Fate::Lost),
            ("an unknown extension header", 253, padding(UDP), Fate::Lost),
            ("a whole packet in a fragment header", FRAGMENT, vec![UDP, 0, 0, 0, 0, 0, 0, 7], Fate::Either),
            ("only a first fragment", FRAGMENT, vec![UDP, 0, 0, 1, 0, 0, 0, 8], Fate::Either),
            ("a later fragment without the first", FRAGMENT, vec![UDP, 0, 0, 9, 0, 0, 0, 9], Fate::Lost),
        ] {
            self.add(name, fate, UDP, |flow| flow.extended(first, &extra, &flow.udp(b"who is there?...")?))?;
        }
        Ok(())
    }
}
