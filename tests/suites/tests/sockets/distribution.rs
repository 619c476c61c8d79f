//! The distribution of new connections over the backends.

use std::collections::BTreeMap;

use anyhow::Result;
use portmap_harness::listen::{Listen, Protocol};
use portmap_suites::service_objects::{Both, Endpoint, PORT, Service, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::{Stage, Transport, who};

/// In the first test, the endpoints are consecutive ports of one pod. This is the lowest.
const FIRST: u16 = 9000;
/// Number of connections for each backend.
const EACH: u32 = 200;
/// The smallest accepted probability of a distribution. A uniform choice fails one check in a million.
const LEAST: f64 = 1e-6;

#[test]
fn connections_are_distributed_evenly() -> Result<()> {
    let mut stage = Stage::new("share", &["a"], &[])?;
    let listens = (FIRST..FIRST + 31).flat_map(|port| [Listen::tcp(port), Listen::udp(port)]);
    stage.pods[0].serve(&listens.collect::<Vec<_>>())?;
    // The counts are odd, because `survival` needs an even number of degrees of freedom: the count minus 1.
    for count in [3, 7, 31] {
        let endpoints = (FIRST..FIRST + count).map(|port| Endpoint::of(&stage.pods[0]).port(port));
        let service = Service::new("web", 1).endpoints(endpoints);
        stage.apply(&[service])?;
        let total = u32::from(count) * EACH;
        for (via, protocol) in [(Via::V4, Protocol::Tcp), (Via::V6, Protocol::Tcp), (Via::V4, Protocol::Udp)] {
            let answers = stage.client.connect(cluster_ip(1).at(via, PORT), protocol, total)?;
            assert!(answers.errors.is_empty(), "{answers}");
            expect_fair(&answers.replies, count.into(), total);
        }
    }
    Ok(())
}

#[test]
fn datagrams_of_new_sockets_are_distributed_evenly() -> Result<()> {
    let mut stage = Stage::new("share-udp", &["a", "b", "c"], &[])?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods))])?;
    let process = stage.process()?;
    for via in Via::ALL {
        let mut replies = BTreeMap::new();
        for _ in 0..3 * EACH {
            *replies.entry(who(&process, Transport::UdpUnconnected, cluster_ip(1).at(via, PORT))?).or_default() += 1;
        }
        expect_fair(&replies, 3, 3 * EACH);
    }
    Ok(())
}

/// The distribution is uniform after a change of the endpoints too.
#[test]
fn connections_are_distributed_evenly_after_a_change() -> Result<()> {
    let mut stage = Stage::new("share-change", &["a", "b", "c", "d", "e"], &[])?;
    let address = cluster_ip(1).at(Via::V4, PORT);
    for set in [0..5, 1..4, 0..3, 0..5] {
        stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods[set.clone()]))])?;
        let total = EACH * u32::try_from(set.len())?;
        let answers = stage.client.connect(address, Protocol::Tcp, total)?;
        let expected: Vec<String> = stage.pods[set.clone()].iter().map(|pod| format!("{} 8080/TCP", pod.name())).collect();
        assert_eq!(answers.replies.keys().cloned().collect::<Vec<_>>(), expected);
        expect_fair(&answers.replies, u32::try_from(set.len())?, total);
    }
    // The pod's own address is not translated.
    let own = Both::of(&stage.pods[4]).at(Via::V4, 8080);
    assert_eq!(stage.client.connect(own, Protocol::Tcp, 1)?.replies.len(), 1);
    Ok(())
}

fn expect_fair(replies: &BTreeMap<String, u32>, backends: u32, total: u32) {
    let expected = f64::from(total) / f64::from(backends);
    let counts = replies.values().copied().chain(std::iter::repeat(0)).take(backends as usize);
    let chi_square: f64 = counts.map(|count| (f64::from(count) - expected).powi(2) / expected).sum();
    let probability = survival(chi_square, backends - 1);
    assert!(probability >= LEAST, "chi-square {chi_square} has the probability {probability}: {replies:?}");
}

/// The probability that a uniform choice gives at least this chi-square. For an even number of degrees of freedom it is a sum
/// of Poisson probabilities.
fn survival(chi_square: f64, degrees: u32) -> f64 {
    assert!(degrees.is_multiple_of(2), "the number of backends must be odd");
    let half = chi_square / 2.0;
    let mut term = (-half).exp();
    let mut sum = 0.0;
    for number in 1..=degrees / 2 {
        sum += term;
        term *= half / f64::from(number);
    }
    sum
}

#[test]
fn the_chi_square_function_agrees_with_published_tables() {
    // Values of published tables of the distribution.
    for (chi_square, degrees, probability) in
        [(5.991, 2, 0.05), (9.488, 4, 0.05), (43.773, 30, 0.05), (13.816, 2, 0.001), (59.703, 30, 0.001)]
    {
        let found = survival(chi_square, degrees);
        assert!((found / probability - 1.0).abs() < 0.001, "{chi_square} {degrees}: {found}");
    }
}
