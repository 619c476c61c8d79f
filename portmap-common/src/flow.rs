//! Flows of clients outside the node: `FLOWS` says how each packet of a flow is rewritten at a hook.
//!
//! A flow from client c to frontend v, which is served by backend b, has two entries. If the client is hidden from a backend
//! on another node, it has two more:
//!
//! | packet | hook | rewritten |
//! |---|---|---|
//! | client:c → frontend:v | ingress | to client:p → backend:b |
//! | backend:b → client:p | egress | to frontend:v → client:c |
//! | client:p → backend:b | egress | to node:n → backend:b |
//! | backend:b → node:n | ingress | to backend:b → client:p |
//!
//! The first two entries are *twins*, and so are the last two: the key and value of each follow from those of the other.
//!
//! These layouts have a version of their own, because flows stay valid when the layouts of the tables change.
#![expect(clippy::inline_always, reason = "the programs do this for each packet, and a call takes as long as what it calls")]

use crate::{Address, Choice, Halves, Neutral, TCP, UDP, V4, V6, layout, packet};

/// The version of the layouts in this file: part of the path where the maps of flows are pinned.
pub const FLOWS_VERSION: u32 = 2;

/// A value of [`FlowKey::hook`]: the packet was received. Its destination and source port are rewritten.
pub const INGRESS: u8 = 0;

/// A value of [`FlowKey::hook`]: the packet is about to be sent. Its source and destination port are rewritten.
pub const EGRESS: u8 = 1;

/// A key of `FLOWS_V4` or `FLOWS_V6`: a packet as it looks at a hook. Ports are in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct FlowKey<A> {
    /// The packet's source address.
    pub source: A,
    /// The packet's destination address.
    pub destination: A,
    /// The packet's source port.
    pub source_port: u16,
    /// The packet's destination port.
    pub destination_port: u16,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// [`INGRESS`] or [`EGRESS`].
    pub hook: u8,
    /// Always 0. A hash map compares every byte of its keys.
    pub unused: u16,
}

layout!(FlowKey<V4>, 16);
layout!(FlowKey<V6>, 40);

/// A state of [`FlowEntry`]: the client has sent a FIN.
pub const CLIENT_FIN: u32 = 1;

/// A state of [`FlowEntry`]: the backend has sent a FIN.
pub const SERVER_FIN: u32 = 2;

/// Both sides have sent a FIN.
const BOTH_FINS: u32 = CLIENT_FIN | SERVER_FIN;

/// A state of [`FlowEntry`]: one side has sent a RST.
pub const RESET: u32 = 4;

/// A state of [`FlowEntry`]: the backend has answered.
pub const REPLIED: u32 = 8;

/// A state of [`FlowEntry`]: the client has sent a packet after the backend's answer, so it exists at its address.
pub const ASSURED: u32 = 16;

/// A flag of [`FlowEntry`]: its packets go from the backend to the client.
pub const TOWARDS_CLIENT: u32 = 32;

/// A flag of [`FlowEntry`]: the backend is not on this node.
pub const REMOTE: u32 = 64;

/// A flag of [`FlowEntry`]: the client is hidden from the backend behind an address of this node.
pub const HIDDEN: u32 = 128;

/// A state of [`FlowEntry`]: the backend has confirmed the client's FIN.
pub const CLIENT_DONE: u32 = 256;

/// A state of [`FlowEntry`]: the client has confirmed the backend's FIN.
pub const SERVER_DONE: u32 = 512;

