//! The HTML of the page, of a Service, and of an explanation.

use std::fmt::Display;

use maud::{DOCTYPE, Markup, html};
use portmap::inspect::explain::{EndpointRow, Explanation, PortRow};

use super::blocks::{Block, Blocks};
use crate::cli::explain::{Report, text};

/// The most endpoints that a port shows; an explanation lists more.
const ENDPOINTS: usize = 12;

/// The whole page. `items`: the HTML of each Service.
pub fn page(node: &str, query: &str, blocks: &Blocks) -> Markup {
    document(
        "Service ports",
        &html! {
            header {
                h1 { "portmap: Service port → targetPort → pods" }
                form role="search" action="/" {
                    label { "Find a Service " input type="search" name="q" value=(query) placeholder="part of namespace/name"; }
                    " " button { "Find" }
                }
            }
            p { "As seen from node " strong { (node) } ". " span #summary role="status" { (blocks.summary()) } }
            main {
                ul #services {
                    @for block in &blocks.shown { (service(block)) }
                }
            }
            dialog #explanation aria-label="Explanation" {
                form method="dialog" { button { "Close" } }
                div {}
            }
            noscript { p { "Without scripts the page shows one moment; load it again for the next one." } }
            script src="/page.js" {}
        },
    )
}

/// The page of one explanation.
pub fn explanation_page(body: &Markup) -> Markup {
    document("Explanation", &html! { p { a href="/" { "All Services" } } main { (body) } })
}

fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " – portmap" }
                link rel="stylesheet" href="/page.css";
            }
            body { (body) }
        }
    }
}

/// The chain of an explanation, as `portmap explain` prints it.
pub fn report(report: &Report) -> Markup {
    html! {
        @for explanation in &report.explanations {
            h2 { (explanation.frontend) }
            dl {
                @for line in text::lines(explanation, &report.node) {
                    dt { (line.label) }
                    dd class=(line.tone.name()) { (line.text) }
                }
            }
        }
    }
}

/// The element id of a Service.
pub fn id(block: &Block) -> String {
    format!("service/{}", block.service)
}

/// The item of a Service.
pub fn service(block: &Block) -> Markup {
    html! {
        li.service id=(id(block)) {
            h2 { (block.service) }
            @for explanations in &block.ports {
                @if let Some((first, port)) = explanations.first().and_then(|first| Some((first, first.port.as_ref()?))) {
                    (service_port(block, first, port, explanations))
                } @else {
                    @for explanation in explanations { (without_port(explanation)) }
                }
            }
        }
    }
}

/// The name of a Service port among the rates.
pub fn key(service: impl Display, port: &str, protocol: &str) -> String {
    format!("{service}/{port}/{protocol}")
}

fn service_port(block: &Block, first: &Explanation, port: &PortRow, explanations: &[Explanation]) -> Markup {
    let fails = explanations.iter().any(|explanation| !explanation.connects);
    html! {
        div.port.failing[fails] data-port=(key(&block.service, &port.name, port.protocol)) {
            ol.chain {
                li {
                    div.box.front {
                        small { "Service port" @if !port.name.is_empty() { " " (port.name) } }
                        (link(first, &html! { span.number { (port.port) "/" (port.protocol) } }))
                        @for explanation in explanations { small { (address(&explanation.frontend)) } }
                        @if let Some(node_port) = port.node_port { small { "node port " (node_port) } }
                    }
                    div.flow { p.rate {} (arrow()) }
                }
                li {
                    div.box {
                        small { "targetPort" }
                        span.number { (port.target_port.as_deref().unwrap_or("unknown")) }
                    }
                    (arrow())
                }
                li { (pods(explanations)) }
            }
            @for text in verdicts(explanations) { p.verdict { (text) } }
        }
    }
}

/// The reason why a Service has no port to show, such as a headless one.
fn without_port(explanation: &Explanation) -> Markup {
    html! {
        div.port {
            @if let Some(reason) = &explanation.reason { p.faint { (reason.text) } }
        }
    }
}

fn link(explanation: &Explanation, text: &Markup) -> Markup {
    // The protocol is written as in the arguments of `portmap explain`.
    let target = explanation.frontend.replace("/TCP", "").replace("/UDP", "/udp");
    html! { a.explain href={ "/explain?target=" (target) } aria-label={ "Explain " (explanation.frontend) } { (text) } }
}

fn arrow() -> Markup {
    html! { div.arrow aria-hidden="true" {} }
}

/// The address of a frontend such as `10.96.0.10:80/TCP`.
fn address(frontend: &str) -> &str {
    frontend.rsplit_once(':').map_or(frontend, |(address, _)| address)
}

fn pods(explanations: &[Explanation]) -> Markup {
    let all: Vec<&EndpointRow> = explanations.iter().flat_map(|explanation| &explanation.endpoints).collect();
    let (taken, left): (Vec<&EndpointRow>, Vec<&EndpointRow>) = all.iter().partition(|row| row.taken);
    let hidden = all.len().saturating_sub(ENDPOINTS);
    html! {
        ul.pods {
            @if all.is_empty() { li.pod.left { "no endpoints" } }
            @for row in taken.into_iter().chain(left).take(ENDPOINTS) {
                li.pod.taken[row.taken].left[!row.taken] {
                    span.number { (row.endpoint) }
                    @if let Some(pod) = &row.pod { " " (pod) }
                    @if !row.taken { " (" (row.reason.text) ")" }
                }
            }
            @if hidden > 0 { li.faint { "and " (hidden) " more" } }
        }
    }
}

/// What is wrong with a port. Both families usually have the same reason.
fn verdicts(explanations: &[Explanation]) -> Vec<String> {
    let failing = explanations.iter().filter(|explanation| !explanation.connects);
    let mut verdicts: Vec<String> = failing.map(|explanation| text::verdict(explanation).text).collect();
    if explanations.iter().any(|explanation| explanation.kernel.agrees == Some(false)) {
        verdicts.push("The kernel's tables differ from the objects.".to_owned());
    }
    verdicts.dedup();
    verdicts
}
