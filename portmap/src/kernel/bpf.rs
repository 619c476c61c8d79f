//! Commands of `bpf(2)` that aya has no call for: for pins of any kind, links to a device by its index, existing links,
//! iterators, and batches of entries.

mod batch;
mod copy;
mod per_cpu;
pub mod query;

use std::{
    ffi::CString,
    fmt,
    fs::{self, File},
    io, mem,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::Pod;
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info, bpf_link_type};

use super::tc::Direction;

pub use batch::{Entries, count_entries, delete_entries, update_entries};
pub use copy::{Layout, copy_entries};
pub use per_cpu::read_per_cpu;

/// The index of the loopback device in each network namespace.
const LOOPBACK: u32 = 1;

/// The place and the program of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The place that the program is attached to.
    pub hook: Hook,
    /// The program's id.
    pub program: u32,
}

/// The place that a link attaches a program to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The cgroup with this id.
    Cgroup(u64),
    /// The device with this interface index, in the network namespace of the device.
    Device(u32, Direction),
    /// None: the cgroup or the device is gone, or the link was detached.
    Gone,
    /// A hook of another kind.
    Other,
}

/// The kind of a pinned object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A map of any type.
    Map,
    /// A link between a program and a cgroup.
    CgroupLink,
    /// A link between a program and a direction of a network device (TCX).
    DeviceLink,
    /// A program, or a link of another type.
    Other,
}

impl Hook {
    /// The kind of the links to this hook.
    pub fn link(self) -> Object {
        match self {
            Self::Cgroup(_) => Object::CgroupLink,
            Self::Device(..) => Object::DeviceLink,
            Self::Gone | Self::Other => Object::Other,
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Map => "a map",
            Self::CgroupLink => "a link to a cgroup",
            Self::DeviceLink => "a link to a network device",
            Self::Other => "an object of portmap",
        })
    }
}

/// The kind of an open object, according to the lines of `/proc/self/fdinfo/`, which differ between kinds.
pub fn kind_of(object: BorrowedFd<'_>) -> io::Result<Object> {
    let lines = fs::read_to_string(format!("/proc/self/fdinfo/{}", object.as_raw_fd()))?;
    let mut fields = lines.lines().filter_map(|line| line.split_once(':'));
    let kind = fields.find_map(|(name, value)| match (name, value.trim()) {
        ("map_type", _) => Some(Object::Map),
        ("link_type", "cgroup") => Some(Object::CgroupLink),
        ("link_type", "tcx") => Some(Object::DeviceLink),
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

/// Detaches a link from its cgroup or device, even if other processes hold the link. Succeeds if the link is detached already,
/// or its cgroup or device is gone.
pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.link_detach.link_fd = link.as_raw_fd().cast_unsigned();
    match bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr) {
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether the kernel has links to devices (TCX): kernel 6.6 and newer.
pub fn has_device_links() -> io::Result<bool> {
    let mut attr = zeroed();
    attr.query.__bindgen_anon_1.target_ifindex = LOOPBACK;
    attr.query.attach_type = attach_type(Direction::Ingress);
    match bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Attaches a program to a device of the thread's network namespace, after the programs that are attached there. Returns the
/// link.
pub fn link_device(program: BorrowedFd<'_>, device: u32, direction: Direction) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.link_create.__bindgen_anon_2.target_ifindex = device;
    attr.link_create.attach_type = attach_type(direction);
    let fd = bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)?;
    // SAFETY: the kernel has just opened this descriptor for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins an open object of any kind.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.bpf_fd = object.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// The place and the program of an open link.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // SAFETY: all-zero bytes are a valid value of this struct of integers.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = link.as_fd().as_raw_fd().cast_unsigned();
    attr.info.info_len = u32::try_from(size_of::<bpf_link_info>()).map_err(io::Error::other)?;
    attr.info.info = (&raw mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(LinkInfo { hook: hook_of(&info), program: info.prog_id })
}

fn hook_of(info: &bpf_link_info) -> Hook {
    if info.type_ == bpf_link_type::BPF_LINK_TYPE_CGROUP as u32 {
        // SAFETY: every member of the union consists of integers, and the kernel filled in this member.
        let id = unsafe { info.__bindgen_anon_1.cgroup }.cgroup_id;
        return if id == 0 { Hook::Gone } else { Hook::Cgroup(id) };
    }
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_TCX as u32 {
        return Hook::Other;
    }
    // SAFETY: as above.
    let tcx = unsafe { info.__bindgen_anon_1.tcx };
    let direction = [Direction::Ingress, Direction::Egress].into_iter().find(|it| attach_type(*it) == tcx.attach_type);
    match (tcx.ifindex, direction) {
        (0, _) => Hook::Gone,
        (device, Some(direction)) => Hook::Device(device, direction),
        (_, None) => Hook::Other,
    }
}

fn attach_type(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => bpf_attach_type::BPF_TCX_INGRESS as u32,
        Direction::Egress => bpf_attach_type::BPF_TCX_EGRESS as u32,
    }
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
