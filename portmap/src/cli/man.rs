//! `portmap man`: manual pages from the definitions of the arguments.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Args, Command, CommandFactory as _};
use clap_mangen::Man;

use super::{Cli, output};

/// The section of the pages.
const SECTION: &str = "1";

#[derive(Debug, Args)]
pub struct Arguments {
    /// The subcommand whose page is printed [default: the page of portmap]
    #[arg(value_parser = subcommand)]
    subcommand: Option<String>,
    /// Write all pages into this directory instead, as portmap.1, portmap-run.1 and so on
    #[arg(long, value_name = "DIR", conflicts_with = "subcommand")]
    dir: Option<PathBuf>,
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        let portmap = portmap();
        match (self.dir, self.subcommand) {
            (Some(dir), _) => {
                for command in [&portmap].into_iter().chain(visible(&portmap)) {
                    let path = dir.join(format!("{}.{SECTION}", page_name(command)));
                    fs::write(&path, page(command)?).with_context(|| format!("failed to write {}", path.display()))?;
                }
            }
            (None, None) => output::print(&page(&portmap)?)?,
            (None, Some(name)) => {
                let command = visible(&portmap).find(|command| command.get_name() == name);
                output::print(&page(command.context("there is no such subcommand")?)?)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The whole command, with the names and global options of each subcommand filled in.
fn portmap() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

fn visible(portmap: &Command) -> impl Iterator<Item = &Command> {
    portmap.get_subcommands().filter(|command| !command.is_hide_set())
}

/// Parses the name of a subcommand that has a page.
fn subcommand(name: &str) -> Result<String, String> {
    let portmap = portmap();
    let names: Vec<&str> = visible(&portmap).map(Command::get_name).collect();
    if names.contains(&name) { Ok(name.to_owned()) } else { Err(format!("expected one of {}", names.join(", "))) }
}

/// The name of a page, such as `portmap-run`.
fn page_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

/// A page as roff text.
fn page(command: &Command) -> Result<String> {
    let mut roff = Vec::new();
    let source = concat!("portmap ", env!("CARGO_PKG_VERSION"));
    Man::new(command.clone()).section(SECTION).source(source).manual("portmap").render(&mut roff)?;
    Ok(String::from_utf8(roff)?)
}
