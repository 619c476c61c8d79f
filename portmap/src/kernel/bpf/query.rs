//! The programs that are attached to a cgroup or a network device (`BPF_PROG_QUERY`).

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya::programs::loaded_programs;
use aya_obj::generated::{BPF_F_QUERY_EFFECTIVE, bpf_attach_type, bpf_attr, bpf_cmd};

use super::{attach_type, bpf, zeroed};
use crate::kernel::tc::Direction;

/// The most programs that a query returns. The kernel attaches at most 64 to one hook.
const MOST: usize = 64;

/// A hook of the system calls of a cgroup's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupHook(bpf_attach_type);

impl CgroupHook {
    /// The hook of this name, such as `connect4`; `None` for an unknown name.
    pub fn named(name: &str) -> Option<Self> {
        Some(Self(match name {
            "connect4" => bpf_attach_type::BPF_CGROUP_INET4_CONNECT,
            "connect6" => bpf_attach_type::BPF_CGROUP_INET6_CONNECT,
            "sendmsg4" => bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG,
            "sendmsg6" => bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG,
            "recvmsg4" => bpf_attach_type::BPF_CGROUP_UDP4_RECVMSG,
            "recvmsg6" => bpf_attach_type::BPF_CGROUP_UDP6_RECVMSG,
            "getpeername4" => bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME,
            "getpeername6" => bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME,
            _ => return None,
        }))
    }
}

/// The ids of the programs that the hook runs for processes of the cgroup: those of the cgroup, and of the cgroups above it.
pub fn programs_of_cgroup(cgroup: BorrowedFd<'_>, CgroupHook(hook): CgroupHook) -> io::Result<Vec<u32>> {
    let mut attr = zeroed();
    attr.query.__bindgen_anon_1.target_fd = cgroup.as_raw_fd().cast_unsigned();
    attr.query.attach_type = hook as u32;
    attr.query.query_flags = BPF_F_QUERY_EFFECTIVE;
    query(&mut attr)
}

/// The ids of the programs at a device by TCX. Empty on a kernel without TCX (before 6.6).
pub fn programs_of_device(device: u32, direction: Direction) -> io::Result<Vec<u32>> {
    let mut attr = zeroed();
    attr.query.__bindgen_anon_1.target_ifindex = device;
    attr.query.attach_type = attach_type(direction);
    match query(&mut attr) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
        result => result,
    }
}

fn query(attr: &mut bpf_attr) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; MOST];
    attr.query.prog_ids = ids.as_mut_ptr() as u64;
    attr.query.__bindgen_anon_2.prog_cnt = u32::try_from(MOST).map_err(io::Error::other)?;
    bpf(bpf_cmd::BPF_PROG_QUERY, attr)?;
    // SAFETY: both members of the union are the same integer, which the kernel has set.
    let count = unsafe { attr.query.__bindgen_anon_2.prog_cnt };
    ids.truncate(usize::try_from(count).map_err(io::Error::other)?);
    Ok(ids)
}

/// The names of all loaded programs, by id. Programs that end meanwhile are left out.
pub fn program_names() -> BTreeMap<u32, String> {
    let programs = loaded_programs().flatten();
    programs.map(|program| (program.id(), program.name_as_str().unwrap_or_default().to_owned())).collect()
}
