//! The demo: shows step by step how portmap translates Service ports to pods' ports, with the real kernel and the real agent.
//!
//! [`example_stage::Stage`] is the environment: the pods, the client and the agent. Each step acts on it, and prints its
//! actions and the result. A step fails if the result does not match the manifests. The environment is removed at the end,
//! also after a failure.
#![forbid(unsafe_code)]

mod bpftool;
mod change;
mod connect;
mod example_stage;
mod examples;
mod interrupt;
mod keep;
mod lifecycle;
mod outside;
mod pod;
mod port;
mod screen;
mod spread;
mod tables;
mod traces;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::geteuid;
use portmap_harness::world::World;

use example_stage::Stage;
use examples::Examples;
use interrupt::Interrupts;
use screen::Screen;

pub use interrupt::Interrupted;

/// The options of the demo.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of the example manifests.
    pub examples: PathBuf,
    /// Whether the demo cleans up directly after its steps, or keeps its environment until a signal arrives.
    pub ending: Ending,
}

/// The end of the demo, after the steps that it always runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Run the last two steps, which end the agent and clean up.
    Show,
    /// Keep the pods and the agent running until a signal arrives, then clean up.
    Keep,
}

/// One step of the demo.
struct Step {
    title: &'static str,
    /// Performs the step and prints it. Returns a sentence that sums up the result.
    act: fn(&mut Stage, Screen) -> Result<String>,
}

const STEPS: [Step; 16] = [
    Step { title: "The agent reads the manifests and fills the BPF maps", act: lifecycle::start },
    Step { title: "A Service port is translated to a targetPort", act: connect::one },
    Step { title: "Each connection selects one of the ready pods at random", act: connect::many },
    Step { title: "Without portmap, the Service address is unreachable", act: connect::without },
    Step { title: "A named targetPort has a different number on each pod", act: connect::named },
    Step { title: "UDP and TCP with the same port number are two ports", act: connect::protocols },
    Step { title: "A Service without endpoints refuses connections", act: connect::refused },
    Step { title: "A node port works at the node's own addresses", act: outside::node_port },
    Step { title: "A client outside the node reaches its node port", act: outside::from_outside },
    Step { title: "A load balancer's address works inside the cluster", act: outside::load_balancer },
    Step { title: "A Service has an IPv6 address too", act: outside::ipv6 },
    Step { title: "A pod that is not ready gets no new connections", act: change::readiness },
    Step { title: "A Service changes its targetPort", act: change::target_port },
    Step { title: "`portmap services` lists the contents of the BPF maps", act: tables::services },
    Step { title: "bpftool shows the same entries: frontend → service → backends", act: bpftool::entries },
    Step { title: "`portmap status` reports the agent's health", act: tables::status },
];

const ENDING: [Step; 2] = [
    Step { title: "The agent ends, and new connections still work", act: lifecycle::stop },
    Step { title: "`portmap cleanup` removes everything from the kernel", act: lifecycle::clean_up },
];

/// Runs the demo, and removes everything that it made. Fails if a result is not as expected. Fails with [`Interrupted`] if a
/// signal arrives before the last step has ended.
pub fn run(options: &Options) -> Result<()> {
    ensure!(geteuid().is_root(), "the demo makes network namespaces and loads BPF programs: run it as root");
    let started = Instant::now();
    let interrupts = Interrupts::listen()?;
    let screen = Screen::new();
    World::sweep();
    let examples = Examples::read(&options.examples)?;
    screen.headline("portmap translates a Service port to a pod's port inside connect()")?;
    screen::print("The kernel, the agent and the connections are real. The pods are network namespaces of this machine")?;
    screen::print("without a route to other networks.\n")?;
    let stage = Stage::set(examples);
    interrupts.check(&stage)?;
    let mut stage = stage?;
    let shown = show(&mut stage, screen, &interrupts, options.ending, started);
    let cleared = stage.clear().context("failed to clean up");
    match (shown, cleared) {
        (Ok(()), Ok(())) => Ok(screen::print("The demo has removed everything that it made on this machine.")?),
        (Err(error), Ok(())) | (Ok(()), Err(error)) => Err(error),
        (Err(first), Err(second)) => bail!("{first:#}; and {second:#}"),
    }
}

fn show(stage: &mut Stage, screen: Screen, interrupts: &Interrupts, ending: Ending, started: Instant) -> Result<()> {
    stage.introduce(screen)?;
    let ending_steps: &[Step] = match ending {
        Ending::Show => &ENDING,
        Ending::Keep => &[],
    };
    let steps: Vec<&Step> = STEPS.iter().chain(ending_steps).collect();
    for (index, step) in steps.iter().enumerate() {
        screen.step(index + 1, step.title)?;
        let outcome = (step.act)(stage, screen);
        interrupts.check(&outcome)?;
        conclude(screen, index + 1, outcome)?;
    }
    screen::print("")?;
    screen.headline(&format!("{} steps, all as expected, in {:.1} s", steps.len(), started.elapsed().as_secs_f64()))?;
    if ending == Ending::Keep {
        keep::explain(stage, screen)?;
        interrupts.wait();
    }
    Ok(())
}

fn conclude(screen: Screen, number: usize, outcome: Result<String>) -> Result<()> {
    match outcome {
        Ok(conclusion) => Ok(screen.passed(&conclusion)?),
        Err(error) => {
            screen.failed(&format!("{error:#}"))?;
            bail!("step {number} failed")
        }
    }
}
