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
mod lookups;
mod outside;
mod pause;
mod picture;
mod pod;
mod port;
mod record;
mod screen;
mod spread;
mod steps;
mod tables;
mod traces;
mod wrong_port;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::geteuid;
use portmap_harness::world::World;

use example_stage::Stage;
use examples::Examples;
use interrupt::Interrupts;
use pause::Pauses;
use screen::Screen;
use steps::{ENDING, STEPS, Step};

pub use interrupt::Interrupted;
pub use pause::check_terminal;
pub use record::Recording;

/// The options of the demo.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of the example manifests.
    pub examples: PathBuf,
    /// Whether the demo waits for Enter before each step.
    pub pace: Pace,
    /// Whether the demo cleans up directly after its steps, or keeps its environment until a signal arrives.
    pub ending: Ending,
}

/// The time between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Each step follows directly after the step before.
    Steady,
    /// The demo waits for Enter before each step. Standard input and standard output must be terminals.
    Interactive,
}

/// The end of the demo, after the steps that it always runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Run the last two steps, which end the agent and clean up.
    Show,
    /// Keep the pods and the agent running until a signal arrives, then clean up.
    Keep,
}

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
    let shown = show(&mut stage, screen, &interrupts, options, started);
    let cleared = stage.clear().context("failed to clean up");
    match (shown, cleared) {
        (Ok(()), Ok(())) => Ok(screen::print("The demo has removed everything that it made on this machine.")?),
        (Err(error), Ok(())) | (Ok(()), Err(error)) => Err(error),
        (Err(first), Err(second)) => bail!("{first:#}; and {second:#}"),
    }
}

fn show(stage: &mut Stage, screen: Screen, interrupts: &Interrupts, options: &Options, started: Instant) -> Result<()> {
    stage.introduce(screen)?;
    let mut pauses = match options.pace {
        Pace::Steady => Pauses::NONE,
        Pace::Interactive => Pauses::start()?,
    };
    let ending_steps: &[Step] = match options.ending {
        Ending::Show => &ENDING,
        Ending::Keep => &[],
    };
    let steps: Vec<&Step> = STEPS.iter().chain(ending_steps).collect();
    for (index, step) in steps.iter().enumerate() {
        pauses.wait(screen, interrupts)?;
        screen.step(index + 1, step.title)?;
        let outcome = (step.act)(stage, screen);
        interrupts.check(&outcome)?;
        conclude(screen, index + 1, outcome)?;
    }
    screen::print("")?;
    screen.headline(&format!("{} steps, all as expected, in {:.1} s", steps.len(), started.elapsed().as_secs_f64()))?;
    if options.ending == Ending::Keep {
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