/// A value of `FLOWS_V4` or `FLOWS_V6`: the rewritten packet, and the state of the flow. Programs of several CPUs may write
/// `seen` and `state` at the same time; a lost state bit only lets the entry live longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowEntry<A> {
    /// The id of the service port: a key of `NAMES`.
    pub id: Halves,
    /// The number of the backend's endpoint; 0 for a refused flow.
    pub endpoint: Halves,
    /// A digest of the choice that the backend was taken from. See [`FlowEntry::digest`].
    pub choice: u32,
    /// [`FlowKey::check`] of the entry's key. A reader detects by it that the kernel has reused the element.
    pub check: u32,
    /// At ingress, the new destination address; at egress, the new source address. Zeroes if the source is not chosen yet.
    pub address: A,
    /// The port at `address`, in host order; 0 if the source is not chosen yet, for a refused flow, and if the flow has given
    /// up its source.
    pub port: u16,
    /// The new port on the other side, in host order: at ingress the source port, at egress the destination port.
    pub other_port: u16,
    /// The time of the last packet, as a [`clock`]. Updated at most every four steps.
    pub seen: u32,
    /// The time of the first packet, as a [`clock`].
    pub opened: u32,
    /// Bits: [`CLIENT_FIN`], [`SERVER_FIN`], [`RESET`], [`REPLIED`], [`ASSURED`], [`TOWARDS_CLIENT`], [`REMOTE`],
    /// [`HIDDEN`], [`CLIENT_DONE`], [`SERVER_DONE`].
    pub state: u32,
    /// The TCP sequence number after the FIN of the packets that this entry rewrites; 0 before.
    pub end: u32,
}

layout!(FlowEntry<V4>, 48);
layout!(FlowEntry<V6>, 60);

/// The time in steps of 2³⁰ nanoseconds (1.07 seconds), from nanoseconds of the monotonic clock.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the clock overflows after 146 years")]
pub fn clock(nanoseconds: u64) -> u32 {
    (nanoseconds >> 30) as u32
}

/// Lifetimes of entries after their last packet, in steps of [`clock`].
mod lifetime {
    pub const RESET: u32 = 5;
    pub const CLOSED: u32 = 30;
    pub const HALF_CLOSED: u32 = 3_600;
    pub const ESTABLISHED: u32 = 86_400;
    pub const HALF_OPEN: u32 = 60;
    pub const DATAGRAM: u32 = 30;
    pub const QUIET: u32 = 2;
    pub const DATAGRAMS: u32 = 120;
}

impl<A: Address> FlowKey<A> {
    /// A digest of the key.
    #[inline(always)]
    pub fn check(&self) -> u32 {
        let fold = |digest: u32, word: u32| digest.rotate_left(5).wrapping_add(word).wrapping_mul(0x9e37_79b1);
        let ports = u32::from(self.source_port) << 16 | u32::from(self.destination_port);
        let mut digest = fold(u32::from(self.protocol) << 8 | u32::from(self.hook), ports);
        for word in self.source.words() {
            digest = fold(digest, word);
        }
        for word in self.destination.words() {
            digest = fold(digest, word);
        }
        digest
    }

    /// The key of the twin of an entry under this key.
    #[inline]
    #[must_use]
    pub fn twin(&self, entry: &FlowEntry<A>) -> Self {
        if self.hook == INGRESS {
            Self {
                source: entry.address,
                destination: self.source,
                source_port: entry.port,
                destination_port: entry.other_port,
                hook: EGRESS,
                ..*self
            }
        } else {
            Self {
                source: self.destination,
                destination: entry.address,
                source_port: entry.other_port,
                destination_port: entry.port,
                hook: INGRESS,
                ..*self
            }
        }
    }
}

impl<A: Address> FlowEntry<A> {
    /// Whether this value was inserted under `key`.
    #[inline]
    pub fn belongs_to(&self, key: &FlowKey<A>) -> bool {
        self.check == key.check()
    }

    /// The twin of this entry, which is under `key`.
    #[inline]
    #[must_use]
    pub fn twin(&self, key: &FlowKey<A>) -> Self {
        let mut twin = *self;
        twin.turn(key, &key.twin(self));
        twin
    }

