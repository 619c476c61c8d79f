//! The sockets whose backend serves no more, from what is noted on them: an iterator program that runs while it is read.

use std::{
    io::Read as _,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context, Result, ensure};
use aya::{Btf, include_bytes_aligned, maps::MapData, programs::Iter};
use portmap_common::Stale;

use super::{load, pin::Pins, sys};
use crate::{
    encode,
    maps::Capacity,
    table::{Frontend, Protocol},
};

static STALE: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/stale"));

/// A connected UDP socket whose endpoint is not in ENDPOINTS: it serves no more, or its number was another set's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleSocket {
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
pub struct StaleSockets {
    link: OwnedFd,
}

impl StaleSockets {
    /// Loads the iterator. Fails on kernels that have none over socket storage.
    pub fn load(pins: &Pins, capacity: Capacity) -> Result<Self> {
        let btf = Btf::from_sys_fs().context("failed to read the kernel's BTF")?;
        let mut programs = load::load(STALE, pins, capacity, None)?;
        let program: &mut Iter = programs.program_mut("stale").context("the BPF object has no program stale")?.try_into()?;
        program.load("bpf_sk_storage_map", &btf).context("the kernel rejected the program stale")?;
        let notes = pins.map("SOCKETS");
        let notes = MapData::from_pin(&notes).with_context(|| format!("failed to open {}", notes.display()))?;
        let link = sys::iterate(program.fd()?.as_fd(), notes.fd().as_fd());
        Ok(Self { link: link.context("failed to walk through the notes on sockets")? })
    }

    /// Lists the sockets. One that is opened or closed meanwhile may be missed.
    pub fn list(&self) -> Result<Vec<StaleSocket>> {
        let mut bytes = Vec::new();
        let read = sys::read_iterator(self.link.as_fd()).and_then(|mut output| output.read_to_end(&mut bytes));
        read.context("failed to walk through the notes on sockets")?;
        let records = bytes.chunks_exact(size_of::<Stale>());
        ensure!(records.remainder().is_empty(), "the list of stale sockets ends within a record");
        Ok(records.map(|record| stale_socket(&sys::value_of(record))).collect())
    }
}

fn stale_socket(found: &Stale) -> StaleSocket {
    let Stale { cookie, namespace, asked, given } = found;
    let asked = encode::destination_of(asked);
    StaleSocket {
        cookie: *cookie,
        namespace: *namespace,
        asked: Frontend { address: asked.ip(), port: asked.port(), protocol: Protocol::Udp },
        peer: encode::destination_of(given),
    }
}
