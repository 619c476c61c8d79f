//! Tests the CPU time for large Services, and for many Services with the same frontends. An algorithm with quadratic cost takes
//! minutes here.

use std::{fs, time::Duration};

use super::*;
use crate::{maps::Capacity, plan::Planner};

/// Limit of the CPU time of one test.
const LIMIT: Duration = Duration::from_secs(5);

/// The CPU time of this thread.
fn ran() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("the statistics of the scheduler");
    let nanoseconds = text.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.expect("nanoseconds"))
}

fn huge(port: u16, external_ips: u32, source_ranges: u32) -> Value {
    let address = |network: u8, number: u32| {
        let [_, b, c, d] = number.to_be_bytes();
        format!("{network}.{b}.{c}.{d}")
    };
    let of = |network, count: u32| (0..count).map(|number| address(network, 2 * number)).collect::<Vec<_>>();
    let ranges: Vec<String> = of(20, source_ranges).iter().map(|address| format!("{address}/32")).collect();
    json!({
        "metadata": {},
        "spec": {
            "type": "LoadBalancer", "clusterIP": format!("10.96.0.{port}"), "externalIPs": of(198, external_ips),
            "loadBalancerSourceRanges": ranges,
            "ports": [{"name": "p", "port": port, "protocol": "UDP"}, {"name": "q", "port": port + 1}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
    })
}

fn slice_of(service: &str, endpoints: u16) -> Value {
    let endpoint = |number: u16| json!({"addresses": [format!("10.244.{}.{}", number / 256, number % 256)]});
    json!({
        "metadata": {"labels": {"kubernetes.io/service-name": service}}, "addressType": "IPv4",
        "ports": [{"name": "p", "port": 8080, "protocol": "UDP"}, {"name": "q", "port": 8080}],
        "endpoints": (0..endpoints).map(endpoint).collect::<Vec<_>>(),
    })
}

/// Adds the objects one by one, then removes them, and plans every change. Fails if that takes longer than `LIMIT`.
fn expect_in_time(objects: &[Object]) {
    let started = ran();
    let mut desired = start();
    let mut planner = Planner::new(Capacity::default(), crate::maps::Snapshot::default());
    let mut follow = |desired: &mut Desired| {
        let changes = desired.resolve();
        planner.plan(desired.changed(&changes))
    };
    for object in objects {
        desired.apply(Event::Changed(object.clone()));
        follow(&mut desired);
    }
    let wanted = desired.table().iter().count();
    assert!(wanted > 0, "nothing was resolved");
    for object in objects {
        desired.apply(Event::Removed(object.kind(), object.name().clone()));
        follow(&mut desired);
    }
    assert_eq!(desired.table().iter().count(), 0);
    let took = ran().saturating_sub(started);
    assert!(took < LIMIT, "{wanted} frontends took {took:?}");
}

#[test]
fn external_ips_of_one_service() {
    let (service, slice) = (huge(80, 8_000, 0), slice_of("a", 1_000));
    expect_in_time(&[convert(ObjectKind::Service, "a", service), convert(ObjectKind::Slice, "s", slice)]);
}

/// Session affinity adds the serving endpoints to the entry of each TCP frontend.
#[test]
fn external_ips_of_one_service_with_session_affinity() {
    let (mut service, slice) = (huge(80, 8_000, 0), slice_of("a", 1_000));
    service["spec"]["sessionAffinity"] = json!("ClientIP");
    let fewer = slice_of("a", 999);
    let objects = [(ObjectKind::Service, "a", service), (ObjectKind::Slice, "s", slice), (ObjectKind::Slice, "s", fewer)];
    expect_in_time(&objects.map(|(kind, name, object)| convert(kind, name, object)));
}

#[test]
fn source_ranges_of_one_service() {
    let (service, slice) = (huge(80, 4_000, 60_000), slice_of("a", 10));
    expect_in_time(&[convert(ObjectKind::Service, "a", service), convert(ObjectKind::Slice, "s", slice)]);
}

/// The two Services have other ports on the same addresses, so their frontends alternate in the order of the table.
#[test]
fn two_services_with_the_same_external_ips() {
    let services = [("a", 80), ("b", 90)].map(|(name, port)| convert(ObjectKind::Service, name, huge(port, 4_000, 20_000)));
    expect_in_time(&services);
}

#[test]
fn many_services_claim_the_same_addresses() {
    let service = |number: u32| convert(ObjectKind::Service, &format!("service-{number}"), huge(80, 10, 0));
    expect_in_time(&(0..1_000).map(service).collect::<Vec<_>>());
}

#[test]
fn more_than_a_service_may_claim_is_left_out() {
    let mut service = huge(80, 60_000, 0);
    let port = |number: u16| json!({"name": format!("p-{number}"), "port": number, "protocol": "TCP"});
    service["spec"]["ports"] = (1..10_000).map(port).collect();
    let mut desired = start();
    desired.apply(Event::Changed(convert(ObjectKind::Service, "a", service.clone())));
    desired.resolve();
    assert_eq!(desired.table().iter().count(), resolve::MAX_FRONTENDS);
    let cluster_ips = desired.entries().filter(|(_, entry)| entry.kind == crate::model::AddressKind::ClusterIp);
    assert_eq!(cluster_ips.count(), 9_999, "ClusterIPs are claimed first");
    assert!(desired.skipped().any(|skipped| skipped.reason.contains("16384")), "the limit is reported");
    expect_in_time(&[convert(ObjectKind::Service, "a", service)]);
}

/// A Service with 60,000 invalid external IPs, given by mistake or on purpose.
#[test]
fn tens_of_thousands_of_faults() {
    let mut service = huge(80, 1, 0);
    service["spec"]["externalIPs"] = (0..60_000).map(|number| json!(format!("nonsense-{number}"))).collect();
    expect_in_time(&[convert(ObjectKind::Service, "a", service)]);
}

/// kube-proxy in IPVS mode makes an interface (kube-ipvs0) with the addresses of all Services, so they are node addresses too.
#[test]
fn cluster_ips_on_an_interface_serve_no_node_ports() {
    let mut desired = Desired::new(NODE.into(), vec![Eligible::All], Vec::new());
    let address = |number: u16| format!("10.97.{}.{}", number / 256, number % 256);
    let own = std::iter::once("192.168.0.1/24".to_owned());
    let local = own.chain((0..20_000).map(|number| format!("{}/32", address(number))));
    desired.set_local(local.map(|text| text.parse().expect("an address")).collect());
    let service = |number: u16| {
        json!({"spec": {
            "type": "NodePort", "clusterIP": address(number),
            "ports": [{"port": 80, "nodePort": if number < 2_000 { Some(30_000 + number) } else { None }}],
        }})
    };
    let services = (0..20_000).map(|number| convert(ObjectKind::Service, &format!("service-{number}"), service(number)));
    desired.apply(Event::Listed(ObjectKind::Service, services.collect()));
    let started = ran();
    let changes = desired.resolve();
    let took = ran().saturating_sub(started);
    assert!(took < LIMIT, "it took {took:?}");
    assert_eq!(changes.frontends.len(), 20_000 + 2_000, "each ClusterIP, and each node port on one address");
    assert_eq!(desired.table().everything().frontends, changes.frontends);
}
