//! Writes a run in the Informal Trace Format (Apalache ADR-015), for viewers of traces.
//!
//! One state after each step: what each node shows of itself, by node; what has happened is in the state's
//! `#meta`. A field that has no value is left out. An integer that a double cannot hold is a `#bigint`.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value, json};

/// The largest integer that every reader of JSON holds exactly.
const EXACT_MAX: i64 = (1 << 53) - 1;

/// A value as the format wants it.
pub fn to_itf(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(small) if (-EXACT_MAX..=EXACT_MAX).contains(&small) => Value::Number(number),
            _ => json!({ "#bigint": number.to_string() }),
        },
        Value::Array(items) => items.into_iter().map(to_itf).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.replace('#', "_"), to_itf(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other,
    }
}

/// Writes states one after the other.
pub struct Export<W: Write> {
    out: W,
    states: u64,
}

impl<W: Write> Export<W> {
    /// Begins the document.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn new(mut out: W, about: &str) -> io::Result<Self> {
        let meta = json!({ "format": "ITF", "description": about });
        write!(out, "{{\"#meta\":{meta},\"params\":[],\"vars\":[\"nodes\"],\"states\":[")?;
        Ok(Self { out, states: 0 })
    }

    /// Adds a state: for each node what it shows, and what has led here.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn state(&mut self, nodes: &[(u16, impl Serialize)], mut meta: Value) -> io::Result<()> {
        let nodes: Vec<Value> = nodes
            .iter()
            .map(|(node, shown)| {
                let shown = serde_json::to_value(shown).unwrap_or_default();
                json!([to_itf((*node).into()), to_itf(shown)])
            })
            .collect();
        meta["index"] = self.states.into();
        let state = json!({ "#meta": meta, "nodes": { "#map": nodes } });
        let comma = if self.states == 0 { "\n" } else { ",\n" };
        self.states += 1;
        write!(self.out, "{comma}{state}")
    }

    /// Ends the document, and says how many states it has.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn finish(mut self) -> io::Result<u64> {
        self.out.write_all(b"\n]}\n")?;
        self.out.flush()?;
        Ok(self.states)
    }
}
