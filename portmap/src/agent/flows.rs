//! The work on flows of clients outside the node, beside the loop: the deletion of expired flows ([`sweep`]), and of UDP flows
//! whose endpoint ended ([`ended`]).

mod ended;
mod sweep;

use std::{collections::BTreeSet, sync::Arc};

use anyhow::Result;

use super::{
    Agent, ends_endpoints,
    installed::{PlanScope, Written},
};
use crate::{
    kernel::exhaustion::wait_out,
    maps::{
        Item,
        flows::{FlowMaps, ended::UdpTarget, sweep::Swept},
        pin::Pins,
    },
    plan::{Plan, Step},
    resolve::desired::entries::EntryReader,
};
use ended::EndedFlows;
use sweep::Sweep;

/// The tasks that delete flows.
pub struct Flows {
    sweep: Sweep,
    ended: EndedFlows,
}

/// The result of a task.
#[derive(Debug)]
pub enum FlowResult {
    /// The maps were swept.
    Swept(Swept),
    /// A search has found these targets of UDP flows: their endpoints are not in ENDPOINTS, or the flows are refused.
    Found(BTreeSet<UdpTarget>),
    /// This number of UDP flows was deleted.
    Deleted(u64),
    /// The task failed, which it has logged.
    Failed,
}

impl Flows {
    /// Opens the pinned maps. A sweep is due at once.
    pub fn new(pins: &Pins) -> Result<Self> {
        let maps = Arc::new(FlowMaps::open(pins)?);
        Ok(Self { sweep: Sweep::new(maps.clone()), ended: EndedFlows::new(maps) })
    }

    /// Requests a search for UDP flows of ended endpoints, if these writes may have ended any. All endpoints must have room in
    /// ENDPOINTS.
    pub fn written(&mut self, written: &Written) {
        if written.scope == PlanScope::All || changes_endpoints(&written.plan) {
            self.ended.request();
        }
    }

    /// Starts the tasks that are due.
    pub fn start_if_due(&mut self, pins: &Pins) {
        self.sweep.start_if_due();
        self.ended.start_if_due(pins);
    }

    /// Waits for the end of a task. Waits for ever without a task.
    pub async fn result(&mut self) -> FlowResult {
        tokio::select! {
            result = self.sweep.result() => result,
            result = self.ended.result() => result,
        }
    }
}

impl Agent {
    /// Takes the result of a task. Of the targets that a search found, it deletes the UDP flows whose endpoint no longer serves
    /// their frontend. The endpoints of another set have other numbers, and may still serve.
    pub fn take_flow_result(&mut self, result: FlowResult) -> Result<()> {
        match result {
            FlowResult::Swept(swept) => return wait_out(self.reporting.swept(&swept, &mut self.installed.datapath.maps)),
            FlowResult::Found(targets) => {
                let mut entries = EntryReader::new(&self.desired.table);
                let has_ended = |target: &UdpTarget| !entries.serves(&target.frontend, target.endpoint);
                self.tasks.flows.ended.delete(targets.into_iter().filter(has_ended).collect());
            }
            FlowResult::Deleted(flows) if flows > 0 => {
                tracing::info!("deleted {flows} UDP flows of clients outside the node, whose endpoints no longer serve");
                self.reporting.metrics.flows.purged(flows);
            }
            FlowResult::Deleted(_) | FlowResult::Failed => {}
        }
        Ok(())
    }
}

/// Whether the plan changes ENDPOINTS. UDP flows may lead to a removed endpoint, or be refused although there is an endpoint
/// now.
fn changes_endpoints(plan: &Plan) -> bool {
    let inserts = |step: &Step| matches!(step, Step::Insert(Item::Endpoint(..)));
    ends_endpoints(plan) || plan.steps.iter().any(inserts)
}
