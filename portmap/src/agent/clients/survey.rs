//! Surveys of the network namespaces: the addresses of each namespace, and the source addresses of its calls.
//!
//! A survey enters each namespace of its scope, asks the kernel, and writes NAMESPACES and SOURCES. [`super`] decides when a
//! survey is due, and [`super::selection`] which namespaces get room.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use anyhow::Result;
use netlink_sys::Socket;

use super::selection::{ClientNamespace, ClientRank, Selection, select};
use crate::{
    kernel::{
        descriptors,
        namespaces::{self, Id, NamespaceHolder, Traveller},
        routes::{self, Routes},
    },
    maps::{pin::Pins, sources::SourceMaps},
};

/// The namespaces that a survey visits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SurveyScope {
    /// All namespaces without a watch. A watched namespace reports its changes itself.
    All,
    /// New namespaces first; the other namespaces without a watch only if no new namespace was visited.
    Unknown,
    /// These namespaces, if an earlier survey has visited them.
    These(BTreeSet<Id>),
}

impl fmt::Display for SurveyScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all that are not watched"),
            Self::Unknown => f.write_str("new ones first"),
            Self::These(ids) => write!(f, "{} known ones", ids.len()),
        }
    }
}

/// The order for one survey.
#[derive(Debug)]
pub struct Request {
    /// The namespaces to visit.
    pub scope: SurveyScope,
    /// The load balancer addresses that have source ranges. None before all objects are known: then the addresses in SOURCES
    /// are used.
    pub destinations: Option<Arc<BTreeSet<IpAddr>>>,
    /// The namespaces whose watch has failed.
    pub lost: BTreeSet<Id>,
}

/// The results of one survey.
pub struct Findings {
    /// Whether any namespace is new or has changed.
    pub is_new: bool,
    /// The number of namespaces that are left out because there is no room, or because the first visit failed.
    pub left_out: u32,
    /// The first failure of a visit.
    pub failure: Option<anyhow::Error>,
    /// The namespaces that have a watch after the survey.
    pub watched: BTreeSet<Id>,
    /// The sockets of the new watches, each with its namespace.
    pub opened: Vec<(Id, Socket)>,
}

/// The namespaces that earlier surveys visited, and the maps NAMESPACES and SOURCES.
pub struct Survey {
    maps: SourceMaps,
    destinations: Arc<BTreeSet<IpAddr>>,
    known: BTreeMap<Id, KnownNamespace>,
}

/// A namespace that an earlier survey visited.
#[derive(Debug)]
struct KnownNamespace {
    holder: NamespaceHolder,
    clients: ClientNamespace,
    is_watched: bool,
}

/// The state of a survey that is under way.
struct Progress<'a> {
    own: Id,
    traveller: &'a Traveller,
    is_new: bool,
    /// The number of namespaces whose first visit failed.
    failed: usize,
    failure: Option<anyhow::Error>,
    opened: Vec<(Id, Socket)>,
}

impl Survey {
    /// Opens the maps. Starts without known namespaces, and with the destinations that SOURCES holds.
    pub fn open(pins: &Pins) -> Result<Self> {
        let maps = SourceMaps::open(pins)?;
        Ok(Self { destinations: Arc::new(maps.destinations()?), maps, known: BTreeMap::new() })
    }

    /// The known namespaces in which the source address of a call depends on the destination.
    pub fn needing_sources(&self) -> BTreeSet<Id> {
        self.known.iter().filter(|(_, known)| known.clients.needs_sources()).map(|(id, _)| *id).collect()
    }

    /// Visits the namespaces of the request, and writes the maps. A failed visit is recorded, and the survey continues.
    pub fn run(&mut self, request: &Request, traveller: &Traveller) -> Result<Findings> {
        let mut progress =
            Progress { own: namespaces::own()?, traveller, is_new: false, failed: 0, failure: None, opened: Vec::new() };
        if let Some(destinations) = &request.destinations {
            self.destinations.clone_from(destinations);
        }
        for known in self.known.iter_mut().filter(|(id, _)| request.lost.contains(id)).map(|(_, known)| known) {
            known.is_watched = false;
        }
        tracing::debug!("surveying network namespaces: {}", request.scope);
        for holders in self.rounds(request)? {
            for holder in holders {
                self.visit(holder, &mut progress);
            }
            if progress.is_new {
                break;
            }
        }
        let left_out = self.write()? + progress.failed;
        let watched = self.known.iter().filter(|(_, known)| known.is_watched).map(|(id, _)| *id).collect();
        let Progress { is_new, failure, opened, .. } = progress;
        Ok(Findings { is_new, left_out: u32::try_from(left_out).unwrap_or(u32::MAX), failure, watched, opened })
    }

    /// Writes NAMESPACES and SOURCES. Returns the number of namespaces without room.
    fn write(&mut self) -> Result<usize> {
        let present = self.maps.namespaces()?;
        let all: Vec<&ClientNamespace> = self.known.values().map(|known| &known.clients).collect();
        let Selection { namespaces, sources, left_out } = select(all, &present, self.maps.room());
        self.maps.set(&namespaces, &sources)?;
        Ok(left_out)
    }

