//! Packets of every size: fragments of datagrams, and segments that the kernel divides late.

use anyhow::{Context as _, Result};
use portmap_harness::dual_stack::Via;
use portmap_harness::listen::Protocol;
use portmap_harness::topology::addresses;
use portmap_suites::outside_answers::expect;
use portmap_suites::outside_stage::Stage;

use crate::cases;

cases![datagrams_of_every_size_come_back, large_requests_and_replies_arrive];

/// Sizes around the MTU, and up to the largest. The reply is as long as the request.
const SIZES: [usize; 9] = [10, 200, 1452, 1453, 1472, 1473, 3000, 9000, 60_000];

/// Size of a request or reply on a TCP connection.
const LARGE: usize = 400_000;

/// Pairs of an endpoint and its server.
const SERVERS: [(&str, &str); 3] = [("a", "a 8080"), ("c", "c 8080"), ("node-1", "node-1 8095")];

fn datagrams_of_every_size_come_back(stage: &mut Stage, via: Via) -> Result<()> {
    for (endpoint, server) in SERVERS {
        let service = stage.publish(stage.endpoints(&[endpoint]))?;
        for (process, client) in [(&stage.client, addresses::CLIENT), (&stage.neighbour, addresses::NEIGHBOUR)] {
            let seen = if endpoint == "c" { addresses::node(1) } else { client };
            let socket = process.connected(service.node_port(stage.one(), via), Protocol::Udp)?;
            for size in SIZES {
                let what = || format!("{size} bytes from {client:?} to {server}");
                let answer = socket.echo(size).with_context(what)?;
                expect(&answer, Protocol::Udp, server, seen.at(via, 0).ip()).with_context(what)?;
            }
        }
    }
    Ok(())
}

fn large_requests_and_replies_arrive(stage: &mut Stage, via: Via) -> Result<()> {
    for (endpoint, server) in SERVERS {
        let service = stage.publish(stage.endpoints(&[endpoint]))?;
        for (process, client) in [(&stage.client, addresses::CLIENT), (&stage.neighbour, addresses::NEIGHBOUR)] {
            let seen = if endpoint == "c" { addresses::node(1) } else { client };
            let socket = process.connected(service.load_balancer(via), Protocol::Tcp)?;
            for (up, down) in [(LARGE, 0), (0, LARGE), (LARGE, LARGE)] {
                let what = || format!("{up} bytes to {server} and {down} bytes back to {client:?}");
                let answer = socket.transfer(up, down).with_context(what)?;
                expect(&answer, Protocol::Tcp, server, seen.at(via, 0).ip()).with_context(what)?;
            }
        }
    }
    Ok(())
}
