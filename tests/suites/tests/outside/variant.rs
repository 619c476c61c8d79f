//! The variants of the nodes: the firewall, and the way in which the programs are attached and send packets on.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use libtest_mimic::{Completion, Failed};
use portmap_harness::dual_stack::Via;
use portmap_harness::kernel::Features;
use portmap_harness::topology::Firewall;
use portmap_suites::outside_stage::Stage;

/// A variant of the nodes, and its topology once a case has used it.
pub struct Variant {
    name: &'static str,
    firewall: Firewall,
    arguments: &'static [&'static str],
    needs_tcx: bool,
    stage: Mutex<Made>,
}

/// The topology of a variant.
enum Made {
    /// There is none: no case has run, or the last one failed.
    Not,
    /// The topology is ready for the next case.
    Ready(Box<Stage>),
    /// It cannot be made, for this reason.
    Failed(String),
}

impl Variant {
    /// All variants.
    pub fn all() -> Vec<Self> {
        let tcx = &["--device-attach", "tcx"][..];
        let clsact = &["--device-attach", "clsact"][..];
        let routed = &["--device-attach", "clsact", "--north-south-shortcut", "off"][..];
        let variant =
            |name, firewall, arguments, needs_tcx| Self { name, firewall, arguments, needs_tcx, stage: Mutex::new(Made::Not) };
        vec![
            variant("plain_tcx", Firewall::None, tcx, true),
            variant("plain_clsact", Firewall::None, clsact, false),
            variant("firewall_tcx", Firewall::Stateful, tcx, true),
            variant("firewall_clsact", Firewall::Stateful, clsact, false),
            variant("firewall_routed", Firewall::Stateful, routed, false),
        ]
    }

    /// The name of the variant in the names of its tests.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs a case. It fails, too, if the firewall has dropped a packet because of its connection state.
    pub fn run(&self, case: fn(&mut Stage, Via) -> Result<()>, via: Via) -> Result<Completion, Failed> {
        if self.needs_tcx && !Features::here().has_tcx {
            return Ok(Completion::ignored_with("TCX needs Linux 6.6"));
        }
        let mut made = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stage = match std::mem::replace(&mut *made, Made::Not) {
            Made::Ready(stage) => stage,
            Made::Failed(reason) => {
                *made = Made::Failed(reason.clone());
                return Err(reason.into());
            }
            Made::Not => match Stage::new(self.name, self.firewall, self.arguments) {
                Ok(stage) => Box::new(stage),
                Err(error) => {
                    let reason = format!("failed to make the topology: {error:#}");
                    *made = Made::Failed(reason.clone());
                    return Err(reason.into());
                }
            },
        };
        stage.begin()?;
        case(&mut stage, via).map_err(|error| format!("{error:#}\n{}", stage.logs()))?;
        stage.expect_no_invalid_packets().map_err(|error| format!("{error:#}"))?;
        *made = Made::Ready(stage);
        Ok(Completion::Completed)
    }
}
