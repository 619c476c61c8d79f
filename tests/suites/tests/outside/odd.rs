//! Packets that clients should not send, or seldom send. A packet is translated correctly, or not at all.

mod build;
mod check;
mod icmp;
mod packets;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::dual_stack::{Both, Via};
use portmap_harness::listen::Protocol;
use portmap_harness::topology::{Firewall, addresses};
use portmap_harness::wire::{Wire, frame, packet};
use portmap_harness::world::Pod;
use portmap_suites::outside_answers::ask;
use portmap_suites::outside_stage::Stage;
use portmap_suites::service_objects::TARGET_PORT;
use portmap_suites::service_stage::Transport;

use crate::cases;
use build::{Flow, mark, marked};
use check::{UDP, addresses as addresses_of, expect_error, expect_translation, protocol, word};
use packets::{Fate, Maker, Odd};

cases![
    packets_for_this_node_are_translated_correctly_or_not,
    packets_for_another_node_are_translated_correctly_or_not,
    a_checksum_of_zero_is_sent_as_all_ones,
    errors_about_answers_are_translated_correctly_or_not,
    no_redirect_reaches_a_neighbour,
];

/// The first source port of the packets.
const PORTS: u16 = 40_000;

fn packets_for_this_node_are_translated_correctly_or_not(stage: &mut Stage, via: Via) -> Result<()> {
    check_all(stage, via, "a")
}

fn packets_for_another_node_are_translated_correctly_or_not(stage: &mut Stage, via: Via) -> Result<()> {
    check_all(stage, via, "c")
}

/// In UDP, a checksum of 0 means that there is none. IPv6 does not allow it.
fn a_checksum_of_zero_is_sent_as_all_ones(stage: &mut Stage, via: Via) -> Result<()> {
    for (port, endpoint) in (PORTS + 1000..).zip(["a", "c"]) {
        let service = stage.publish(stage.endpoints(&[endpoint]))?;
        let pod = stage.pod(endpoint)?;
        let sent = Flow { source: addresses::NEIGHBOUR.at(via, port), destination: service.node_port(stage.one(), via) };
        let socket = stage.neighbour.open_for(sent.destination, Protocol::Udp)?;
        socket.bind(sent.source)?;
        let seen = socket.converse_with(sent.destination)?.client;
        let delivered = Flow { source: seen, destination: Both::of(pod).at(via, TARGET_PORT) };
        // The header is computed with all ones instead of zero.
        let data = (0..=u16::MAX).map(|word| [&b"who "[..], &word.to_be_bytes()].concat());
        let data = data.into_iter().find(|data| delivered.udp(data).is_ok_and(|header| header[6..8] == [0xff; 2]));
        let mut built = sent.packet(UDP, &sent.udp(&data.context("no data has a checksum of zero")?)?)?;
        mark(&mut built.bytes, 1)?;
        let (record, mut wire) = (Wire::open(pod)?, Wire::open(&stage.topology.neighbour)?);
        wire.send(&frame(stage.one().hardware_address(), &built.bytes))?;
        socket.receive().with_context(|| format!("the answer of {endpoint}"))?;
        let frames = record.finish()?;
        let packet = frames.iter().filter_map(|frame| packet(frame)).find(|packet| marked(packet) == Some(1));
        let packet = packet.context("the datagram has not arrived")?;
        expect_translation(&built, UDP, packet, delivered.destination, seen.ip())?;
        ensure!(word(packet, built.transport + 6)? == 0xffff, "the checksum is {:?}", word(packet, built.transport + 6));
    }
    Ok(())
}

/// A router between the client and the node sends the errors. They must be about the answers that the pod has sent.
fn errors_about_answers_are_translated_correctly_or_not(stage: &mut Stage, via: Via) -> Result<()> {
    stage.allow_invalid_packets();
    for (port, endpoint) in (PORTS + 2000..).zip(["a", "c"]) {
        let service = stage.publish(stage.endpoints(&[endpoint]))?;
        let (pod, address) = (stage.pod(endpoint)?, service.node_port(stage.one(), via));
        let socket = stage.neighbour.open_for(address, Protocol::Udp)?;
        socket.bind(addresses::NEIGHBOUR.at(via, port))?;
        let seen = socket.converse_with(address)?.client;
        let mut errors = icmp::errors(addresses::ROUTER.at(via, 0).ip(), address, addresses::NEIGHBOUR.at(via, port))?;
        if stage.firewall() == Firewall::Stateful {
            errors.retain(|error| error.fate != Fate::Either);
        }
        let (record, mut wire) = (Wire::open(pod)?, Wire::open(&stage.topology.neighbour)?);
        for (number, error) in (1..).zip(&mut errors) {
            mark(&mut error.packet, number)?;
            wire.send(&frame(stage.one().hardware_address(), &error.packet))?;
        }
        socket.converse_with(address).context("after the errors")?;
        let frames = record.finish()?;
        let target = Both::of(pod).at(via, TARGET_PORT);
        let packets = || frames.iter().filter_map(|frame| packet(frame)).filter(|packet| is_error(packet, target.ip()));
        for (number, error) in (1..).zip(&errors) {
            let arrived = packets().find(|packet| marked(packet) == Some(number));
            let what = || format!("an error to {endpoint} that quotes: {}", error.name);
            match arrived {
                None => ensure!(error.fate != Fate::Delivered, "{} has not arrived", what()),
                // A wrong checksum must not become a correct one.
                Some(packet) if error.name == icmp::WRONG => ensure!(expect_error(packet, target, seen).is_err(), "{}", what()),
                Some(packet) => {
                    ensure!(error.fate != Fate::Lost, "{} has arrived", what());
                    expect_error(packet, target, seen).with_context(what)?;
                }
            }
        }
    }
    Ok(())
}

