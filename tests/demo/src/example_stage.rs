//! The world of the demo: the pods that the manifests speak of, a client, and the real agent.

use std::net::IpAddr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portmap_harness::agent::Agent;
use portmap_harness::listen::Protocol;
use portmap_harness::pod_client::Answers;
use portmap_harness::world::{Client, Group, Pod, World, program};

use crate::examples::Examples;
use crate::interrupt;
use crate::pod;
use crate::port::Port;
use crate::screen::Screen;
use crate::traces::Traces;

/// Goes with everything in it when dropped; [`Stage::clear`] says besides whether it did.
pub struct Stage {
    // Dropped in this order.
    agent: Option<Agent>,
    /// Where the connections come from.
    pub client: Client,
    pods: Vec<Pod>,
    /// What the pods and the agent's manifests are, edits included.
    pub examples: Examples,
    /// Where all of it is.
    pub world: World,
}

impl Stage {
    /// Makes the pods, each serving its container ports, and the client. The agent does not run yet.
    pub fn set(examples: Examples) -> Result<Self> {
        let world = World::new("demo")?;
        for (file, text) in examples.files() {
            Agent::write(&world, file, text)?;
        }
        let pods = examples.pods().iter().map(|pod| make(&world, pod)).collect::<Result<_>>()?;
        Ok(Self { agent: None, client: world.client("client")?, pods, examples, world })
    }

    /// Who is there.
    pub fn introduce(&self, screen: Screen) -> Result<()> {
        for (pod, manifest) in self.pods.iter().zip(self.examples.pods()) {
            let (addresses, listens) = (list(&pod::addresses(manifest)?), list(&pod::listens(manifest)?));
            screen.line(pod.name(), &format!("{addresses:<28} listens on {listens}"))?;
        }
        screen.line(self.client.name(), &format!("{:<28} connects", list(&addresses(&self.client))))?;
        Ok(())
    }

    /// Starts the agent on the manifests, and waits until the tables agree with them.
    pub fn start_agent(&mut self) -> Result<&mut Agent> {
        Ok(self.agent.insert(Agent::start(&self.world, &[])?))
    }

    /// The running agent.
    pub fn agent(&mut self) -> Result<&mut Agent> {
        self.agent.as_mut().context("the agent does not run")
    }

    /// Ends the agent as an operator does, if it runs.
    pub fn stop_agent(&mut self) -> Result<()> {
        let Some(agent) = self.agent.take() else { return Ok(()) };
        let status = agent.end(Signal::SIGTERM)?;
        ensure!(status.success(), "the agent did not end well on SIGTERM ({status})");
        Ok(())
    }

    /// Asks who answers at a Service's address, in connections of the client.
    pub fn ask(&self, group: Group, port: &Port, count: u32) -> Result<Answers> {
        let mut command = self.client.command_in(group, program::find("portmap-pod")?);
        command.args(["connect", "--json", "--count", &count.to_string(), &port.address.to_string()]);
        if port.protocol == Protocol::Udp {
            command.arg("--udp");
        }
        serde_json::from_str(&output(&mut command)?).context("failed to read what portmap-pod connect prints")
    }

    /// What a subcommand prints about the pins of this world; an error if its exit code says no.
    pub fn portmap(&self, subcommand: &[&str]) -> Result<String> {
        output(Command::new(program::find("portmap")?).args(subcommand).arg("--bpffs").arg(self.world.bpffs()))
    }

    /// Ends and removes everything, continuing past errors, and checks that nothing is left on the machine.
    pub fn clear(mut self) -> Result<()> {
        let shielded = interrupt::shield_children();
        let stopped = self.stop_agent();
        let cleaned = self.portmap(&["cleanup"]);
        let traces = Traces::of(&self.world);
        drop(self);
        shielded.and(stopped).and(cleaned).and(traces.check())
    }
}

/// The addresses are not ours to choose: a world gives them in order.
fn make(world: &World, manifest: &k8s_openapi::api::core::v1::Pod) -> Result<Pod> {
    let name = pod::name(manifest);
    let mut pod = world.pod(name)?;
    let (wanted, given) = (pod::addresses(manifest)?, addresses(&pod));
    ensure!(
        wanted.iter().all(|address| given.contains(address)),
        "Pod {name}: its status says {}, but in the demo's world it has {}; number the pods of all files from 10.244.0.2 and \
         fd00:10:244::2 without gaps",
        list(&wanted),
        list(&given)
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

/// What a program prints, if it succeeds.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("failed to run {shown}"))?;
    let arguments = || command.get_args().map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{shown} {}` failed ({}): {}", arguments(), output.status, complaint.trim_end());
    String::from_utf8(output.stdout).with_context(|| format!("{shown} prints no text"))
}
