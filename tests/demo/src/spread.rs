//! How connections spread over pods: shown as bars, and held against chance.

use anyhow::{Result, ensure};
use portmap_harness::pod_client::Answers;

use crate::port::Port;
use crate::screen::Screen;

/// How many standard deviations a count may be off: more happens to one fair count in two million.
const TOLERANCE: f64 = 5.0;

/// Shows who answered, and fails unless every answer came from a backend of the port, and each had its fair share.
pub fn show(screen: Screen, answers: &Answers, port: &Port) -> Result<()> {
    let total = answers.replies.values().sum();
    let largest = answers.replies.values().copied().max().unwrap_or_default();
    for (index, (who, count)) in answers.replies.iter().enumerate() {
        screen.bar(if index == 0 { "answers" } else { "" }, who, *count, largest, total)?;
    }
    for (error, count) in &answers.errors {
        screen.line("errors", &format!("{count} × {error}"))?;
    }
    check(answers, port)
}

/// Fails unless every answer came from a backend of the port, and each had its fair share.
pub fn check(answers: &Answers, port: &Port) -> Result<()> {
    ensure!(answers.errors.is_empty(), "expected answers only, got {:?}", answers.errors);
    let expected: Vec<String> = port.backends.iter().map(ToString::to_string).collect();
    let stranger = answers.replies.keys().find(|who| !expected.contains(who));
    ensure!(stranger.is_none(), "expected answers of {} only", expected.join(", "));
    let total = answers.replies.values().sum();
    let (least, most) = fair(total, expected.len());
    for backend in &expected {
        let count = f64::from(answers.replies.get(backend).copied().unwrap_or_default());
        ensure!(least <= count && count <= most, "expected {least:.0} to {most:.0} of {total} answers from {backend}");
    }
    Ok(())
}

/// The counts that chance explains where each of `ways` is as likely as the others.
fn fair(total: u32, ways: usize) -> (f64, f64) {
    let total = f64::from(total);
    let share = 1.0 / f64::from(u32::try_from(ways.max(1)).unwrap_or(u32::MAX));
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
