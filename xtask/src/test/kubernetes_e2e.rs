//! Runs Kubernetes' own end-to-end tests on a cluster of three nodes, with portmap as the only Service proxy.

mod progress;
mod report;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use self::report::Report;
use super::tally::Tally;
use crate::cluster::{self, Cluster, Interruption, KUBECONFIG, Layout, Proxy, TOOLS, WORK, session};
use crate::screen::{Mark, Screen};
use crate::setup::{self, Purpose};

/// The tests of Services, which run without a focus on the command line.
pub const SERVICES: &str = r"\[sig-network\] Services ";
/// Tests that stop parts of the cluster, or that need what this cluster does not have.
const LEFT_OUT: &str = r"\[Disruptive\]|\[Feature:";
/// Some tests need three nodes.
const NODES: u8 = 3;
/// Number of tests that run at the same time.
const PARALLEL: usize = 4;

/// Starts a cluster, runs the tests whose names match the regular expression `focus`, and removes the cluster. The agent is the
/// program `agent`, or else that of this workspace. Returns exit code 1 if a test fails.
pub fn run(focus: &str, agent: Option<&Path>) -> Result<ExitCode> {
    setup::require(&[Purpose::Build, Purpose::Kernel, Purpose::ControlPlane])?;
    let layout = cluster::prepare(&session::program(agent)?)?;
    let interruption = Interruption::watch()?;
    session::unless_interrupted(run_in_cluster(&layout, focus, &interruption))
}

fn run_in_cluster(layout: &Layout, focus: &str, interruption: &Interruption) -> Result<ExitCode> {
    let mut cluster = Cluster::start(layout, NODES, Proxy::Portmap, interruption)?;
    let log = layout.logs().join("e2e.log");
    Screen::Stderr.marked(Mark::Doing, &format!("running the tests of {focus:?}"), &format!("log in {}", log.display()));
    let mut ginkgo = ginkgo(&cluster, focus).stdout(Stdio::piped()).spawn().context("failed to start the tests")?;
    let output = ginkgo.stdout.take().context("the tests have no standard output")?;
    let copy = File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
    let reader = thread::spawn(move || progress::follow(BufReader::new(output), copy));
    let status = cluster.wait(&mut ginkgo)?;
    // A process that a test has left behind may keep the output open.
    drop(cluster);
    reader.join().map_err(|_| anyhow!("failed to read the output of the tests"))??;
    let report = Report::read(&layout.logs().join("report.json"))
        .with_context(|| format!("the tests made no report ({status}); their log is {}", log.display()))?;
    conclude(&report, focus, status.success(), &log)
}

/// The command of the tests' runner. It runs several processes of the tests.
fn ginkgo(cluster: &Cluster<'_>, focus: &str) -> Command {
    let mut ginkgo = cluster.command("ginkgo");
    ginkgo.args(["--procs", &PARALLEL.to_string(), "--no-color", "-v", "--timeout", "4h"]);
    ginkgo.args(["--focus", focus, "--skip", LEFT_OUT]);
    ginkgo.args(["--json-report", "report.json", "--output-dir", &format!("{WORK}/logs")]);
    ginkgo.args([&format!("{TOOLS}/bin/e2e.test"), "--", "--kubeconfig", KUBECONFIG]);
    ginkgo.args(["--kubectl-path", &format!("{TOOLS}/bin/kubectl"), "--provider", "skeleton", "--disable-log-dump"]);
    ginkgo.args(["--num-nodes", &NODES.to_string()]);
    ginkgo
}

/// Prints a line for each test, and the counts as the last line.
fn conclude(report: &Report, focus: &str, is_success: bool, log: &Path) -> Result<ExitCode> {
    let tally = report.tally();
    if tally == Tally::default() {
        bail!("no test matches {focus}");
    }
    report.show();
    ensure!(is_success || tally.failed > 0, "the tests' runner failed; its log is {}", log.display());
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
