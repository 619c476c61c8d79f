//! Lists the BPF links of a cgroup with `bpftool link show`.
//!
//! `bpftool cgroup show` and `bpftool cgroup tree` do not work here: bpftool 7.1 sends a query that kernels before 6.0 reject,
//! and then shows nothing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A BPF program that a link attaches to a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's name of the attach type, for example `cgroup_inet4_connect`.
    pub hook: String,
    /// The kernel's id of the BPF program.
    pub program: u64,
}

impl Link {
    /// The links of a cgroup, without those of its children. Fails if the cgroup does not exist, or if bpftool is not
    /// installed or fails.
    pub fn to(cgroup: &Path) -> Result<Vec<Self>> {
        let id = fs::metadata(cgroup).with_context(|| format!("there is no cgroup {}", cgroup.display()))?.ino();
        let output = Command::new("bpftool").args(["-j", "link", "show"]).output().context("failed to run bpftool")?;
        ensure!(output.status.success(), "bpftool failed: {}", String::from_utf8_lossy(&output.stderr));
        let links: Vec<Value> = serde_json::from_slice(&output.stdout).context("bpftool printed invalid JSON")?;
        Ok(links.iter().filter(|link| link["cgroup_id"].as_u64() == Some(id)).filter_map(Self::parse).collect())
    }

    fn parse(link: &Value) -> Option<Self> {
        Some(Self { hook: kernel_name(link["attach_type"].as_str()?), program: link["prog_id"].as_u64()? })
    }
}

/// Expands the short names of portmap's attach types, which bpftool printed before version 5.19. Other names stay as they are.
fn kernel_name(attach_type: &str) -> String {
    match attach_type {
        "connect4" | "connect6" | "getpeername4" | "getpeername6" | "sendmsg4" | "sendmsg6" | "recvmsg4" | "recvmsg6" => {
            let (name, family) = attach_type.split_at(attach_type.len() - 1);
            let prefix = if name.ends_with("msg") { "udp" } else { "inet" };
            format!("cgroup_{prefix}{family}_{name}")
        }
        name => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_understood() {
        assert_eq!(kernel_name("sendmsg6"), "cgroup_udp6_sendmsg");
        assert_eq!(kernel_name("getpeername4"), "cgroup_inet4_getpeername");
        assert_eq!(kernel_name("cgroup_inet4_connect"), "cgroup_inet4_connect");
    }
}
