//! The differences between the desired table and the kernel's maps, by frontend: the rows of `portmap verify`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::table::{self, External, Row, RowReader};
use crate::{
    maps::{FollowedFrontend, Snapshot},
    model::{Entry, Frontend, FrontendSpec},
};

/// A frontend whose entry in the kernel's maps differs from the desired one. Its JSON is a stable contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Address, port and protocol: `10.96.0.10:80/TCP`. A node port has one difference for each address of the node.
    pub frontend: String,
    /// The Service that should have the frontend, as `namespace/name`. For [`Kind::Extra`], the Service in the maps; empty if the
    /// maps have no name.
    pub service: String,
    /// The kind of the difference.
    pub kind: Kind,
    /// The fields with another value, for [`Kind::Different`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Field>,
    /// The backends for clients on the node, if they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backends: Option<Backends>,
    /// The backends for clients outside the node, if they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_backends: Option<Backends>,
    /// The reason for which the agent leaves the frontend out, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The kind of a [`Difference`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The frontend is desired, and not in the maps.
    Missing,
    /// The frontend is in the maps, and not desired.
    Extra,
    /// Fields or backends differ.
    Different,
    /// The maps have a value that no agent writes.
    Invalid,
}

/// A field of a frontend with another value than the desired one. Values are texts, and the source ranges a list in one text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// The name of the field, as in the JSON of `portmap services`; `externalAction` for clients outside the node.
    pub name: &'static str,
    /// The value by the objects; empty if it should be absent.
    pub desired: String,
    /// The value in the maps; empty if it is absent.
    pub found: String,
}

/// The backends that differ, as `10.244.1.2:8080`, sorted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backends {
    /// Desired backends that the maps lack.
    pub missing: Vec<String>,
    /// Backends in the maps that are not desired.
    pub extra: Vec<String>,
}

impl Difference {
    /// The part of this difference that an earlier reading of the same frontend had, too; `None` if there is none.
    pub fn common(self, before: &Self) -> Option<Self> {
        if self == *before || (self.kind == before.kind && self.kind != Kind::Different) {
            return Some(self);
        }
        let fields: Vec<Field> = self.fields.into_iter().filter(|field| before.fields.contains(field)).collect();
        let backends = Backends::common(self.backends, before.backends.as_ref());
        let external_backends = Backends::common(self.external_backends, before.external_backends.as_ref());
        let is_same = self.kind == before.kind && (!fields.is_empty() || backends.is_some() || external_backends.is_some());
        is_same.then_some(Self { fields, backends, external_backends, ..self })
    }
}

impl Backends {
    fn common(now: Option<Self>, before: Option<&Self>) -> Option<Self> {
        let (Self { missing, extra }, before) = (now?, before?);
        let both = |now: Vec<String>, before: &[String]| now.into_iter().filter(|it| before.contains(it)).collect::<Vec<_>>();
        let (missing, extra) = (both(missing, &before.missing), both(extra, &before.extra));
        (!missing.is_empty() || !extra.is_empty()).then_some(Self { missing, extra })
    }
}

/// The differences between desired entries and the maps, by frontend.
pub fn between(desired: impl Iterator<Item = (Frontend, Entry)>, snapshot: &Snapshot) -> BTreeMap<Frontend, Difference> {
    let reader = RowReader::new(snapshot);
    let mut found: BTreeMap<Frontend, &FollowedFrontend> =
        snapshot.frontends.iter().map(|(frontend, found)| (*frontend, found)).collect();
    let mut differences = BTreeMap::new();
    for (frontend, entry) in desired {
        let wanted = table::of_frontend(&frontend, &entry);
        let difference = match found.remove(&frontend) {
            None => Some(difference(&wanted.frontend, &wanted.service, Kind::Missing)),
            Some(found) => match reader.row(&FrontendSpec::from(frontend), found) {
                None => Some(difference(&wanted.frontend, &wanted.service, Kind::Invalid)),
                Some(row) => between_rows(&wanted, &row),
            },
        };
        differences.extend(difference.map(|difference| (frontend, difference)));
    }
    for (frontend, found) in found {
        let row = reader.row(&FrontendSpec::from(frontend), found);
        let service = row.map(|row| row.service).unwrap_or_default();
        differences.insert(frontend, difference(&frontend.to_string(), &service, Kind::Extra));
    }
    differences
}