    /// Turns this entry, which is under `key`, into its twin, which is under `twin`.
    #[inline]
    pub fn turn(&mut self, key: &FlowKey<A>, twin: &FlowKey<A>) {
        (self.address, self.port, self.other_port) = if key.hook == INGRESS {
            (key.destination, key.destination_port, key.source_port)
        } else {
            (key.source, key.source_port, key.destination_port)
        };
        self.check = twin.check();
        self.state ^= TOWARDS_CLIENT;
        self.end = 0;
    }

    /// A digest of a choice. If it differs from an entry's, the backends have changed since the flow was opened.
    #[inline]
    pub fn digest(choice: Choice) -> u32 {
        choice.first.wrapping_mul(0x9e37_79b1) ^ choice.count
    }

    /// Whether the source address and port are to be chosen, now that the device is known that sends the packet.
    #[inline]
    pub fn lacks_source(&self, key: &FlowKey<A>) -> bool {
        key.hook == EGRESS
            && self.state & (HIDDEN | TOWARDS_CLIENT) == HIDDEN
            && (self.port == 0 || self.address == A::default())
    }

    /// Whether the flow has given up this source of its client, because another program's connection uses it. The entry
    /// translates nothing, and keeps other flows from this source.
    #[inline]
    pub fn is_given_up(&self) -> bool {
        self.state & TOWARDS_CLIENT != 0 && self.port == 0
    }

    /// The state after a packet of this entry with these TCP flags.
    #[inline]
    pub fn state_after(&self, flags: u8) -> u32 {
        let is_towards_client = self.state & TOWARDS_CLIENT != 0;
        let mut state = self.state;
        if is_towards_client {
            state |= REPLIED;
        } else if state & REPLIED != 0 && flags & (packet::SYN | packet::RST) == 0 {
            state |= ASSURED;
        }
        if flags & packet::FIN != 0 {
            state |= if is_towards_client { SERVER_FIN } else { CLIENT_FIN };
        }
        if flags & packet::RST != 0 {
            state |= RESET;
        }
        state
    }

    /// `state`, and what a packet of this entry confirms: everything before the sequence number `acknowledged`. `end` is that of
    /// the twin.
    #[inline]
    pub fn state_confirmed(&self, state: u32, acknowledged: u32, end: u32) -> u32 {
        let (fin, done) = if self.state & TOWARDS_CLIENT != 0 { (CLIENT_FIN, CLIENT_DONE) } else { (SERVER_FIN, SERVER_DONE) };
        let is_confirmed = end != 0 && acknowledged.wrapping_sub(end).cast_signed() >= 0;
        if state & fin != 0 && is_confirmed { state | done } else { state }
    }

    /// Whether each side has confirmed that it has all data of the other. The flow is not needed any more.
    #[inline]
    pub fn is_done(&self) -> bool {
        let both = CLIENT_DONE | SERVER_DONE;
        self.state & both == both
    }

    /// Whether the connection has ended: after a RST, or a FIN from each side.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.state & RESET != 0 || self.state & BOTH_FINS == BOTH_FINS
    }

    /// Whether the flow is a client's only datagram and its answers. Such a flow may end before its lifetime if its port is
    /// needed.
    #[inline]
    pub fn is_answered_once(&self, protocol: u8) -> bool {
        protocol == UDP && self.state & (REPLIED | ASSURED) == REPLIED
    }

    /// Whether the last packet came some time before `now`, a [`clock`]: a client does not seem to send another datagram.
    #[inline]
    pub fn is_quiet(&self, now: u32) -> bool {
        now.saturating_sub(self.seen) >= lifetime::QUIET
    }

    /// How long the entry lives after its last packet, in steps of [`clock`].
    #[inline]
    pub fn lifetime(&self, protocol: u8) -> u32 {
        if protocol != TCP {
            return if self.state & ASSURED != 0 { lifetime::DATAGRAMS } else { lifetime::DATAGRAM };
        }
        if self.state & RESET != 0 {
            lifetime::RESET
        } else if self.state & ASSURED == 0 {
            lifetime::HALF_OPEN
        } else {
            match self.state & BOTH_FINS {
                0 => lifetime::ESTABLISHED,
                BOTH_FINS => lifetime::CLOSED,
                _ => lifetime::HALF_CLOSED,
            }
        }
    }

    /// Whether the entry is still valid at `now`, a [`clock`]. The clock of another CPU may be behind: `seen` may be later.
    #[inline]
    pub fn is_alive(&self, protocol: u8, now: u32) -> bool {
        now.saturating_sub(self.seen) <= self.lifetime(protocol)
    }
}

