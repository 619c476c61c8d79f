//! `cargo xtask test`: runs all suites that this machine can run, one after the other, and counts their tests.

mod earlier;
mod failures;
mod installation;
mod kernels;
mod kubernetes_e2e;
mod long_form;
mod suite;
mod tally;
mod times;

use std::io::{self, BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

use self::failures::Failures;
use self::kernels::Matrix;
use self::long_form::Peer;
use self::suite::Suite;
use self::tally::Tally;
use self::times::Times;
use crate::screen::Screen;
use crate::setup::{self, Gap, Purpose};
use crate::{launch, workspace};

/// Environment variable with the path of the program `portmap` that the suites start.
const AGENT: &str = "PORTMAP_BIN";

/// Run all tests that this machine can run
///
/// The order is: unit, golden and property tests; suites that need root and a kernel with cgroup v2; suites with the real API
/// server, which need Go; and some suites on other kernels, in virtual machines. Suites that cannot run here are skipped with a
/// reason. The last line has the numbers of passed, failed and skipped tests.
#[derive(clap::Args, Default)]
pub struct TestArgs {
    /// Run only these: names of suites (tests/suites/tests/NAME, "unit", "doc", "kernels"), or parts of tests' names
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Run only the suites for other kernels, or those of FILTER, on these: 5.10, 6.1, 6.1-ipv4, 6.12, newest-6, newest
    /// [without a list: all]
    #[arg(long, value_name = "LIST", num_args = 0..=1, require_equals = true, value_delimiter = ',')]
    kernels: Option<Vec<String>>,
    /// Run only the comparison with this proxy, with hundreds of rounds of changes
    #[arg(long, value_name = "PROXY", value_enum, conflicts_with_all = ["filters", "kernels"])]
    peer: Option<Peer>,
    /// Run only `chaos` for ten minutes (ends, starts and upgrades the agent at random, also from and to earlier builds), and
    /// `socket_stress` for one minute per test
    #[arg(long, conflicts_with_all = ["filters", "kernels", "peer"])]
    chaos: bool,
    /// Run only Kubernetes' own end-to-end tests whose names match this regular expression, on a cluster of three nodes. The
    /// first time it builds Kubernetes, which takes about a quarter of an hour [without FOCUS: those of Services]
    #[arg(long, value_name = "FOCUS", num_args = 0..=1, default_missing_value = kubernetes_e2e::SERVICES)]
    #[arg(conflicts_with_all = ["filters", "kernels", "peer", "chaos"])]
    kubernetes_e2e: Option<String>,
    /// Run only the installation: on a cluster of three nodes, replace kube-proxy by portmap with its Helm chart, upgrade and
    /// remove it, while clients connect to a Service without a pause
    #[arg(long, conflicts_with_all = ["filters", "kernels", "peer", "chaos", "kubernetes_e2e"])]
    installation: bool,
    /// The program `portmap` to test, such as one of `cargo xtask dist`, instead of a build of this workspace. For
    /// --kubernetes-e2e and --installation it must be statically linked
    #[arg(long, value_name = "FILE", conflicts_with = "kernels")]
    agent: Option<PathBuf>,
}

/// Builds the workspace and runs the selected suites. Returns exit code 1 if a test fails.
pub fn run(args: &TestArgs) -> Result<ExitCode> {
    if let Some(focus) = &args.kubernetes_e2e {
        return kubernetes_e2e::run(focus, args.agent.as_deref());
    }
    if args.installation {
        return installation::run(args.agent.as_deref());
    }
    let gaps = setup::ensure(&[
        Purpose::Build,
        Purpose::Kernel,
        Purpose::ControlPlane,
        Purpose::Machines,
        Purpose::Browser,
        Purpose::Promtool,
    ])?;
    if let Some(gap) = gaps.iter().find(|gap| gap.purpose == Purpose::Build) {
        bail!("{}", gap.reason);
    }
    let matrix = matrix(args)?;
    let (mut suites, names) = select(suite::all()?, args);
    // The suites start the agent of the release profile, so build it first.
    launch::build()?;
    let mut total = Tally::default();
    let mut remarks = Vec::new();
    let mut times = Times::default();
    if args.chaos {
        let agents = earlier::build()?;
        for suite in &mut suites {
            suite.environment.push((earlier::VARIABLE, agents.clone()));
        }
    }
    if let Some(agent) = &args.agent {
        let agent = agent.canonicalize().with_context(|| format!("failed to find {}", agent.display()))?;
        for suite in &mut suites {
            suite.environment.push((AGENT, agent.clone().into_os_string()));
        }
    }
    for suite in &suites {
        total += times.of(&suite.name, || run_or_skip(suite, &gaps, &names, &mut remarks))?;
    }
    if let Some(matrix) = matrix {
        total += times.of(kernels::NAME, || matrix.run_or_skip(&gaps, &mut remarks))?;
    }
    times.show();
    conclude(total, &remarks, args)
}

/// The other kernels to boot: those of `--kernels`; without it, the quick selection in a run of all suites or of "kernels".
fn matrix(args: &TestArgs) -> Result<Option<Matrix>> {
    if args.peer.is_some() || args.chaos {
        return Ok(None);
    }
    match &args.kernels {
        Some(names) => Matrix::chosen(names, &args.filters).map(Some),
        None if args.filters.is_empty() || args.filters.iter().any(|filter| filter == kernels::NAME) => {
            Ok(Some(Matrix::quick()))
        }
        None => Ok(None),
    }
}

/// The suites to run, and the filters for tests' names. A filter that is "kernels" or a suite's name selects that; all other
/// filters are parts of tests' names.
fn select(suites: Vec<Suite>, args: &TestArgs) -> (Vec<Suite>, Vec<String>) {
    if args.kernels.is_some() {
        return (Vec::new(), Vec::new());
    }
    if let Some(peer) = args.peer {
        return (long_form::of_peer(peer, suites), Vec::new());
    }
    if args.chaos {
        return (long_form::of_chaos(suites), Vec::new());
    }
    let is_suite = |filter: &&String| *filter == kernels::NAME || suites.iter().any(|suite| suite.name == **filter);
    let (chosen, names): (Vec<_>, Vec<_>) = args.filters.iter().partition(is_suite);
    let names = names.into_iter().cloned().collect();
    let chosen: Vec<String> = chosen.into_iter().cloned().collect();
    let wanted = suites.into_iter().filter(|suite| chosen.is_empty() || chosen.contains(&suite.name));
    (wanted.collect(), names)
}

fn run_or_skip(suite: &Suite, gaps: &[Gap], names: &[String], remarks: &mut Vec<String>) -> Result<Tally> {
    if let Some(gap) = gaps.iter().find(|gap| suite.needs.contains(&gap.purpose)) {
        let remark = format!("skipped: suite {} ({})", suite.name, gap.reason);
        Screen::Stdout.line(&format!("\n{remark}"));
        remarks.push(remark);
        return Ok(Tally { skipped: 1, ..Tally::default() });
    }
    Screen::Stdout.title(&format!("\nsuite {}", suite.name));
    if suite.needs.contains(&Purpose::ControlPlane) {
        Screen::Stdout.line("this suite uses programs of Go; the first build of the API server takes about five minutes");
    }
    let (tally, skips, failures) = run_suite(suite, names)?;
    remarks.extend(skips);
    if tally.failed > 0 {
        remarks.push(format!("failed: suite {} ({tally}){}", suite.name, failures.text()));
    }
    Ok(tally)
}

/// Runs one suite and prints its output. Returns the counts, the lines of skipped tests, and the lines about failed tests.
fn run_suite(suite: &Suite, names: &[String]) -> Result<(Tally, Vec<String>, Failures)> {
    let mut child = command(suite, names).stdout(Stdio::piped()).spawn().context("failed to start cargo test")?;
    let output = child.stdout.take().context("cargo test has no standard output")?;
    let (tally, skips, failures) = pass_through(BufReader::new(output))?;
    let status = child.wait().context("failed to wait for cargo test")?;
    // A suite that does not compile, or whose process crashes, prints no result; count it as one failure.
    let crashed = !status.success() && tally.failed == 0;
    Ok((Tally { failed: tally.failed + usize::from(crashed), ..tally }, skips, failures))
}

fn command(suite: &Suite, names: &[String]) -> Command {
    let mut cargo = workspace::cargo();
    cargo.envs(suite.environment.iter().map(|(name, value)| (name, value)));
    cargo.arg("test").args(workspace::SELECTION).arg("--no-fail-fast").args(&suite.selection).arg("--");
    if Screen::Stdout.coloured() {
        cargo.args(["--color", "always"]);
    }
    // Each test that needs the kernel starts many processes, so only two run at a time.
    if suite.needs.contains(&Purpose::Kernel) {
        cargo.arg("--test-threads=2");
    }
    cargo.args(names);
    cargo
}

fn pass_through(mut output: impl BufRead) -> Result<(Tally, Vec<String>, Failures)> {
    let (mut tally, mut skips, mut failures) = (Tally::default(), Vec::new(), Failures::default());
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).context("failed to read the output of the tests")? > 0 {
        io::stdout().write_all(&line).ok();
        let text = String::from_utf8_lossy(&line);
        tally += Tally::of_line(&text).unwrap_or_default();
        skips.extend(Tally::skip_of_line(&text).map(str::to_owned));
        failures.add_line(&text);
        line.clear();
    }
    Ok((tally.with_skips(skips.len()), skips, failures))
}

/// Prints the remarks about skipped and failed tests, and the counts as the last line. Fails if no test matches the filters.
fn conclude(total: Tally, remarks: &[String], args: &TestArgs) -> Result<ExitCode> {
    if total == Tally::default() && !args.filters.is_empty() {
        bail!("no test matches {}", args.filters.join(" "));
    }
    Screen::Stdout.line("");
    for remark in remarks {
        Screen::Stdout.line(remark);
    }
    Screen::Stdout.line(&total.to_string());
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
