//! The page in a browser: it follows changes, works with the keyboard, and has names for screen readers.

use anyhow::{Context as _, Result, ensure};
use portmap_harness::listen::Protocol;
use portmap_suites::service_objects::{Endpoint, PORT, Service, Via, cluster_ip, endpoints};
use serde_json::json;

use crate::browser::Browser;
use crate::server::stage;
use crate::serving::start;

/// The part of the document that shows a port of a Service.
fn port(service: &str) -> String {
    format!("document.querySelector('[data-port=\"default/{service}/tcp/TCP\"]')")
}

#[test]
fn the_page_follows_changes_and_rates() -> Result<()> {
    let mut stage = stage("page-live")?;
    let page = start(&stage.world)?;
    let mut browser = Browser::open(&stage.world, &page.url)?;
    let (web, empty) = (port("web"), port("empty"));
    browser.wait_until(&format!("{web}?.textContent.includes(':8080')"))?;
    browser.wait_until(&format!("{empty}?.classList.contains('failing')"))?;
    let both = format!("{web}?.classList.contains('flowing') && {empty}?.classList.contains('refusing')");
    std::thread::scope(|scope| {
        let shown = scope.spawn(|| browser.wait_until(&both));
        while !shown.is_finished() {
            stage.client.connect(cluster_ip(1).at(Via::V4, PORT), Protocol::Tcp, 1)?;
            stage.client.connect(cluster_ip(2).at(Via::V4, PORT), Protocol::Tcp, 1)?;
        }
        shown.join().unwrap_or_else(|_| anyhow::bail!("the thread panicked"))
    })?;
    browser.wait_until(&format!("!{web}?.classList.contains('flowing')"))?;
    let moved: Vec<Endpoint> = endpoints(&stage.pods).into_iter().map(|endpoint| endpoint.port(9090)).collect();
    stage.apply(&[Service::new("web", 1).endpoints(moved), Service::new("new", 3).endpoints(endpoints(&stage.pods))])?;
    browser.wait_until(&format!("{web}?.textContent.includes(':9090') && {} && !{empty}", port("new")))
}

#[test]
fn the_keyboard_opens_and_closes_an_explanation() -> Result<()> {
    let stage = stage("page-keys")?;
    let page = start(&stage.world)?;
    let mut browser = Browser::open(&stage.world, &format!("{}?q=web", page.url))?;
    browser.wait_until(&format!("{}?.textContent.includes(':8080')", port("web")))?;
    let focused = "document.activeElement?.getAttribute('aria-label') ?? ''";
    let mut tries = 0;
    while browser.evaluate(focused)? != "Explain 10.96.0.1:80/TCP" {
        ensure!(tries < 10, "the link has no focus after {tries} tabs, but {}", browser.evaluate(focused)?);
        browser.press("Tab")?;
        tries += 1;
    }
    browser.press("Enter")?;
    let is_open = "document.querySelector('dialog').open";
    browser.wait_until(&format!("{is_open} && document.querySelector('dialog').textContent.includes('CONNECTS')"))?;
    browser.press("Escape")?;
    browser.wait_until(&format!("!{is_open}"))?;
    ensure!(browser.evaluate(focused)? == "Explain 10.96.0.1:80/TCP", "the focus is lost");
    Ok(())
}

#[test]
fn each_control_has_a_name() -> Result<()> {
    let stage = stage("page-names")?;
    let page = start(&stage.world)?;
    let mut browser = Browser::open(&stage.world, &page.url)?;
    browser.wait_until(&format!("{}?.textContent.includes(':8080')", port("web")))?;
    let tree = browser.call("Accessibility.getFullAXTree", &json!({}))?;
    let nodes = tree["nodes"].as_array().context("no nodes")?;
    let names = |role: &str| -> Vec<&str> {
        let of_role = nodes.iter().filter(|node| node["role"]["value"] == *role && node["ignored"] == false);
        of_role.map(|node| node["name"]["value"].as_str().unwrap_or_default()).collect()
    };
    for role in ["link", "button", "searchbox"] {
        let names = names(role);
        ensure!(!names.is_empty() && names.iter().all(|name| !name.is_empty()), "{role}: {names:?}");
    }
    ensure!(names("link").contains(&"Explain 10.96.0.1:80/TCP"), "{:?}", names("link"));
    ensure!(!names("status").is_empty() && names("heading").contains(&"default/web"), "{:?}", names("heading"));
    // No message of the page or of its policy is an error.
    ensure!(browser.evaluate("performance.getEntriesByType('resource').every((it) => it.responseStatus === 200)")? == true);
    Ok(())
}
