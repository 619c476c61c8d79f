//! `portmap doctor`: programs that listen on another port, at another address or for another family than the Service needs,
//! and processes of the node on a node port.
//!
//! `portmap doctor` examines all network namespaces of the machine. So pods have addresses that no other test uses.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portmap_harness::dual_stack::Both;
use portmap_harness::listen::Protocol;
use portmap_harness::pod_socket::{Domain, SocketOption};
use portmap_harness::process::{Process, Socket};
use portmap_harness::world::{Group, Pod};
use portmap_suites::command::{binary, finish, portmap};
use serde_json::Value;

use crate::problems::NOBODY;
use crate::site::{Agent, Site};

/// A world with the pod `web-1` of the Service `web`, whose port 80 leads to port 8080, on TCP and UDP.
pub struct Clinic {
    pub site: Site,
    pod: Pod,
    pub at: Both,
}

impl Clinic {
    /// `number` distinguishes the addresses of the tests, which run at the same time.
    fn new(name: &str, number: u8) -> Result<(Self, Agent)> {
        let clinic = Self::without_agent(name, number)?;
        let agent = clinic.site.start()?;
        Ok((clinic, agent))
    }

    /// As [`Self::new`], for a test that starts the agent.
    pub fn without_agent(name: &str, number: u8) -> Result<Self> {
        let site = Site::new(name)?;
        let pod = site.world.pod("web-1")?;
        let [_, _, high, low] = process::id().to_be_bytes();
        let v6 = Ipv6Addr::new(0xfd00, 0xd0c, number.into(), 0, 0, 0, high.into(), low.into());
        let at = Both { v4: Ipv4Addr::new(100, 64 + number, high, low), v6 };
        pod.ip(&format!("addr add {}/32 dev eth0\naddr add {}/128 dev eth0 nodad", at.v4, at.v6))?;
        let clinic = Self { site, pod, at };
        clinic.site.write("web.yaml", &clinic.manifest(8080))?;
        Ok(clinic)
    }

    /// The Service and its EndpointSlices, with this target port.
    pub fn manifest(&self, target: u16) -> String {
        let slice = |family: &str, address: IpAddr| {
            format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {family}\n\
                 metadata: {{name: web-{}, labels: {{kubernetes.io/service-name: web}}}}\n\
                 endpoints: [{{addresses: ['{address}'], nodeName: node-1}}]\n\
                 ports: [{{name: t, port: {target}}}, {{name: u, port: {target}, protocol: UDP}}]\n",
                family.to_lowercase()
            )
        };
        let [v4, v6] = [slice("IPv4", self.at.v4.into()), slice("IPv6", self.at.v6.into())];
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  type: NodePort\n  clusterIPs: [10.96.0.10, 'fd00:10:96::10']\n  \
             clusterIP: 10.96.0.10\n  ipFamilies: [IPv4, IPv6]\n  ports:\n  - {{name: t, port: 80, nodePort: 30080}}\n  \
             - {{name: u, port: 80, nodePort: 30080, protocol: UDP}}\n{v4}{v6}"
        )
    }

    pub fn process(&self) -> Result<Process> {
        Process::in_pod(&self.pod)
    }

    /// The checks with this name, each as `result: text`, after an exit with this code.
    fn checks(&self, code: i32, name: &str) -> Result<Vec<String>> {
        let outcome = self.site.ask(&["doctor", "-o", "json"])?.expect(code)?;
        let report: Value = serde_json::from_str(&outcome.stdout)?;
        ensure!(report["healthy"] == (code == 0), "{report}");
        let checks = report["checks"].as_array().context("no checks")?.iter().filter(|check| check["name"] == name);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(checks.map(|check| format!("{}: {}", text(&check["result"]), text(&check["text"]))).collect())
    }

    /// The texts of mistakes about listening programs, without the Service and the target port.
    fn mistakes(&self) -> Result<Vec<String>> {
        let checks = self.checks(1, "listening")?;
        let mistakes = checks.iter().filter_map(|check| check.strip_prefix("notOk: Service default/web port "));
        Ok(mistakes.map(|mistake| mistake.replace(" → targetPort 8080", "")).collect())
    }
}

/// A socket that is bound to this address, and listens if it is a TCP socket.
pub fn listen<'a>(process: &'a Process, protocol: Protocol, address: &str) -> Result<Socket<'a>> {
    let address: SocketAddr = address.parse()?;
    start(process.open_for(address, protocol)?, protocol, address)
}

