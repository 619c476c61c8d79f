//! The metrics and labels in an expression of `PromQL`. promtool checks the syntax; this only finds the names.

use anyhow::{Result, ensure};

/// Words that are neither metrics nor functions.
const OPERATORS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];
/// Words before a list of labels.
const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// The names in an expression.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The selected metrics, each with its conditions.
    pub metrics: Vec<Metric>,
    /// The labels by which series are grouped or joined.
    pub labels: Vec<String>,
}

/// A selected metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    pub name: String,
    pub conditions: Vec<Condition>,
}

/// A condition on a label, such as `outcome="refused"`.
#[derive(Debug, PartialEq, Eq)]
pub struct Condition {
    pub label: String,
    /// `=`, `!=`, `=~` or `!~`.
    pub operator: String,
    pub value: String,
}

/// The names in an expression. Fails for selectors without a metric's name.
pub fn names(expression: &str) -> Result<Names> {
    let mut names = Names::default();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        if first == '[' {
            rest = after(rest, ']');
        } else if first.is_ascii_digit() {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
        } else if is_name(first) {
            let (word, behind) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
            rest = names.add(word, behind.trim_start())?;
        } else {
            ensure!(!"{\"'".contains(first), "a selector has no metric: {rest}");
            rest = &rest[first.len_utf8()..];
        }
        rest = rest.trim_start();
    }
    Ok(names)
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn after(text: &str, end: char) -> &str {
    text.split_once(end).map_or("", |(_, rest)| rest)
}

impl Names {
    /// Adds a word, and returns the text behind it and its selector or list.
    fn add<'a>(&mut self, word: &str, behind: &'a str) -> Result<&'a str> {
        if let Some(list) = behind.strip_prefix('(').filter(|_| GROUPINGS.contains(&word)) {
            let (labels, rest) = list.split_once(')').unwrap_or((list, ""));
            self.labels.extend(labels.split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()));
            return Ok(rest);
        }
        // A function, or an aggregation such as `sum by (instance) (…)`.
        let next = behind.split(|c| !is_name(c)).next().unwrap_or_default();
        let is_function = behind.starts_with('(') || GROUPINGS.contains(&next);
        if is_function || OPERATORS.contains(&word) || GROUPINGS.contains(&word) {
            return Ok(behind);
        }
        let (selector, rest) = match behind.strip_prefix('{') {
            Some(selector) => selector.split_once('}').unwrap_or((selector, "")),
            None => ("", behind),
        };
        let conditions = selector.split(',').filter(|part| !part.trim().is_empty()).map(condition).collect::<Result<_>>()?;
        self.metrics.push(Metric { name: word.to_owned(), conditions });
        Ok(rest)
    }
}

fn condition(text: &str) -> Result<Condition> {
    let label: String = text.trim().chars().take_while(|c| is_name(*c)).collect();
    let rest = text.trim()[label.len()..].trim_start();
    let operator: String = rest.chars().take_while(|c| "=!~".contains(*c)).collect();
    let value = rest[operator.len()..].trim();
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    ensure!(!label.is_empty() && !operator.is_empty(), "not a condition: {text}");
    let value = value.map(str::to_owned);
    value.map(|value| Condition { label, operator, value }).ok_or_else(|| anyhow::anyhow!("not a condition: {text}"))
}

#[test]
fn names_are_found() -> Result<()> {
    let found =
        names("sum by (a, le) (rate(x_total{b=\"c\",d=~\"$e\"}[5m] offset 1h)) > bool 2e3 unless on (a) time() - y < 1")?;
    let condition = |label: &str, operator: &str, value: &str| Condition {
        label: label.to_owned(),
        operator: operator.to_owned(),
        value: value.to_owned(),
    };
    let x = Metric { name: "x_total".into(), conditions: vec![condition("b", "=", "c"), condition("d", "=~", "$e")] };
    let y = Metric { name: "y".into(), conditions: Vec::new() };
    assert_eq!(found, Names { metrics: vec![x, y], labels: ["a", "le", "a"].map(str::to_owned).into() });
    assert!(names("{job=\"portmap\"}").is_err());
    Ok(())
}
