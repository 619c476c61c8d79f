//! Measures the commands that people wait for, with an agent and many Services: `explain`, `lint` and `verify`. Then the processor
//! time of `top` and `page` while they follow the rates.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use portmap_harness::agent::Agent;
use portmap_harness::running::Running;
use portmap_harness::usage::Usage;
use portmap_harness::world::{World, program};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::figures::{Aim, Figures};
use crate::machine::Machine;
use crate::report::{Row, Section};
use crate::{Report, Size, progress};

/// The longest time of a command in milliseconds.
const LONGEST: f64 = 100.0;

/// The largest part of a processor for a command that follows the rates, in percent.
const LARGEST: f64 = 2.0;

/// Time between the start of a command that follows the rates and its measurement.
const SETTLING: Duration = Duration::from_secs(5);

/// Measure commands with an agent and many Services, which are in files
///
/// `explain`, `lint` and `verify` read all files. `top` runs in a terminal, and `page` has one viewer.
#[derive(Args, Clone, Debug)]
pub struct CommandsArguments {
    #[command(flatten)]
    size: Size,
    /// Number of runs of each command
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Time over which the processor time of top and page is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// Runs the measurement. Dropping the future removes everything that it made.
pub async fn run(arguments: CommandsArguments) -> Result<Report> {
    let machine = Machine::look();
    let CommandsArguments { size, runs, seconds } = arguments;
    progress(&format!("starting an agent with {} Services", size.services));
    let stage = Stage::set(size)?;
    let (mut times, mut aims) = (Vec::new(), Vec::new());
    for (name, words, code) in stage.commands() {
        progress(&format!("running {name} {runs} times"));
        let mut measured = Vec::new();
        for _ in 0..runs {
            // Lets the runtime handle a signal.
            tokio::task::yield_now().await;
            measured.push(stage.time(&words, code)?);
        }
        let figures = Figures::of(measured);
        aims.push(Aim::at_most(&format!("{name}, ms, p50"), LONGEST, figures.p50));
        times.push(Row { name, figures });
    }
    let mut parts = Vec::new();
    for (name, words) in stage.followers() {
        progress(&format!("following {name} for {seconds} s"));
        let part = stage.follow(name, &words, Duration::from_secs(seconds)).await?;
        aims.push(Aim::at_most(&format!("{name}, percent of a processor"), LARGEST, part));
        parts.push(Row { name, figures: Figures::of(vec![part]) });
    }
    let section = |name, title: &str, unit, rows| Section { name, title: title.to_owned(), unit, rows };
    Ok(Report {
        bench: "commands",
        about: "commands beside an agent whose objects are in files".to_owned(),
        machine,
        size,
        aims,
        connect: Vec::new(),
        programs: Vec::new(),
        sections: vec![
            section("commands", "From the start of a command to its end", "ms", times),
            section("followers", "Processor time of commands that follow the rates", "percent", parts),
        ],
    })
}

/// A node with an agent. The fields are dropped in this order.
struct Stage {
    _agent: Agent,
    world: World,
    /// The files of the workloads, which only `lint` reads.
    workloads: PathBuf,
}

impl Stage {
    fn set(size: Size) -> Result<Self> {
        let world = World::new("bench-commands")?;
        let objects = (0..size.services).flat_map(|number| service(number, size.endpoints));
        Agent::write(&world, "objects.json", &list(objects))?;
        let workloads = world.directory().join("workloads.json");
        fs::write(&workloads, list((0..size.services).map(workload)))?;
        Ok(Self { _agent: Agent::start(&world, &[])?, world, workloads })
    }

