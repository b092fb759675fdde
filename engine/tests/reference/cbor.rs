//! Section 1, CBOR: core deterministic encoding, checked by encoding again; maps whose unknown
//! critical keys are refused.

use std::collections::BTreeMap;

use ciborium::Value;

use super::{Result, fixed, need};

const NESTING_MAX: usize = 16;

pub fn parse(bytes: &[u8]) -> Result<Value> {
    let value: Value = ciborium::from_reader(bytes).map_err(|error| error.to_string())?;
    check(&value, 1)?;
    need(encoded(&value) == bytes, "CBOR is not deterministic")?;
    Ok(value)
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("into memory");
    bytes
}

fn check(value: &Value, depth: usize) -> Result<()> {
    need(depth <= NESTING_MAX, "CBOR is nested deeper than 16")?;
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check(item, depth + 1)),
        Value::Map(entries) => {
            let keys: Vec<_> = entries.iter().map(|(key, _)| encoded(key)).collect();
            need(keys.is_sorted_by(|a, b| a < b), "map keys are in order")?;
            entries.iter().try_for_each(|(_, item)| check(item, depth + 1))
        }
        Value::Tag(..) | Value::Float(_) => Err("a tag or a float".to_owned()),
        _ => Ok(()),
    }
}

/// A map with unsigned keys. What was not taken at the end must not be critical.
pub struct Map {
    what: &'static str,
    rest: BTreeMap<u64, Value>,
}

impl Map {
    pub fn parse(what: &'static str, bytes: &[u8]) -> Result<Self> {
        Self::new(what, parse(bytes)?)
    }

    pub fn new(what: &'static str, value: Value) -> Result<Self> {
        let Value::Map(entries) = value else { return Err(format!("{what} is no map")) };
        let entries = entries.into_iter().map(|(key, value)| Ok((uint(key)?, value)));
        Ok(Self { what, rest: entries.collect::<Result<_>>()? })
    }

    pub fn take(&mut self, key: u64) -> Result<Value> {
        self.rest.remove(&key).ok_or_else(|| format!("{} lacks key {key}", self.what))
    }

    pub fn maybe<T>(&mut self, key: u64, read: fn(Value) -> Result<T>) -> Result<Option<T>> {
        self.rest.remove(&key).map(read).transpose()
    }

    pub fn uint(&mut self, key: u64) -> Result<u64> {
        uint(self.take(key)?)
    }

    pub fn int(&mut self, key: u64) -> Result<i64> {
        int(self.take(key)?)
    }

    pub fn array<const N: usize>(&mut self, key: u64) -> Result<[u8; N]> {
        array(self.take(key)?)
    }

    pub fn text(&mut self, key: u64) -> Result<String> {
        text(self.take(key)?)
    }

    pub fn list(&mut self, key: u64) -> Result<Vec<Value>> {
        list(self.take(key)?)
    }

    pub fn finish(self) -> Result<()> {
        match self.rest.keys().next() {
            Some(key) if *key < 128 => {
                Err(format!("{} has the unknown critical key {key}", self.what))
            }
            _ => Ok(()),
        }
    }
}

pub fn uint(value: Value) -> Result<u64> {
    value
        .as_integer()
        .and_then(|n| u64::try_from(n).ok())
        .ok_or("not an unsigned integer".to_owned())
}

pub fn int(value: Value) -> Result<i64> {
    value.as_integer().and_then(|n| i64::try_from(n).ok()).ok_or("not a 64-bit integer".to_owned())
}

pub fn bytes(value: Value) -> Result<Vec<u8>> {
    value.into_bytes().map_err(|_| "not a byte string".to_owned())
}

pub fn array<const N: usize>(value: Value) -> Result<[u8; N]> {
    fixed(bytes(value)?)
}

pub fn text(value: Value) -> Result<String> {
    value.into_text().map_err(|_| "not a text".to_owned())
}

pub fn list(value: Value) -> Result<Vec<Value>> {
    value.into_array().map_err(|_| "not an array".to_owned())
}

/// An array of exactly N values.
pub fn tuple<const N: usize>(value: Value) -> Result<[Value; N]> {
    list(value)?.try_into().map_err(|_| format!("not an array of {N}"))
}
