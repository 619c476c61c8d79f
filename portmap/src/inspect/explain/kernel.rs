//! The kernel's tables beside an explanation: their treatment of the frontend, and the difference from the objects.

use std::net::IpAddr;

use super::{Explanation, KernelRow, Why};
use crate::{
    inspect::{
        differences::{self, Difference, Field, Kind},
        table::RowReader,
    },
    maps::{Item, Snapshot},
    model::{AddressOwner, Entry, Family, Frontend, FrontendSpec, Protocol},
};

/// The treatment of a frontend by tables that were read for it alone, and its difference from the objects. `entry`: the desired
/// entry, or none with the desired action.
pub fn compare(snapshot: &Snapshot, frontend: &Frontend, entry: Option<Entry>, action: &'static str) -> KernelRow {
    let found = snapshot.frontends.iter().find(|(other, _)| other == frontend).map(|(_, found)| found);
    let row = found.and_then(|found| RowReader::new(snapshot).row(&FrontendSpec::from(*frontend), found));
    let given = match (&row, found) {
        (Some(row), _) => row.action,
        (None, Some(_)) => "leave",
        (None, None) => without_frontend(snapshot, frontend.address),
    };
    let is_desired = entry.is_some();
    let desired = entry.map(|entry| (*frontend, entry));
    let mut difference = differences::between(desired.into_iter(), snapshot).remove(frontend);
    if !is_desired && found.is_none() && given != action {
        difference = Some(other_action(frontend, action, given));
    }
    KernelRow {
        agrees: Some(difference.is_none()),
        action: Some(given),
        backends: row.map(|row| row.backends).unwrap_or_default(),
        difference,
        detached: Vec::new(),
        unread: None,
    }
}

/// The action for a destination without a frontend: that of the programs for whole ClusterIPs and ranges.
fn without_frontend(snapshot: &Snapshot, address: IpAddr) -> &'static str {
    let prefixes = snapshot.prefixes.get(Family::of(address)).as_deref().unwrap_or_default();
    let Some(prefix) = prefixes.iter().find(|prefix| prefix.range.contains(&address)) else { return "leave" };
    let owner = snapshot.items.iter().find_map(|item| match item {
        Item::Address(of, owner) if *of == address => Some(*owner),
        Item::Address(..) | Item::Endpoint(..) | Item::Member(_) | Item::Range(..) => None,
    });
    match owner {
        Some(AddressOwner::Served) => "refuse",
        None if prefix.allocated => "drop",
        Some(AddressOwner::OtherProxy | AddressOwner::Foreign) | None => "leave",
    }
}

fn other_action(frontend: &Frontend, desired: &str, found: &str) -> Difference {
    Difference {
        frontend: frontend.to_string(),
        service: String::new(),
        kind: Kind::Different,
        fields: vec![Field { name: "action", desired: desired.to_owned(), found: found.to_owned() }],
        backends: None,
        external_backends: None,
        reason: None,
    }
}

/// Whether a call to the frontend runs this program: `connect4`, or for UDP also `sendmsg4`; `…6` for IPv6.
pub fn concerns(program: &str, frontend: &Frontend) -> bool {
    let family = match frontend.family() {
        Family::V4 => '4',
        Family::V6 => '6',
    };
    match program.strip_suffix(family) {
        Some("connect") => true,
        Some("sendmsg") => frontend.protocol == Protocol::Udp,
        Some(_) | None => false,
    }
}

impl Explanation {
    /// Adds the kernel's tables. Their treatment is the one that a connection meets now.
    pub fn add_kernel(&mut self, kernel: KernelRow) {
        if let Some(action) = kernel.action {
            let is_other = action != self.action;
            (self.action, self.connects) = (action, action == "forward");
            if is_other {
                self.reason = (action != "forward").then(|| Why { code: "tablesDiffer", text: by_tables(&kernel) });
            }
        }
        if !kernel.detached.is_empty() {
            (self.action, self.connects) = ("leave", false);
            self.reason = Some(Why { code: "detached", text: "the programs are not attached".to_owned() });
        }
        self.kernel = kernel;
    }
}

fn by_tables(kernel: &KernelRow) -> String {
    match kernel.difference.as_ref().map(|difference| difference.kind) {
        Some(Kind::Missing) => "the kernel's tables do not have the frontend".to_owned(),
        Some(Kind::Invalid) => "the kernel's tables have an invalid entry".to_owned(),
        Some(Kind::Extra | Kind::Different) | None => "the kernel's tables differ from the objects".to_owned(),
    }
}
