//! Compares the two proxies by the answers that a client outside the node gets: the endpoints that answer, refusals and
//! silence. kube-proxy serves the Services first, then portmap.

mod cases;
mod survey;

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use portmap_harness::say;

use crate::cluster::Cluster;
use cases::Case;
use survey::{Behaviour, Survey, survey};

#[tokio::test]
async fn both_proxies_answer_a_client_outside_the_node_alike() -> Result<()> {
    let begin = Instant::now();
    let mut cluster = Cluster::start("packets").await?;
    let cases = Case::all();
    cluster.write(cases.iter().map(|case| (case.number, case.service(&cluster))).collect()).await?;
    survey::add_clients(&cluster)?;
    cluster.start_kube_proxy().await?;
    let theirs = survey(&cluster, &cases)?;
    cluster.stop_kube_proxy();
    cluster.clean_up_kube_proxy()?;
    cluster.start_portmap()?;
    let ours = survey(&cluster, &cases)?;
    say::figures(format_args!("{} frontends, {:.1} s; {}", theirs.len(), begin.elapsed().as_secs_f32(), counts(&theirs)?));
    compare(&ours, &theirs)
}

fn compare(ours: &Survey, theirs: &Survey) -> Result<()> {
    let mut differences = Vec::new();
    for (frontend, theirs) in theirs {
        if ours.get(frontend) != Some(theirs) {
            differences.push(format!("{frontend}\n  portmap:    {:?}\n  kube-proxy: {theirs:?}", ours.get(frontend)));
        }
    }
    if !differences.is_empty() {
        bail!("{} of {} frontends differ\n{}", differences.len(), theirs.len(), differences.join("\n"));
    }
    Ok(())
}

/// The number of frontends with each kind of behaviour. Fails if there is none of a kind.
fn counts(survey: &Survey) -> Result<String> {
    let count = |name: &str, is_counted: fn(&Behaviour) -> bool| -> Result<String> {
        let count = survey.values().filter(|behaviour| is_counted(behaviour)).count();
        ensure!(count > 0, "no frontend {name}");
        Ok(format!("{count} {name}"))
    };
    let counts = [
        count("answered by one endpoint", |behaviour| behaviour.servers() == 1)?,
        count("answered by several", |behaviour| behaviour.servers() > 1)?,
        count("refused", Behaviour::is_refused)?,
        count("silent", Behaviour::is_silent)?,
        count("silent for a client outside the source ranges", Behaviour::is_filtered)?,
        count("with sessions of several endpoints", |behaviour| behaviour.keeps_sessions() && behaviour.servers() > 1)?,
    ];
    Ok(counts.join(", "))
}
