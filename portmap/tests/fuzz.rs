//! Property tests with arbitrary input: manifest files, command line arguments, and pinned maps that another process changed.
//! No input may cause a crash or an endless loop, and a valid manifest beside an invalid one must be served.
//!
//! `PROPTEST_CASES` is the number of inputs per test (256 by default).
//!
//! Needs: nothing.
#![expect(clippy::expect_used, reason = "a test says what went wrong by panicking")]

use std::{collections::BTreeSet, fs, net::IpAddr};

use portmap::{
    apply,
    inspect::table,
    lint::{
        self, Settings,
        set::{Origin, Set},
    },
    maps::{Capacity, FollowedFrontend, Item, Maps as _, NextNumbers, Prefix, Slot, Snapshot, fake::MemoryMaps},
    model::{AddressOwner, Endpoint, Frontend, ObjectName, PerFamily, Protocol, ServicePort, event::Wanted},
    plan::Planner,
    resolve::{changes::Changes, desired::Desired, node_ports::Eligible},
    source::manifests::{self, Manifests},
};
use portmap_common::{Choice, Member, Service};
use proptest::{collection::vec, option, prelude::*};

/// A valid manifest. Its Services must be served, whatever another file in the same directory has.
const SOUND: &str = include_str!("../../docs/examples/web.yaml");

/// The manifests that are mutated.
const EXAMPLES: [&str; 4] = [
    SOUND,
    include_str!("../../docs/examples/dns.yaml"),
    include_str!("../../docs/examples/named-port.yaml"),
    include_str!("../../docs/examples/outside.yaml"),
];

/// Texts that replace parts of a manifest.
const WORDS: [&str; 24] = [
    "null",
    "-1",
    "0",
    "65536",
    "99999999999999999999",
    "1e309",
    "\"\"",
    "\"\\0\"",
    "[]",
    "{}",
    "[[]]",
    "~",
    "true",
    "::",
    "::1",
    "10.96.0.10",
    "0.0.0.0/0",
    "*x",
    "&x [*x]",
    "!!binary aGk=",
    "|\n ",
    "- ",
    "\u{202e}",
    "\u{1b}[2J",
];

/// Reads a file with this content and a valid manifest, resolves both, and returns all frontends as texts.
fn read_and_resolve(content: &[u8]) -> Vec<String> {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("fuzz.yaml"), content).expect("a file");
    fs::write(directory.path().join("sound.yaml"), SOUND).expect("a file");
    let wanted = Wanted { node: "demo".into(), ..Wanted::default() };
    let reading = Manifests::new(vec![directory.path().to_owned()], wanted).read().expect("a directory that can be read");
    let mut desired = Desired::new("demo".into(), vec![Eligible::All], Vec::new());
    for event in manifests::listed(reading.objects) {
        desired.apply(event);
    }
    desired.resolve();
    let rows = table::of_desired(&desired);
    serde_json::to_string(&rows).expect("JSON");
    rows.into_iter().map(|row| row.frontend).collect()
}

/// A manifest of `EXAMPLES` with some parts replaced by `WORDS`.
fn mutated() -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), 0..12_usize, prop::sample::select(WORDS.to_vec()));
    (prop::sample::select(EXAMPLES.to_vec()), vec(change, 1..8)).prop_map(|(example, changes)| {
        let mut text: Vec<char> = example.chars().collect();
        for (position, length, word) in changes {
            let from = position.index(text.len().max(1));
            let to = (from + length).min(text.len());
            text.splice(from..to, word.chars());
        }
        text.into_iter().collect()
    })
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![(0..4_u8).prop_map(|last| IpAddr::from([10, 96, 0, last])), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]
}

/// Small numbers, so that several fields often have the same number, and arbitrary numbers.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![3 => 0..6_u32, 1 => any::<u32>()]
}

/// As [`number`], with 64 bits.
fn wide_number() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0..6_u64, 1 => any::<u64>(), 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1)]
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (address(), any::<u16>(), any::<bool>()).prop_map(|(address, port, local)| Endpoint { address, port, local })
}

fn frontend() -> impl Strategy<Value = Frontend> {
    (address(), any::<u16>(), protocol()).prop_map(|(address, port, protocol)| Frontend { address, port, protocol })
}

fn service() -> impl Strategy<Value = Service> {
    let choice = || (number(), number()).prop_map(|(first, count)| Choice { first, count });
    (choice(), choice(), wide_number(), number(), any::<u8>(), any::<u8>()).prop_map(
        |(inside, outside, id, affinity_timeout, kind, flags)| Service {
            inside,
            outside,
            id,
            affinity_timeout,
            kind,
            flags,
            ..Service::default()
        },
    )
}

