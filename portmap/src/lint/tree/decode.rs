//! Decodes a tree to a type that implements `Deserialize`.

use std::fmt::{self, Display};

use serde::{
    Deserializer,
    de::{
        Error as _, IntoDeserializer, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

use super::{Line, Node, Value};

/// A value that does not fit its field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The line of the innermost value that does not fit; 0 if it is unknown.
    pub line: Line,
    /// The reason, as an error text has it.
    pub reason: String,
}

impl Invalid {
    /// Sets the line, unless it is known.
    #[must_use]
    pub fn at(self, line: Line) -> Self {
        if self.line == 0 { Self { line, ..self } } else { self }
    }
}

impl Display for Invalid {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

impl std::error::Error for Invalid {}

impl serde::de::Error for Invalid {
    fn custom<T: Display>(reason: T) -> Self {
        Self { line: 0, reason: reason.to_string() }
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Invalid;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        let result = match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(SeqDeserializer::new(items.iter())),
            Value::Map(fields) => visitor.visit_map(MapDeserializer::new(fields.iter().map(|(key, node)| (&**key, node)))),
        };
        // The innermost value sets the line first.
        result.map_err(|error| error.at(self.line))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        if self.value == Value::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Invalid> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        visitor.visit_unit()
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Invalid> {
        Err(Invalid::custom(format_args!("{} is no {name}", self.description())))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier
    }
}

impl<'de> IntoDeserializer<'de, Invalid> for &'de Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
