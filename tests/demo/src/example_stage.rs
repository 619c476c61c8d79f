//! The environment of the demo: a node with the pods of the manifests, a client, and the real agent.

use std::net::IpAddr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portmap_harness::agent::Agent;
use portmap_harness::listen::Protocol;
use portmap_harness::pod_client::Answers;
use portmap_harness::world::{Client, Group, OUTSIDE, Pod, World, program};

use crate::examples::Examples;
use crate::interrupt;
use crate::pod;
use crate::port::Port;
use crate::screen::Screen;
use crate::traces::Traces;

/// The environment of the demo. Dropping it removes everything that the demo made; [`Stage::clear`] also verifies that nothing
/// is left.
pub struct Stage {
    // The fields are dropped in this order.
    agent: Option<Agent>,
    /// The pod without a server from which all connections start.
    pub client: Client,
    /// A client outside the node, whose sockets are not the node's.
    pub outside: Client,
    pods: Vec<Pod>,
    /// The current manifests, with the edits of earlier steps.
    pub examples: Examples,
    /// The network namespaces, cgroups and directories of the demo.
    pub world: World,
}

impl Stage {
    /// Makes the pods, starts a server on each pod's container ports, and makes the client. Does not start the agent.
    pub fn set(examples: Examples) -> Result<Self> {
        let world = World::new("demo")?;
        for (file, text) in examples.files() {
            Agent::write(&world, file, text)?;
        }
        let pods = examples.pods().iter().map(|pod| make(&world, pod)).collect::<Result<_>>()?;
        let outside = world.outside_client("outside", &pods)?;
        Ok(Self { agent: None, client: world.client("client")?, outside, pods, examples, world })
    }

    /// Prints the addresses of the pods and of the client, and the ports of the pods.
    pub fn introduce(&self, screen: Screen) -> Result<()> {
        for (pod, manifest) in self.pods.iter().zip(self.examples.pods()) {
            let (addresses, listens) = (list(&pod::addresses(manifest)?), list(&pod::listens(manifest)?));
            screen.line(pod.name(), &format!("{addresses:<28} listens on {listens}"))?;
        }
        screen.line(self.client.name(), &format!("{:<28} connects to the Services", list(&addresses(&self.client))))?;
        let addresses = list(&addresses(&self.outside));
        screen.line(self.outside.name(), &format!("{addresses:<28} is outside the node, behind its interface {OUTSIDE}"))?;
        Ok(())
    }

    /// Makes a pod, starts its server, and writes its manifest for the running agent. `template` has the word `ADDRESS` instead
    /// of the pod's IPv4 address.
    pub fn deploy(&mut self, file: &str, template: &str, pod: &str) -> Result<()> {
        let mut made = self.world.pod(pod)?;
        let text = template.replace("ADDRESS", &made.ipv4().to_string());
        self.examples.add(file, &text)?;
        let manifest = self.examples.pods().iter().find(|manifest| pod::name(manifest) == pod);
        made.serve(&pod::listens(manifest.with_context(|| format!("{file} has no Pod {pod}"))?)?)?;
        self.pods.push(made);
        Agent::write(&self.world, file, &text)
    }

    /// Starts the agent, and waits until the maps match the manifests.
    pub fn start_agent(&mut self) -> Result<&mut Agent> {
        Ok(self.agent.insert(Agent::start(&self.world, &["--devices", OUTSIDE])?))
    }

    /// The running agent. Fails if the agent is not running.
    pub fn agent(&mut self) -> Result<&mut Agent> {
        self.agent.as_mut().context("the agent is not running")
    }

    /// Ends the agent with SIGTERM. Fails if the agent's exit code is not 0; succeeds if no agent is running.
    pub fn stop_agent(&mut self) -> Result<()> {
        let Some(agent) = self.agent.take() else { return Ok(()) };
        let status = agent.end(Signal::SIGTERM)?;
        ensure!(status.success(), "the agent failed after SIGTERM ({status})");
        Ok(())
    }

    /// Sends `count` requests to a Service port from the client's pod, in the cgroup `group`.
    pub fn ask(&self, group: Group, port: &Port, count: u32) -> Result<Answers> {
        Self::ask_from(&self.client, group, port, count)
    }

    /// Sends `count` requests to a Service port from the client outside the node. portmap sees only its packets.
    pub fn ask_from_outside(&self, port: &Port, count: u32) -> Result<Answers> {
        Self::ask_from(&self.outside, Group::Clean, port, count)
    }

    fn ask_from(client: &Client, group: Group, port: &Port, count: u32) -> Result<Answers> {
        let mut command = client.command_in(group, program::find("portmap-pod")?);
        command.args(["connect", "--json", "--count", &count.to_string(), &port.address.to_string()]);
        if port.protocol == Protocol::Udp {
            command.arg("--udp");
        }
        serde_json::from_str(&output(&mut command)?).context("failed to parse the output of portmap-pod connect")
    }

    /// Runs a subcommand of portmap on the demo's pinned maps. Returns its output; fails if its exit code is not 0.
    pub fn portmap(&self, subcommand: &[&str]) -> Result<String> {
        output(Command::new(program::find("portmap")?).args(subcommand).arg("--bpffs").arg(self.world.bpffs()))
    }

    /// Ends the agent and removes everything that the demo made, also after errors. Then verifies that nothing is left on the
    /// machine.
    pub fn clear(mut self) -> Result<()> {
        let shielded = interrupt::shield_children();
        let stopped = self.stop_agent();
        let cleaned = self.portmap(&["cleanup"]);
        let traces = Traces::of(&self.world);
        drop(self);
        shielded.and(stopped).and(cleaned).and(traces.check())
    }
}

/// Makes a pod of a manifest and starts its server. [`World`] assigns addresses in order. Fails if the manifest has other
/// addresses.
fn make(world: &World, manifest: &k8s_openapi::api::core::v1::Pod) -> Result<Pod> {
    let name = pod::name(manifest);
    let mut pod = world.pod(name)?;
    let (wanted, assigned) = (pod::addresses(manifest)?, addresses(&pod));
    ensure!(
        wanted.iter().all(|address| assigned.contains(address)),
        "Pod {name}: its status has the address {}, but the demo assigns {}; number the pods of all files from 10.244.0.2 and \
         fd00:10:244::2 without gaps",
        list(&wanted),
        list(&assigned)
    );
    pod.serve(&pod::listens(manifest)?)?;
    Ok(pod)
}

fn addresses(pod: &Pod) -> [IpAddr; 2] {
    [pod.ipv4().into(), pod.ipv6().into()]
}

fn list(members: &[impl ToString]) -> String {
    members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Runs a program and returns its standard output. Fails with its standard error if its exit code is not 0.
pub fn output(command: &mut Command) -> Result<String> {
    output_with_code(command, 0)
}

/// As [`output`], for a program whose exit code should be `code`.
pub fn output_with_code(command: &mut Command, code: i32) -> Result<String> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("failed to run {shown}"))?;
    let arguments = || command.get_args().map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let errors = String::from_utf8_lossy(&output.stderr);
    let is_expected = output.status.code() == Some(code);
    ensure!(is_expected, "`{shown} {}` ended with {}, not {code}: {}", arguments(), output.status, errors.trim_end());
    String::from_utf8(output.stdout).with_context(|| format!("the output of {shown} is not UTF-8"))
}
