//! Deserializes values that are written as text. An error of serde's `try_from` would be at the end of the list or table
//! that has the value. These errors are at the value itself, so that whoever wrote it is told where.

use std::fmt;
use std::marker::PhantomData;

use serde::de::Visitor;

/// Implements `Deserialize` for types that are made from a `String`.
macro_rules! from_text {
    ($($type:ty),+) => { $(
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str($crate::from_text::TextVisitor::default())
            }
        }
    )+ };
}
pub(crate) use from_text;

/// Reads the text of a value.
pub(crate) struct TextVisitor<T>(PhantomData<T>);

impl<T> Default for TextVisitor<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: TryFrom<String, Error: fmt::Display>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        T::try_from(text.to_owned()).map_err(E::custom)
    }
}
