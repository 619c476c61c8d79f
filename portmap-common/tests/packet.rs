//! The packet parser on packets of the crate etherparse, and on arbitrary bytes.
#![expect(clippy::expect_used, reason = "a test ends with a panic if it cannot build its packets")]

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options, Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header,
    Ipv6RawExtHeader, PacketBuilder, TcpOptionElement, UdpHeader,
};
use portmap_common::{
    Address, TCP, UDP, V4, V6,
    packet::{self, ACK, Bytes, FIN, Family, Fragment, Headers, Message, Ports, RST, SYN, Segment},
};
use proptest::prelude::*;

const SOURCE_V4: V4 = [192, 0, 2, 1];
const DESTINATION_V4: V4 = [198, 51, 100, 7];
const SOURCE_V6: V6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const DESTINATION_V6: V6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

#[derive(Debug)]
struct Packet(Vec<u8>);

impl Bytes for Packet {
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let (words, _) = self.0.get(offset..)?.as_chunks();
        words.first_chunk().map(|words| words.map(u32::from_ne_bytes))
    }
}

/// The headers, and the ports if there is a transport header.
fn parse<A: Family>(packet: &Packet) -> Option<(Headers<A>, Option<Ports>)> {
    let mut headers = Headers::default();
    A::headers(packet, 0, &mut headers)?;
    let has_ports = packet::is_translated(headers.protocol) && headers.fragment != Fragment::Later;
    let ports = if has_ports { Some(packet::ports(packet, headers.transport, headers.protocol)?) } else { None };
    Some((headers, ports))
}

fn ports(flags: u8) -> Ports {
    Ports { source: 40_000, destination: 30_080, flags }
}

fn ipv4(protocol: IpNumber) -> Ipv4Header {
    Ipv4Header::new(12, 64, protocol, SOURCE_V4, DESTINATION_V4).expect("a header")
}

fn ipv6(protocol: IpNumber) -> Ipv6Header {
    let mut header = Ipv6Header { hop_limit: 64, next_header: protocol, ..Ipv6Header::default() };
    (header.source, header.destination) = (SOURCE_V6, DESTINATION_V6);
    header
}

/// A UDP header with data, behind this IP header.
fn udp(ip: &IpHeaders) -> Packet {
    let mut bytes = Vec::new();
    ip.write(&mut bytes).expect("a header");
    bytes.extend(UdpHeader { source_port: 40_000, destination_port: 30_080, length: 12, checksum: 0 }.to_bytes());
    bytes.extend([1, 2, 3, 4]);
    Packet(bytes)
}

#[test]
fn tcp_of_both_families() {
    let mut v4 = Vec::new();
    let builder = PacketBuilder::ipv4(SOURCE_V4, DESTINATION_V4, 64).tcp(40_000, 30_080, 7, 1_024);
    builder.syn().write(&mut v4, &[]).expect("a packet");
    let (headers, found) = parse::<V4>(&Packet(v4)).expect("headers");
    assert_eq!((headers.source, headers.destination), (SOURCE_V4, DESTINATION_V4));
    assert_eq!((headers.protocol, headers.transport, headers.time_to_live), (TCP, 20, 64));
    assert_eq!((headers.fragment, found), (Fragment::Whole, Some(ports(SYN))));

    let mut v6 = Vec::new();
    let builder = PacketBuilder::ipv6(SOURCE_V6, DESTINATION_V6, 64).tcp(40_000, 30_080, 7, 1_024);
    builder.syn().ack(1).write(&mut v6, &[]).expect("a packet");
    let (headers, found) = parse::<V6>(&Packet(v6)).expect("headers");
    assert_eq!((headers.source, headers.destination), (SOURCE_V6, DESTINATION_V6));
    assert_eq!((headers.protocol, headers.transport, headers.checksum), (TCP, 40, 0));
    assert_eq!(found, Some(ports(SYN | ACK)));
}

#[test]
fn only_a_plain_syn_opens_a_connection() {
    let opens = |flags| Ports { source: 1, destination: 2, flags }.opens();
    assert!(opens(SYN));
    assert!(opens(SYN | 0xc0), "with the bits of congestion notification");
    for flags in [0, ACK, SYN | ACK, SYN | RST, SYN | FIN, RST, FIN | ACK] {
        assert!(!opens(flags), "{flags:x}");
    }
}

/// Link layers pad short packets. The padding is no data.
#[test]
fn the_end_of_a_segment_has_its_data_and_fin() {
    fn end<A: Family>(mut bytes: Vec<u8>) -> Segment {
        bytes.extend([0; 6]);
        let packet = Packet(bytes);
        let (headers, _) = parse::<A>(&packet).expect("headers");
        packet::segment(&packet, headers.transport, headers.end).expect("a TCP header")
    }
    for (data, is_last, expected) in [(&b""[..], true, 8), (b"abc", true, 11), (b"abc", false, 10)] {
        for is_ipv4 in [true, false] {
            let mut bytes = Vec::new();
            let builder = if is_ipv4 {
                PacketBuilder::ipv4(SOURCE_V4, DESTINATION_V4, 64).tcp(40_000, 30_080, 7, 1_024)
            } else {
                PacketBuilder::ipv6(SOURCE_V6, DESTINATION_V6, 64).tcp(40_000, 30_080, 7, 1_024)
            };
            let builder = builder.ack(5).options(&[TcpOptionElement::Timestamp(1, 2)]).expect("options");
            let builder = if is_last { builder.fin() } else { builder };
            builder.write(&mut bytes, data).expect("a packet");
            let found = if is_ipv4 { end::<V4>(bytes) } else { end::<V6>(bytes) };
            assert_eq!(found, Segment { end: expected, acknowledged: 5 }, "{data:?}");
        }
    }
}

