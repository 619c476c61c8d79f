//! The machine's wall clock jumps. Sessions, comparisons of the tables and the status must not depend on it.

use std::time::Duration;

use anyhow::{Result, ensure};
use portmap_harness::clock::{is_ours, jump};
use portmap_harness::say;
use portmap_suites::service_objects::{PORT, Service, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::{Stage, Transport, answer, who};
use serde_json::Value;

use crate::repair;

const HOURS: u32 = 10_800;
const YEAR: Duration = Duration::from_hours(365 * 24);

#[test]
fn a_jump_of_the_clock_has_no_effect() -> Result<()> {
    if !is_ours() {
        say::skipped(
            "a clock that jumps",
            "only virtual machines of the tests may set their clock: cargo xtask test --kernels",
        );
        return Ok(());
    }
    let mut stage = Stage::new("clock", &["a", "b", "c"], &["--compare-interval", "1"])?;
    let sticky = Service::new("web", 1).sticky(HOURS);
    let process = stage.process()?;
    let ask = || who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, PORT));
    let others = [Service::new("dns", 2), Service::new("ntp", 3), Service::new("log", 4)];
    // The clock jumps ahead, then to a time before the agent's start, and then back to the machine's time.
    for ((years, ahead), other) in [(1, true), (2, false), (1, true)].into_iter().zip(others) {
        // The client gets a session with the first pod. Then all pods become endpoints.
        stage.apply(&[sticky.clone().endpoints(endpoints(&stage.pods[..1]))])?;
        assert_eq!(ask(), Ok(answer("a", Transport::Tcp)));
        stage.apply(&[sticky.clone().endpoints(endpoints(&stage.pods))])?;
        jump(YEAR * years, ahead)?;
        for _ in 0..20 {
            assert_eq!(ask(), Ok(answer("a", Transport::Tcp)), "the session goes on");
        }
        stage.apply(&[sticky.clone().endpoints(endpoints(&stage.pods)), other.endpoints(endpoints(&stage.pods))])?;
        // This is the last step, because the deletion of a frontend's entry ends the sessions of its Service.
        repair::expect_repaired(&stage, "FRONTENDS_V4")?;
        expect_status(&stage)?;
    }
    Ok(())
}

/// Expects a healthy status in which no duration is in hours or days. A jump of the clock could cause such durations.
fn expect_status(stage: &Stage) -> Result<()> {
    let output = stage.agent.portmap(&["status", "-o", "json"])?;
    let status: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(status["healthy"] == true, "{status:#}");
    for check in status["checks"].as_array().into_iter().flatten() {
        let words: Vec<&str> = check["text"].as_str().unwrap_or_default().split(' ').collect();
        ensure!(!words.contains(&"h") && !words.contains(&"d"), "{check}");
    }
    Ok(())
}
