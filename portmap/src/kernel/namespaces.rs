//! The network namespaces of this host: those that processes are in, and those that are kept by name.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    marker::PhantomData,
    net::IpAddr,
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket, sockopt::GetStruct},
};

use super::addresses;

/// Where namespaces are kept by name: by iproute2 and most runtimes, and by Docker.
const KEPT: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// The namespace of this process.
const OWN: &str = "/proc/self/ns/net";

/// How many ways to a namespace are kept: a process may end before it is entered.
const WAYS: usize = 4;

/// The socket option for the cookie of the socket's network namespace.
#[derive(Clone, Copy)]
struct NetnsCookie;

nix::getsockopt_impl!(NetnsCookie, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, u64, GetStruct<u64>);

/// What tells namespaces apart. The kernel may give the numbers of one that is gone to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    device: u64,
    inode: u64,
}

/// A namespace that was found. It is not held: it may be gone when it is opened.
#[derive(Clone, Debug)]
pub struct NamespaceHolder {
    /// Which namespace it is.
    pub id: Id,
    paths: Vec<PathBuf>,
}

/// A network namespace, which exists as long as this does.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

/// A thread that may go from namespace to namespace, since nothing else ever runs on it.
pub struct Traveller(PhantomData<*const ()>);

impl From<&Metadata> for Id {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Every namespace that can be found, each once, in order. None is opened.
pub fn places() -> Result<Vec<NamespaceHolder>> {
    let own = own()?;
    let mut found: BTreeMap<Id, Vec<PathBuf>> = BTreeMap::new();
    for path in candidates()? {
        // Processes end while they are looked at, and a kept name may stand for nothing any more.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let id = Id::from(&metadata);
        if id.device == own.device {
            let paths = found.entry(id).or_default();
            if paths.len() < WAYS {
                paths.push(path);
            }
        }
    }
    Ok(found.into_iter().map(|(id, paths)| NamespaceHolder { id, paths }).collect())
}

/// Every namespace that can be found, each once, opened one by one: there may be more than files can be open.
pub fn all() -> Result<impl Iterator<Item = Result<Namespace>>> {
    Ok(places()?.into_iter().filter_map(|place| place.open().transpose()))
}

/// The namespace of this process.
pub fn own() -> Result<Id> {
    Ok(Id::from(&fs::metadata(OWN).context("failed to look at the own network namespace")?))
}

/// Does something on a thread of its own that may enter namespaces.
pub fn travel<T: Send>(what: impl FnOnce(&Traveller) -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let traveller = scope.spawn(|| what(&Traveller(PhantomData)));
        traveller.join().map_err(|_| anyhow!("a look into network namespaces crashed"))?
    })
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

impl NamespaceHolder {
    /// Opens the namespace; none if it is gone. Fails if the kernel has no file or memory for it at the moment.
    pub fn open(&self) -> Result<Option<Namespace>> {
        for path in &self.paths {
            match File::open(path) {
                Ok(file) if file.metadata().is_ok_and(|metadata| Id::from(&metadata) == self.id) => {
                    return Ok(Some(Namespace { file }));
                }
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => {
                    return Err(error).with_context(|| format!("failed to open the network namespace {}", path.display()));
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(None)
    }
}

impl Traveller {
    /// Moves the thread into the namespace.
    pub fn enter(&self, namespace: &Namespace) -> Result<()> {
        setns(namespace.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .context("failed to enter a network namespace; portmap needs CAP_SYS_ADMIN")
    }
}

impl Namespace {
    /// Does something in the namespace, on a thread of its own.
    pub fn enter<T: Send>(&self, what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        travel(|traveller| {
            traveller.enter(self)?;
            what()
        })
    }

    /// Its cookie.
    pub fn cookie(&self) -> Result<u64> {
        self.enter(cookie)
    }

    /// Whether it belongs to the user namespace of this process: only who is privileged on the node makes such.
    pub fn is_of_own_users(&self) -> bool {
        // SAFETY: the file is open; the request takes no argument.
        let owner = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::NS_GET_USERNS) };
        if owner < 0 {
            return false;
        }
        // SAFETY: the kernel has just opened it for nobody else.
        let owner = File::from(unsafe { OwnedFd::from_raw_fd(owner) });
        let ids = (owner.metadata(), fs::metadata("/proc/self/ns/user"));
        matches!(ids, (Ok(owner), Ok(own)) if Id::from(&owner) == Id::from(&own))
    }
}

/// The global addresses of the thread's network namespace: those that another host may see as a source.
pub fn global_addresses() -> Result<Vec<IpAddr>> {
    Ok(addresses::local()?.into_iter().filter(|address| is_global(*address)).collect())
}

/// The cookie of the thread's network namespace: the number by which programs know it. Kernel 5.14 and newer.
pub fn cookie() -> Result<u64> {
    let socket =
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).context("failed to open a socket")?;
    getsockopt(&socket, NetnsCookie).context("failed to ask for the cookie of a network namespace")
}

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}
