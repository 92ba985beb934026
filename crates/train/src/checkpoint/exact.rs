//! Numbers as text: every `f64` comes back as it was, those that JSON lacks too.
//!
//! `serde_json` reads a number to the last bit but one. A score that comes back a little smaller would make the next
//! equal one the best, and the continued run would keep another checkpoint than an uninterrupted one.

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};
use std::fmt;

// The form that `#[serde(with)]` asks for has the number by reference.
pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    deserializer.deserialize_any(Number)
}

struct Number;

impl Visitor<'_> for Number {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        text.parse().map_err(|_| E::custom(format!("'{text}' is no number")))
    }

    // Numbers were written as such once.
    fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Score;

    #[test]
    fn scores_come_back_to_the_last_bit() {
        let mut values =
            vec![f64::INFINITY, f64::MIN_POSITIVE, 5e-324, f64::MAX, -0.0, 2.291_865_605_289_337_4];
        values.extend((1..2000).map(|number| 100.0 / f64::from(number)));
        for value in values {
            let text = serde_json::to_string(&Score { epoch: 1, value, averaged: false }).unwrap();
            let read: Score = serde_json::from_str(&text).unwrap();
            assert_eq!(read.value.to_bits(), value.to_bits(), "{text}");
        }
        let nan: Score = serde_json::from_str("{\"epoch\":1,\"value\":\"NaN\",\"averaged\":false}").unwrap();
        assert!(nan.value.is_nan());
        let plain: Score = serde_json::from_str("{\"epoch\":1,\"value\":99.5,\"averaged\":false}").unwrap();
        assert_eq!(plain.value, 99.5);
        assert!(serde_json::from_str::<Score>("{\"epoch\":1,\"value\":\"x\",\"averaged\":false}").is_err());
    }
}
