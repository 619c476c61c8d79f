//! The tree of a document: values with the lines on which they begin.
//!
//! A tree can be read field by field, or be decoded to a type that implements `Deserialize`.

mod decode;
pub mod json;

use std::fmt;

use compact_str::CompactString;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value as Json;
use serde_saphyr::Spanned;

pub use decode::Invalid;

/// A line of a file, from 1; 0 if the value comes from no file.
pub type Line = u32;

/// A value, and the line on which it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The line on which the value begins.
    pub line: Line,
    /// The value.
    pub value: Value,
}

/// A value of YAML or JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, or an empty value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without a fraction.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// A text, in quotes or not.
    Text(CompactString),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<(CompactString, Node)>),
}

impl Node {
    /// The tree of a JSON value. It has no lines.
    pub fn from_json(json: Json) -> Self {
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(value),
            Json::Number(number) => match number.as_i64() {
                Some(number) => Value::Integer(number),
                None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Text(text.into()),
            Json::Array(items) => Value::List(items.into_iter().map(Self::from_json).collect()),
            Json::Object(fields) => {
                Value::Map(fields.into_iter().map(|(key, value)| (key.into(), Self::from_json(value))).collect())
            }
        };
        Self { line: 0, value }
    }

    /// An empty map on a line.
    pub fn empty(line: Line) -> Self {
        Self { line, value: Value::Map(Vec::new()) }
    }

    /// The fields of a map; none for another value.
    pub fn fields(&self) -> &[(CompactString, Self)] {
        if let Value::Map(fields) = &self.value { fields } else { &[] }
    }

    /// The items of a list; none for another value.
    pub fn items(&self) -> &[Self] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    /// A field of a map. `None` if it is missing or null.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let (_, node) = self.fields().iter().find(|(name, _)| name == key)?;
        (node.value != Value::Null).then_some(node)
    }

    /// A field of maps in maps. `None` if it is missing or null.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The text of a field. `None` if the field is missing, or no text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.value {
            Value::Text(text) => Some(text),
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The items of a list in a field; none if the field is missing, or no list.
    pub fn list(&self, key: &str) -> &[Self] {
        self.get(key).map_or(&[], Self::items)
    }

    /// The line of a field, or of the map if the field is missing.
    pub fn line_of(&self, key: &str) -> Line {
        self.get(key).unwrap_or(self).line
    }

    /// A copy of a map with these fields.
    #[must_use]
    pub fn with_kind(&self, version: &str, kind: &str) -> Self {
        let text = |text: &str| Self { line: self.line, value: Value::Text(text.into()) };
        let head = [("apiVersion".into(), text(version)), ("kind".into(), text(kind))];
        Self { line: self.line, value: Value::Map(head.into_iter().chain(self.fields().iter().cloned()).collect()) }
    }

    /// Adds a number of lines to each line of the tree.
    pub fn shift(&mut self, lines: Line) {
        self.line += lines;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Value::Map(fields) => fields.iter_mut().for_each(|(_, field)| field.shift(lines)),
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {}
        }
    }

    /// Decodes the items of a list in a field, each with its node; none if the field is missing.
    ///
    /// # Errors
    ///
    /// The field is no list, or an item does not fit the type.
    pub fn decode_list<T: DeserializeOwned>(&self, key: &str) -> Result<Vec<(&Self, T)>, Invalid> {
        let Some(list) = self.get(key) else { return Ok(Vec::new()) };
        list.expect_list(key)?.iter().map(|item| Ok((item, item.decode()?))).collect()
    }

    /// The items of the list in the field `key`.
    ///
    /// # Errors
    ///
    /// The value is no list.
    pub fn expect_list(&self, key: &str) -> Result<&[Self], Invalid> {
        match &self.value {
            Value::List(items) => Ok(items),
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) | Value::Map(_) => {
                Err(Invalid { line: self.line, reason: format!("{key} is {}, and has to be a list", self.description()) })
            }
        }
    }

    /// Decodes the tree.
    ///
    /// # Errors
    ///
    /// A value has another type than the field, or a required field is missing.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Invalid> {
        T::deserialize(self)
    }

    /// The type of the value, and the value if it is short, for error texts.
    pub fn description(&self) -> String {
        match &self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Integer(value) => format!("the number {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::Text(text) => format!("the text {text:?}"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, defined: _ } = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: Line::try_from(referenced.line()).unwrap_or(0), value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value).map(Value::Integer).map_err(|_| E::custom(format_args!("the number {value} is too large")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.into()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(field) = fields.next_entry()? {
            map.push(field);
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{api::core::v1::ServiceSpec, apimachinery::pkg::util::intstr::IntOrString};

    use super::*;

    const TEXT: &str = "a: 1\nspec:\n  ports:\n  - port: 80\n    targetPort: \"web\"\n  - {port: 81,\n     targetPort: 82}\n";

    fn tree(text: &str) -> Node {
        serde_saphyr::from_str(text).expect("YAML")
    }

    #[test]
    fn values_have_their_lines() {
        let tree = tree(TEXT);
        let ports = tree.get("spec").expect("spec").list("ports");
        let lines: Vec<_> = ports.iter().map(|port| (port.line, port.line_of("targetPort"), port.line_of("name"))).collect();
        assert_eq!(lines, [(4, 5, 4), (6, 7, 6)]);
    }

    #[test]
    fn types_of_the_api_are_decoded() {
        let spec: ServiceSpec = tree(TEXT).get("spec").expect("spec").decode().expect("valid");
        let targets: Vec<_> = spec.ports.into_iter().flatten().map(|port| port.target_port).collect();
        assert_eq!(targets, [Some(IntOrString::String("web".to_owned())), Some(IntOrString::Int(82))]);
    }

    #[test]
    fn an_error_has_the_line_of_the_value() {
        let text = TEXT.replace("port: 81", "port: x");
        let error = tree(&text).get("spec").expect("spec").decode::<ServiceSpec>().expect_err("invalid");
        assert_eq!(error.line, 6);
        assert!(error.reason.contains("i32"), "{error}");
    }
}
