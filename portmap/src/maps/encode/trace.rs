//! Elements of TRACE.

use std::net::{IpAddr, SocketAddr};

use portmap_common::{
    Address as _, Neutral, V6,
    trace::{CONNECT, NO_ID, PACKET, TraceEvent},
};

use super::{IpBytes as _, protocol_of};
use crate::{
    maps::trace::{Effect, Origin, Traced},
    model::Frontend,
};

/// Decodes an event; `None` for an unknown result or protocol.
pub(in crate::maps) fn traced_of(event: &TraceEvent) -> Option<Traced> {
    let effect = Effect::ALL.into_iter().find(|effect| *effect as u8 == event.result)?;
    let protocol = protocol_of(event.protocol)?;
    let origin = match event.hook {
        PACKET => Origin::Packet { client: SocketAddr::new(ip(event.client), event.client_port), device: event.device },
        hook => Origin::Call {
            call: if hook == CONNECT { "connect" } else { "sendmsg" },
            process: event.process,
            command: command(&event.command),
            cgroup: event.cgroup,
        },
    };
    Some(Traced {
        time: std::time::Duration::from_nanos(event.time),
        origin,
        asked: Frontend { address: ip(event.asked), port: event.asked_port, protocol },
        id: Some(event.id).filter(|id| *id != NO_ID),
        backend: (effect == Effect::Forwarded).then(|| SocketAddr::new(ip(event.backend), event.backend_port)),
        effect,
    })
}

fn ip(address: Neutral) -> IpAddr {
    V6::from_neutral(address).to_ip().to_canonical()
}

/// The text before the first 0 byte.
fn command(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portmap_common::{TCP, trace};

    use super::*;
    use crate::model::Protocol;

    fn event() -> TraceEvent {
        TraceEvent {
            time: 1_000,
            cgroup: 42,
            id: 7,
            asked: [10, 96, 0, 10].neutral(),
            backend: [10, 244, 0, 2].neutral(),
            process: 99,
            asked_port: 80,
            backend_port: 8080,
            protocol: TCP,
            command: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
            ..TraceEvent::default()
        }
    }

    #[test]
    fn a_call_reads_back() {
        let origin = Origin::Call { call: "connect", process: 99, command: "curl".to_owned(), cgroup: 42 };
        let expected = Traced {
            time: Duration::from_micros(1),
            origin,
            asked: Frontend { address: [10, 96, 0, 10].into(), port: 80, protocol: Protocol::Tcp },
            id: Some(7),
            backend: Some(([10, 244, 0, 2], 8080).into()),
            effect: Effect::Forwarded,
        };
        assert_eq!(traced_of(&event()), Some(expected));
    }

    #[test]
    fn a_packet_without_a_service_reads_back() {
        let (client, hook, result) = ([192, 0, 2, 9].neutral(), PACKET, trace::NO_SERVICE);
        let event = TraceEvent { id: NO_ID, client, client_port: 40_000, device: 3, hook, result, ..event() };
        let traced = traced_of(&event);
        let origin = Origin::Packet { client: ([192, 0, 2, 9], 40_000).into(), device: 3 };
        let found = traced.map(|traced| (traced.origin, traced.id, traced.backend, traced.effect));
        assert_eq!(found, Some((origin, None, None, Effect::NoService)));
    }

    #[test]
    fn unknown_values_are_no_events() {
        assert_eq!(traced_of(&TraceEvent { result: 99, ..event() }), None);
        assert_eq!(traced_of(&TraceEvent { protocol: 1, ..event() }), None);
    }
}