    /// The measured commands, each with its name and exit code.
    fn commands(&self) -> Vec<(&'static str, Vec<String>, i32)> {
        let manifests = self.manifests();
        let with = |words: &[&str]| -> Vec<String> {
            let words = words.iter().map(ToString::to_string);
            words.chain(["--node-name".into(), "node".into(), "--manifests".into(), manifests.clone()]).collect()
        };
        let workloads = self.workloads.display().to_string();
        vec![
            ("explain an address", with(&["explain", "10.96.0.1:80"]), 0),
            ("explain a Service", with(&["explain", "svc/s1"]), 0),
            ("lint", vec!["lint".into(), manifests.clone(), workloads], 0),
            ("verify", with(&["verify"]), 0),
        ]
    }

    /// The commands that follow the rates.
    fn followers(&self) -> Vec<(&'static str, Vec<String>)> {
        let (manifests, bpffs) = (self.manifests(), self.world.bpffs().display().to_string());
        let page = ["page", "--port", "8053", "--node-name", "node", "--manifests", &manifests, "--bpffs", &bpffs];
        vec![
            ("top", vec!["top".into(), "--bpffs".into(), bpffs.clone()]),
            ("page", page.iter().map(ToString::to_string).collect()),
        ]
    }

    fn manifests(&self) -> String {
        Agent::manifests(&self.world).display().to_string()
    }

    /// Runs a command to its end. Returns its time in milliseconds.
    fn time(&self, words: &[String], code: i32) -> Result<f64> {
        let mut command = self.world.command(program::find("portmap")?);
        command.args(words);
        if words[0] != "lint" {
            command.arg("--bpffs").arg(self.world.bpffs());
        }
        let began = Instant::now();
        let output = command.stdin(Stdio::null()).output().context("failed to run portmap")?;
        let time = began.elapsed();
        ensure!(output.status.code() == Some(code), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(time.as_secs_f64() * 1000.0)
    }

    /// Runs a command that does not end. Returns its part of a processor in percent.
    async fn follow(&self, name: &str, words: &[String], time: Duration) -> Result<f64> {
        // `top` needs a terminal.
        let line =
            format!("stty cols 100 rows 40; echo $$ >&3; exec {} {}", program::find("portmap")?.display(), words.join(" "));
        let pid = self.world.directory().join(format!("{name}.pid"));
        let mut command = self.world.command("script");
        command.args(["--quiet", "--flush", "--command", &format!("exec 3>{}; {line}", pid.display()), "/dev/null"]);
        let _running = Running(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("failed to run script")?);
        sleep(SETTLING).await;
        let _viewer = (name == "page").then(|| self.viewer()).transpose()?;
        sleep(SETTLING).await;
        let process = fs::read_to_string(&pid)?.trim().parse()?;
        let (before, began) = (Usage::of(process)?.processor, Instant::now());
        sleep(time).await;
        let used = Usage::of(process)?.processor.saturating_sub(before);
        Ok(used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0)
    }

    /// Somebody who views the page.
    fn viewer(&self) -> Result<Running> {
        let mut command: Command = self.world.command("curl");
        command.args(["--silent", "--no-buffer", "http://127.0.0.1:8053/events"]);
        Ok(Running(command.stdout(Stdio::null()).spawn().context("failed to run curl")?))
    }
}

/// A Service with its EndpointSlice.
fn service(number: u32, endpoints: u32) -> [Value; 2] {
    let (name, [_, a, b, c]) = (format!("s{number}"), (number + 1).to_be_bytes());
    let endpoints: Vec<Value> = (1..=endpoints)
        .map(|last| json!({"addresses": [format!("10.{}.{b}.{last}", 128 + c / 2)], "conditions": {"ready": true}}))
        .collect();
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {
                "clusterIP": format!("10.{}.{b}.{c}", 96 + a), "selector": {"app": name},
                "ports": [{"name": "http", "port": 80, "targetPort": "web"}],
            },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints,
        }),
    ]
}

/// The Deployment that a Service selects.
fn workload(number: u32) -> Value {
    let name = format!("s{number}");
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "web", "image": "web", "ports": [{"name": "web", "containerPort": 8080}]}]},
            },
        },
    })
}

fn list(items: impl Iterator<Item = Value>) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items.collect::<Vec<_>>()}).to_string()
}