/// A key of `FRAGMENTS_V4` or `FRAGMENTS_V6`: the fragments of one datagram at a hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct FragmentKey<A> {
    /// The packet's source address.
    pub source: A,
    /// The packet's destination address.
    pub destination: A,
    /// The identification of the datagram.
    pub identification: u32,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// [`INGRESS`] or [`EGRESS`].
    pub hook: u8,
    /// Always 0. A hash map compares every byte of its keys.
    pub unused: u16,
}

layout!(FragmentKey<V4>, 16);
layout!(FragmentKey<V6>, 40);

/// A value of `FRAGMENTS_V4` or `FRAGMENTS_V6`: the ports in the datagram's first fragment, in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FragmentPorts {
    /// The source port.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
}

layout!(FragmentPorts, 4);

/// A key of `OUTSIDE_AFFINITY`: a client outside the node, of a service port with session affinity. The value is an
/// [`crate::Affinity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct OutsideClient {
    /// The client's address; IPv4 in the IPv4-mapped form.
    pub address: Neutral,
    /// The service port's `id`.
    pub id: u64,
}

layout!(OutsideClient, 24);

/// The one value of `GATE`: limits the flows in `FLOWS` that are not [`ASSURED`], so that a flood of them evicts no others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Gate {
    /// The current period, as a [`clock`].
    pub period: u32,
    /// Number of flows opened in the current period, less the number of flows that were assured in it.
    pub half_open: i32,
    /// The time when a flow was last opened in `OPENING` instead, as a [`clock`]; 0 if none ever was.
    pub overflowed: u32,
    /// Always 0.
    pub unused: u32,
}

