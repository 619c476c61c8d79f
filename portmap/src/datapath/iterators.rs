//! Lists the connected UDP sockets whose endpoint is not in ENDPOINTS. A BPF iterator finds them: it runs each time the agent
//! reads from it.
//!
//! Of the sockets that are found here, the agent destroys those whose endpoint no longer serves, so that their clients connect
//! again.

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
use crate::{
    kernel::{bpf, namespaces},
    maps::{Capacity, encode, pin::Pins},
    model::Frontend,
};

/// The BPF object of the iterators.
static ITERATORS: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/iterators"));

/// A connected UDP socket whose endpoint is not in ENDPOINTS: the endpoint no longer serves, had no room there, or got its
/// number from another set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedSocket {
    /// The socket's cookie.
    pub cookie: u64,
    /// The cookie of the socket's network namespace.
    pub namespace: u64,
    /// The frontend that the client connected to.
    pub asked: Frontend,
    /// The backend that the socket is connected to.
    pub peer: SocketAddr,
}

/// A loaded iterator on the pinned maps. The kernel removes it when this value is dropped.
#[derive(Debug)]
pub struct SocketIterators {
    walk: Walk,
    link: OwnedFd,
}

/// The kernel objects that the iterator visits, one by one.
#[derive(Clone, Copy, Debug)]
enum Walk {
    /// The elements of SOCKETS, in all network namespaces.
    SocketStorage,
    /// All UDP sockets of each network namespace, also those without an element in SOCKETS.
    UdpSockets,
}

impl Walk {
    /// Kernels from 7.0 on may read through a null pointer when an iterator over socket storage meets a socket that is being
    /// closed (seen in 7.3.4, `__bpf_sk_storage_map_seq_show`). On these kernels, and on a kernel
    /// of unknown version, the iterator visits UDP sockets instead.
    fn of_this_kernel() -> Self {
        let is_safe = KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(7, 0, 0));
        if is_safe { Self::SocketStorage } else { Self::UdpSockets }
    }

    /// The name of the iterator's program, and the kernel's name of the objects that it visits.
    fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::SocketStorage => ("stale", "bpf_sk_storage_map"),
            Self::UdpSockets => ("stale_udp", "udp"),
        }
    }
}

impl SocketIterators {
    /// Loads the iterator for this kernel. Fails on kernels without such iterators, and without the kernel's BTF.
    pub fn load(pins: &Pins, capacity: Capacity) -> Result<Self> {
        let btf = Btf::from_sys_fs().context("failed to read the kernel's BTF")?;
        let mut programs = load::load(ITERATORS, pins, capacity, None)?;
        let walk = Walk::of_this_kernel();
        let (name, target) = walk.program();
        let program: &mut Iter =
            programs.program_mut(name).with_context(|| format!("the BPF object has no program {name}"))?.try_into()?;
        program.load(target, &btf).with_context(|| format!("the kernel rejected the program {name}"))?;
        let storage = match walk {
            Walk::SocketStorage => Some(open(&pins.map("SOCKETS"))?),
            Walk::UdpSockets => None,
        };
        let link = bpf::iterate(program.fd()?.as_fd(), storage.as_ref().map(|storage| storage.fd().as_fd()));
        Ok(Self { walk, link: link.context("failed to create the iterator over sockets")? })
    }

    /// Lists the connected UDP sockets whose endpoint is not in ENDPOINTS. A socket that is opened or closed during the call
    /// may be missing. On kernels from 7.0 on, or of unknown version, network namespaces that cannot be read are logged and
    /// skipped.
    pub fn list(&self) -> Result<Vec<EndedSocket>> {
        match self.walk {
            Walk::SocketStorage => self.read(),
            Walk::UdpSockets => self.list_in_each_namespace(),
        }
    }

    fn list_in_each_namespace(&self) -> Result<Vec<EndedSocket>> {
        let mut found = Vec::new();
        for namespace in namespaces::all()? {
            match namespace.and_then(|namespace| namespace.enter(|| self.read())) {
                Ok(sockets) => found.extend(sockets),
                // The sockets of the other namespaces are listed all the same.
                Err(error) => tracing::warn!(
                    "{error:#}; UDP sockets of this network namespace may stay connected to endpoints that no longer serve"
                ),
            }
        }
        Ok(found)
    }

    /// Runs the iterator once. [`Walk::UdpSockets`] visits only the network namespace of the calling thread.
    fn read(&self) -> Result<Vec<EndedSocket>> {
        let mut bytes = Vec::new();
        let read = bpf::read_iterator(self.link.as_fd()).and_then(|mut output| output.read_to_end(&mut bytes));
        read.context("failed to read from the iterator over sockets")?;
        let records = bytes.chunks_exact(size_of::<EndedSocketRecord>());
        ensure!(
            records.remainder().is_empty(),
            "the iterator's output is not a multiple of {} bytes",
            size_of::<EndedSocketRecord>()
        );
        Ok(records.map(|record| ended_socket(&bpf::value_of(record))).collect())
    }
}

fn open(pin: &Path) -> Result<MapData> {
    MapData::from_pin(pin).with_context(|| format!("failed to open the pinned map {}", pin.display()))
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
