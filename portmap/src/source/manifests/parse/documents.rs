//! Splits a text into documents.

use anyhow::{Result, anyhow};
use serde_json::Value;

use super::{
    super::{
        faults::Fault,
        objects::{Service, Slice},
    },
    Filter, Named,
    json::{self, Text},
};

/// A document of a text, or an item of a list.
pub enum Document {
    /// `v1/Service`.
    Service(Result<Named<Service>, Fault>),
    /// `discovery.k8s.io/v1/EndpointSlice`.
    Slice(Result<Named<Slice>, Fault>),
    /// A Service or an EndpointSlice that the filter leaves out, or an object of a kind that is not read.
    LeftOut,
    /// Any document.
    Other(Value),
}

/// A text, split into documents that are not decoded yet.
#[derive(Clone)]
pub enum Split<'a> {
    /// JSON: the whole text, and its documents.
    Json(&'a str, Vec<Text<'a>>),
    /// YAML, or JSON in another form.
    Values(Vec<Value>),
}

/// Splits a text. If it looks like JSON, the JSON parser is tried first: it is faster, and JSON files may be large.
///
/// # Errors
///
/// The text is neither YAML nor JSON.
pub fn split(text: &str) -> Result<Split<'_>> {
    if text.trim_start().starts_with('{')
        && let Some(texts) = json::split(text)
    {
        return Ok(Split::Json(text, texts));
    }
    Ok(Split::Values(values(text)?))
}

impl Split<'_> {
    /// The documents.
    ///
    /// # Errors
    ///
    /// The text is JSON with too many levels, and no YAML.
    pub fn decode(self, filter: Filter) -> Result<Vec<Document>> {
        let values = match self {
            Self::Json(text, texts) => match json::decode(&texts, filter) {
                Some(documents) => return Ok(documents),
                None => values(text)?,
            },
            Self::Values(values) => values,
        };
        Ok(values.into_iter().map(Document::Other).collect())
    }
}

fn values(text: &str) -> Result<Vec<Value>> {
    if text.trim_start().starts_with(['{', '[']) {
        let parsed: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        if let Ok(values) = parsed {
            return Ok(values);
        }
    }
    // No limits: they protect against hostile input, but a dump of a large cluster would exceed them.
    // Comments are not needed. Their limit would reject files with many comments in a row.
    let options = serde_saphyr::options! { budget: None, emit_comments: false };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| anyhow!("{}", first_line(&error.to_string())))
}

/// The first line of an error. The YAML parser adds an excerpt of the text on further lines.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}