#[test]
fn options_of_ipv4_are_skipped() {
    let mut header = ipv4(IpNumber::UDP);
    header.options = Ipv4Options::from([1; 8]);
    let (headers, found) = parse::<V4>(&udp(&IpHeaders::Ipv4(header, Ipv4Extensions::default()))).expect("headers");
    assert_eq!((headers.protocol, headers.transport, found), (UDP, 28, Some(ports(0))));
}

#[test]
fn fragments_of_ipv4() {
    for (offset, has_more, place, found) in
        [(0, true, Fragment::First, Some(ports(0))), (185, true, Fragment::Later, None), (185, false, Fragment::Later, None)]
    {
        let mut header = ipv4(IpNumber::UDP);
        header.identification = 77;
        header.dont_fragment = false;
        (header.fragment_offset, header.more_fragments) = (IpFragOffset::try_new(offset).expect("an offset"), has_more);
        let (headers, parsed) = parse::<V4>(&udp(&IpHeaders::Ipv4(header, Ipv4Extensions::default()))).expect("headers");
        assert_eq!((headers.fragment, headers.identification, parsed), (place, 77, found));
    }
}

#[test]
fn extensions_of_ipv6() {
    let raw = Ipv6RawExtHeader::new_raw(IpNumber::UDP, &[0; 14]).expect("a header");
    let extensions =
        Ipv6Extensions { hop_by_hop_options: Some(raw.clone()), destination_options: Some(raw), ..Ipv6Extensions::default() };
    let mut header = IpHeaders::Ipv6(ipv6(IpNumber::UDP), extensions);
    header.set_next_headers(IpNumber::UDP);
    let (headers, found) = parse::<V6>(&udp(&header)).expect("headers");
    assert_eq!((headers.protocol, headers.transport, found), (UDP, 40 + 16 + 16, Some(ports(0))));
}

#[test]
fn fragments_of_ipv6() {
    for (offset, has_more, place, found) in [
        (0, false, Fragment::Whole, Some(ports(0))),
        (0, true, Fragment::First, Some(ports(0))),
        (185, true, Fragment::Later, None),
        (185, false, Fragment::Later, None),
    ] {
        let offset = IpFragOffset::try_new(offset).expect("an offset");
        let fragment = Ipv6FragmentHeader::new(IpNumber::UDP, offset, has_more, 77);
        let extensions = Ipv6Extensions { fragment: Some(fragment), ..Ipv6Extensions::default() };
        let mut header = IpHeaders::Ipv6(ipv6(IpNumber::UDP), extensions);
        header.set_next_headers(IpNumber::UDP);
        let (headers, parsed) = parse::<V6>(&udp(&header)).expect("headers");
        let identification = if place == Fragment::Whole { 0 } else { 77 };
        assert_eq!((headers.fragment, headers.identification, parsed), (place, identification, found));
        assert_eq!((headers.protocol, headers.transport), (UDP, 48));
    }
}

/// A routing header changes the destination on the way, so its packets must not be translated.
#[test]
fn unknown_extensions_are_no_transport() {
    for number in [IpNumber::IPV6_ROUTE_HEADER, IpNumber::AUTHENTICATION_HEADER, IpNumber(253)] {
        let mut bytes = Vec::new();
        ipv6(number).write(&mut bytes).expect("a header");
        bytes.extend([UDP; 24]);
        let (headers, found) = parse::<V6>(&Packet(bytes)).expect("headers");
        assert!(!packet::is_translated(headers.protocol));
        assert_eq!(found, None);
    }
    let mut many = Vec::new();
    ipv6(IpNumber(60)).write(&mut many).expect("a header");
    many.extend([60, 0, 0, 0, 0, 0, 0, 0].repeat(5));
    assert_eq!(parse::<V6>(&Packet(many)), None, "more extensions than are read");
}

