//! The steps that edit a manifest. The agent updates the maps, and new connections use the new backends.

use std::time::Instant;

use anyhow::Result;
use portmap_harness::agent::Agent;

use crate::connect;
use crate::example_stage::Stage;
use crate::examples::Edit;
use crate::port::Port;
use crate::screen::Screen;

/// Edit after which the pod `web-3` is not ready, as after a failed readiness probe.
const NOT_READY: Edit = Edit {
    file: "web.yaml",
    object: "web-3",
    from: r#"- {type: Ready, status: "True"}"#,
    to: r#"- {type: Ready, status: "False"}"#,
};

/// Edit that gives the Service `api` another targetPort on the same pods.
const OTHER_PORT: Edit = Edit { file: "named-port.yaml", object: "api", from: "targetPort: http", to: "targetPort: admin" };

/// Makes a pod unready, and verifies that it gets no new connections.
pub fn readiness(stage: &mut Stage, screen: Screen) -> Result<String> {
    follow(stage, screen, &NOT_READY, "web")?;
    Ok(format!("the pod {} gets no new connections", NOT_READY.object))
}

/// Changes a targetPort, and verifies that new connections reach the pods' other ports.
pub fn target_port(stage: &mut Stage, screen: Screen) -> Result<String> {
    follow(stage, screen, &OTHER_PORT, "api")?;
    Ok("clients still connect to port 80, and now reach other ports of the same pods".to_owned())
}

/// Edits a manifest as [`edit`] does, and verifies that connections reach the new backends.
fn follow(stage: &mut Stage, screen: Screen, change: &Edit, service: &str) -> Result<()> {
    let port = edit(stage, screen, change, service)?;
    connect::spread_over(stage, screen, &port)
}

/// Edits one of the agent's manifests, and waits until the maps have the new backends of the first port of `service`. Returns
/// this port.
pub fn edit(stage: &mut Stage, screen: Screen, edit: &Edit, service: &str) -> Result<Port> {
    screen.line("edit", &format!("{}, object {}", edit.file, edit.object))?;
    screen.replaced(edit.from, edit.to)?;
    let text = stage.examples.edit(edit)?;
    let (_, port) = stage.examples.port(service)?;
    let mut backends: Vec<String> = port.backends.iter().map(|backend| backend.address.to_string()).collect();
    backends.sort();
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    let written = Instant::now();
    Agent::write(&stage.world, edit.file, &text)?;
    stage.agent()?.await_backends(&port.frontend(), &backends)?;
    screen.line("agent", &format!("updated the maps within {} ms", written.elapsed().as_millis()))?;
    Ok(port)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::examples::Examples;

    #[test]
    fn the_edits_fit_the_examples() -> Result<()> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
        let mut examples = Examples::read(&directory)?;
        examples.edit(&NOT_READY)?;
        examples.edit(&OTHER_PORT)?;
        let backends = |service| -> Result<Vec<String>> {
            let (_, port) = examples.port(service)?;
            Ok(port.backends.iter().map(ToString::to_string).collect())
        };
        assert_eq!(backends("web")?, ["web-1 8080/TCP", "web-2 8080/TCP"]);
        assert_eq!(backends("api")?, ["api-1 8081/TCP", "api-2 9091/TCP"]);
        assert!(examples.edit(&OTHER_PORT).is_err());
        Ok(())
    }
}
