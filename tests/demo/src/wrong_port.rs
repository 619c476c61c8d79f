//! The steps about a wrong targetPort: the error of the client, the commands that find the mistake, and the correction.
//!
//! The demo writes the manifest while the agent runs.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use portmap_harness::agent::Agent;
use portmap_harness::world::{Group, program};

use crate::change;
use crate::connect;
use crate::example_stage::{Stage, output_with_code};
use crate::examples::Edit;
use crate::port::Backend;
use crate::screen::{self, Screen};

/// The Service with the wrong targetPort.
const SERVICE: &str = "cart";

/// The pod of the Service.
const POD: &str = "cart-1";

/// The file of the Service and of its pod, whose address is the word `ADDRESS`.
const FILE: &str = "cart.yaml";
const MANIFEST: &str = include_str!("../cart.yaml");

/// Edit that corrects the targetPort.
const CORRECTION: Edit = Edit { file: FILE, object: SERVICE, from: "targetPort: 80", to: "targetPort: 8080" };

/// Adds a Service whose pod does not listen on the targetPort, and verifies that the pod refuses connections.
pub fn refused(stage: &mut Stage, screen: Screen) -> Result<String> {
    stage.deploy(FILE, MANIFEST, POD)?;
    let (file, port) = stage.examples.port(SERVICE)?;
    connect::show_manifest(screen, file, &port)?;
    let backend = only_backend(&port.backends)?;
    stage.agent()?.await_backends(&port.frontend(), &[&backend.address.to_string()])?;
    screen.line("client", &format!("connect({})", port.address))?;
    connect::expect_error(stage, screen, Group::Clients, &port, Errno::ECONNREFUSED)?;
    Ok("the Service and its ready pod exist, but nobody answers: three commands find the reason".to_owned())
}

/// Runs `portmap explain`, `portmap lint` and `portmap doctor`. Fails unless they show the mistake.
pub fn find(stage: &mut Stage, screen: Screen) -> Result<String> {
    let (_, port) = stage.examples.port(SERVICE)?;
    let backend = only_backend(&port.backends)?;
    explain(stage, screen, backend)?;
    lint(stage, screen)?;
    let found = doctor(stage, screen, 1)?;
    let (ip, wrong) = (backend.address.ip(), backend.address.port());
    let mistake = format!("targetPort {wrong}: {ip} listens on 8080, not on {wrong}");
    ensure!(found.contains(&mistake), "expected `{mistake}` from `portmap doctor`");
    Ok(format!("clients get to the pod, but to port {wrong}; the pod listens on 8080"))
}

/// Corrects the targetPort while the agent runs, and verifies that connections succeed.
pub fn correct(stage: &mut Stage, screen: Screen) -> Result<String> {
    let port = change::edit(stage, screen, &CORRECTION, SERVICE)?;
    screen.line("client", &format!("connect({})", port.address))?;
    let answers = stage.ask(Group::Clients, &port, 1)?;
    let expected = only_backend(&port.backends)?.to_string();
    let replies: Vec<&str> = answers.replies.keys().chain(answers.errors.keys()).map(String::as_str).collect();
    ensure!(replies == [&expected], "expected a reply from {expected}, got {replies:?}");
    screen.line("reply", &expected)?;
    doctor(stage, screen, 0)?;
    let numbers = (port.address.port(), &port.target);
    Ok(format!("port {} and targetPort {} differ, as they may: targetPort is the pod's number", numbers.0, numbers.1))
}

/// Prints the reasons of the decision of the Service. Fails unless it leads to this backend.
fn explain(stage: &Stage, screen: Screen, backend: &Backend) -> Result<()> {
    let manifests = Agent::manifests(&stage.world);
    let node = stage.world.name();
    let arguments = ["explain", "svc/cart", "--node-name", node, "--manifests", text(&manifests)?];
    let found = run(stage, screen, &arguments, 0)?;
    screen::excerpt(&found, |line| {
        ["targetPort", "endpoints", " ", "kernel", "verdict"].iter().any(|start| line.starts_with(start))
    })?;
    let verdict = format!("CONNECTS to {}", backend.address);
    ensure!(found.contains(&verdict), "expected the verdict `{verdict}` from `portmap explain`:\n{found}");
    Ok(())
}

/// Prints the findings of `portmap lint` for the manifest. Fails unless the targetPort is among them.
fn lint(stage: &Stage, screen: Screen) -> Result<()> {
    screen.command(&format!("portmap lint {FILE}"))?;
    let mut command = Command::new(program::find("portmap")?);
    let found = output_with_code(command.args(["lint", FILE]).current_dir(Agent::manifests(&stage.world)), 0)?;
    screen::output(&found)?;
    ensure!(found.contains("[PM103]"), "expected the code PM103 from `portmap lint`");
    Ok(())
}

/// Prints and returns the findings of `portmap doctor` about the Service. Fails if its exit code is another one.
fn doctor(stage: &Stage, screen: Screen, code: i32) -> Result<String> {
    let found = run(stage, screen, &["doctor", "--service", SERVICE], code)?;
    screen::excerpt(&found, |line| line.starts_with("listening"))?;
    Ok(found)
}

/// Prints and runs a subcommand of portmap in the node's network namespace, on the demo's pinned maps.
fn run(stage: &Stage, screen: Screen, arguments: &[&str], code: i32) -> Result<String> {
    let arguments = [arguments, &["--bpffs", text(stage.world.bpffs())?]].concat();
    screen.command(&format!("portmap {}", arguments.join(" ")))?;
    output_with_code(stage.world.command(program::find("portmap")?).args(arguments), code)
}

fn text(path: &std::path::Path) -> Result<&str> {
    path.to_str().context("the path is not UTF-8")
}

fn only_backend(backends: &[Backend]) -> Result<&Backend> {
    ensure!(backends.len() == 1, "the Service {SERVICE} should have one backend");
    backends.first().context("the Service has no backend")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::Examples;

    #[test]
    fn the_correction_changes_the_backend() -> Result<()> {
        let mut examples = Examples::default();
        examples.add(FILE, &MANIFEST.replace("ADDRESS", "10.244.0.9"))?;
        let backends = |examples: &Examples| -> Result<Vec<String>> {
            Ok(examples.port(SERVICE)?.1.backends.iter().map(|backend| backend.address.to_string()).collect())
        };
        assert_eq!(backends(&examples)?, ["10.244.0.9:80"]);
        examples.edit(&CORRECTION)?;
        assert_eq!(backends(&examples)?, ["10.244.0.9:8080"]);
        Ok(())
    }
}
