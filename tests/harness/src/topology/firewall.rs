//! A stateful firewall of a node, in nftables. It drops everything that a node needs not forward or receive.

use std::io::Write as _;
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::node::HOST_PORT;
use crate::world::Machine;

/// The packet filter of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Firewall {
    /// No rules, and no connection tracking.
    None,
    /// Connection tracking. Packets with the state `invalid` are counted and dropped. New connections are admitted to pods, from
    /// pods, to [`HOST_PORT`] of both nodes, and to port 0 of this one.
    ///
    /// Port 0 of the node is the destination of packets that portmap refuses: no program can listen there, so the kernel
    /// answers with an error.
    Stateful,
}

/// Rules of [`Firewall::Stateful`]. Neighbour discovery has no connection state.
const RULES: &str = "\
table inet node {
    counter invalid {}
    chain known {
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        ct state invalid counter name invalid drop
        ct state established,related accept
    }
    chain input {
        type filter hook input priority filter; policy drop;
        jump known
        iif lo accept
        meta l4proto { tcp, udp } th dport { 0, HOST_PORT } accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        jump known
        ip daddr 10.244.0.0/16 ct state new accept
        ip saddr 10.244.0.0/16 ct state new accept
        ip6 daddr fd00:10:244::/48 ct state new accept
        ip6 saddr fd00:10:244::/48 ct state new accept
        meta l4proto { tcp, udp } th dport HOST_PORT ct state new accept
    }
}
";

/// Sets the rules of a node.
pub(super) fn raise(node: &Machine, firewall: Firewall) -> Result<()> {
    match firewall {
        Firewall::None => Ok(()),
        Firewall::Stateful => {
            nft(node, &["-f", "-"], &RULES.replace("HOST_PORT", &HOST_PORT.to_string()))?;
            Ok(())
        }
    }
}

/// The packets of the counter `invalid`.
pub(super) fn invalid_packets(node: &Machine) -> Result<u64> {
    let output = nft(node, &["-j", "list", "counter", "inet", "node", "invalid"], "")?;
    let answer: Value = serde_json::from_slice(&output.stdout).context("nft printed invalid JSON")?;
    let items = answer["nftables"].as_array().context("nft printed no list")?;
    items.iter().find_map(|item| item["counter"]["packets"].as_u64()).context("nft printed no counter")
}

fn nft(node: &Machine, arguments: &[&str], input: &str) -> Result<Output> {
    let mut command = node.command("nft");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("failed to run nft: install nftables")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).context("failed to write the rules for nft")?;
    }
    let output = child.wait_with_output().context("failed to wait for nft")?;
    ensure!(output.status.success(), "nft failed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(output)
}
