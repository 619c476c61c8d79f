//! Property test: the desired table depends only on the current objects, not on earlier events or their order.

mod costs;

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::{entries::EntryReader, *};
use crate::{inspect::table, model::event::Object};

const CHANGES: usize = 1_000;

const NODE: &str = "this-node";

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A change of the object with this kind and name: it becomes `object`, or is removed if `object` is `None`.
#[derive(Clone, Debug)]
struct Change {
    kind: ObjectKind,
    name: &'static str,
    object: Option<Value>,
}

fn name() -> impl Strategy<Value = &'static str> {
    select(&NAMES[..])
}

/// An external IP, which may be another Service's ClusterIP.
fn external_ip() -> impl Strategy<Value = String> {
    (select(&["192.0.2", "10.96.0"][..]), 0..4_u8).prop_map(|(network, last)| format!("{network}.{last}"))
}

/// A Service with few possible addresses, so that Services conflict.
fn service() -> impl Strategy<Value = Value> {
    let kinds = select(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"][..]);
    let policy = || select(&["Cluster", "Local"][..]);
    let addresses = (0..8_u8, prop::collection::vec(external_ip(), 0..3), prop::option::of(0..3_u8), any::<bool>());
    let rest = (prop::option::of(30_000..30_003_u16), select(&["None", "ClientIP"][..]), 0..3_i64, select(&["TCP", "UDP"][..]));
    (kinds, policy(), policy(), addresses, rest).prop_map(
        |(kind, internal, external, (last, external_ips, ingress, is_dual), (node_port, affinity, created, protocol))| {
            let mut ips = vec![format!("10.96.0.{last}")];
            let mut families = vec!["IPv4"];
            if is_dual {
                ips.push(format!("fd00:10:96::{last}"));
                families.push("IPv6");
            }
            json!({
                "metadata": {"creationTimestamp": format!("2024-05-01T00:00:0{created}Z")},
                "spec": {
                    "type": kind, "clusterIP": ips[0], "clusterIPs": ips, "ipFamilies": families,
                    "internalTrafficPolicy": internal, "externalTrafficPolicy": external, "sessionAffinity": affinity,
                    "externalIPs": external_ips,
                    "ports": [{"name": "p", "port": 80, "protocol": protocol, "nodePort": node_port}],
                },
                "status": {"loadBalancer": {
                    "ingress": ingress.iter().map(|last| json!({"ip": format!("203.0.113.{last}")})).collect::<Vec<_>>(),
                }},
            })
        },
    )
}

fn slice() -> impl Strategy<Value = Value> {
    let conditions = (any::<Option<bool>>(), any::<Option<bool>>(), any::<Option<bool>>());
    let location = (select(&[NODE, "other"][..]), select(&["", "here", "there"][..]));
    let endpoint = (1..6_u8, conditions, location);
    let slice = (name(), any::<bool>(), select(&["TCP", "UDP"][..]), prop::collection::vec(endpoint, 0..4));
    slice.prop_map(|(service, is_v6, protocol, endpoints)| {
        let endpoint = |(last, (ready, serving, terminating), (node, zone)): &(u8, _, (&str, &str))| {
            let address = if is_v6 { format!("fd00:10:244::{last}") } else { format!("10.244.0.{last}") };
            let hints: Vec<Value> =
                Some(zone).filter(|zone| !zone.is_empty()).map(|zone| json!({"name": zone})).into_iter().collect();
            json!({
                "addresses": [address], "nodeName": node, "hints": {"forZones": hints},
                "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            })
        };
        json!({
            "metadata": {"labels": {"kubernetes.io/service-name": service}},
            "addressType": if is_v6 { "IPv6" } else { "IPv4" },
            "ports": [{"name": "p", "port": 8080, "protocol": protocol}],
            "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        })
    })
}

fn node() -> impl Strategy<Value = Value> {
    (select(&["here", "there"][..]), 1..3_u8).prop_map(|(zone, last)| {
        json!({
            "metadata": {"labels": {"topology.kubernetes.io/zone": zone}},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.168.0.{last}")}]},
        })
    })
}

fn cidrs() -> impl Strategy<Value = Value> {
    select(&["10.96.0.2/31", "10.96.0.0/30", "10.97.0.0/16"][..]).prop_map(|range| json!({"spec": {"cidrs": [range]}}))
}

fn change() -> impl Strategy<Value = Change> {
    let of = |kind, object: BoxedStrategy<Value>| {
        (name(), prop::option::weighted(0.8, object)).prop_map(move |(name, object)| Change { kind, name, object })
    };
    prop_oneof![
        5 => of(ObjectKind::Service, service().boxed()),
        8 => of(ObjectKind::Slice, slice().boxed()),
        1 => of(ObjectKind::OtherService, service().boxed()),
        1 => of(ObjectKind::ServiceCidr, cidrs().boxed()),
        1 => prop::option::weighted(0.8, node()).prop_map(|object| Change { kind: ObjectKind::Node, name: NODE, object }),
    ]
}

/// The object with its name, converted as by a source.
fn convert(kind: ObjectKind, name: &str, mut object: Value) -> Object {
    object["metadata"]["name"] = json!(name);
    object["metadata"]["namespace"] = json!("default");
    match kind {
        ObjectKind::Service => Object::service(parse(object)),
        ObjectKind::OtherService => Object::other_service(parse(object)),
        ObjectKind::Slice => Object::slice(parse(object), NODE),
        ObjectKind::Node => Object::node(parse(object)),
        ObjectKind::ServiceCidr => {
            let cidr: k8s_openapi::api::networking::v1::ServiceCIDR = parse(object);
            Object::ServiceCidr(ObjectName::new("default", name), crate::model::object::cidrs(cidr.spec.unwrap_or_default()).0)
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object of its kind")
}

fn start() -> Desired {
    let own = "10.96.0.0/29".parse().expect("a range");
    let mut desired = Desired::new(NODE.into(), vec![Eligible::Primary, Eligible::Range(own)], Vec::new());
    // The test's Services have some of these addresses as ClusterIPs or external IPs, at times.
    let local = ["10.96.0.1/32", "10.96.0.2/24", "10.96.0.3/32", "10.96.0.7/32"];
    desired.set_local(local.map(|text| text.parse().expect("an address")).into());
    for kind in ObjectKind::ALL {
        desired.apply(Event::Listed(kind, Vec::new()));
    }
    desired
}

/// All rows, entries and owners of the table as text, including frontends on node addresses.
fn contents(desired: &Desired) -> Vec<String> {
    let Changes { frontends, addresses } = desired.table().everything();
    let rows = table::of_desired(desired).into_iter().map(|row| serde_json::to_string(&row).expect("a row"));
    let mut reader = EntryReader::new(desired);
    let entries = frontends.iter().map(|frontend| format!("{frontend} {:?}", reader.of_frontend(frontend)));
    let owners = addresses.iter().map(|address| format!("{address} {:?}", desired.table().owner(address)));
    let mut all: Vec<String> = rows.chain(entries).chain(owners).collect();
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_table_follows_from_the_objects_as_they_are(
        changes in prop::collection::vec(change(), CHANGES),
        order in any::<prop::sample::Index>(),
    ) {
        let (mut desired, mut objects) = (start(), BTreeMap::new());
        for Change { kind, name, object } in changes {
            let full_name = ObjectName::new("default", name);
            match object {
                Some(object) => {
                    let object = convert(kind, name, object);
                    objects.insert((kind, name), object.clone());
                    desired.apply(Event::Changed(object));
                }
                None => {
                    objects.remove(&(kind, name));
                    desired.apply(Event::Removed(kind, full_name));
                }
            }
            desired.resolve();
        }
        // A new table from the same objects in another order.
        let mut again = start();
        let mut all: Vec<Object> = objects.into_values().collect();
        if !all.is_empty() {
            let turn = order.index(all.len());
            all.rotate_left(turn);
        }
        for object in all {
            again.apply(Event::Changed(object));
        }
        again.resolve();
        // A node that lost its Node object keeps its addresses; a node that never had a Node object has none.
        if desired.store().node().is_some() {
            prop_assert_eq!(contents(&desired), contents(&again));
        } else {
            prop_assert_eq!(table::of_desired(&desired), table::of_desired(&again));
        }
    }
}
