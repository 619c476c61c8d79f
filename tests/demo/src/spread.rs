//! The distribution of connections over pods: shows it as bars, and checks it against a random choice.

use anyhow::{Result, ensure};
use portmap_harness::pod_client::Answers;

use crate::port::Port;
use crate::screen::Screen;

/// Allowed deviation of a count, in standard deviations. A fair random choice exceeds it about once in two million counts.
const TOLERANCE: f64 = 5.0;

/// Shows the replies per backend and the errors. Fails as [`check`] does.
pub fn show(screen: Screen, answers: &Answers, port: &Port) -> Result<()> {
    let total = answers.replies.values().sum();
    let largest = answers.replies.values().copied().max().unwrap_or_default();
    for (index, (backend, count)) in answers.replies.iter().enumerate() {
        screen.bar(if index == 0 { "replies" } else { "" }, backend, *count, largest, total)?;
    }
    for (error, count) in &answers.errors {
        screen.line("errors", &format!("{count} × {error}"))?;
    }
    check(answers, port)
}

/// Fails if a request got no reply, or a reply from a pod or port that is no backend. Fails unless each backend has a fair
/// share.
pub fn check(answers: &Answers, port: &Port) -> Result<()> {
    ensure!(answers.errors.is_empty(), "expected replies and no errors, got {:?}", answers.errors);
    let expected: Vec<String> = port.backends.iter().map(ToString::to_string).collect();
    let unexpected = answers.replies.keys().find(|backend| !expected.contains(backend));
    ensure!(unexpected.is_none(), "expected replies only from {}", expected.join(", "));
    let total = answers.replies.values().sum();
    let (least, most) = fair_range(total, expected.len());
    for backend in &expected {
        let count = f64::from(answers.replies.get(backend).copied().unwrap_or_default());
        ensure!(least <= count && count <= most, "expected {least:.0} to {most:.0} of {total} replies from {backend}");
    }
    Ok(())
}

/// The smallest and largest allowed number of replies from one backend, if all backends are equally likely.
fn fair_range(total: u32, backends: usize) -> (f64, f64) {
    let total = f64::from(total);
    let share = 1.0 / f64::from(u32::try_from(backends.max(1)).unwrap_or(u32::MAX));
    let margin = TOLERANCE * (total * share * (1.0 - share)).sqrt();
    (total * share - margin, total * share + margin)
}

#[cfg(test)]
mod tests {
    use portmap_common::AddressKind;

    use super::*;
    use portmap_harness::listen::{Listen, Protocol};

    fn port(pods: &[&str]) -> Result<Port> {
        let backend = |pod: &&str| {
            let address = "10.244.0.2:8080".parse()?;
            Ok(crate::port::Backend { pod: (*pod).to_owned(), address, listen: Listen::tcp(8080) })
        };
        let backends = pods.iter().map(backend).collect::<Result<_>>()?;
        let address = "10.96.0.10:80".parse()?;
        Ok(Port {
            service: "web".into(),
            kind: AddressKind::ClusterIp,
            address,
            protocol: Protocol::Tcp,
            target: "8080".into(),
            backends,
        })
    }

    fn answers(counts: &[(&str, u32)]) -> Answers {
        let replies = counts.iter().map(|(who, count)| ((*who).to_owned(), *count)).collect();
        Answers { replies, ..Answers::default() }
    }

    #[test]
    fn an_even_spread_passes_and_a_skewed_one_does_not() -> Result<()> {
        let port = port(&["a", "b"])?;
        assert!(check(&answers(&[("a 8080/TCP", 140), ("b 8080/TCP", 160)]), &port).is_ok());
        assert!(check(&answers(&[("a 8080/TCP", 90), ("b 8080/TCP", 210)]), &port).is_err());
        assert!(check(&answers(&[("a 8080/TCP", 300)]), &port).is_err());
        Ok(())
    }

    #[test]
    fn strangers_and_errors_do_not_pass() -> Result<()> {
        let port = port(&["a"])?;
        assert!(check(&answers(&[("a 8080/TCP", 3)]), &port).is_ok());
        assert!(check(&answers(&[("a 8080/TCP", 3), ("b 8080/TCP", 1)]), &port).is_err());
        assert!(check(&answers(&[("a 8081/TCP", 3)]), &port).is_err());
        let failed = Answers { errors: [("ECONNREFUSED".to_owned(), 1)].into(), ..answers(&[("a 8080/TCP", 3)]) };
        assert!(check(&failed, &port).is_err());
        Ok(())
    }
}
