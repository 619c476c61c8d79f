//! The demo: a Service port becomes a pod's port, shown step by step on the real kernel with the real agent.
//!
//! A [`example_stage::Stage`] is the world with its pods, client and agent; each step acts on it, shows what was asked for and what
//! happened, and fails unless that is what the manifests ask for. Whatever happens, the stage is cleared at the end.
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

/// What is asked of the demo.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of the example manifests.
    pub examples: PathBuf,
    /// What happens after the steps.
    pub ending: Ending,
}

/// What happens after the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The agent ends before the eyes of the audience.
    Show,
    /// Everything keeps running until a signal comes.
    Keep,
}

/// A part of the demo: it shows what it does, and concludes or fails.
struct Step {
    title: &'static str,
    act: fn(&mut Stage, Screen) -> Result<String>,
}

const STEPS: [Step; 15] = [
    Step { title: "The agent brings the manifests into the kernel", act: lifecycle::start },
    Step { title: "A Service port leads to a targetPort", act: connect::one },
    Step { title: "Every connection chooses a pod", act: connect::many },
    Step { title: "Without portmap the address leads nowhere", act: connect::without },
    Step { title: "A targetPort by name is another number on each pod", act: connect::named },
    Step { title: "UDP and TCP on one number are two ports", act: connect::protocols },
    Step { title: "A Service without endpoints refuses", act: connect::refused },
    Step { title: "A node port answers at the node's own addresses", act: outside::node_port },
    Step { title: "A load balancer's address, from inside", act: outside::load_balancer },
    Step { title: "The same over IPv6", act: outside::ipv6 },
    Step { title: "A pod that is not ready gets no new connections", act: change::readiness },
    Step { title: "Another targetPort", act: change::target_port },
    Step { title: "What the kernel's tables hold", act: tables::services },
    Step { title: "The same with bpftool: frontend → service → backends", act: bpftool::entries },
    Step { title: "Is all well?", act: tables::status },
];

const ENDING: [Step; 2] = [
    Step { title: "The agent ends, connections go on", act: lifecycle::stop },
    Step { title: "Nothing is left in the kernel", act: lifecycle::clean_up },
];

/// Runs the demo, and removes everything that it made. Fails if anything is not as expected; [`Interrupted`] if a signal came
/// before the end.
pub fn run(options: &Options) -> Result<()> {
    ensure!(geteuid().is_root(), "the demo makes network namespaces and loads BPF programs: run it as root");
    let started = Instant::now();
    let interrupts = Interrupts::listen()?;
    let screen = Screen::new();
    World::sweep();
    let examples = Examples::read(&options.examples)?;
    screen.headline("portmap: a Service port becomes a pod's port, inside connect()")?;
    screen::print("The kernel, the agent and the connections are real. The pods are network namespaces of this machine;")?;
    screen::print("no route leads out of them.\n")?;
    let stage = Stage::set(examples);
    interrupts.check(&stage)?;
    let mut stage = stage?;
    let shown = show(&mut stage, screen, &interrupts, options.ending, started);
    let cleared = stage.clear().context("failed to clean up");
    match (shown, cleared) {
        (Ok(()), Ok(())) => Ok(screen::print("Nothing of the demo is left on this machine.")?),
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
            bail!("step {number} did not go as expected")
        }
    }
}
