//! The network namespaces of this host: those of its processes, and those that are bound to a name.

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

use anyhow::{Context, Result, anyhow, ensure};
use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket, sockopt::GetStruct},
};

use super::addresses;

/// The directories of named namespaces: the first for iproute2 and most runtimes, the second for Docker.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// The path of this process's network namespace.
const OWN: &str = "/proc/self/ns/net";

/// Maximum number of paths that are remembered per namespace: a process may end before its path is opened.
const PATHS: usize = 4;

/// The socket option for the cookie of the socket's network namespace.
#[derive(Clone, Copy)]
struct NetnsCookie;

nix::getsockopt_impl!(NetnsCookie, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, u64, GetStruct<u64>);

/// The identity of a namespace: device and inode of its file. The kernel may reuse them after the namespace is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    device: u64,
    inode: u64,
}

/// Paths that led to a namespace. The namespace is not kept alive, and may be gone when a path is opened.
#[derive(Clone, Debug)]
pub struct NamespaceHolder {
    /// The namespace that the paths led to.
    pub id: Id,
    paths: Vec<PathBuf>,
}

/// An open network namespace, which is kept alive.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

/// Permission to change the thread's network namespace. It exists only on threads that do nothing else.
pub struct Traveller(PhantomData<*const ()>);

impl Id {
    /// The inode of the namespace's file.
    pub fn inode(self) -> u64 {
        self.inode
    }
}

impl From<&Metadata> for Id {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// The namespaces of all processes and names, each once, ordered by id. None is opened. Namespaces that the agent has no
/// permission to examine are missing.
pub fn holders() -> Result<Vec<NamespaceHolder>> {
    let own = own()?;
    let mut found: BTreeMap<Id, Vec<PathBuf>> = BTreeMap::new();
    for path in candidates()? {
        // The process may have ended, the name may have lost its namespace, or the agent lacks `CAP_SYS_PTRACE`.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let id = Id::from(&metadata);
        if id.device == own.device {
            let paths = found.entry(id).or_default();
            if paths.len() < PATHS {
                paths.push(path);
            }
        }
    }
    Ok(found.into_iter().map(|(id, paths)| NamespaceHolder { id, paths }).collect())
}

/// The namespaces of [`holders`], opened one by one, because their number may exceed the limit of open files. Namespaces
/// that are gone meanwhile, or may not be opened, are skipped.
pub fn all() -> Result<impl Iterator<Item = Result<Namespace>>> {
    Ok(holders()?.into_iter().filter_map(|holder| holder.open().transpose()))
}

/// The id of this process's network namespace.
pub fn own() -> Result<Id> {
    Ok(Id::from(&fs::metadata(OWN).context("failed to read the own network namespace")?))
}

/// Runs `work` on a new thread that may enter namespaces.
pub fn travel<T: Send>(work: impl FnOnce(&Traveller) -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let traveller = scope.spawn(|| work(&Traveller(PhantomData)));
        traveller.join().map_err(|_| anyhow!("the thread that entered network namespaces crashed"))?
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
    for directory in NAMED {
        paths.extend(fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())));
    }
    Ok(paths)
}

impl NamespaceHolder {
    /// Opens the namespace; none if no path leads to it any more, or none may be opened. Fails only for lack of descriptors
    /// or memory.
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
    /// Moves the thread into a namespace. Needs `CAP_SYS_ADMIN`.
    pub fn enter(&self, namespace: &Namespace) -> Result<()> {
        setns(namespace.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .context("failed to enter a network namespace; portmap needs CAP_SYS_ADMIN")
    }
}

impl Namespace {
    /// Opens the network namespace at a path, such as `/proc/1/ns/net` or `/run/netns/a`.
    pub fn at(path: &Path) -> Result<Self> {
        let failed = || format!("failed to open the network namespace {}", path.display());
        let file = File::open(path).with_context(failed)?;
        // SAFETY: the file is open; the request takes no argument.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), libc::NS_GET_NSTYPE) };
        ensure!(kind == libc::CLONE_NEWNET, "{} is no network namespace", path.display());
        Ok(Self { file })
    }

    /// The identity of the namespace.
    pub fn id(&self) -> Result<Id> {
        Ok(Id::from(&self.file.metadata().context("failed to stat a network namespace")?))
    }

    /// Runs `work` in the namespace, on a new thread.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        travel(|traveller| {
            traveller.enter(self)?;
            work()
        })
    }

    /// The namespace's cookie. Kernel 5.14 and newer.
    pub fn cookie(&self) -> Result<u64> {
        self.enter(cookie)
    }

    /// Whether the namespace belongs to the user namespace of this process: only privileged processes create such
    /// namespaces. False if this cannot be found out.
    pub fn is_of_own_users(&self) -> bool {
        // SAFETY: the file is open; the request takes no argument.
        let owner = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::NS_GET_USERNS) };
        if owner < 0 {
            return false;
        }
        // SAFETY: the kernel has just opened this descriptor for this call.
        let owner = File::from(unsafe { OwnedFd::from_raw_fd(owner) });
        let ids = (owner.metadata(), fs::metadata("/proc/self/ns/user"));
        matches!(ids, (Ok(owner), Ok(own)) if Id::from(&owner) == Id::from(&own))
    }
}

/// The addresses of the thread's network namespace without loopback and link-local addresses: other hosts may see them as
/// source addresses.
pub fn global_addresses() -> Result<Vec<IpAddr>> {
    Ok(addresses::local()?.into_iter().filter(|address| is_global(*address)).collect())
}

/// The cookie of the thread's network namespace: the number by which BPF programs identify it. Kernel 5.14 and newer.
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
