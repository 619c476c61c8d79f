//! The network namespaces of this host: those that processes are in, and those that are kept by name.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    net::IpAddr,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::addresses;

/// Where namespaces are kept by name: by iproute2 and most runtimes, and by Docker.
const KEPT: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// `SO_NETNS_COOKIE`
const SO_NETNS_COOKIE: i32 = 71;

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

/// Every namespace that can be found, each once.
pub fn all() -> Result<Vec<Namespace>> {
    let mut found: BTreeMap<(u64, u64), Namespace> = BTreeMap::new();
    for path in candidates()? {
        // Processes end while they are looked at, and a kept name may stand for nothing any more.
        let Ok(file) = File::open(&path) else { continue };
        let Ok(metadata) = file.metadata() else { continue };
        found.entry((metadata.dev(), metadata.ino())).or_insert(Namespace { file });
    }
    Ok(found.into_values().collect())
}

fn candidates() -> Result<Vec<PathBuf>> {
    let is_process = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
    let mut paths = Vec::new();
    for entry in fs::read_dir("/proc").context("failed to list the processes of this host")? {
        let path = entry?.path();
        if is_process(&path) {
            paths.push(path.join("ns/net"));
        }
    }
    for directory in KEPT {
        paths.extend(fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())));
    }
    Ok(paths)
}

impl Namespace {
    /// Does something in the namespace, on a thread of its own.
    pub fn enter<T: Send>(&self, what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
                .context("failed to enter a network namespace; portmap needs CAP_SYS_ADMIN")?;
            what()
        };
        thread::scope(|scope| scope.spawn(inside).join().map_err(|_| anyhow!("a look into a network namespace crashed"))?)
    }

    /// Its cookie, and its global addresses.
    pub fn describe(&self) -> Result<(u64, Vec<IpAddr>)> {
        self.enter(|| {
            let addresses = addresses::local()?.into_iter().filter(|address| is_global(*address)).collect();
            Ok((cookie()?, addresses))
        })
    }

    /// Its cookie.
    pub fn cookie(&self) -> Result<u64> {
        self.enter(cookie)
    }
}

/// The cookie of the thread's network namespace: the number by which programs know it. Kernel 5.14 and newer.
pub fn cookie() -> Result<u64> {
    let socket =
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).context("failed to open a socket")?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>())?;
    // SAFETY: the socket is open, and the option's value and its length are valid for writing.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut length)
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error()).context("failed to ask for the cookie of a network namespace")
    }
}

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}
