//! Configures the network namespace of this process.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::program;

/// Runs lines of `ip -batch`, such as `link set lo up`.
pub fn configure(lines: &str) -> Result<()> {
    batch(program::command("ip").args(["-batch", "-"]), lines)
}

/// Runs lines of `ip -batch` in the network namespace of the init process of this PID namespace.
pub fn configure_outer(lines: &str) -> Result<()> {
    batch(program::command("nsenter").args(["--net", "--target", "1", "--", "ip", "-batch", "-"]), lines)
}

fn batch(ip: &mut Command, lines: &str) -> Result<()> {
    let mut child = ip.stdin(Stdio::piped()).spawn().context("failed to start ip")?;
    let mut input = child.stdin.take().context("ip has no standard input")?;
    input.write_all(lines.as_bytes()).context("failed to write to ip")?;
    drop(input);
    let status = child.wait().context("failed to wait for ip")?;
    ensure!(status.success(), "failed to configure the network with these lines:\n{lines}");
    Ok(())
}

/// Forwards packets between the devices of this network namespace.
pub fn forward() -> Result<()> {
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        let file = format!("/proc/sys/net/{setting}");
        fs::write(&file, "1").with_context(|| format!("failed to write {file}"))?;
    }
    Ok(())
}
