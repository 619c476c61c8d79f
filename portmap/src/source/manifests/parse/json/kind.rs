//! The kind of an object, read from the start of its text: most objects begin with their `apiVersion` and `kind`.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer as _,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};

/// The `apiVersion` and the `kind` of an object; empty if it has none.
#[derive(Debug, Default, PartialEq)]
pub struct Kind<'a> {
    /// `apiVersion`.
    pub version: Cow<'a, str>,
    /// `kind`.
    pub kind: Cow<'a, str>,
}

impl<'a> Kind<'a> {
    /// The kind of the object in a JSON text. The rest of the text is not read. `None` if the text is no object.
    pub fn of(json: &'a str) -> Option<Self> {
        let mut found = Self::default();
        let read = serde_json::Deserializer::from_str(json).deserialize_map(Reader(&mut found));
        // The reader ends with an error as soon as it has both.
        (read.is_ok() || found.is_complete()).then_some(found)
    }

    fn is_complete(&self) -> bool {
        !self.version.is_empty() && !self.kind.is_empty()
    }
}

struct Reader<'r, 'a>(&'r mut Kind<'a>);

impl<'de> Visitor<'de> for Reader<'_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut fields: M) -> Result<(), M::Error> {
        while let Some(key) = fields.next_key::<Text<'de>>()? {
            match &*key.0 {
                "apiVersion" => self.0.version = fields.next_value::<Text>()?.0,
                "kind" => self.0.kind = fields.next_value::<Text>()?.0,
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
            if self.0.is_complete() {
                return Err(M::Error::custom("enough"));
            }
        }
        Ok(())
    }
}

/// A text, borrowed if it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_found_at_each_place() {
        let expected = Kind { version: "v1".into(), kind: "Service".into() };
        for json in [
            r#"{"apiVersion": "v1", "kind": "Service", "spec": {"#,
            r#"{"spec": {"kind": "Pod"}, "kind": "Service", "ports": [1, 2], "apiVersion": "v1"}"#,
            r#"{"apiVersion": "v\u0031", "kind": "Service"}"#,
        ] {
            assert_eq!(Kind::of(json).as_ref(), Some(&expected), "{json}");
        }
        assert_eq!(Kind::of(r#"{"kind": "Service"}"#).map(|it| it.kind).as_deref(), Some("Service"));
        assert_eq!(Kind::of(r#"{"metadata": {}}"#), Some(Kind::default()));
        for json in ["[]", "{", "", r#"{"kind": 1, "apiVersion": "v1"}"#] {
            assert_eq!(Kind::of(json), None, "{json}");
        }
    }
}
