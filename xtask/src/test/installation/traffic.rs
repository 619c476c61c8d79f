//! Clients that connect to a Service without a pause, and the count of their connections.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::steps::Operator;
use crate::cluster::{AGNHOST, Layout};

/// The connections that each kind of client makes before the next step.
const CONNECTIONS: usize = 100;
/// Time limit for [`CONNECTIONS`].
const LIMIT: Duration = Duration::from_mins(2);

/// The client outside the nodes: connects to the node port of each node in turn.
const OUTSIDE: &str = "until curl --silent --max-time 1 http://10.77.0.101:30080/ > /dev/null; do sleep 0.1; done
while :; do
    for node in 101 102 103
    do
        if answer=$(curl --silent --show-error --max-time 10 http://10.77.0.$node:30080/hostname 2>&1)
        then echo served
        else echo \"failed at $(date +%T), node $node: $answer\"
        fi
    done
done";

/// The clients.
pub struct Traffic {
    outside: Child,
    log: PathBuf,
}

/// The lines of all clients.
#[derive(Clone, Debug, Default)]
struct Lines {
    inside: Vec<String>,
    outside: Vec<String>,
}

impl Traffic {
    /// Creates the Service, its pods, and the clients. Waits until they connect.
    pub fn start(operator: &Operator<'_>, layout: &Layout) -> Result<Self> {
        operator.apply(&include_str!("traffic.yaml").replace("AGNHOST", &operator.image(AGNHOST)?))?;
        operator.cluster.wait_for("default", "deployment/web")?;
        operator.cluster.wait_for("default", "daemonset/client")?;
        let log = layout.logs().join("outside.log");
        let output = File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
        let mut shell = operator.cluster.command("bash");
        let outside = shell.args(["-c", OUTSIDE]).stdin(Stdio::null()).stdout(output).spawn();
        let mut traffic = Self { outside: outside.context("failed to start a client")?, log };
        traffic.goes_on(operator)?;
        Ok(traffic)
    }

    /// Waits until each kind of client has made further connections. Fails if one has failed.
    pub fn goes_on(&mut self, operator: &Operator<'_>) -> Result<()> {
        let before = self.lines(operator)?;
        let mut failure = None;
        operator.interruption.until(LIMIT, || {
            let now = self.lines(operator)?;
            failure = now.check().err();
            if failure.is_some() {
                return Ok(());
            }
            let is_enough = |before: &[String], now: &[String]| now.len() >= before.len() + CONNECTIONS;
            ensure!(is_enough(&before.inside, &now.inside), "the clients in pods do not connect any more");
            ensure!(is_enough(&before.outside, &now.outside), "the client outside does not connect any more");
            Ok(())
        })?;
        failure.map_or(Ok(()), Err)
    }

    /// Ends the clients. Returns the number of connections. Fails if one has failed.
    pub fn end(mut self, operator: &Operator<'_>) -> Result<usize> {
        self.outside.kill().context("failed to end a client")?;
        self.outside.wait().context("failed to end a client")?;
        let lines = self.lines(operator)?;
        lines.check()?;
        Ok(lines.inside.len() + lines.outside.len())
    }

    fn lines(&self, operator: &Operator<'_>) -> Result<Lines> {
        let text = fs::read_to_string(&self.log).with_context(|| format!("failed to read {}", self.log.display()))?;
        let inside = operator.kubectl(&["logs", "--selector", "app=client", "--tail=-1", "--max-log-requests=9"])?;
        let owned = |text: &str| text.lines().map(str::to_owned).collect();
        Ok(Lines { inside: owned(&inside), outside: owned(&text) })
    }
}

impl Lines {
    /// Fails if a connection failed.
    fn check(&self) -> Result<()> {
        let failed: Vec<&String> = self.inside.iter().chain(&self.outside).filter(|line| *line != "served").collect();
        let Some(first) = failed.first() else { return Ok(()) };
        bail!("{} connections failed; the first {first}", failed.len())
    }
}
