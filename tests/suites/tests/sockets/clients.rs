//! Ordinary programs as clients of Services: curl, dig, getent, and programs in Python and Go.

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use portmap_harness::kernel::Features;
use portmap_harness::patience::seconds;
use portmap_harness::world::{Group, Pod, program};
use portmap_suites::service_objects::{Endpoint, PORT, Service, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::Stage;

const PYTHON: &str = include_str!("clients/client.py");
const GO: &str = include_str!("clients/main.go");
/// Name of a prebuilt Go client. If a program of this name exists, the machine needs no Go.
const BUILT: &str = "portmap-go-client";
/// A host name with both addresses of the Service `web`.
const NAME: &str = "web.example";
/// Host names with the IPv4 address of `web` and another IPv6 address, which refuses (the first name) or is dropped (the
/// second).
const HALF: [&str; 2] = ["refused.example", "dropped.example"];

/// Service 1 is a web server with the name `web.example`, Service 2 has no endpoints, and Service 53 is the name server.
fn stage(name: &str) -> Result<Stage> {
    let mut stage = Stage::new(name, &["a"], &["--service-cidr", "10.96.0.0/24,fd00:10:96::/112"])?;
    let mut names = stage.world.pod("dns")?;
    let [v4, v6] = cluster_ip(1).addresses();
    let [refused, dropped] = [2, 9].map(|number| cluster_ip(number).v6.into());
    names.serve_dns(&[(NAME, v4), (NAME, v6), (HALF[0], v4), (HALF[0], refused), (HALF[1], v4), (HALF[1], dropped)])?;
    let dns = Service::new("dns", 53)
        .ports([portmap_harness::listen::Listen::udp(53), portmap_harness::listen::Listen::tcp(53)])
        .endpoints([Endpoint::of(&names).port(53)]);
    stage.pods.push(names);
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods[..1])), Service::new("empty", 2), dns])?;
    Ok(stage)
}

/// A command for a program in the client's pod. The program's /etc/resolv.conf names the Service of the name server.
fn command(stage: &Stage, program: impl AsRef<OsStr>) -> Result<Command> {
    command_in(Group::Clients, stage, cluster_ip(53).v4, program.as_ref())
}

