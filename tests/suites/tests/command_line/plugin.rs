//! The command as a plugin of kubectl: called by the name `kubectl-portmap`, through a symbolic link.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portmap_suites::command::{Outcome, binary, finish, in_time};
use tempfile::TempDir;

use crate::site::service;

/// Two clusters on ports of the node where no server listens.
const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}, {name: b, cluster: {server: 'http://127.0.0.1:2'}}]
contexts: [{name: one, context: {cluster: a, user: a}}, {name: two, context: {cluster: b, user: a}}]
users: [{name: a, user: {token: a}}]
current-context: one
";

/// A user's home directory with a kubeconfig, a manifest and the plugin.
struct Home {
    directory: TempDir,
}

impl Home {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        symlink(binary()?, directory.path().join("kubectl-portmap"))?;
        fs::create_dir(directory.path().join(".kube"))?;
        fs::write(directory.path().join(".kube/config"), KUBECONFIG)?;
        fs::write(directory.path().join("web.yaml"), service("web", "10.96.0.10"))?;
        Ok(Self { directory })
    }

    fn plugin(&self) -> PathBuf {
        self.directory.path().join("kubectl-portmap")
    }

    fn run(&self, arguments: &[&str]) -> Result<Outcome> {
        let mut command = Command::new("timeout");
        command.env("HOME", self.directory.path()).current_dir(self.directory.path()).arg("60").arg(self.plugin());
        finish(command.args(arguments))
    }
}

#[test]
fn the_plugin_lists_what_needs_no_node() -> Result<()> {
    let home = Home::new()?;
    let help = home.run(&["--help"])?.expect(0)?.stdout;
    ensure!(help.contains("Usage: kubectl portmap "), "{help}");
    let is_listed = |name: &str| help.lines().any(|line| line.starts_with(&format!("  {name} ")));
    for name in ["explain", "lint", "resolve"] {
        ensure!(is_listed(name), "{name}: {help}");
        let of_subcommand = home.run(&[name, "--help"])?.expect(0)?.stdout;
        ensure!(of_subcommand.contains(&format!("Usage: kubectl portmap {name} ")), "{of_subcommand}");
    }
    for name in ["run", "verify", "status", "completions", "man"] {
        ensure!(!is_listed(name), "{name}: {help}");
    }
    ensure!(help.contains("verify, cleanup."), "{help}");
    let wrong = home.run(&["explain", "web"])?.expect(2)?;
    ensure!(wrong.stderr.contains("svc/NAME"), "{wrong:?}");
    let own = finish(in_time(Command::new("timeout"))?.arg("--help"))?.expect(0)?.stdout;
    ensure!(own.contains("Usage: portmap ") && own.contains("\n  verify "), "{own}");
    Ok(())
}

/// Each subcommand of a node is answered with the command that runs it there, whatever its arguments.
#[test]
fn subcommands_of_a_node_are_refused_with_the_command() -> Result<()> {
    let home = Home::new()?;
    let kubectl = "kubectl -n portmap-system --context two";
    for (arguments, rest) in [
        (&["verify", "--context", "two", "--repair"][..], "portmap verify --repair"),
        (&["services", "--context=two", "-o", "json"], "portmap services -o json"),
        (&["doctor", "--help", "--context", "two"], "portmap doctor --help"),
    ] {
        let outcome = home.run(arguments)?.expect(3)?;
        let kubectl = if arguments.contains(&"--context=two") {
            kubectl.replace("--context two", "'--context=two'")
        } else {
            kubectl.into()
        };
        let command = format!(
            "  {kubectl} exec \"$({kubectl} get pods --selector=app.kubernetes.io/name=portmap \
             --field-selector=spec.nodeName=NODE --output=name)\" -- {rest}\n"
        );
        ensure!(outcome.stderr.ends_with(&command) && outcome.stdout.is_empty(), "expected {command}: {outcome:#?}");
    }
    let outcome = home.run(&["top"])?.expect(3)?;
    ensure!(outcome.stderr.contains(" exec -it "), "{outcome:?}");
    let outcome = home.run(&["run", "--manifests", "."])?.expect(3)?;
    ensure!(outcome.stderr.contains("deploy/portmap.yaml"), "{outcome:?}");
    Ok(())
}

#[test]
fn files_are_explained() -> Result<()> {
    let home = Home::new()?;
    let explain = |more: &[&str]| home.run(&[&["explain", "svc/web", "--manifests", "web.yaml"], more].concat());
    let outcome = explain(&[])?.expect(1)?;
    ensure!(outcome.stdout.contains("default/web"), "{outcome:?}");
    let outcome = explain(&["--namespace", "shop"])?.expect(1)?;
    ensure!(outcome.stdout.contains("there is no Service web in the namespace shop"), "{outcome:?}");
    Ok(())
}

/// Without paths, `lint` reads the cluster of the current context.
#[test]
fn contexts_select_the_cluster() -> Result<()> {
    let home = Home::new()?;
    home.run(&["lint"])?.expect_error(&["failed to list", "http://127.0.0.1:1"])?;
    home.run(&["lint", "--context", "two"])?.expect_error(&["failed to list", "http://127.0.0.1:2"])?;
    home.run(&["explain", "svc/web", "--context", "two"])?.expect_error(&["http://127.0.0.1:2"])?;
    let path = home.directory.path().join(".kube/config");
    let path = path.to_str().context("not UTF-8")?;
    home.run(&["explain", "svc/web", "--kubeconfig", path])?.expect_error(&["http://127.0.0.1:1"])?;
    home.run(&["explain", "svc/web", "--context", "three"])?.expect_error(&["failed to use the kubeconfig", "three"])?;
    home.run(&["lint", "web.yaml", "--context", "two"])?.expect(2)?;
    ensure!(home.run(&["lint", "web.yaml"])?.code.is_some_and(|code| code < 2), "files are linted, too");
    Ok(())
}