fn difference(frontend: &str, service: &str, kind: Kind) -> Difference {
    Difference {
        frontend: frontend.to_owned(),
        service: service.to_owned(),
        kind,
        fields: Vec::new(),
        backends: None,
        external_backends: None,
        reason: None,
    }
}

/// The difference between two rows of one frontend; `None` if they are equal.
fn between_rows(desired: &Row, found: &Row) -> Option<Difference> {
    if desired == found {
        return None;
    }
    let (wanted, given) = (desired.outside(), found.outside());
    let differing = fields(desired, &wanted).into_iter().zip(fields(found, &given)).filter(|(desired, found)| desired != found);
    let fields = differing.map(|((name, desired), (_, found))| Field { name, desired, found });
    Some(Difference {
        fields: fields.collect(),
        backends: between_backends(&desired.backends, &found.backends),
        external_backends: between_backends(backends(&wanted), backends(&given)),
        ..difference(&desired.frontend, &desired.service, Kind::Different)
    })
}

/// The fields of a row besides its frontend and backends, as texts.
fn fields(row: &Row, outside: &External) -> [(&'static str, String); 7] {
    let external = match outside {
        External::Backends(_) => "forward",
        External::Action(action) => action,
    };
    [
        ("service", row.service.clone()),
        ("port", row.port.clone()),
        ("kind", row.kind.to_owned()),
        ("action", row.action.to_owned()),
        ("externalAction", external.to_owned()),
        ("affinitySeconds", row.affinity_seconds.map(|seconds| seconds.to_string()).unwrap_or_default()),
        ("sourceRanges", row.source_ranges.as_ref().map(|ranges| format!("[{}]", ranges.join(", "))).unwrap_or_default()),
    ]
}

fn backends(outside: &External) -> &[String] {
    match outside {
        External::Backends(backends) => backends,
        External::Action(_) => &[],
    }
}

fn between_backends(desired: &[String], found: &[String]) -> Option<Backends> {
    let (missing, extra) = (surplus(desired, found), surplus(found, desired));
    (!missing.is_empty() || !extra.is_empty()).then_some(Backends { missing, extra })
}

/// The backends in `all` that `others` lacks. A backend that is twice in `all` and once in `others` is in the result once.
fn surplus(all: &[String], others: &[String]) -> Vec<String> {
    let mut rest: BTreeMap<&String, usize> = BTreeMap::new();
    for other in others {
        *rest.entry(other).or_default() += 1;
    }
    let is_surplus = |backend: &&String| match rest.get_mut(*backend) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        Some(_) | None => true,
    };
    all.iter().filter(is_surplus).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A difference of backends.
    fn different(missing: &[&str], extra: &[&str]) -> Difference {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let backends = Some(Backends { missing: texts(missing), extra: texts(extra) });
        Difference { backends, ..difference("10.96.0.10:80/TCP", "shop/web", Kind::Different) }
    }

    #[test]
    fn changes_under_way_have_nothing_in_common_and_drift_has() {
        assert_eq!(different(&["b"], &["a"]).common(&different(&["c"], &["b"])), None);
        let drift = different(&["b"], &["a", "x"]).common(&different(&["c"], &["b", "x"]));
        assert_eq!(drift, Some(different(&[], &["x"])));
        let missing = difference("10.96.0.10:80/TCP", "shop/web", Kind::Missing);
        assert_eq!(missing.clone().common(&missing), Some(missing.clone()));
        assert_eq!(missing.common(&different(&["b"], &[])), None);
        let of_order = difference("10.96.0.10:80/TCP", "shop/web", Kind::Different);
        assert_eq!(of_order.clone().common(&of_order), Some(of_order));
    }

    #[test]
    fn a_backend_that_is_there_twice_is_extra() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let extra = between_backends(&texts(&["a", "b"]), &texts(&["a", "a", "c"]));
        assert_eq!(extra, Some(Backends { missing: texts(&["b"]), extra: texts(&["a", "c"]) }));
        assert_eq!(between_backends(&texts(&["a", "b"]), &texts(&["a", "b"])), None);
    }
}