fn command_in(group: Group, stage: &Stage, server: Ipv4Addr, program: &OsStr) -> Result<Command> {
    const STEPS: &str = r#"mount --bind "$1" /etc/resolv.conf && shift && exec timeout "$@""#;
    let resolver = stage.world.directory().join(format!("{server}.conf"));
    fs::write(&resolver, format!("nameserver {server}\noptions timeout:3 attempts:1\n"))?;
    let found = Command::new("sh").args(["-c", r#"command -v "$0" >/dev/null"#]).arg(program).status()?;
    ensure!(found.success(), "no {}: `cargo xtask setup` installs it", program.display());
    let mut command = stage.client.command_in(group, "unshare");
    command.args(["--mount", "sh", "-c", STEPS, "sh"]).arg(resolver).arg(seconds(30)).arg(program);
    Ok(command)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().context("failed to run a client")?;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    ensure!(output.status.success(), "{command:?} failed: {text} {}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// The beginning of the pod's answer, such as `a 8080/TCP from `. The client's address and port follow it.
fn answer(pod: &Pod, protocol: &str) -> String {
    format!("{} 8080/{protocol} from ", pod.name())
}

#[test]
fn curl_by_address_and_by_name() -> Result<()> {
    let stage = stage("curl")?;
    let curl = |url: &str| -> Result<Command> {
        let mut curl = command(&stage, "curl")?;
        curl.args(["--silent", "--show-error", "--fail", "--max-time", &seconds(5), "--noproxy", "*"]);
        curl.args(["--write-out", "%{remote_ip} %{remote_port}"]).arg(url);
        Ok(curl)
    };
    let [v4, v6] = cluster_ip(1).addresses();
    for (url, shown) in [(format!("http://{v4}/"), v4), (format!("http://[{v6}]/some/path"), v6)] {
        let text = output(&mut curl(&url)?)?;
        assert!(text.starts_with(&answer(&stage.pods[0], "TCP")) && text.ends_with(&format!("{shown} {PORT}")), "{text}");
    }
    for name in [NAME, HALF[0], HALF[1]] {
        let text = output(&mut curl(&format!("http://{name}/"))?)?;
        assert!(text.starts_with(&answer(&stage.pods[0], "TCP")), "{name}: {text}");
    }
    let refused = curl(&format!("http://{}/", cluster_ip(2).v4))?.output()?;
    assert_eq!(refused.status.code(), Some(7), "curl could not connect: {refused:?}");
    Ok(())
}

/// dig asks by UDP, by TCP, and by TCP after a truncated UDP answer. It rejects answers from other addresses than the server's.
#[test]
fn dig_asks_the_name_server() -> Result<()> {
    let stage = stage("dig")?;
    let within = format!("+time={}", seconds(5));
    for server in cluster_ip(53).addresses() {
        for arguments in [&["who", "TXT"][..], &["who", "TXT", "+tcp"], &["long", "TXT"]] {
            let mut dig = command(&stage, "dig")?;
            dig.args(["+short", "+tries=1", &within, &format!("@{server}")]).args(arguments);
            assert_eq!(output(&mut dig)?, "\"dns\"", "{server} {arguments:?}");
        }
    }
    let mut dig = command(&stage, "dig")?;
    dig.args(["+tries=1", &within, NAME, "A"]);
    let text = output(&mut dig)?;
    let [v4, _] = cluster_ip(53).addresses();
    assert!(text.contains(&format!("SERVER: {v4}#53({v4})")) && text.contains("10.96.0.1"), "{text}");
    Ok(())
}

/// getent uses the C library, which asks for IPv4 and IPv6 addresses at once. The library connects a UDP socket to each
/// address, and sorts the addresses by the results.
#[test]
fn getent_sorts_addresses_as_without_portmap() -> Result<()> {
    let stage = stage("getent")?;
    stage.client.route_through_node()?;
    let addresses = |group, server, name: &str| -> Result<Vec<String>> {
        let text = output(command_in(group, &stage, server, "getent".as_ref())?.args(["ahosts", name]))?;
        let streams = text.lines().filter(|line| line.contains("STREAM"));
        Ok(streams.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect())
    };
    for name in [NAME, HALF[0]] {
        let translated = addresses(Group::Clients, cluster_ip(53).v4, name)?;
        let plain = addresses(Group::Clean, stage.pods[1].ipv4(), name)?;
        assert_eq!(translated.len(), 2);
        assert_eq!(translated, plain, "the order of {name} should be the order without translation");
    }
    Ok(())
}

#[test]
fn python_connects_and_sends_datagrams() -> Result<()> {
    let stage = stage("python")?;
    let script = stage.world.directory().join("client.py");
    fs::write(&script, PYTHON)?;
    let python = |kind: &str, host: &str| -> Result<String> {
        output(command(&stage, "python3")?.arg(&script).args([kind, host, &PORT.to_string()]))
    };
    let (tcp, udp) = (answer(&stage.pods[0], "TCP"), answer(&stage.pods[0], "UDP"));
    for via in Via::ALL {
        let host = cluster_ip(1).at(via, PORT).ip().to_string();
        let shown = format!("('{host}', {PORT})");
        let text = python("stream", &host)?;
        assert!(text.starts_with(&format!("{shown} {tcp}")), "{text}");
        let text = python("connected", &host)?;
        assert!(text.starts_with(&format!("{shown} {udp}")) && text.ends_with(&shown), "{text}");
        let text = python("unconnected", &host)?;
        assert!(text.lines().count() == 3 && text.lines().all(|line| line.starts_with(&format!("{shown} {udp}"))), "{text}");
    }
    for name in [NAME, HALF[0], HALF[1]] {
        let text = python("stream", name)?;
        assert!(text.contains(&tcp), "{name}: {text}");
    }
    // A refused datagram gives an error of `sendto()`. asyncio reports it in the same way as an ICMP error.
    let text = python("unconnected", &cluster_ip(2).v4.to_string())?;
    let error = if Features::here().sets_errors { "ConnectionRefusedError" } else { "PermissionError" };
    assert!(text.lines().count() == 3 && text.lines().all(|line| line.trim_end() == error), "{text}");
    Ok(())
}

/// The Go client uses Go's own resolver instead of the C library, and IPv4-mapped addresses on sockets of both families.
#[test]
fn go_dials_listens_and_resolves() -> Result<()> {
    let stage = stage("go")?;
    let client = program::find(BUILT).or_else(|_| build(stage.world.directory()))?;
    let go = |kind: &str, address: &str, other: &str| output(command(&stage, &client)?.args([kind, address, other]));
    let (tcp, udp) = (answer(&stage.pods[0], "TCP"), answer(&stage.pods[0], "UDP"));
    for via in [Via::V4, Via::V6] {
        let address = cluster_ip(1).at(via, PORT).to_string();
        let text = go("tcp", &address, "")?;
        assert!(text.starts_with(&format!("{address} {tcp}")), "{text}");
        let text = go("udp", &address, "")?;
        assert!(text.starts_with(&format!("{address} {udp}")), "{text}");
        // A socket of both families sends to the Service and to the pod.
        let pod = std::net::SocketAddr::new(stage.pods[0].ipv4().into(), 8080).to_string();
        let text = go("packet", &address, &pod)?;
        let expected = [&address, &pod].map(|from| format!("{from} {udp}"));
        let lines: Vec<&str> = text.lines().collect();
        let as_expected = lines.iter().zip(expected.iter().cycle()).all(|(line, start)| line.starts_with(start));
        assert!(lines.len() == 6 && as_expected, "{text}");
        assert_eq!(go("lookup", "who", &cluster_ip(53).at(via, 53).to_string())?, "dns");
        assert_eq!(go("lookup", "long", &cluster_ip(53).at(via, 53).to_string())?, "dns");
    }
    // Happy eyeballs (RFC 8305): a connect to an IPv6 address that refuses or drops fails at once. Go then tries the IPv4
    // address without its fallback delay.
    for name in [NAME, HALF[0], HALF[1]] {
        let text = go("tcp", &format!("{name}:{PORT}"), "")?;
        assert!(text.contains(&format!(" {tcp}")), "{name}: {text}");
    }
    Ok(())
}

/// Builds the Go client with the standard library only, without network access.
fn build(directory: &Path) -> Result<PathBuf> {
    let (source, client) = (directory.join("main.go"), directory.join("go-client"));
    fs::write(&source, GO)?;
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(&client).arg(&source).current_dir(directory);
    command.envs([("CGO_ENABLED", "0"), ("GOPROXY", "off"), ("GOFLAGS", ""), ("GO111MODULE", "auto"), ("GOWORK", "off")]);
    let output = command.output().context("failed to run go: `cargo xtask setup` installs it")?;
    ensure!(output.status.success(), "go build failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(client)
}
