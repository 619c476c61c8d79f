//! The step about UDP queries in pairs, as resolvers send them for the IPv4 and the IPv6 addresses of a name.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portmap_harness::listen::Protocol;
use portmap_harness::pod_lookups::Lookups;
use portmap_harness::world::{Group, program};

use crate::connect;
use crate::example_stage::{Stage, output};
use crate::port::Port;
use crate::screen::Screen;

/// Number of lookups, of two queries each.
const COUNT: u32 = 200;

/// The table of conntrack of the reader's network namespace. Absent on some kernels.
const TABLE: &str = "/proc/net/nf_conntrack";

/// Sends pairs of queries to the Service `dns`. Fails unless each query is answered and conntrack has no entry for them.
pub fn answered(stage: &mut Stage, screen: Screen) -> Result<String> {
    let (file, ports) = stage.examples.ports("dns")?;
    let port = ports.into_iter().find(|port| port.protocol == Protocol::Udp).context("the Service dns has no UDP port")?;
    connect::show_manifest(screen, file, &port)?;
    screen.line("client", &format!("{COUNT} lookups: A and AAAA at the same moment from one socket to {}", port.address))?;
    let Lookups { answered, unanswered, slowest_us } = look_up(stage, &port)?;
    let slowest = Duration::from_micros(slowest_us).as_secs_f64() * 1000.0;
    screen.line(
        "replies",
        &format!("{answered} of {} queries; the slowest lookup took {slowest:.1} ms", answered + unanswered),
    )?;
    ensure!(unanswered == 0 && answered == 2 * COUNT, "expected replies to all {} queries", 2 * COUNT);
    let conclusion = "connect() has already chosen the pod: no datagram is translated, and conntrack is not needed";
    let Some(entries) = tracked(stage, &port)? else {
        screen.line("kernel", &format!("conntrack is not examined: this kernel has no {TABLE}"))?;
        return Ok(conclusion.to_owned());
    };
    screen.line("kernel", &format!("{entries} entries of conntrack for these queries, at the client and at the node"))?;
    ensure!(entries == 0, "expected no entry of conntrack");
    screen.line("", "With NAT, both queries of a lookup make an entry. If they do so at the same moment,")?;
    screen.line("", "the kernel may drop one, and the resolver asks again after 5 seconds.")?;
    Ok(conclusion.to_owned())
}

fn look_up(stage: &Stage, port: &Port) -> Result<Lookups> {
    let mut command = stage.client.command_in(Group::Clients, program::find("portmap-pod")?);
    command.args(["lookups", "--json", "--count", &COUNT.to_string(), &port.address.to_string()]);
    serde_json::from_str(&output(&mut command)?).context("failed to parse the output of portmap-pod lookups")
}

/// Number of conntrack's entries with the Service port or the targetPort, in the network namespaces of client and node. `None`
/// if the kernel does not show its table.
fn tracked(stage: &Stage, port: &Port) -> Result<Option<usize>> {
    let numbers: Vec<u16> = port.backends.iter().map(|backend| backend.listen.port).chain([port.address.port()]).collect();
    let is_ours = |line: &&str| numbers.iter().any(|number| line.contains(&format!(" dport={number} ")));
    let mut count = 0;
    for mut command in [stage.client.command_in(Group::Clean, "cat"), stage.world.command("cat")] {
        let Some(table) = table(command.arg(TABLE))? else { return Ok(None) };
        count += table.lines().filter(is_ours).count();
    }
    Ok(Some(count))
}

fn table(cat: &mut Command) -> Result<Option<String>> {
    let output = cat.output().context("failed to run cat")?;
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}
