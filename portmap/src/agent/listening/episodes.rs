//! The service ports on whose targetPort no program listens, from check to check. Pure.
//!
//! A program that restarts is silent for a moment, and its pod's readiness follows only later. So a mistake begins only when two
//! checks in a row have found it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{doctor::listening::Silent, model::ServicePort};

/// The result of one check.
#[derive(Debug)]
pub struct Survey {
    /// The backends without a listening program.
    pub silent: Vec<Silent>,
    /// Whether all network namespaces could be examined.
    pub is_complete: bool,
}

/// The mistakes at the last check.
#[derive(Debug, Default)]
pub struct Episodes {
    /// The service ports that only the last check has found.
    suspects: BTreeSet<ServicePort>,
    reported: BTreeSet<ServicePort>,
}

/// The mistakes that began or ended with a check.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The service ports with a mistake that began, and one sentence for each reason.
    pub began: BTreeMap<ServicePort, Vec<String>>,
    /// The service ports whose mistake ended.
    pub ended: Vec<ServicePort>,
    /// The number of backends without a listening program, of all mistakes that last.
    pub backends: usize,
}

impl Episodes {
    /// Takes the result of a check. An incomplete one ends no mistake.
    pub fn next(&mut self, survey: Survey) -> Changed {
        let found: BTreeSet<ServicePort> = survey.silent.iter().map(|silent| silent.owner.clone()).collect();
        let mut changed = Changed::default();
        if survey.is_complete {
            changed.ended = self.reported.extract_if(.., |port| !found.contains(port)).collect();
        }
        for Silent { owner, backends, text } in survey.silent {
            if self.reported.contains(&owner) {
                changed.backends += backends.len();
            } else if self.suspects.contains(&owner) {
                changed.backends += backends.len();
                changed.began.entry(owner).or_default().push(text);
            }
        }
        self.reported.extend(changed.began.keys().cloned());
        self.suspects = found.difference(&self.reported).cloned().collect();
        changed
    }

    /// Whether another check must confirm a mistake.
    pub fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ObjectName, Protocol};

    fn port(name: &str) -> ServicePort {
        ServicePort { service: ObjectName::new("shop", name), port: "http".into(), protocol: Protocol::Tcp }
    }

    /// A check that found these service ports, with a backend each.
    fn survey(names: &[&str]) -> Survey {
        let backends = vec!["10.244.0.2".parse().expect("an address")];
        let silent = names.iter().map(|name| Silent {
            owner: port(name),
            backends: backends.clone(),
            text: format!("{name} is silent"),
        });
        Survey { silent: silent.collect(), is_complete: true }
    }

    #[test]
    fn a_mistake_begins_with_its_second_check_and_ends_once() {
        let mut episodes = Episodes::default();
        assert_eq!(episodes.next(survey(&["web"])), Changed::default());
        assert!(episodes.has_suspects());
        let began = BTreeMap::from([(port("web"), vec!["web is silent".to_owned()])]);
        assert_eq!(episodes.next(survey(&["web"])), Changed { began, ended: Vec::new(), backends: 1 });
        assert!(!episodes.has_suspects());
        assert_eq!(episodes.next(survey(&["web"])), Changed { backends: 1, ..Changed::default() });
        assert_eq!(episodes.next(survey(&[])), Changed { ended: vec![port("web")], ..Changed::default() });
        assert_eq!(episodes.next(survey(&[])), Changed::default());
    }

    #[test]
    fn a_short_silence_is_no_mistake() {
        let mut episodes = Episodes::default();
        for names in [&["web"][..], &[], &["web"], &["mail"], &[]] {
            assert_eq!(episodes.next(survey(names)), Changed::default());
        }
    }

    #[test]
    fn an_incomplete_check_ends_no_mistake() {
        let mut episodes = Episodes::default();
        episodes.next(survey(&["web"]));
        episodes.next(survey(&["web"]));
        let incomplete = Survey { is_complete: false, ..survey(&[]) };
        assert_eq!(episodes.next(incomplete), Changed::default());
        assert_eq!(episodes.next(survey(&[])).ended, [port("web")]);
    }

    #[test]
    fn the_families_of_a_port_begin_together() {
        let mut episodes = Episodes::default();
        episodes.next(survey(&["web", "web"]));
        let changed = episodes.next(survey(&["web", "web"]));
        assert_eq!((changed.began[&port("web")].len(), changed.backends), (2, 2));
    }
}