#[test]
fn an_error_quotes_a_packet() {
    let mut quoted = Vec::new();
    PacketBuilder::ipv4(DESTINATION_V4, SOURCE_V4, 3).udp(53, 4_000).write(&mut quoted, &[1; 20]).expect("a packet");
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ipv4(SOURCE_V4, DESTINATION_V4, 64).icmpv4_raw(3, 4, [0; 4]);
    builder.write(&mut bytes, &quoted[..28]).expect("a packet");
    let packet = Packet(bytes);
    let (outer, _) = parse::<V4>(&packet).expect("headers");
    assert_eq!(outer.protocol, V4::ICMP);
    let [first] = packet.words(outer.transport).expect("a type");
    let [kind, ..] = first.to_ne_bytes();
    assert_eq!(V4::message(kind), Some(Message::Error));
    let mut inner = Headers::default();
    V4::headers(&packet, outer.transport + packet::ICMP_HEADER, &mut inner).expect("headers");
    assert_eq!((inner.source, inner.destination, inner.protocol), (DESTINATION_V4, SOURCE_V4, UDP));
    let found = packet::quoted_ports(&packet, inner.transport).expect("ports");
    assert_eq!((found.source, found.destination), (53, 4_000));
}

#[test]
fn a_truncated_packet_is_none() {
    let v4 = udp(&IpHeaders::Ipv4(ipv4(IpNumber::UDP), Ipv4Extensions::default()));
    let v6 = udp(&IpHeaders::Ipv6(ipv6(IpNumber::UDP), Ipv6Extensions::default()));
    for length in 0..24 {
        assert_eq!(parse::<V4>(&Packet(v4.0[..length].to_vec())), None, "{length}");
    }
    for length in 0..44 {
        assert_eq!(parse::<V6>(&Packet(v6.0[..length].to_vec())), None, "{length}");
    }
}

/// Link layers may add bytes, so more bytes may follow than the packet has.
#[test]
fn a_transport_header_behind_the_end_does_not_belong_to_the_packet() {
    fn has_transport<A: Family>(packet: &Packet, at: usize, length: u16) -> bool {
        let mut bytes = packet.0.clone();
        bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
        parse::<A>(&Packet(bytes)).expect("headers").0.has_transport()
    }
    let v4 = udp(&IpHeaders::Ipv4(ipv4(IpNumber::UDP), Ipv4Extensions::default()));
    let v6 = udp(&IpHeaders::Ipv6(ipv6(IpNumber::UDP), Ipv6Extensions::default()));
    for (length, expected) in [(0, false), (7, false), (8, true), (12, true), (9_000, true)] {
        assert_eq!(has_transport::<V4>(&v4, 2, 20 + length), expected, "{length}");
        assert_eq!(has_transport::<V6>(&v6, 4, length), expected, "{length}");
    }
    assert!(!has_transport::<V4>(&v4, 2, 0));

    let mut tcp = Vec::new();
    let builder = PacketBuilder::ipv4(SOURCE_V4, DESTINATION_V4, 64).tcp(40_000, 30_080, 7, 1_024);
    builder.syn().write(&mut tcp, &[]).expect("a packet");
    assert!(has_transport::<V4>(&Packet(tcp.clone()), 2, 40));
    assert!(!has_transport::<V4>(&Packet(tcp), 2, 39));
}

/// Any bytes behind a plausible first byte.
fn bytes(version: u8) -> impl Strategy<Value = Packet> {
    prop::collection::vec(any::<u8>(), 0..200).prop_map(move |mut bytes| {
        if let Some(first) = bytes.first_mut() {
            *first = version << 4 | *first & 0x0f;
        }
        Packet(bytes)
    })
}

/// The fields that give the data of a TCP packet lie within the packet.
fn segment_is_sound<A: Family>(packet: &Packet) -> bool {
    let Some((headers, _)) = parse::<A>(packet) else { return true };
    packet::segment(packet, headers.transport, headers.end).is_none() || headers.transport + 14 <= packet.0.len()
}

/// Every header that was found lies within the packet.
fn is_sound<A: Family>(packet: &Packet) -> bool {
    parse::<A>(packet).is_none_or(|(headers, ports)| match ports {
        Some(_) => headers.transport + 4 <= packet.0.len(),
        None => headers.fragment == Fragment::Later || !packet::is_translated(headers.protocol),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_bytes_are_read_within_the_packet(v4 in bytes(4), v6 in bytes(6)) {
        prop_assert!(is_sound::<V4>(&v4));
        prop_assert!(is_sound::<V6>(&v6));
        prop_assert!(segment_is_sound::<V4>(&v4) && segment_is_sound::<V6>(&v6));
    }

    #[test]
    fn the_checksum_of_a_changed_address_is_that_of_the_changed_header(old: V4, new: V4, source: V4, id: u16, ttl: u8) {
        let mut header = Ipv4Header::new(100, ttl, IpNumber::TCP, source, old).expect("a header");
        header.identification = id;
        let before = header.calc_header_checksum();
        header.destination = new;
        let after = packet::checksum_after(before.to_be(), old, new);
        // 0 and 0xffff stand for the same sum.
        let sum = |checksum: u16| if checksum == 0xffff { 0 } else { checksum };
        prop_assert_eq!(sum(u16::from_be(after)), sum(header.calc_header_checksum()));
    }

    #[test]
    fn addresses_keep_their_family(v4: V4, v6: V6) {
        prop_assert_eq!(V4::from_neutral(v4.neutral()), v4);
        prop_assert_eq!(V6::from_neutral(v6.neutral()), v6);
    }
}
