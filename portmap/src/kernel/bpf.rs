//! The few commands of `bpf(2)` that aya has no call for: about links that exist already, and iterators over a map.

use std::{
    ffi::CString,
    fs::{self, File},
    io, mem,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::Pod;
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info};

/// The kernel's own error for a command that a type of map has not, which never got into the headers of user space.
const ENOTSUPP: i32 = 524;

/// Entries of a map that are read by one call. No bucket of a hash map holds as many.
const BATCH: usize = 4_096;

/// What a link to a cgroup is attached to, and what it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The number of the cgroup; 0 once the cgroup is gone, or the link was detached.
    pub cgroup: u64,
    /// The number of the program.
    pub program: u32,
}

/// What a pinned object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A map.
    Map,
    /// A link between a program and a cgroup.
    CgroupLink,
    /// A program, or another link.
    Other,
}

/// What an open object is. The kernel tells by the lines of its fdinfo: each kind of object has its own.
pub fn kind_of(object: BorrowedFd<'_>) -> io::Result<Object> {
    let lines = fs::read_to_string(format!("/proc/self/fdinfo/{}", object.as_raw_fd()))?;
    let mut fields = lines.lines().filter_map(|line| line.split_once(':'));
    let kind = fields.find_map(|(name, value)| match (name, value.trim()) {
        ("map_type", _) => Some(Object::Map),
        ("link_type", "cgroup") => Some(Object::CgroupLink),
        _ => None,
    });
    Ok(kind.unwrap_or(Object::Other))
}

/// Opens a pinned object.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    let fd = bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)?;
    // SAFETY: the kernel has just opened this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts a program in the place of the one that the link runs, atomically.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.link_update.link_fd = link.as_raw_fd().cast_unsigned();
    attr.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Detaches a link's program, whoever else holds the link. One that is detached already, or whose cgroup is gone, is fine.
pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.link_detach.link_fd = link.as_raw_fd().cast_unsigned();
    match bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr) {
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Asks about a link to a cgroup.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // SAFETY: all-zero bytes are a value of this struct of integers.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = link.as_fd().as_raw_fd().cast_unsigned();
    attr.info.info_len = u32::try_from(size_of::<bpf_link_info>()).map_err(io::Error::other)?;
    attr.info.info = (&raw mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    // SAFETY: every member of the union is made of integers, and the kernel filled in this one.
    let cgroup = unsafe { info.__bindgen_anon_1.cgroup };
    Ok(LinkInfo { cgroup: cgroup.cgroup_id, program: info.prog_id })
}

/// A link that has an iterator program run over the elements of a map, or over whatever else it was loaded for.
pub fn iterate(program: BorrowedFd<'_>, map: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    // The kernel's `union bpf_iter_link_info`, as far as it is about maps.
    let target = map.map(|map| map.as_raw_fd());
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.link_create.attach_type = bpf_attach_type::BPF_TRACE_ITER as u32;
    if let Some(target) = &target {
        attr.link_create.__bindgen_anon_3.__bindgen_anon_1.iter_info = (&raw const *target) as u64;
        attr.link_create.__bindgen_anon_3.__bindgen_anon_1.iter_info_len =
            u32::try_from(size_of_val(target)).map_err(io::Error::other)?;
    }
    let fd = bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)?;
    // SAFETY: the kernel has just opened this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What an iterator's link gives to read: one pass over the map; or over the sockets of the calling thread's network namespace.
pub fn read_iterator(link: BorrowedFd<'_>) -> io::Result<File> {
    let mut attr = zeroed();
    attr.iter_create.link_fd = link.as_raw_fd().cast_unsigned();
    let fd = bpf(bpf_cmd::BPF_ITER_CREATE, &mut attr)?;
    // SAFETY: the kernel has just opened this descriptor for us.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// How many entries a hash map has: read by thousands, and only counted. The sizes are those of a key and of a value.
pub fn count_entries(map: BorrowedFd<'_>, key: usize, value: usize) -> io::Result<u32> {
    let (mut keys, mut values) = (vec![0_u8; key * BATCH], vec![0_u8; value * BATCH]);
    let (mut position, mut entries) = (None::<u32>, 0);
    loop {
        let mut next = 0_u32;
        let mut attr = zeroed();
        attr.batch.map_fd = map.as_raw_fd().cast_unsigned();
        attr.batch.in_batch = position.as_ref().map_or(0, |position| std::ptr::from_ref(position) as u64);
        attr.batch.out_batch = (&raw mut next) as u64;
        attr.batch.keys = keys.as_mut_ptr() as u64;
        attr.batch.values = values.as_mut_ptr() as u64;
        attr.batch.count = u32::try_from(BATCH).map_err(io::Error::other)?;
        let read = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr);
        // SAFETY: every member of the union is made of integers, and the kernel wrote the count into this one.
        let count = unsafe { attr.batch.count };
        match read {
            Ok(_) => entries += count,
            // The last ones.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(entries + count),
            Err(error) => return Err(error),
        }
        position = Some(next);
    }
}

/// Writes entries into a hash map or trie, by one call for all of them. Keys that are there already get the new values.
///
/// Kernels without the call (hash maps before 5.6, tries before 5.13) refuse it before they write anything: then `Unsupported`.
pub fn update_entries<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()> {
    let mut attr = zeroed();
    attr.batch.map_fd = map.as_raw_fd().cast_unsigned();
    attr.batch.keys = keys.as_ptr() as u64;
    attr.batch.values = values.as_ptr() as u64;
    attr.batch.count = u32::try_from(keys.len().min(values.len())).map_err(io::Error::other)?;
    match bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP)) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, error))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The value that these bytes, which a program wrote, are. Short of bytes, it ends with zeroes.
pub fn value_of<T: Pod>(bytes: &[u8]) -> T {
    // SAFETY: any bytes are a value of a `Pod`.
    let mut value: T = unsafe { mem::zeroed() };
    let length = bytes.len().min(size_of::<T>());
    // SAFETY: both are valid for so many bytes, and do not overlap: one of them is a new variable.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut value).cast(), length) };
    value
}

fn zeroed() -> bpf_attr {
    // SAFETY: all-zero bytes are a value of this union of structs of integers.
    unsafe { mem::zeroed() }
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: the attribute is valid for the call, has the size given, and what it points to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as u32, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}
