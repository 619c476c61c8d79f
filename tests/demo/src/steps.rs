//! The steps of the demo, in order.

use anyhow::Result;

use crate::example_stage::Stage;
use crate::screen::Screen;
use crate::{bpftool, change, connect, lifecycle, lookups, outside, tables, wrong_port};

/// One step of the demo.
pub struct Step {
    /// The title, which is printed before the step.
    pub title: &'static str,
    /// Performs the step and prints it. Returns a sentence that sums up the result.
    pub act: fn(&mut Stage, Screen) -> Result<String>,
    /// The scene of a recording in which the step is shown, counted from 0. `None` if a recording leaves out the step.
    pub scene: Option<usize>,
}

/// A step that a recording leaves out.
const fn step(title: &'static str, act: fn(&mut Stage, Screen) -> Result<String>) -> Step {
    Step { title, act, scene: None }
}

/// A step that a recording shows in a scene.
const fn scene(number: usize, title: &'static str, act: fn(&mut Stage, Screen) -> Result<String>) -> Step {
    Step { title, act, scene: Some(number) }
}

/// The steps of every run.
pub const STEPS: [Step; 20] = [
    step("The agent reads the manifests and fills the BPF maps", lifecycle::start),
    scene(0, "A Service's port and its targetPort need not match", connect::one),
    scene(0, "Each connection selects one of the ready pods at random", connect::many),
    step("Without portmap, the Service address is unreachable", connect::without),
    step("A named targetPort has a different number on each pod", connect::named),
    step("UDP and TCP with the same port number are two ports", connect::protocols),
    scene(0, "DNS queries for A and AAAA do not wait 5 seconds for each other", lookups::answered),
    step("A Service without endpoints refuses connections", connect::refused),
    step("A node port works at the node's own addresses", outside::node_port),
    scene(2, "A client outside the node reaches its node port", outside::from_outside),
    step("A load balancer's address works inside the cluster", outside::load_balancer),
    step("A Service has an IPv6 address too", outside::ipv6),
    step("A pod that is not ready gets no new connections", change::readiness),
    step("A Service changes its targetPort", change::target_port),
    scene(1, "A wrong targetPort: the pod refuses the connection", wrong_port::refused),
    scene(1, "`portmap explain`, `lint` and `doctor` find the mistake", wrong_port::find),
    scene(1, "The corrected targetPort works at once", wrong_port::correct),
    step("`portmap services` lists the contents of the BPF maps", tables::services),
    step("bpftool shows the same entries: frontend → service → backends", bpftool::entries),
    step("`portmap status` reports the agent's health", tables::status),
];

/// The last steps, which end the agent and clean up.
pub const ENDING: [Step; 2] = [
    scene(2, "The agent ends, and new connections still work", lifecycle::stop),
    scene(2, "`portmap cleanup` removes everything from the kernel", lifecycle::clean_up),
];
