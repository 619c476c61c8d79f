//! The program as a plugin of kubectl: called as `kubectl-portmap`, it offers the subcommands that need no node.
//!
//! The other subcommands read the kernel of one node. For them the plugin prints the command that runs them in the agent's pod.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Result, anyhow};
use clap::{Arg, ArgAction, Command, CommandFactory as _, FromArgMatches as _, value_parser};

use super::{Cli, FAILURE, output};

/// The file name of the plugin. kubectl finds plugins by such names.
const FILE: &str = "kubectl-portmap";

/// Subcommands that read the kernel of a node, which is in the agent's pod.
const ON_NODE: [&str; 8] = ["services", "flows", "trace", "top", "status", "doctor", "verify", "cleanup"];

/// Those of [`ON_NODE`] that run until Ctrl-C.
const LASTING: [&str; 2] = ["trace", "top"];

/// Other subcommands that the plugin does not list.
const UNLISTED: [&str; 2] = ["completions", "man"];

/// The name of the positional argument of a subcommand that the plugin does not offer.
const ARGUMENTS: &str = "arguments";

/// Whether the program was called by the plugin's name.
pub fn is_called() -> bool {
    std::env::args_os().next().is_some_and(|program| Path::new(&program).file_name() == Some(OsStr::new(FILE)))
}

/// Parses the arguments and runs the subcommand, as [`super::run`] does.
pub fn run() -> ExitCode {
    let matches = command().get_matches();
    let refused = matches.subcommand().filter(|(name, _)| *name == "run" || ON_NODE.contains(name));
    if let Some((name, matches)) = refused {
        let arguments: Vec<OsString> = matches.get_many(ARGUMENTS).into_iter().flatten().cloned().collect();
        output::error(&advice(name, &arguments).unwrap_or_else(|error| error));
        return FAILURE.into();
    }
    super::run(Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()))
}

fn command() -> Command {
    let mut command = Cli::command().bin_name("kubectl portmap");
    for name in ON_NODE.into_iter().chain(["run"]) {
        command = command.mut_subcommand(name, |_| refused(name));
    }
    for name in UNLISTED {
        command = command.mut_subcommand(name, |command| command.hide(true));
    }
    let on_node = ON_NODE.join(", ");
    command
        .about("Explain and check the ports of Services: portmap as a plugin of kubectl")
        .mut_subcommand("lint", |lint| lint.mut_arg("paths", optional))
        .after_help(format!(
            "These subcommands of portmap run on a node, in the agent's pod: {on_node}. `kubectl portmap SUBCOMMAND` prints the \
             command that runs one there.\n\n\
             Exit codes: 0 success, 1 the answer is \"no\", 2 wrong usage, 3 failure."
        ))
}

/// A subcommand that takes any arguments.
fn refused(name: &'static str) -> Command {
    let arguments = Arg::new(ARGUMENTS).num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
    Command::new(name).hide(true).disable_help_flag(true).arg(arguments.value_parser(value_parser!(OsString)))
}

/// The paths of `lint`, which reads the cluster of the current context without any. The original argument is required.
fn optional(_: Arg) -> Arg {
    let help = "Files, directories of files, or - for standard input [default: the cluster of the current context]";
    let paths = Arg::new("paths").value_name("PATH").num_args(0..).action(ArgAction::Append).help(help);
    paths.value_parser(value_parser!(PathBuf))
}

/// The error for a subcommand that runs on a node, with the command that runs it there.
fn advice(name: &str, arguments: &[OsString]) -> Result<anyhow::Error> {
    if name == "run" {
        return Ok(anyhow!("portmap run is the agent of a node: the DaemonSet of deploy/portmap.yaml runs it on each node"));
    }
    let arguments: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    let (kubectl, portmap) = split(&arguments);
    let kubectl = shlex::try_join([&["kubectl", "-n", "portmap-system"], kubectl.as_slice()].concat())?;
    let portmap = shlex::try_join([&["portmap", name], portmap.as_slice()].concat())?;
    let terminal = if LASTING.contains(&name) { " -it" } else { "" };
    Ok(anyhow!(
        "portmap {name} reads the kernel of one node; run it in the agent's pod on that node, with the node's name as NODE:\n  \
         {kubectl} exec{terminal} \"$({kubectl} get pods --selector=app.kubernetes.io/name=portmap \
         --field-selector=spec.nodeName=NODE --output=name)\" -- {portmap}"
    ))
}

/// Splits arguments into those that select the cluster, which are kubectl's, and the others.
fn split<'a>(arguments: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    const SELECTIONS: [&str; 2] = ["--kubeconfig", "--context"];
    let (mut kubectl, mut others) = (Vec::new(), Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.split_once('=') {
            None if SELECTIONS.contains(argument) => kubectl.extend([*argument].into_iter().chain(rest.next().copied())),
            Some((name, _)) if SELECTIONS.contains(&name) => kubectl.push(argument),
            _ => others.push(*argument),
        }
    }
    (kubectl, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_select_the_cluster_are_for_kubectl() {
        let arguments = ["--repair", "--context", "lab", "-o", "json", "--kubeconfig=a b"].map(OsString::from);
        let advice = advice("verify", &arguments).expect("no NUL bytes").to_string();
        let kubectl = "kubectl -n portmap-system --context lab '--kubeconfig=a b'";
        assert!(advice.contains(&format!("{kubectl} exec \"$({kubectl} get pods ")), "{advice}");
        assert!(advice.ends_with("--output=name)\" -- portmap verify --repair -o json"), "{advice}");
    }

    #[test]
    fn definitions_are_consistent() {
        command().debug_assert();
    }
}
