//! Whatever happened before, and in whatever order: the table follows from the objects as they are.

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::*;
use crate::{source::Object, view};

const CHANGES: usize = 1_000;

const NODE: &str = "this-node";

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// What may happen to an object of a kind and name: it becomes this, or is gone.
#[derive(Clone, Debug)]
struct Change {
    kind: Kind,
    name: &'static str,
    object: Option<Value>,
}

fn name() -> impl Strategy<Value = &'static str> {
    select(&NAMES[..])
}

/// Few addresses, so that Services come into each other's way.
fn service() -> impl Strategy<Value = Value> {
    let kinds = select(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"][..]);
    let policy = || select(&["Cluster", "Local"][..]);
    let addresses = (0..8_u8, prop::collection::vec(0..3_u8, 0..3), prop::option::of(0..3_u8), any::<bool>());
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
                    "externalIPs": external_ips.iter().map(|last| format!("192.0.2.{last}")).collect::<Vec<_>>(),
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
    let place = (select(&[NODE, "other"][..]), select(&["", "here", "there"][..]));
    let endpoint = (1..6_u8, conditions, place);
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

fn change() -> impl Strategy<Value = Change> {
    let of = |kind, object: BoxedStrategy<Value>| {
        (name(), prop::option::weighted(0.8, object)).prop_map(move |(name, object)| Change { kind, name, object })
    };
    prop_oneof![
        5 => of(Kind::Service, service().boxed()),
        8 => of(Kind::Slice, slice().boxed()),
        1 => of(Kind::OtherService, service().boxed()),
        1 => prop::option::weighted(0.8, node()).prop_map(|object| Change { kind: Kind::Node, name: NODE, object }),
    ]
}

/// The object, named and converted as a source does it.
fn convert(kind: Kind, name: &str, mut object: Value) -> Object {
    object["metadata"]["name"] = json!(name);
    object["metadata"]["namespace"] = json!("default");
    match kind {
        Kind::Service => Object::service(parse(object)),
        Kind::OtherService => Object::other_service(parse(object)),
        Kind::Slice => Object::slice(parse(object), NODE),
        Kind::Node => Object::node(parse(object)),
        Kind::ServiceCidr => unreachable!("none is made"),
    }
}

fn parse<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object of its kind")
}

fn start() -> Desired {
    let mut desired = Desired::new(NODE.into(), vec![Eligible::Primary], Vec::new());
    for kind in Kind::ALL {
        desired.apply(Event::Listed(kind, Vec::new()));
    }
    desired
}

/// Everything that the table says, frontends on node addresses included.
fn said(desired: &Desired) -> Vec<String> {
    let Changes { frontends, addresses } = desired.table().everything();
    let rows = view::of_desired(desired).into_iter().map(|row| serde_json::to_string(&row).expect("a row"));
    let entries = frontends.iter().map(|frontend| format!("{frontend} {:?}", desired.entry(frontend)));
    let owners = addresses.iter().map(|address| format!("{address} {:?}", desired.owner(address)));
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
        // From scratch, in another order.
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
        // A node that had addresses and lost its Node object keeps them; one that never had any has none.
        if desired.store().node().is_some() {
            prop_assert_eq!(said(&desired), said(&again));
        } else {
            prop_assert_eq!(view::of_desired(&desired), view::of_desired(&again));
        }
    }
}
