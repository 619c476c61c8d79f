//! Compares the models of both proxies.

use std::collections::BTreeSet;
use std::fmt;

use crate::deviation::{Claims, Deviation};
use crate::model::{Answer, Frontend, Model};
use crate::tally::Tally;

/// A frontend at which the two proxies have different results.
#[derive(Debug)]
pub struct Difference {
    pub frontend: Frontend,
    /// The result of portmap; `None` if the frontend does not exist.
    pub ours: Option<Answer>,
    /// The result of kube-proxy; `None` if the frontend does not exist.
    pub theirs: Option<Answer>,
}

/// Compares all frontends. Counts equal ones and accepted deviations, and returns all other differences.
pub fn compare(ours: &Model, theirs: &Model, claims: &Claims, tally: &mut Tally) -> Vec<Difference> {
    let frontends: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let mut differences = Vec::new();
    for frontend in frontends {
        let [ours, theirs] = [ours, theirs].map(|model| model.get(frontend).cloned());
        if ours == theirs {
            if let Some(answer) = ours {
                tally.agree(claims.kind(frontend), &answer);
            }
            continue;
        }
        let difference = Difference { frontend: frontend.clone(), ours, theirs };
        match Deviation::of(&difference, claims) {
            Some(deviation) => tally.deviate(deviation),
            None => differences.push(difference),
        }
    }
    differences
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |answer: &Option<Answer>| answer.as_ref().map_or("nothing".to_owned(), ToString::to_string);
        let Self { frontend, ours, theirs } = self;
        write!(f, "{frontend}\n  portmap:    {}\n  kube-proxy: {}", text(ours), text(theirs))
    }
}
