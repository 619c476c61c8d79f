//! Chromium without a window, over the `DevTools` protocol on a pipe: messages are JSON texts, each with a 0 byte at its end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use portmap_harness::patience::patience;
use portmap_harness::running::Running;
use portmap_harness::world::World;
use portmap_suites::command;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::serving::PATIENCE;

/// Chromium reads messages from descriptor 3 and writes to descriptor 4.
const PIPES: &str = "exec \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null";

/// A browser with one page. Dropping it kills the process first, and then removes its files.
pub struct Browser {
    _process: Running,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    number: u64,
    /// The browser's own files.
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser on a node, and opens a page.
    pub fn open(world: &World, url: &str) -> Result<Self> {
        let profile = TempDir::new()?;
        let mut command = world.command("sh");
        command.args(["-c", PIPES, "sh", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]);
        command.arg("--disable-dev-shm-usage").arg("--window-size=1000,900");
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let mut child = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let mut output = BufReader::new(output.context("no standard output")?);
        let (sender, messages) = channel();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            while output.read_until(0, &mut bytes).is_ok_and(|count| count > 0) {
                let message = serde_json::from_slice(bytes.strip_suffix(&[0]).unwrap_or(&bytes));
                if sender.send(message.unwrap_or_default()).is_err() {
                    return;
                }
                bytes.clear();
            }
        });
        let input = input.context("no standard input")?;
        let mut browser = Self { _process: child, input, messages, session: None, number: 0, _profile: profile };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}))?["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", &json!({"targetId": target, "flatten": true}))?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser.call("Page.enable", &json!({}))?;
        browser.call("Page.navigate", &json!({"url": url}))?;
        browser.receive("the load of the page", |message| message["method"] == "Page.loadEventFired")?;
        Ok(browser)
    }

    /// Calls a method, and waits for its result.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.clone().into();
        }
        self.input.write_all(format!("{message}\0").as_bytes())?;
        let answer = self.receive(&format!("the answer to {message}"), |answer| answer["id"] == self.number)?;
        ensure!(answer["error"].is_null(), "{message}: {answer}");
        Ok(answer["result"].clone())
    }

    /// Waits for a message, and drops those before it.
    fn receive(&self, name: &str, is_wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = command::find(&self.messages, patience(PATIENCE), |message| is_wanted(&message).then_some(message));
        found.with_context(|| format!("the browser did not send {name}"))
    }

    /// The value of an expression in the page. A promise is awaited.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let result =
            self.call("Runtime.evaluate", &json!({"expression": expression, "awaitPromise": true, "returnByValue": true}))?;
        ensure!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        Ok(result["result"]["value"].clone())
    }

    /// Waits until an expression is true. It is evaluated after each change of the document.
    pub fn wait_until(&mut self, expression: &str) -> Result<()> {
        let promise = format!(
            "new Promise((done) => {{
                const all = {{ subtree: true, childList: true, attributes: true, characterData: true }};
                const check = () => {{ if ({expression}) {{ observer.disconnect(); done(true); }} }};
                const observer = new MutationObserver(check);
                observer.observe(document, all);
                check();
            }})"
        );
        self.evaluate(&promise).with_context(|| format!("it never was true: {expression}")).map(drop)
    }

    /// Presses a key, as its name in the DOM, such as `Tab`.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            other => bail!("unknown key {other}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }
}