    /// The namespaces to visit, in rounds: a round is visited only if the earlier rounds found nothing new.
    fn rounds(&mut self, request: &Request) -> Result<Vec<Vec<NamespaceHolder>>> {
        if let SurveyScope::These(ids) = &request.scope {
            let these = self.known.iter().filter(|(id, _)| ids.contains(id));
            return Ok(vec![these.map(|(_, known)| known.holder.clone()).collect()]);
        }
        let holders = namespaces::holders()?;
        let found: BTreeSet<Id> = holders.iter().map(|holder| holder.id).collect();
        self.known.retain(|id, _| found.contains(id));
        for holder in &holders {
            if let Some(known) = self.known.get_mut(&holder.id) {
                known.holder.clone_from(holder);
            }
        }
        let (known, new): (Vec<_>, Vec<_>) = holders.into_iter().partition(|holder| self.known.contains_key(&holder.id));
        let unwatched = known.into_iter().filter(|holder| self.known.get(&holder.id).is_none_or(|known| !known.is_watched));
        Ok(match request.scope {
            SurveyScope::All => vec![unwatched.chain(new).collect()],
            SurveyScope::Unknown | SurveyScope::These(_) => vec![new, unwatched.collect()],
        })
    }

    fn visit(&mut self, holder: NamespaceHolder, progress: &mut Progress<'_>) {
        let id = holder.id;
        match self.describe(&holder, progress) {
            Ok(Some((clients, is_watched))) => {
                progress.is_new |= self.known.get(&id).is_none_or(|known| known.clients != clients);
                self.known.insert(id, KnownNamespace { holder, clients, is_watched });
            }
            // No remembered path leads to the namespace any more, or none may be opened. If the namespace still exists, it is
            // new to a later survey.
            Ok(None) => drop(self.known.remove(&id)),
            Err(error) => {
                // The results of an earlier visit are kept.
                progress.failed += usize::from(!self.known.contains_key(&id));
                progress.failure.get_or_insert(error);
            }
        }
    }

    /// The clients of a namespace, and whether the namespace is watched from now on; `None` if no remembered path opens the
    /// namespace.
    fn describe(&self, holder: &NamespaceHolder, progress: &mut Progress<'_>) -> Result<Option<(ClientNamespace, bool)>> {
        let Some(namespace) = holder.open()? else { return Ok(None) };
        let rank = match holder.id {
            id if id == progress.own => ClientRank::Own,
            _ if namespace.is_of_own_users() => ClientRank::Privileged,
            _ => ClientRank::Anybody,
        };
        progress.traveller.enter(&namespace)?;
        // The thread keeps the namespace alive; closing the file frees a descriptor for a watch.
        drop(namespace);
        let cookie = namespaces::cookie()?;
        let before = self.known.get(&holder.id).filter(|known| known.clients.cookie == cookie);
        let mut is_watched = before.is_some_and(|known| known.is_watched);
        let addresses = namespaces::global_addresses()?;
        let mut clients = ClientNamespace { cookie, rank, addresses, sources: BTreeMap::new(), lacks_sources: false };
        if clients.needs_sources() && !is_watched && self.has_room_to_watch(progress) {
            // If the watch fails, each survey of all namespaces visits this namespace again.
            if let Ok(socket) = routes::changes() {
                progress.opened.push((holder.id, socket));
                is_watched = true;
                // The addresses are listed again after the watch began, so that no change is missed.
                clients.addresses = namespaces::global_addresses()?;
            }
        }
        is_watched &= clients.needs_sources();
        clients.addresses.sort_unstable();
        self.add_sources(holder.id, &mut clients)?;
        Ok(Some((clients, is_watched)))
    }

    fn has_room_to_watch(&self, progress: &Progress<'_>) -> bool {
        let watched = self.known.values().filter(|known| known.is_watched).count();
        watched + progress.opened.len() < descriptors::watched_namespaces()
    }

    /// Asks the kernel for the source address of a call to each destination, from the thread's namespace. If SOURCES has no
    /// room, asks nothing and sets `lacks_sources`.
    fn add_sources(&self, id: Id, clients: &mut ClientNamespace) -> Result<()> {
        let destinations: Vec<IpAddr> = self.destinations.iter().copied().filter(|it| clients.needs_source_for(*it)).collect();
        if destinations.is_empty() {
            return Ok(());
        }
        let others = self.known.iter().filter(|(other, known)| **other != id && known.clients.rank <= clients.rank);
        let count: usize = others.map(|(_, known)| known.clients.sources.len()).sum();
        if count + destinations.len() > self.maps.room().sources {
            clients.lacks_sources = true;
            return Ok(());
        }
        let routes = Routes::open()?;
        for destination in destinations {
            if let Some(source) = routes.source(destination)? {
                clients.sources.insert(destination, source);
            }
        }
        Ok(())
    }
}
