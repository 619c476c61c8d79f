use super::*;

fn precedence(created: i64, name: &str) -> Precedence {
    Precedence { created, service: ObjectName::new("default", name) }
}

fn spec() -> FrontendSpec {
    frontend().into()
}

fn frontend() -> Frontend {
    Frontend { address: [10, 96, 0, 1].into(), port: 80, protocol: Protocol::Tcp }
}

fn winner(table: &Table) -> Option<&str> {
    table.winner(&frontend()).map(|(_, service)| service.name())
}

#[test]
fn the_oldest_claim_wins_and_the_next_takes_over() {
    let (old, new) = (precedence(1, "z"), precedence(2, "a"));
    let mut table = Table::default();
    table.replace(&new, &[], vec![(spec(), Rank::External)]);
    assert_eq!(winner(&table), Some("a"));
    table.replace(&old, &[], vec![(spec(), Rank::External)]);
    assert_eq!(winner(&table), Some("z"));
    assert_eq!(table.conflicts(&spec()).count(), 1);
    assert_eq!(table.replace(&old, &[spec()], Vec::new()).frontends.len(), 1);
    assert_eq!(winner(&table), Some("a"));
    table.replace(&new, &[spec()], Vec::new());
    assert_eq!(winner(&table), None);
}

#[test]
fn of_one_age_the_first_name_wins() {
    let (a, b) = (precedence(1, "a"), precedence(1, "b"));
    let mut table = Table::default();
    table.replace(&b, &[], vec![(spec(), Rank::External)]);
    table.replace(&a, &[], vec![(spec(), Rank::External)]);
    assert_eq!(winner(&table), Some("a"));
}

#[test]
fn a_cluster_ip_wins_whatever_its_age() {
    let (old, new) = (precedence(1, "squatter"), precedence(2, "owner"));
    let mut table = Table::default();
    table.replace(&old, &[], vec![(spec(), Rank::External)]);
    table.replace(&new, &[], vec![(spec(), Rank::ClusterIp)]);
    assert_eq!(winner(&table), Some("owner"));
    assert_eq!(table.conflicts(&spec()).count(), 1);
}

#[test]
fn a_left_over_address_loses_to_one_in_use() {
    let (old, new) = (precedence(1, "was"), precedence(2, "is"));
    let mut table = Table::default();
    table.replace(&old, &[], vec![(spec(), Rank::LeftOver)]);
    assert_eq!(winner(&table), Some("was"));
    table.replace(&new, &[], vec![(spec(), Rank::External)]);
    assert_eq!(winner(&table), Some("is"));
}

/// Another Service's external IP equals the ClusterIP. Its claim fails even at a port that the owner does not define.
#[test]
fn a_cluster_ip_belongs_to_its_service_at_every_port() {
    for owner in [AddressOwner::Served, AddressOwner::OtherProxy] {
        let squatter = precedence(1, "squatter");
        let (mut table, address) = (Table::default(), frontend().address);
        table.replace(&squatter, &[], vec![(spec(), Rank::External)]);
        assert_eq!((winner(&table), table.contested()), (Some("squatter"), 0));
        let name = ObjectName::new("default", "owner");
        let changes = table.set_addresses(owner, &name, &[], &[address]);
        assert!(changes.frontends.contains(&frontend()), "{changes:?}");
        assert_eq!((winner(&table), table.contested(), table.iter().count()), (None, 1, 0));
        assert_eq!(table.conflicts(&spec()).next(), Some((&squatter.service, &name)));
        let changes = table.set_addresses(owner, &name, &[address], &[]);
        assert!(changes.frontends.contains(&frontend()), "{changes:?}");
        assert_eq!((winner(&table), table.contested()), (Some("squatter"), 0));
    }
}

/// kube-proxy in IPVS mode makes an interface (kube-ipvs0) with the addresses of all Services, so they are node addresses too.
#[test]
fn an_address_of_a_service_serves_no_node_ports() {
    let node_port = FrontendSpec::node_port(Family::V4, 30_080, Protocol::Tcp);
    let on = |last: u8| node_port.on([10, 96, 0, last].into());
    let mut table = Table::default();
    let addresses = [(1, Yielding::ToClusterIps), (2, Yielding::ToClusterIps), (3, Yielding::ToServices)];
    table.set_node_addresses(addresses.map(|(last, yielding)| (on(last).address, yielding)).into());
    let service = precedence(1, "web");
    let external = |last: u8| FrontendSpec::from(Frontend { port: 80, ..on(last) });
    let claims = [2, 3].map(|last| (external(last), Rank::External));
    table.replace(&service, &[], claims.into_iter().chain([(node_port, Rank::NodePort)]).collect());
    table.set_addresses(AddressOwner::Served, &service.service, &[], &[on(1).address]);
    assert_eq!(
        table.apply_node_ports().frontends,
        [on(2)].into_iter().collect(),
        "node ports were never served on the address"
    );
    let served = |table: &Table| [1, 2, 3].map(|last| table.winner(&on(last)).is_some());
    assert_eq!(served(&table), [false, true, false]);
    table.set_addresses(AddressOwner::Served, &service.service, &[on(1).address], &[]);
    assert!(table.apply_node_ports().frontends.contains(&on(1)));
    assert_eq!(served(&table), [true, true, false]);
}

#[test]
fn node_ports_are_last_and_frontends_of_a_service_are_adjacent() {
    let mut table = Table::default();
    let at = |last: u8, port| Frontend { address: [10, 96, 0, last].into(), port, protocol: Protocol::Tcp };
    table.set_node_addresses([(at(0, 0).address, Yielding::ToClusterIps)].into());
    let node_port = FrontendSpec::node_port(Family::V4, 30_080, Protocol::Tcp);
    for (number, name) in [(1, "a"), (2, "b")] {
        let frontends = [at(number, 80), at(number + 2, 80), at(number, 81)];
        let claims = frontends.map(|frontend| (FrontendSpec::from(frontend), Rank::ClusterIp));
        table.replace(&precedence(1, name), &[], claims.into_iter().chain([(node_port, Rank::NodePort)]).collect());
    }
    table.apply_node_ports();
    let mut all: Vec<Frontend> = table.everything().frontends.into_iter().chain([at(9, 9)]).collect();
    all.sort_unstable();
    let arranged: Vec<Frontend> = table.arrange(all);
    let (a, b) = ([at(1, 80), at(3, 80), at(1, 81)], [at(2, 80), at(4, 80), at(2, 81)]);
    assert_eq!(arranged, [vec![at(9, 9)], a.to_vec(), b.to_vec(), vec![at(0, 30_080)]].concat());
}
