//! The sockets whose backend serves no more, by what is noted on them: an iterator program that runs while it is read.

use std::{
    io::Read as _,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use aya::{Btf, include_bytes_aligned, maps::MapData, programs::Iter, util::KernelVersion};
use portmap_common::EndedSocketRecord;

use super::load;
use crate::{kernel::bpf, maps::pin::Pins};
use crate::{
    kernel::namespaces,
    maps::{Capacity, encode},
    model::Frontend,
};

static ITERATORS: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/iterators"));

/// A connected UDP socket whose endpoint is not in ENDPOINTS: it serves no more, or its number was another set's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedSocket {
    /// Its cookie.
    pub cookie: u64,
    /// The cookie of its network namespace.
    pub namespace: u64,
    /// The frontend that it asked for.
    pub asked: Frontend,
    /// What it was connected to instead.
    pub peer: SocketAddr,
}

/// The iterator, on the pinned maps. It ends with this value.
#[derive(Debug)]
pub struct SocketIterators {
    walk: Walk,
    link: OwnedFd,
}

/// What is walked through.
#[derive(Clone, Copy, Debug)]
enum Walk {
    /// The notes on all sockets, wherever they are.
    Notes,
    /// The UDP sockets of one network namespace after the other: also those that have no note.
    UdpSockets,
}

impl Walk {
    /// From 7.0 on a kernel may meet a note whose socket is being closed, and read through a null pointer (seen with 7.3.4, in
    /// `__bpf_sk_storage_map_seq_show`): there nobody must walk through the notes. An unknown kernel is taken for a new one.
    fn of_this_kernel() -> Self {
        let is_safe = KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(7, 0, 0));
        if is_safe { Self::Notes } else { Self::UdpSockets }
    }

    /// The iterator's program, and what the kernel calls what it walks through.
    fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Notes => ("stale", "bpf_sk_storage_map"),
            Self::UdpSockets => ("stale_udp", "udp"),
        }
    }
}

impl SocketIterators {
    /// Loads the iterator. Fails on kernels that have none.
    pub fn load(pins: &Pins, capacity: Capacity) -> Result<Self> {
        let btf = Btf::from_sys_fs().context("failed to read the kernel's BTF")?;
        let mut programs = load::load(ITERATORS, pins, capacity, None)?;
        let walk = Walk::of_this_kernel();
        let (name, target) = walk.program();
        let program: &mut Iter =
            programs.program_mut(name).with_context(|| format!("the BPF object has no program {name}"))?.try_into()?;
        program.load(target, &btf).with_context(|| format!("the kernel rejected the program {name}"))?;
        let notes = match walk {
            Walk::Notes => Some(open(&pins.map("SOCKETS"))?),
            Walk::UdpSockets => None,
        };
        let link = bpf::iterate(program.fd()?.as_fd(), notes.as_ref().map(|notes| notes.fd().as_fd()));
        Ok(Self { walk, link: link.context("failed to walk through sockets")? })
    }

    /// Lists the sockets. One that is opened or closed meanwhile may be missed.
    pub fn list(&self) -> Result<Vec<EndedSocket>> {
        match self.walk {
            Walk::Notes => self.read(),
            Walk::UdpSockets => self.list_in_each_namespace(),
        }
    }

    fn list_in_each_namespace(&self) -> Result<Vec<EndedSocket>> {
        let mut found = Vec::new();
        for namespace in namespaces::all()? {
            match namespace.and_then(|namespace| namespace.enter(|| self.read())) {
                Ok(sockets) => found.extend(sockets),
                // The other namespaces' sockets have nothing to do with it.
                Err(error) => tracing::warn!("{error:#}; UDP sockets may stay connected to endpoints which ended"),
            }
        }
        Ok(found)
    }

    fn read(&self) -> Result<Vec<EndedSocket>> {
        let mut bytes = Vec::new();
        let read = bpf::read_iterator(self.link.as_fd()).and_then(|mut output| output.read_to_end(&mut bytes));
        read.context("failed to walk through sockets")?;
        let records = bytes.chunks_exact(size_of::<EndedSocketRecord>());
        ensure!(records.remainder().is_empty(), "the list of sockets ends within a record");
        Ok(records.map(|record| ended_socket(&bpf::value_of(record))).collect())
    }
}

fn open(pin: &Path) -> Result<MapData> {
    MapData::from_pin(pin).with_context(|| format!("failed to open {}", pin.display()))
}

fn ended_socket(found: &EndedSocketRecord) -> EndedSocket {
    let EndedSocketRecord { cookie, namespace, asked, given } = found;
    EndedSocket {
        cookie: *cookie,
        namespace: *namespace,
        asked: encode::udp_frontend_of(asked),
        peer: encode::destination_of(given),
    }
}
