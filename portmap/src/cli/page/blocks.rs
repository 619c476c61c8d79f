//! The Services that a viewer sees, each with the explanations of its ports.

use std::time::Duration;

use portmap::{
    inspect::explain::{
        Explanation,
        target::{ServiceTarget, Target},
    },
    model::ObjectName,
};

use super::board::{Board, Boards};

/// The most Services that are shown at once. A viewer finds others by a search.
const SHOWN: usize = 100;

/// The pause before a difference between the objects and the kernel's tables is shown: the agent applies a change within
/// milliseconds.
pub const SETTLING: Duration = crate::cli::objects::PAUSE;

/// The selected Services.
pub struct Blocks {
    /// The number of all Services.
    pub all: usize,
    /// The number of Services whose names match.
    pub matching: usize,
    /// The first of them, in the order of their names.
    pub shown: Vec<Block>,
    /// The reason why there are no newer objects.
    pub problem: Option<String>,
    /// Whether the kernel's tables were read.
    pub has_kernel: bool,
}

/// One Service.
pub struct Block {
    /// The name of the Service, as `namespace/name`.
    pub service: String,
    /// An explanation for each port and ClusterIP, those of one port together.
    pub ports: Vec<Vec<Explanation>>,
}

impl Blocks {
    /// The Services of which `query` is a part of `namespace/name`.
    pub fn of(board: &Board, boards: &Boards, query: &str) -> anyhow::Result<Self> {
        let mut blocks = Self { all: 0, matching: 0, shown: Vec::new(), problem: board.problem.clone(), has_kernel: false };
        let Some(objects) = &board.objects else { return Ok(blocks) };
        let (known, kernel) = (objects.known(), boards.kernel());
        blocks.has_kernel = kernel.0.is_ok();
        blocks.all = known.written.len();
        for name in known.written.keys().filter(|name| name.to_string().contains(query)) {
            blocks.matching += 1;
            if blocks.shown.len() < SHOWN {
                let explanations = objects.explain(&target(name), &kernel, None)?;
                blocks.shown.push(Block { service: name.to_string(), ports: by_port(explanations) });
            }
        }
        Ok(blocks)
    }

    /// Whether the kernel's tables agree with the objects, as far as both are known.
    pub fn agree(&self) -> bool {
        let mut explanations = self.shown.iter().flat_map(|block| block.ports.iter().flatten());
        explanations.all(|explanation| explanation.kernel.agrees != Some(false))
    }

    /// A sentence about the selection.
    pub fn summary(&self) -> String {
        let Self { all, matching, shown, problem, has_kernel } = self;
        if let Some(problem) = problem {
            return format!("The objects cannot be read, trying again: {problem}");
        }
        let count = match (shown.len(), matching, all) {
            (shown, matching, all) if shown == *all && matching == all => format!("{all} Services"),
            (shown, matching, all) if shown == *matching => format!("{matching} of {all} Services"),
            (shown, matching, _) => format!("the first {shown} of {matching} Services; search for others"),
        };
        let failing = shown.iter().filter(|block| block.fails()).count();
        let failing = if failing == 0 { String::new() } else { format!(", {failing} with ports that do not connect") };
        let kernel = if *has_kernel { "" } else { "; no tables of portmap on this machine, so without rates" };
        format!("{count}{failing}{kernel}")
    }
}

impl Block {
    /// Whether a port does not connect.
    fn fails(&self) -> bool {
        self.ports.iter().flatten().any(|explanation| !explanation.connects && explanation.port.is_some())
    }
}

/// All ports of a Service.
fn target(name: &ObjectName) -> Target {
    Target::Service(ServiceTarget {
        namespace: Some(name.namespace().to_owned()),
        name: name.name().to_owned(),
        port: None,
        protocol: None,
    })
}

/// Joins the explanations of one port: a Service may have an address in each family.
fn by_port(explanations: Vec<Explanation>) -> Vec<Vec<Explanation>> {
    let mut ports: Vec<Vec<Explanation>> = Vec::new();
    for explanation in explanations {
        let key =
            |explanation: &Explanation| explanation.port.as_ref().map(|port| (port.port, port.protocol, port.name.clone()));
        match ports.last_mut().filter(|port| port.first().map(key) == Some(key(&explanation))) {
            Some(port) => port.push(explanation),
            None => ports.push(vec![explanation]),
        }
    }
    ports
}
