//! `portmap-pod wire`: sends Ethernet frames on a network interface, and records all frames of the interface.
//!
//! Each line of standard input is a frame, as a JSON array of bytes. The reply is a line when the frame is sent. When standard
//! input ends, the program prints all recorded frames, one per line. These include the sent ones.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use pnet_datalink::{Channel, Config, DataLinkReceiver, DataLinkSender, channel, interfaces};

use crate::pod_server::READY;

/// The frames that the kernel divides late are this long at most.
const LONGEST: usize = 1 << 17;

/// After this time without a frame, all frames have arrived.
const QUIET: Duration = Duration::from_millis(50);

/// The two directions of a network interface. Receiving fails after [`QUIET`] without a frame.
pub(crate) fn open(device: &str) -> Result<(Box<dyn DataLinkSender>, Box<dyn DataLinkReceiver>)> {
    let interface = interfaces().into_iter().find(|interface| interface.name == device);
    let interface = interface.with_context(|| format!("there is no network interface {device}"))?;
    let config = Config { read_buffer_size: LONGEST, read_timeout: Some(QUIET), ..Config::default() };
    match channel(&interface, config).with_context(|| format!("failed to open {device}"))? {
        Channel::Ethernet(sender, receiver) => Ok((sender, receiver)),
        _ => bail!("{device} carries no Ethernet frames"),
    }
}

/// Sends a frame.
pub(crate) fn send(sender: &mut dyn DataLinkSender, frame: &[u8]) -> Result<()> {
    sender.send_to(frame, None).context("the frame is too long")?.context("failed to send a frame")
}

/// Sends the frames of standard input and records frames until it ends.
pub fn wire(device: &str) -> Result<()> {
    let (mut sender, mut receiver) = open(device)?;
    let stop = AtomicBool::new(false);
    let frames = thread::scope(|scope| {
        let recorder = scope.spawn(|| record(&mut *receiver, &stop));
        writeln!(io::stdout(), "{READY}")?;
        let ended = send_all(&mut *sender);
        stop.store(true, Ordering::Relaxed);
        let frames = recorder.join().map_err(|_| anyhow!("a thread panicked"))?;
        ended.and(frames)
    })?;
    for frame in frames {
        let line = serde_json::to_string(&frame).context("failed to write JSON")?;
        writeln!(io::stdout(), "{line}").context("failed to print")?;
    }
    Ok(())
}

fn send_all(sender: &mut dyn DataLinkSender) -> Result<()> {
    for line in io::stdin().lines() {
        let line = line.context("failed to read standard input")?;
        let frame: Vec<u8> = serde_json::from_str(&line).context("failed to parse a frame")?;
        send(sender, &frame)?;
        writeln!(io::stdout(), "sent").context("failed to print")?;
    }
    Ok(())
}

/// Records frames until `stop` is set and no further frame arrives.
fn record(receiver: &mut dyn DataLinkReceiver, stop: &AtomicBool) -> Result<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    loop {
        match receiver.next() {
            Ok(frame) => frames.push(frame.to_vec()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                if stop.load(Ordering::Relaxed) {
                    return Ok(frames);
                }
            }
            Err(error) => return Err(error).context("failed to receive a frame"),
        }
    }
}
