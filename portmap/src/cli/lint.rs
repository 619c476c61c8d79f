//! `portmap lint`: mistakes in the ports of Services, pods, policies and routes, in files or in a cluster.

mod github;
mod input;
mod rules;
mod sarif;
mod text;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, ValueEnum};
use portmap::{
    kernel::port_ranges::PortRange,
    lint::{
        self, Settings,
        catalog::{self, Level, Rule},
        finding::Finding,
        set::Set,
    },
    source::kube::ClusterConfig,
};
use serde::Serialize;

use super::{FAILURE, NO, NODE_PORTS, output, port_range};
use input::Input;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Files, directories of files, or - for standard input; all of them are one set of objects
    #[arg(value_name = "PATH", required_unless_present_any = ["kubeconfig", "context", "list_rules", "explain"])]
    paths: Vec<PathBuf>,
    /// Read directories with their subdirectories
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Read the objects of a cluster once, instead of files. FILE is its kubeconfig [default: $KUBECONFIG, ~/.kube/config, or
    /// the pod's service account]
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with = "paths")]
    #[expect(clippy::option_option, reason = "the flag may have no value")]
    kubeconfig: Option<Option<PathBuf>>,
    /// Read the objects of the cluster of this context of the kubeconfig
    #[arg(long, value_name = "NAME", conflicts_with = "paths")]
    context: Option<String>,
    /// Namespace of objects in files that name none [default: default]. With --kubeconfig, the only namespace to read [default:
    /// all]
    #[arg(short, long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    namespace: Option<String>,
    /// Exit with 1 after findings of this level, too
    #[arg(long, value_name = "LEVEL", value_enum)]
    deny: Option<Deny>,
    /// Leave out findings with this code; repeatable
    #[arg(long, value_name = "CODE", value_delimiter = ',', value_parser = rule)]
    ignore: Vec<&'static Rule>,
    /// The API server's range of node ports
    #[arg(long, value_name = "FIRST-LAST", value_parser = port_range, default_value_t = NODE_PORTS)]
    node_port_range: PortRange,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// List all codes
    #[arg(long, conflicts_with_all = ["paths", "kubeconfig", "context"])]
    list_rules: bool,
    /// Explain a code
    #[arg(long, value_name = "CODE", value_parser = rule, conflicts_with_all = ["paths", "kubeconfig", "context", "list_rules"])]
    explain: Option<&'static Rule>,
}

/// A level besides errors that is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Deny {
    /// Warnings
    Warnings,
    /// Warnings and notes
    Notes,
}

/// The format of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines with file and line, reason and remedy
    #[default]
    Text,
    /// JSON, for programs
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// Workflow commands of GitHub Actions
    Github,
}

/// A finding as JSON.
#[derive(Serialize)]
struct Row<'a> {
    file: Option<&'a str>,
    line: Option<u32>,
    level: &'static str,
    code: &'static str,
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    what: &'a str,
    why: &'static str,
    mend: &'a str,
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        if self.list_rules {
            return rules::list().map(|()| ExitCode::SUCCESS);
        }
        if let Some(rule) = self.explain {
            return rules::explain(rule).map(|()| ExitCode::SUCCESS);
        }
        let denied = match self.deny {
            None => Level::Error,
            Some(Deny::Warnings) => Level::Warning,
            Some(Deny::Notes) => Level::Note,
        };
        // Only `kubectl portmap lint` may lack both: it reads the cluster of the current context.
        let Input { set, is_complete } = if self.paths.is_empty() {
            let cluster = ClusterConfig { kubeconfig: self.kubeconfig.flatten(), context: self.context };
            input::cluster(&cluster, self.namespace.as_deref())?
        } else {
            input::files(&self.paths, self.recursive, self.namespace.as_deref())?
        };
        // The process ends soon: to free many small objects would only take time.
        let set: &Set = Box::leak(Box::new(set));
        let PortRange { first, last } = self.node_port_range;
        let findings = lint::check(set, &Settings { node_ports: (first, last), ignored: self.ignore });
        match self.output {
            Format::Text => text::print(&findings, set.objects)?,
            Format::Json => output::print(&(serde_json::to_string_pretty(&rows(&findings))? + "\n"))?,
            Format::Sarif => sarif::print(&findings)?,
            Format::Github => github::print(&findings)?,
        }
        if !is_complete {
            return Ok(FAILURE.into());
        }
        if set.objects == 0 && findings.is_empty() {
            output::warning("no object was given: nothing to lint");
            return Ok(NO.into());
        }
        let is_denied = findings.iter().any(|finding| finding.level >= denied);
        Ok(if is_denied { NO.into() } else { ExitCode::SUCCESS })
    }
}

fn rows(findings: &[Finding]) -> Vec<Row<'_>> {
    let row = |finding| {
        let Finding { rule, level, place, kind, namespace, name, what, mend }: &Finding = finding;
        Row {
            file: place.as_ref().map(|(file, _)| &**file),
            line: place.as_ref().map(|(_, line)| *line),
            level: level.name(),
            code: rule.code,
            kind,
            namespace,
            name,
            what,
            why: rule.why,
            mend,
        }
    };
    findings.iter().map(row).collect()
}

fn rule(code: &str) -> Result<&'static Rule, String> {
    catalog::by_code(code).ok_or_else(|| "no such code: `portmap lint --list-rules` lists all".to_owned())
}