fn is_error(packet: &[u8], pod: std::net::IpAddr) -> bool {
    matches!(protocol(packet), Some(1 | 58)) && addresses_of(packet).is_ok_and(|(_, destination)| destination == pod)
}

/// The node would tell the neighbour to send packets for the pod directly to the other node. The neighbour sends none.
fn no_redirect_reaches_a_neighbour(stage: &mut Stage, via: Via) -> Result<()> {
    let service = stage.publish(stage.endpoints(&["c"]))?;
    let record = Wire::open(&stage.topology.neighbour)?;
    for transport in Transport::ALL.into_iter().cycle().take(12) {
        ask(&stage.neighbour, transport, service.node_port(stage.one(), via))?;
    }
    let frames = record.finish()?;
    let redirects = frames.iter().filter_map(|frame| packet(frame)).filter(|packet| {
        let kind = if via == Via::V4 { packet.get(20) } else { packet.get(40) };
        matches!((protocol(packet), kind), (Some(1), Some(5)) | (Some(58), Some(137)))
    });
    let count = redirects.count();
    ensure!(count == 0, "{count} redirects have arrived");
    ensure!(frames.len() > 12, "only {} frames were recorded", frames.len());
    Ok(())
}

fn check_all(stage: &mut Stage, via: Via, endpoint: &str) -> Result<()> {
    stage.allow_invalid_packets();
    let service = stage.publish(stage.endpoints(&[endpoint]))?;
    let address = service.node_port(stage.one(), via);
    let pod = stage.pod(endpoint)?;
    let mut maker = Maker::new(addresses::NEIGHBOUR.at(via, PORTS), address);
    maker.all(via)?;
    if stage.firewall() == Firewall::Stateful {
        // Connection tracking drops most of these packets. It puts fragments together, and removes their headers.
        maker.made.retain(|odd| odd.fate != Fate::Either);
    }
    let (record, mut wire) = (Wire::open(pod)?, Wire::open(&stage.topology.neighbour)?);
    for (number, odd) in (1..).zip(&mut maker.made) {
        mark(&mut odd.built.bytes, number)?;
        wire.send(&frame(stage.one().hardware_address(), &odd.built.bytes))?;
    }
    // The answer to this request shows that the packets before it have passed. Its packet has the mark 0.
    ask(&stage.neighbour, Transport::UdpUnconnected, address)?;
    let arrived = arrived(&record.finish()?, &maker.made, pod, via, endpoint == "a")?;
    for (number, odd) in (1..).zip(&maker.made) {
        let is_right = match odd.fate {
            Fate::Delivered => arrived.contains(&number),
            Fate::Lost => !arrived.contains(&number),
            Fate::Either => true,
        };
        ensure!(is_right, "{}: expected {:?}, protocol {}", odd.name, odd.fate, odd.protocol);
    }
    Ok(())
}

/// The numbers of the packets that have arrived at the pod. Fails if one of them is not translated correctly.
fn arrived(frames: &[Vec<u8>], odds: &[Odd], pod: &Pod, via: Via, is_local: bool) -> Result<BTreeSet<u16>> {
    let target = Both::of(pod).at(via, TARGET_PORT);
    let mut arrived = BTreeSet::new();
    for packet in frames.iter().filter_map(|frame| packet(frame)) {
        let Some(number) = marked(packet) else { continue };
        let Some(odd) = usize::from(number).checked_sub(1).and_then(|at| odds.get(at)) else { continue };
        if addresses_of(packet)?.1 != target.ip() {
            continue;
        }
        let client = if is_local { odd.flow.source.ip() } else { addresses::node(1).at(via, 0).ip() };
        expect_translation(&odd.built, odd.protocol, packet, target, client)
            .with_context(|| format!("{} has arrived", odd.name))?;
        arrived.insert(number);
    }
    Ok(arrived)
}