fn found() -> impl Strategy<Value = FollowedFrontend> {
    let slots = || option::of(vec((endpoint(), wide_number()).prop_map(|(endpoint, number)| Slot { endpoint, number }), 0..6));
    (number(), option::of(service()), slots(), slots()).prop_map(|(number, service, inside, outside)| FollowedFrontend {
        number,
        service,
        inside,
        outside,
    })
}

fn owner() -> impl Strategy<Value = ServicePort> {
    ("[a-c]", protocol()).prop_map(|(name, protocol)| ServicePort {
        service: ObjectName::new("default", &name),
        port: "".into(),
        protocol,
    })
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        address().prop_map(|address| Item::Address(address, AddressOwner::Served)),
        (wide_number(), endpoint()).prop_map(|(number, endpoint)| Item::Endpoint(number, endpoint)),
        (wide_number(), any::<u8>(), wide_number())
            .prop_map(|(id, kind, endpoint)| Item::Member(Member::new(id, kind, endpoint))),
        (wide_number(), address()).prop_map(|(id, address)| Item::Range(id, address.into())),
    ]
}

/// Content of maps that another process has changed.
fn snapshot() -> impl Strategy<Value = Snapshot> {
    let prefix = (address(), any::<bool>()).prop_map(|(address, allocated)| Prefix { range: address.into(), allocated });
    let parts = (vec((frontend(), found()), 0..8), vec((wide_number(), option::of(owner())), 0..6), vec(item(), 0..10));
    (parts, vec(prefix, 0..4), wide_number(), wide_number()).prop_map(|((frontends, names, items), prefixes, id, endpoint)| {
        Snapshot {
            frontends,
            names,
            items: items.into_iter().collect::<BTreeSet<_>>(),
            spoiled: BTreeSet::new(),
            foreign: BTreeSet::new(),
            prefixes: PerFamily { v4: Some(prefixes), v6: None },
            next_numbers: NextNumbers { id, endpoint },
        }
    })
}

proptest! {
    #[test]
    fn any_bytes_are_a_file(content in vec(any::<u8>(), 0..2048)) {
        let served = read_and_resolve(&content);
        prop_assert!(!served.is_empty(), "the valid file is served");
    }

    #[test]
    fn any_changed_manifest_is_read_without_a_crash(text in mutated()) {
        read_and_resolve(text.as_bytes());
    }

    #[test]
    fn any_text_is_linted_without_a_crash(text in ".{0,500}", changed in mutated()) {
        let settings = Settings { node_ports: (30_000, 32_767), ignored: Vec::new() };
        let mut set = Set::new(Origin::Files, "default");
        set.read("changed.yaml", &changed);
        lint::check(&set, &settings);
        set.read("text.yaml", &text);
        lint::check(&set, &settings);
    }

    #[test]
    fn any_text_is_an_argument_or_an_error(word in "\\PC{0,40}") {
        match word.parse::<Eligible>() {
            Ok(_) => {}
            Err(error) => prop_assert!(error.contains("CIDR"), "{}", error),
        }
    }

    /// For any former content of the maps, one plan reaches the desired table, so that a second plan has no steps.
    #[test]
    fn any_content_of_the_maps_leads_to_the_table(found in snapshot()) {
        let capacity = Capacity { services: 64, backends: 256, affinity_clients: 16, flows: 256 };
        let mut desired = Desired::new("demo".into(), vec![Eligible::All], Vec::new());
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("sound.yaml"), SOUND).expect("a file");
        let reading = Manifests::new(vec![directory.path().to_owned()], Wanted::default()).read().expect("a directory");
        for event in manifests::listed(reading.objects) {
            desired.apply(event);
        }
        let mut changes: Changes = desired.resolve();
        let mut planner = Planner::new(capacity, found);
        changes.extend(planner.everything());
        let plan = planner.plan(desired.changed(&changes));
        prop_assert!(plan.left_out.is_empty() || planner.frontends() > 0);
        // A second plan has no steps.
        let mut again = desired.table().everything();
        again.extend(planner.everything());
        prop_assert!(planner.plan(desired.changed(&again)).steps.is_empty());
        // On empty maps, the whole table is written.
        let mut fresh = Planner::new(capacity, Snapshot::default());
        let mut maps = MemoryMaps::new(capacity);
        apply::apply(&mut maps, &fresh.plan(desired.changed(&desired.table().everything()))).expect("applies");
        prop_assert_eq!(maps.read().expect("reads").frontends.len(), desired.table().iter().count());
    }
}
