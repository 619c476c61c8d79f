//! `portmap page`: a live page of all Services in a web browser: Service port → targetPort → pods.
//!
//! [`board`] reads the objects and the counters, [`blocks`] selects and explains the Services of a viewer, [`html`] makes HTML,
//! and [`server`] answers requests.

mod blocks;
mod board;
mod html;
mod server;

use std::{net::Ipv4Addr, process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::{PinsArguments, objects::SourceArguments, output, runtime};
use board::Boards;

#[derive(Debug, Args)]
#[command(
    after_help = "The page is for this machine only: it listens on 127.0.0.1, and changes nothing. To see the page of a node, \
                  forward the port: ssh -L 8053:127.0.0.1:8053 NODE. Without tables of portmap in the kernel, as on a laptop, \
                  the page shows the objects alone."
)]
pub struct Arguments {
    #[command(flatten)]
    source: SourceArguments,
    #[command(flatten)]
    pins: PinsArguments,
    /// Port of the page on 127.0.0.1; 0 takes any free port
    #[arg(long, value_name = "PORT", default_value_t = 8053)]
    port: u16,
}

impl Arguments {
    pub fn run(self) -> Result<ExitCode> {
        let source = Arc::new(self.source.open()?);
        let boards = Boards::start(source.clone(), self.pins.clone())?;
        runtime()?.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await;
            let listener =
                listener.with_context(|| format!("failed to listen on port {}; choose another one with --port", self.port))?;
            let address = listener.local_addr()?;
            output::print(&format!("the page is at http://{address}/; stop with Ctrl-C\n"))?;
            let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            tokio::select! {
                ended = server::run(listener, boards) => ended,
                _ = interrupt.recv() => Ok(()),
                _ = terminate.recv() => Ok(()),
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