layout!(Gate, 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_lead_to_each_other() {
        let key = FlowKey::<V4> {
            source: [1, 2, 3, 4],
            destination: [5, 6, 7, 8],
            source_port: 1,
            destination_port: 2,
            protocol: TCP,
            hook: INGRESS,
            unused: 0,
        };
        for hook in [INGRESS, EGRESS] {
            let key = FlowKey { hook, ..key };
            let check = key.check();
            let entry = FlowEntry { address: [9, 9, 9, 9], port: 3, other_port: 4, check, ..FlowEntry::default() };
            let (twin_key, twin) = (key.twin(&entry), entry.twin(&key));
            assert_ne!(key.hook, twin_key.hook);
            assert_eq!(twin_key.twin(&twin), key);
            assert!(twin.belongs_to(&twin_key));
            assert_eq!(twin.twin(&twin_key), entry);
        }
    }

    #[test]
    fn a_flow_is_assured_by_the_clients_answer_to_the_backend() {
        let after = |state, flags| FlowEntry::<V4> { state, ..FlowEntry::default() }.state_after(flags);
        assert_eq!(after(0, packet::SYN), 0);
        assert_eq!(after(TOWARDS_CLIENT, packet::SYN | packet::ACK), TOWARDS_CLIENT | REPLIED);
        assert_eq!(after(REPLIED, packet::SYN), REPLIED, "a repeated SYN");
        assert_eq!(after(REPLIED, packet::ACK), REPLIED | ASSURED);
        assert_eq!(after(REPLIED, packet::RST), REPLIED | RESET);
        assert_eq!(after(REPLIED | ASSURED, packet::ACK | packet::FIN), REPLIED | ASSURED | CLIENT_FIN);
        assert_eq!(after(TOWARDS_CLIENT | REPLIED, packet::FIN), TOWARDS_CLIENT | REPLIED | SERVER_FIN);
    }

    #[test]
    fn a_flow_is_done_when_each_side_has_confirmed_the_fin_of_the_other() {
        const CLIENT: u32 = u32::MAX - 5;
        const SERVER: u32 = 5;
        let flow = |state, end| FlowEntry::<V4> { state, end, ..FlowEntry::default() };
        let fins = CLIENT_FIN | SERVER_FIN;
        let (client, server) = (flow(fins, CLIENT), flow(fins | TOWARDS_CLIENT, SERVER));
        assert_eq!(
            client.state_confirmed(client.state, SERVER.wrapping_sub(7), SERVER),
            fins,
            "data before the FIN is missing"
        );
        assert_eq!(client.state_confirmed(client.state, SERVER, SERVER), fins | SERVER_DONE);
        assert_eq!(server.state_confirmed(server.state, CLIENT, CLIENT), fins | TOWARDS_CLIENT | CLIENT_DONE);
        assert_eq!(
            server.state_confirmed(server.state, CLIENT.wrapping_add(10), CLIENT),
            fins | TOWARDS_CLIENT | CLIENT_DONE,
            "numbers wrap"
        );
        assert_eq!(server.state_confirmed(server.state, CLIENT, 0), fins | TOWARDS_CLIENT, "the end is not known");
        assert_eq!(client.state_confirmed(CLIENT_FIN, SERVER, SERVER), CLIENT_FIN, "the server has sent no FIN");
        assert!(!flow(fins | CLIENT_DONE, 1).is_done() && flow(fins | CLIENT_DONE | SERVER_DONE, 1).is_done());
    }

    #[test]
    fn lifetimes_follow_the_state() {
        let at = |state, protocol, age: u32| {
            FlowEntry::<V4> { state, seen: 100, ..FlowEntry::default() }.is_alive(protocol, 100 + age)
        };
        for (state, protocol, lifetime) in [
            (0, TCP, 60),
            (REPLIED, TCP, 60),
            (REPLIED | ASSURED, TCP, 86_400),
            (REPLIED | ASSURED | CLIENT_FIN, TCP, 3_600),
            (REPLIED | ASSURED | CLIENT_FIN | SERVER_FIN, TCP, 30),
            (REPLIED | ASSURED | RESET, TCP, 5),
            (RESET, TCP, 5),
            (REPLIED, UDP, 30),
            (REPLIED | ASSURED, UDP, 120),
        ] {
            assert!(at(state, protocol, lifetime), "{state:b}");
            assert!(!at(state, protocol, lifetime + 1), "{state:b}");
        }
        assert!(FlowEntry::<V4> { seen: 100, ..FlowEntry::default() }.is_alive(TCP, 99), "the clock of this CPU is behind");
    }

    #[test]
    fn a_flow_is_answered_once_until_its_client_goes_on() {
        let is_answered_once = |state, protocol| FlowEntry::<V4> { state, ..FlowEntry::default() }.is_answered_once(protocol);
        assert!(is_answered_once(REPLIED, UDP) && is_answered_once(REPLIED | TOWARDS_CLIENT | HIDDEN, UDP));
        assert!(!is_answered_once(0, UDP), "the answer may be on its way");
        assert!(!is_answered_once(REPLIED | ASSURED, UDP), "the client goes on");
        assert!(!is_answered_once(REPLIED, TCP));
    }

    #[test]
    fn a_flow_is_quiet_after_two_steps() {
        let is_quiet = |now| FlowEntry::<V4> { seen: 100, ..FlowEntry::default() }.is_quiet(now);
        assert!(is_quiet(102));
        assert!(!is_quiet(101) && !is_quiet(99), "too early");
    }
}
