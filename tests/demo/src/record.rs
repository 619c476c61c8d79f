//! `--record`: runs the demo in a pseudo terminal, and writes a picture of its steps ([`crate::picture`]).

use std::env;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::pty::{OpenptyResult, Winsize, openpty};

use crate::interrupt::Interrupts;
use crate::picture::{self, Scene};
use crate::screen::WIDTH;
use crate::steps::{ENDING, STEPS, Step};

/// A recording of the demo in a pseudo terminal.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The directory of the example manifests.
    pub examples: PathBuf,
    /// The file of the picture. An existing file is replaced.
    pub file: PathBuf,
}

/// The first words of each scene.
const COMMAND: &str = "\x1b[1m$ cargo xtask demo\x1b[0m";

impl Recording {
    /// Runs the demo, prints its output, and writes the picture. Writes nothing if the demo fails. Fails with
    /// [`Interrupted`](crate::Interrupted) after a signal.
    pub fn make(&self) -> Result<()> {
        self.check_file()?;
        let interrupts = Interrupts::listen()?;
        let outcome = self.run();
        interrupts.check(&outcome)?;
        let text = outcome?;
        let picture = picture::render(&scenes(&text)?);
        fs::write(&self.file, &picture).with_context(|| format!("failed to write {}", self.file.display()))?;
        writeln!(io::stdout(), "Wrote {} ({} bytes).", self.file.display(), picture.len()).context("failed to print")
    }

    /// Fails early if the file cannot be written because of its directory.
    fn check_file(&self) -> Result<()> {
        let parent = self.file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        ensure!(parent.is_dir(), "failed to write {}: {} is no directory", self.file.display(), parent.display());
        ensure!(!self.file.is_dir(), "failed to write {}: it is a directory; give the name of a file", self.file.display());
        Ok(())
    }

    /// Runs the demo in a pseudo terminal with colours, and returns its output. Fails with the error of the demo.
    fn run(&self) -> Result<String> {
        let size = Winsize { ws_row: 50, ws_col: u16::try_from(WIDTH)?, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).context("failed to open a pseudo terminal")?;
        let mut command = Command::new(env::current_exe().context("failed to get the path of this program")?);
        command.arg("--examples").arg(&self.examples).env_remove("NO_COLOR");
        let demo = command.stdin(Stdio::null()).stdout(slave).stderr(Stdio::piped()).spawn();
        let demo = demo.context("failed to start the demo")?;
        // The command holds the other end of the terminal. The end of the output is seen only after all of these are closed.
        drop(command);
        let text = copy(master);
        let ended = demo.wait_with_output().context("failed to wait for the demo")?;
        let errors = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "the demo failed, so there is no recording: {}", errors.trim_end());
        text
    }
}

/// Copies the output of the pseudo terminal to standard output until the other end is closed, and returns it.
fn copy(terminal: OwnedFd) -> Result<String> {
    let mut terminal = File::from(terminal);
    let (mut text, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        match terminal.read(&mut bytes) {
            Ok(0) => break,
            Ok(length) => {
                let part = bytes.get(..length).unwrap_or_default();
                text.extend_from_slice(part);
                // The recording does not need a reader of standard output.
                drop(io::stdout().write_all(part).and_then(|()| io::stdout().flush()));
            }
            // The other end is closed.
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("failed to read from the pseudo terminal"),
        }
    }
    Ok(String::from_utf8(text).context("the output of the demo is not UTF-8")?.replace('\r', ""))
}

/// The scenes of the picture: the chosen steps of the demo's output.
fn scenes(text: &str) -> Result<Vec<Scene>> {
    let lines: Vec<&str> = text.lines().collect();
    let all: Vec<&Step> = STEPS.iter().chain(&ENDING).collect();
    let mut starts = Vec::new();
    for step in &all {
        let start = lines.iter().position(|line| line.ends_with(&format!("{}\x1b[0m", step.title)));
        starts.push(start.with_context(|| format!("the output of the demo has no step `{}`", step.title))?);
    }
    let mut scenes: Vec<Scene> = Vec::new();
    for (index, step) in all.iter().enumerate() {
        let Some(number) = step.scene else { continue };
        let (start, end) = (starts[index], starts.get(index + 1).copied().unwrap_or(lines.len()));
        let Some(excerpt) = lines.get(start..end) else { bail!("the steps in the output of the demo have another order") };
        while scenes.len() <= number {
            scenes.push(Scene { text: COMMAND.to_owned() });
        }
        let text = &mut scenes[number].text;
        text.push_str("\n\n");
        text.push_str(excerpt.join("\n").trim_end());
    }
    Ok(scenes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_have_the_chosen_steps_in_order() -> Result<()> {
        let step = |(index, step): (usize, &Step)| {
            format!("\n\x1b[36m{index:<3}\x1b[0m\x1b[1m{}\x1b[0m\n   does {index}.\n", step.title)
        };
        let steps = || STEPS.iter().chain(&ENDING);
        let scenes = scenes(&steps().enumerate().map(step).collect::<String>())?;
        assert_eq!(scenes.len(), steps().filter_map(|step| step.scene).max().map_or(0, |last| last + 1));
        for (index, step) in steps().enumerate() {
            let line = format!("   does {index}.");
            let shown: Vec<usize> = (0..scenes.len()).filter(|number| scenes[*number].text.contains(&line)).collect();
            assert_eq!(shown, step.scene.into_iter().collect::<Vec<_>>(), "{}", step.title);
        }
        assert!(super::scenes("").is_err());
        Ok(())
    }
}