fn start(socket: Socket<'_>, protocol: Protocol, address: SocketAddr) -> Result<Socket<'_>> {
    socket.bind(address)?;
    if protocol == Protocol::Tcp {
        socket.listen()?;
    }
    Ok(socket)
}

pub const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

#[test]
fn dual_stack_listeners_serve_both_families() -> Result<()> {
    let (clinic, _agent) = Clinic::new("doctor-dual", 1)?;
    let process = clinic.process()?;
    let _sockets = BOTH.map(|protocol| listen(&process, protocol, "[::]:8080"));
    assert_eq!(clinic.checks(0, "listening")?, ["ok: programs listen for 4 of 4 local backends, of 2 service ports"]);
    assert_eq!(clinic.checks(0, "node ports")?, ["ok: no process of the node listens on one of 2 node ports"]);
    Ok(())
}

#[test]
fn listeners_at_the_pods_own_addresses_serve() -> Result<()> {
    let (clinic, _agent) = Clinic::new("doctor-own", 2)?;
    let process = clinic.process()?;
    let [v4, v6] = [format!("{}:8080", clinic.at.v4), format!("[{}]:8080", clinic.at.v6)];
    let _sockets: Vec<_> = [&v4, &v6].into_iter().flat_map(|at| BOTH.map(|protocol| listen(&process, protocol, at))).collect();
    assert_eq!(clinic.checks(0, "listening")?, ["ok: programs listen for 4 of 4 local backends, of 2 service ports"]);
    Ok(())
}

#[test]
fn listeners_on_other_ports_are_named() -> Result<()> {
    let (clinic, _agent) = Clinic::new("doctor-ports", 3)?;
    let Both { v4, v6 } = clinic.at;
    assert_eq!(
        clinic.mistakes()?[..2],
        [
            format!("80/TCP: {v4} listens on no TCP port; start the program, or correct the selector of the Service"),
            format!("80/TCP: {v6} listens on no TCP port; start the program, or correct the selector of the Service"),
        ]
    );
    let process = clinic.process()?;
    let _sockets = [listen(&process, Protocol::Tcp, "[::]:80")?, listen(&process, Protocol::Tcp, "0.0.0.0:9090")?];
    let udp = listen(&process, Protocol::Udp, "[::]:8080")?;
    let mistakes = clinic.mistakes()?;
    let remedy = "correct targetPort and protocol of the Service's port";
    assert_eq!(
        mistakes,
        [
            format!("80/TCP: {v4} listens on 8080/UDP, 80, 9090, not on 8080/TCP; {remedy}"),
            format!("80/TCP: {v6} listens on 8080/UDP, 80, not on 8080/TCP; {remedy}"),
        ]
    );
    drop(udp);
    let remedy = "correct the targetPort, or the port of the program";
    assert_eq!(clinic.mistakes()?[0], format!("80/TCP: {v4} listens on 80, 9090, not on 8080; {remedy}"));
    Ok(())
}

#[test]
fn listeners_at_loopback_addresses_do_not_serve() -> Result<()> {
    let (clinic, _agent) = Clinic::new("doctor-loopback", 4)?;
    let process = clinic.process()?;
    let _sockets = BOTH.map(|protocol| listen(&process, protocol, "127.0.0.1:8080"));
    let Both { v4, v6 } = clinic.at;
    let text = "listens on 8080 only at 127.0.0.1; make the program listen at all addresses";
    let expected =
        ["TCP", "UDP"].map(|protocol| [v4.to_string(), v6.to_string()].map(|at| format!("80/{protocol}: {at} {text}")));
    assert_eq!(clinic.mistakes()?, expected.concat());
    Ok(())
}

#[test]
fn listeners_of_one_family_do_not_serve_the_other() -> Result<()> {
    let (clinic, _agent) = Clinic::new("doctor-family", 5)?;
    let process = clinic.process()?;
    let v6_only = process.open(Domain::Inet6, Protocol::Tcp)?;
    v6_only.set(SocketOption::V6Only)?;
    let _tcp = start(v6_only, Protocol::Tcp, "[::]:8080".parse()?)?;
    let _udp = listen(&process, Protocol::Udp, "0.0.0.0:8080")?;
    let Both { v4, v6 } = clinic.at;
    let remedy = "make the program listen at [::] without IPV6_V6ONLY";
    assert_eq!(
        clinic.mistakes()?,
        [
            format!("80/TCP: {v4} listens on 8080 only for IPv6; {remedy}"),
            format!("80/UDP: {v6} listens on 8080 only for IPv4; {remedy}"),
        ]
    );
    Ok(())
}

/// A Service that another process of the node hides, and the effect of `--service`.
#[test]
fn processes_on_node_ports_are_named() -> Result<()> {
    let (clinic, _agent) = Clinic::new("doctor-node-port", 7)?;
    let (in_pod, on_node) = (clinic.process()?, Process::on_node(&clinic.site.world)?);
    let _sockets = BOTH.map(|protocol| listen(&in_pod, protocol, "[::]:8080"));
    let loopback = listen(&on_node, Protocol::Tcp, "127.0.0.1:30080")?;
    let socket = clinic.checks(0, "node ports")?;
    assert_eq!(socket, ["ok: no process of the node listens on one of 2 node ports"]);
    drop(loopback);
    let _taken = listen(&on_node, Protocol::Udp, "[::]:30080")?;
    let expected = format!(
        "notOk: process {} (portmap-pod) listens on 30080/UDP, the node port of Service default/web: clients of the node's \
         addresses reach the Service instead; move the process to another port, or give the Service another nodePort",
        on_node.id()
    );
    assert_eq!(clinic.checks(1, "node ports")?, [expected]);
    Ok(())
}

/// The pod's namespace is gone, or on another node. Only endpoints of this node are missed.
#[test]
fn pods_that_are_not_seen_are_no_mistake() -> Result<()> {
    let (clinic, _agent) = Clinic::new("doctor-unseen", 8)?;
    let Both { v4, v6 } = clinic.at;
    clinic.pod.ip(&format!("addr del {v4}/32 dev eth0\naddr del {v6}/128 dev eth0"))?;
    let checks = clinic.checks(0, "listening")?;
    assert!(checks.iter().any(|check| check.starts_with(&format!("note: not seen: {v4}, {v6};"))), "{checks:?}");
    Ok(())
}

#[test]
fn services_are_selected() -> Result<()> {
    let (clinic, _agent) = Clinic::new("doctor-service", 9)?;
    for name in ["web", "default/web", "web.default"] {
        let outcome = clinic.site.ask(&["doctor", "--service", name])?.expect(1)?;
        assert!(outcome.stdout.contains("Service default/web port 80/TCP → targetPort 8080"), "{outcome:?}");
    }
    clinic.site.ask(&["doctor", "--service", "shop/web"])?.expect_error(&["no Service", "portmap services"])?;
    let wrong = portmap(&["doctor", "--service", "a/b/c"])?.expect(2)?;
    assert!(wrong.stderr.contains("expected NAME, NAME.NAMESPACE or NAMESPACE/NAME"), "{wrong:?}");
    Ok(())
}

/// The checks of the node: programs, the API server, another network namespace, and rules of kube-proxy.
#[test]
fn the_node_is_checked() -> Result<()> {
    let (clinic, _agent) = Clinic::new("doctor-node", 6)?;
    let site = &clinic.site;
    let cgroup = site.world.cgroup(Group::Clients).display().to_string();
    let line = |arguments: &[&str], code, name: &str| -> Result<String> {
        let outcome = site.ask(&[&["doctor"], arguments].concat())?.expect(code)?;
        let line = outcome.stdout.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.with_context(|| format!("no {name}: {outcome:?}"))
    };
    let attached = line(&["--cgroup", &cgroup], 1, "programs")?;
    assert!(attached.contains(" ok ") && attached.contains("all 8 programs are attached"), "{attached}");
    let other = line(&[], 1, "programs")?;
    assert!(other.contains("NOTE") && other.contains("another cgroup"), "{other}");
    assert!(line(&[], 1, "API server")?.contains("NOTE    not checked: give --kubeconfig"));
    let kubeconfig = site.world.directory().join("kubeconfig");
    fs::write(&kubeconfig, NOBODY)?;
    let server = line(&["--kubeconfig", &kubeconfig.to_string_lossy()], 1, "API server")?;
    assert!(server.contains("NOT OK") && server.contains("127.0.0.1:1"), "{server}");
    assert!(line(&[], 1, "kube-proxy")?.contains("ok"));
    let rules = "add table ip kube-proxy; add chain ip kube-proxy services";
    finish(site.world.command("nft").arg(rules))?.expect(0)?;
    let rules = line(&[], 1, "kube-proxy")?;
    assert!(rules.contains("NOTE") && rules.contains("1 by nft"), "{rules}");
    let outside = portmap(&["doctor", "--bpffs", &site.world.bpffs().to_string_lossy()])?.expect(1)?.stdout;
    let notes = outside.lines().filter(|line| line.contains("not checked: this is not the network namespace of the agent"));
    assert_eq!(notes.count(), 3, "{outside}");
    Ok(())
}

/// A second agent with pins of its own stands for other software on the same hooks.
#[test]
fn other_programs_on_the_hooks_are_named() -> Result<()> {
    let (clinic, _agent) = Clinic::new("doctor-others", 10)?;
    let site = &clinic.site;
    let cgroup = site.world.cgroup(Group::Clients).display().to_string();
    let pins = PathBuf::from(format!("{}-other", site.world.bpffs().display()));
    let mut command = site.world.command(binary()?);
    command.args(["run", "--max-services", "64", "--max-backends", "64", "--cgroup", &cgroup, "--manifests"]);
    let mut other = Agent::start(command.arg(site.manifests()).arg("--bpffs").arg(&pins))?;
    other.await_log("synced: ")?;
    let outcome = site.ask(&["doctor", "--cgroup", &cgroup])?.expect(1)?;
    other.stop(Signal::SIGTERM)?;
    portmap(&["cleanup", "--bpffs", &pins.to_string_lossy()])?.expect(0)?;
    let found = "other software has programs on the same hooks: getpeername4 (getpeername4)";
    assert!(outcome.stdout.contains(found), "{}", outcome.stdout);
    let alone = site.ask(&["doctor", "--cgroup", &cgroup])?.expect(1)?.stdout;
    assert!(!alone.contains("other software"), "{alone}");
    Ok(())
}

#[test]
fn without_tables_there_is_nothing_to_check() -> Result<()> {
    let site = Site::new("doctor-nothing")?;
    site.ask(&["doctor"])?.expect_error(&["nothing is pinned", "portmap run"])
}
