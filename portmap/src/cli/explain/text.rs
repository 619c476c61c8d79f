//! Explanations as text: short labelled lines, in the order of the chain.

use anyhow::Result;
use comfy_table::{Cell, Color};
use portmap::inspect::explain::{EndpointRow, Explanation, KernelRow, Outside, PortRow, Why};

use super::Report;
use crate::cli::output;

/// The most endpoints that the text lists for a frontend; JSON and YAML list all.
const SHOWN: usize = 20;

/// A line of an explanation.
pub struct Line {
    /// The label; empty if the line continues the one before.
    pub label: &'static str,
    /// The text.
    pub text: String,
    /// The meaning for a connection.
    pub tone: Tone,
}

/// The meaning of a line for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// None.
    Plain,
    /// It helps the connection.
    Good,
    /// It may be what the user does not expect.
    Odd,
    /// It prevents the connection.
    Bad,
}

impl Tone {
    /// The name as a class of HTML.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Good => "good",
            Self::Odd => "warn",
            Self::Bad => "bad",
        }
    }

    fn color(self) -> Option<Color> {
        match self {
            Self::Plain => None,
            Self::Good => Some(Color::Green),
            Self::Odd => Some(Color::Yellow),
            Self::Bad => Some(Color::Red),
        }
    }
}

/// Prints all explanations.
pub fn print(report: &Report) -> Result<()> {
    for (index, explanation) in report.explanations.iter().enumerate() {
        if index > 0 {
            output::print("\n")?;
        }
        let mut table = output::new_table(&[]);
        for Line { label, text, tone } in lines(explanation, &report.node) {
            let text = Cell::new(text);
            table.add_row([Cell::new(label), tone.color().map_or(text.clone(), |color| text.fg(color))]);
        }
        output::print_table(&table)?;
    }
    Ok(())
}

/// The lines of an explanation. `node`: the name of the node whose view is explained.
pub fn lines(explanation: &Explanation, node: &str) -> Vec<Line> {
    let mut lines: Vec<Line> =
        vec![plain("destination", explanation.frontend.clone()), plain("seen from", format!("node {node}"))];
    lines.extend(explanation.service.as_ref().map(|service| plain("service", address(explanation, service))));
    lines.extend(explanation.other_claims.iter().map(|other| plain("", format!("{other} claims it too, and does not get it"))));
    if let Some(port) = &explanation.port {
        lines.push(plain("port", self::port(port)));
        lines.extend(port.target_port.clone().map(|target| plain("targetPort", target)));
        lines.extend(endpoints(&explanation.endpoints));
    }
    lines.extend(kernel(&explanation.kernel));
    lines.extend(explanation.outside.as_ref().map(|it| plain("outside", outside(it))));
    lines.extend(explanation.client.iter().map(|rule| plain("client", rule.clone())));
    lines.extend(explanation.notes.iter().map(|note| plain("note", note.clone())));
    if !explanation.other_addresses.is_empty() {
        lines.push(plain("also at", explanation.other_addresses.join(", ")));
    }
    lines.push(verdict(explanation));
    lines
}

fn plain(label: &'static str, text: String) -> Line {
    line(label, text, Tone::Plain)
}

fn line(label: &'static str, text: String, tone: Tone) -> Line {
    Line { label, text, tone }
}

fn address(explanation: &Explanation, service: &str) -> String {
    match explanation.kind {
        Some("NodePort") => format!("{service}: the port is its node port"),
        Some("LoadBalancer") => format!("{service}: the address is its load balancer's"),
        Some(kind) => format!("{service}: the address is its {kind}"),
        None => service.to_owned(),
    }
}

fn port(port: &PortRow) -> String {
    let PortRow { name, port, protocol, target_port: _, node_port } = port;
    let name = if name.is_empty() { "without a name".to_owned() } else { format!("named {name}") };
    let node_port = node_port.map(|number| format!(", node port {number}")).unwrap_or_default();
    format!("{port}/{protocol}, {name}{node_port}")
}

fn endpoints(rows: &[EndpointRow]) -> Vec<Line> {
    let taken = rows.iter().filter(|row| row.taken).count();
    let mut lines = vec![match rows.len() {
        0 => plain("endpoints", "none".to_owned()),
        all => plain("endpoints", format!("{taken} of {all} taken")),
    }];
    // The taken ones first, because they matter most.
    let (first, rest): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.taken);
    let width = rows.iter().map(|row| row.endpoint.len()).max().unwrap_or_default();
    lines.extend(first.into_iter().chain(rest).take(SHOWN).map(|row| endpoint(row, width)));
    let hidden = rows.len().saturating_sub(SHOWN);
    if hidden > 0 {
        lines.push(plain("", format!("and {hidden} more; -o json lists all")));
    }
    lines
}

fn endpoint(row: &EndpointRow, width: usize) -> Line {
    let EndpointRow { endpoint, pod, taken, reason, outside } = row;
    let (result, tone) = if *taken { ("taken    ", Tone::Good) } else { ("not taken", Tone::Odd) };
    let mut text = format!("{endpoint:width$}  {result}  {}", reason.text);
    let differing = outside.as_ref().filter(|outside| *outside != reason);
    text.extend(differing.map(|outside| format!("; for clients outside: {}", outside.text)));
    text.extend(pod.as_ref().map(|pod| format!("  (pod {pod})")));
    line("", text, tone)
}

fn kernel(kernel: &KernelRow) -> Vec<Line> {
    let KernelRow { agrees, action, backends, difference: _, detached, unread } = kernel;
    let mut lines = Vec::new();
    lines.extend(
        unread.as_ref().map(|reason| plain("kernel", format!("not read, so the objects alone are explained: {reason}"))),
    );
    if let (Some(agrees), Some(action)) = (agrees, action) {
        let now = if backends.is_empty() { (*action).to_owned() } else { format!("{action} to {}", output::shorten(backends)) };
        lines.push(if *agrees {
            plain("kernel", format!("the tables agree: {now}"))
        } else {
            let advice = "portmap status shows whether the agent works, portmap verify all differences";
            line("kernel", format!("THE TABLES DIFFER from the objects: {now}; {advice}"), Tone::Bad)
        });
    }
    if !detached.is_empty() {
        let names = detached.join(", ");
        lines.push(line("", format!("{names} is not attached, so calls are not translated"), Tone::Bad));
    }
    lines
}

fn outside(outside: &Outside) -> String {
    let Outside { action, backends, text } = outside;
    let to = if backends.is_empty() { String::new() } else { format!(" to {}", output::shorten(backends)) };
    format!("clients outside the node: {action}{to}; {text}")
}

/// The last line: whether a connection would reach a backend.
pub fn verdict(explanation: &Explanation) -> Line {
    let reason = explanation.reason.as_ref().map(|Why { text, .. }| format!(": {text}")).unwrap_or_default();
    let text = match explanation.action {
        "forward" => return line("verdict", forward(explanation), Tone::Good),
        "refuse" => "REFUSED, the call fails at once (ECONNREFUSED)",
        "drop" => "DROPPED, the call fails (ETIMEDOUT)",
        "none" => "NOTHING TO CONNECT TO",
        _ => "NOT TRANSLATED, the call goes to the address as it is",
    };
    line("verdict", format!("{text}{reason}"), Tone::Bad)
}

fn forward(explanation: &Explanation) -> String {
    let kernel = &explanation.kernel;
    let backends = if kernel.action.is_some() { &kernel.backends } else { &explanation.backends };
    match backends.as_slice() {
        [only] => format!("CONNECTS to {only}"),
        several => format!("CONNECTS to one of {} backends", several.len()),
    }
}
