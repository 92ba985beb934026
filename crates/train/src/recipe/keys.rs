//! The names of a recipe's tables and keys, as serde knows them, and the nearest to a misspelt one.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::Recipe;
use super::tables::{
    AugmentTable, DataTable, EmaTable, LossTable, ModelTable, OptimizerTable, RegularizationTable, RunTable,
    ScheduleTable,
};

/// The keys of every table, in the order of the file: `("model", ["model", "pretrained", ...])`.
#[must_use]
pub fn tables() -> Vec<(&'static str, &'static [&'static str])> {
    let keys = [
        fields::<ModelTable>(),
        fields::<DataTable>(),
        fields::<AugmentTable>(),
        fields::<RegularizationTable>(),
        fields::<LossTable>(),
        fields::<OptimizerTable>(),
        fields::<ScheduleTable>(),
        fields::<EmaTable>(),
        fields::<RunTable>(),
    ];
    fields::<Recipe>().iter().copied().zip(keys).collect()
}

/// Where a key belongs: `lr` and `optimizer.lr` are both `("optimizer", "lr")`; dashes count as underscores.
pub(super) fn locate(key: &str) -> Option<(&'static str, &'static str)> {
    let key = key.trim().replace('-', "_");
    let (table, key) = key.split_once('.').map_or((None, key.as_str()), |(table, key)| (Some(table), key));
    tables().into_iter().find_map(|(name, keys)| {
        let key = keys.iter().find(|known| **known == key)?;
        table.is_none_or(|table| table == name).then_some((name, *key))
    })
}

/// The full name of the key most like `key`, if any is like it.
pub(super) fn nearest(key: &str) -> Option<String> {
    let key = key.trim().replace('-', "_").to_lowercase();
    let (table, leaf) =
        key.rsplit_once('.').map_or((None, key.as_str()), |(table, leaf)| (Some(table), leaf));
    // A key of the same table wins over one that is as similar elsewhere.
    let likeness = |name: &str, known: &str| {
        strsim::jaro_winkler(known, leaf) + if table == Some(name) { 0.05 } else { 0.0 }
    };
    tables()
        .into_iter()
        .flat_map(|(name, keys)| keys.iter().map(move |known| (name, *known)))
        .map(|(name, known)| (likeness(name, known), format!("{name}.{known}")))
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// The table most like `name`, if any is like it.
pub(super) fn nearest_table(name: &str) -> Option<&'static str> {
    let likeness = |known: &str| strsim::jaro_winkler(known, &name.to_lowercase());
    let known = fields::<Recipe>().iter().copied().filter(|known| likeness(known) > 0.75);
    known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// The field names that a type's derived `Deserialize` asks for.
fn fields<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &[&str] = &[];
    // The probe never gives a value: it only listens to the question.
    let _ = T::deserialize(Probe(&mut names));
    names
}

struct Probe<'a>(&'a mut &'static [&'static str]);

#[derive(Debug)]
struct Asked;

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("asked for its fields only")
    }
}

impl std::error::Error for Asked {}

impl de::Error for Asked {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Asked;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Asked> {
        Err(Asked)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Asked> {
        *self.0 = fields;
        Err(Asked)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
