//! Commands of `bpf(2)` that aya has no call for: for pins of any kind, existing links, iterators, and batches of entries.

mod batch;

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

pub use batch::{Entries, count_entries, delete_entries, update_entries};

/// The cgroup and the program of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The cgroup's id; 0 if the cgroup is gone or the link was detached.
    pub cgroup: u64,
    /// The program's id.
    pub program: u32,
}

/// The kind of a pinned object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A map of any type.
    Map,
    /// A link between a program and a cgroup.
    CgroupLink,
    /// A program, or a link of another type.
    Other,
}

/// The kind of an open object, according to the lines of `/proc/self/fdinfo/`, which differ between kinds.
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

/// Opens a pinned object of any kind.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    let fd = bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)?;
    // SAFETY: the kernel has just opened this descriptor for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces the program of a link, atomically.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.link_update.link_fd = link.as_raw_fd().cast_unsigned();
    attr.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Detaches a link from its cgroup, even if other processes hold the link. Succeeds if the link is detached already, or its
/// cgroup is gone.
pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.link_detach.link_fd = link.as_raw_fd().cast_unsigned();
    match bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr) {
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The cgroup and the program of an open link to a cgroup.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // SAFETY: all-zero bytes are a valid value of this struct of integers.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = link.as_fd().as_raw_fd().cast_unsigned();
    attr.info.info_len = u32::try_from(size_of::<bpf_link_info>()).map_err(io::Error::other)?;
    attr.info.info = (&raw mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    // SAFETY: every member of the union consists of integers, and the kernel filled in this member.
    let cgroup = unsafe { info.__bindgen_anon_1.cgroup };
    Ok(LinkInfo { cgroup: cgroup.cgroup_id, program: info.prog_id })
}

/// Attaches an iterator program to a map, or without a map to the objects that it was loaded for. Returns the link.
pub fn iterate(program: BorrowedFd<'_>, map: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    // The map's member of the kernel's `union bpf_iter_link_info`.
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
    // SAFETY: the kernel has just opened this descriptor for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens a file. Reading it to its end runs the iterator once: over the entries of its map, or over the sockets of the
/// thread's network namespace.
pub fn read_iterator(link: BorrowedFd<'_>) -> io::Result<File> {
    let mut attr = zeroed();
    attr.iter_create.link_fd = link.as_raw_fd().cast_unsigned();
    let fd = bpf(bpf_cmd::BPF_ITER_CREATE, &mut attr)?;
    // SAFETY: the kernel has just opened this descriptor for this call.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Reads a value from the bytes that a BPF program wrote. Missing bytes become zeroes, and surplus bytes are ignored.
pub fn value_of<T: Pod>(bytes: &[u8]) -> T {
    // SAFETY: any bytes are a valid value of a `Pod`.
    let mut value: T = unsafe { mem::zeroed() };
    let length = bytes.len().min(size_of::<T>());
    // SAFETY: both are valid for `length` bytes, and do not overlap: `value` is a new variable.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut value).cast(), length) };
    value
}

fn zeroed() -> bpf_attr {
    // SAFETY: all-zero bytes are a valid value of this union of structs of integers.
    unsafe { mem::zeroed() }
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: the attribute is valid for the call and has the given size, and its pointers outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as u32, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}
