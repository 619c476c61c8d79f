//! `portmap-pod`: the program that tests run in network namespaces of pods, of clients and of the node, as a server or as a
//! client.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser};
use portmap_harness::listen::{Listen, Protocol};
use portmap_harness::patience::patience;
use portmap_harness::pod_bench::{self, Plan};
use portmap_harness::pod_client::Answers;
use portmap_harness::pod_dns::{self, Record};
use portmap_harness::pod_flood::{self, Flood};
use portmap_harness::pod_hammer::{self, Targets};
use portmap_harness::pod_lookups::Lookups;
use portmap_harness::{pod_process, pod_server, pod_share, pod_wire};
use serde::Serialize;

/// Servers and clients for portmap's tests
#[derive(Parser)]
#[command(version)]
enum Command {
    /// Reply to each request with the pod's name and port, until standard input ends
    Serve(Serve),
    /// Send requests to an address, and print which pods replied
    Connect(Connect),
    /// Execute the socket calls of standard input, one JSON request per line
    Drive,
    /// Serve DNS records, until standard input ends
    Dns(Dns),
    /// Send pairs of UDP queries, as resolvers do for the IPv4 and IPv6 addresses of a name, and print the slowest
    Lookups(LookupsArguments),
    /// Send requests to addresses continuously, until standard input ends
    Hammer(Hammer),
    /// Send requests to addresses through one UDP socket continuously, until standard input ends
    Share(Share),
    /// Send the Ethernet frames of standard input, and record all frames, until it ends
    Wire(Wire),
    /// Send SYNs from addresses that belong to no host, until standard input ends
    Flood(Flood),
    /// Measure the time that portmap adds to socket calls
    Bench(Bench),
}

#[derive(Args)]
struct Serve {
    /// The pod's name, which is part of every reply
    #[arg(long)]
    name: String,
    /// A port to listen on; repeatable
    #[arg(long, value_name = "PORT/PROTOCOL", required = true)]
    listen: Vec<Listen>,
    /// The local address; the default serves IPv6 and IPv4
    #[arg(long, default_value = "::")]
    address: IpAddr,
}

#[derive(Args)]
struct Connect {
    /// The address and port that receive the requests
    #[arg(value_name = "ADDR:PORT")]
    target: SocketAddr,
    /// Use connected UDP sockets instead of TCP
    #[arg(long)]
    udp: bool,
    /// Number of requests; each uses a new socket
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Time limit for the connection, and again for the reply, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Dns {
    /// The pod's name, which is the TXT record of `who`
    #[arg(long)]
    name: String,
    /// The port for UDP and TCP
    #[arg(long, default_value_t = 53)]
    port: u16,
    /// A name and one of its addresses; repeatable
    #[arg(value_name = "NAME=ADDRESS")]
    records: Vec<Record>,
}

#[derive(Args)]
struct LookupsArguments {
    /// The address and port that receive the queries
    #[arg(value_name = "ADDR:PORT")]
    target: SocketAddr,
    /// Number of lookups; each uses a new socket
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Time limit for each answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Hammer {
    /// Number of threads that send requests
    #[arg(long, default_value_t = 8)]
    threads: u8,
    /// Print the number of requests per target and outcome instead of each request
    #[arg(long)]
    tally: bool,
    #[command(flatten)]
    targets: Targets,
}

#[derive(Args)]
struct Share {
    /// Number of threads that send requests
    #[arg(long, default_value_t = 4)]
    threads: u8,
    /// Addresses that receive the requests
    #[arg(value_name = "ADDR:PORT", required = true)]
    targets: Vec<SocketAddr>,
}

#[derive(Args)]
struct Wire {
    /// The network interface
    device: String,
}

#[derive(Args)]
struct Bench {
    #[command(flatten)]
    plan: Plan,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Serve(Serve { name, listen, address }) => pod_server::serve(&name, address, &listen),
        Command::Connect(Connect { target, udp, count, timeout, json }) => {
            let answers = Answers::gather(target, protocol(udp), count, patience(Duration::from_millis(timeout)));
            print(&answers, json)
        }
        Command::Drive => pod_process::drive(),
        Command::Dns(Dns { name, port, records }) => pod_dns::serve(&name, port, records),
        Command::Lookups(LookupsArguments { target, count, timeout, json }) => {
            print(&Lookups::gather(target, count, patience(Duration::from_millis(timeout)))?, json)
        }
        Command::Hammer(Hammer { threads, tally: false, targets }) => pod_hammer::hammer(threads, &targets),
        Command::Hammer(Hammer { threads, tally: true, targets }) => pod_hammer::tally(threads, &targets),
        Command::Share(Share { threads, targets }) => pod_share::share(threads, &targets),
        Command::Wire(Wire { device }) => pod_wire::wire(&device),
        Command::Flood(flood) => pod_flood::flood(&flood),
        Command::Bench(Bench { plan, json }) => print(&pod_bench::run(&plan)?, json),
    }
}

fn protocol(udp: bool) -> Protocol {
    if udp { Protocol::Udp } else { Protocol::Tcp }
}

fn print(value: &(impl Serialize + Display), json: bool) -> Result<()> {
    let output = if json { serde_json::to_string(value).context("failed to write JSON")? } else { value.to_string() };
    writeln!(io::stdout(), "{}", output.trim_end()).context("failed to print")
}
