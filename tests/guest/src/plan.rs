//! Parses the suites and tests to run from the kernel command line.

use std::convert::Infallible;
use std::str::FromStr;

/// A suite and the arguments of its test runner. Examples of the text format: `sockets`, `sockets:udp::,names::`,
/// `table_stress:--skip,no_grace`.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The suite's name.
    pub suite: String,
    /// Arguments of the test runner: parts of tests' names, and options. Empty for all tests.
    pub filters: Vec<String>,
}

impl FromStr for Plan {
    type Err = Infallible;

    fn from_str(word: &str) -> Result<Self, Infallible> {
        let (suite, filters) = word.split_once(':').unwrap_or((word, ""));
        let filters = filters.split(',').filter(|filter| !filter.is_empty()).map(str::to_owned).collect();
        Ok(Self { suite: suite.to_owned(), filters })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_suite_and_its_filters() {
        let plan = |suite: &str, filters: &[&str]| Plan {
            suite: suite.into(),
            filters: filters.iter().map(ToString::to_string).collect(),
        };
        assert_eq!("sockets".parse(), Ok(plan("sockets", &[])));
        assert_eq!("sockets:udp::,names".parse(), Ok(plan("sockets", &["udp::", "names"])));
        assert_eq!("stress:--skip,slow".parse(), Ok(plan("stress", &["--skip", "slow"])));
    }
}
