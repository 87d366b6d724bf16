//! Writes a trace: one line for each step, put together without intermediate values.

use std::fs::{File, OpenOptions};
use std::hash::Hash;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use stateright::actor::Id;

use super::format::{Header, to_hex};
use super::{Origin, Recorder, Traced};
use crate::durable::Durable as _;
use crate::step::{Input, InputOf};

/// How much may wait before it is written although nothing depends on it.
const BUFFER_MAX: usize = 64 << 10;

/// Writes the trace of one life of a node.
///
/// If the file cannot be written any more, the trace ends there, with a warning: a node does not
/// stop its work because nobody can read about it.
#[derive(Debug)]
pub struct Writer<W> {
    out: Option<W>,
    lines: Vec<u8>,
    /// The number of the next step.
    i: u64,
    /// The digests of the actors' states, by lease.
    states: Vec<(u16, u64)>,
    /// The step that is being told.
    lease: u16,
    saves: u32,
    save: Option<(u64, Option<u64>)>,
    timers: Vec<u8>,
    choices: Vec<u8>,
    sends: Vec<u8>,
    /// The simulator's time, if there is one.
    sim: Option<u64>,
}

/// Opens a trace to go on with it, or begins one, which its owner alone can read: it holds all that the node
/// knows. What an interrupted life left without its end gets a line of its own, so that the next one begins on a
/// new line.
///
/// # Errors
///
/// If the file can be neither opened nor made.
pub fn open(path: &Path) -> io::Result<File> {
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    if length > 0 {
        file.seek(SeekFrom::Start(length - 1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

fn put(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("a message is plain data");
}

fn number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn hex(out: &mut Vec<u8>, number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for place in (0..16).rev() {
        out.push(DIGITS[(number >> (place * 4)) as usize & 15]);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl<W: Write> Writer<W> {
    /// Begins the trace of one life with its header.
    pub fn new<A: Traced>(out: W, header: &Header<A>) -> Self {
        let mut writer = Self {
            out: Some(out),
            lines: Vec::new(),
            i: 0,
            states: Vec::new(),
            lease: 0,
            saves: 0,
            save: None,
            timers: Vec::new(),
            choices: Vec::new(),
            sends: Vec::new(),
            sim: None,
        };
        put(&mut writer.lines, header);
        writer.lines.push(b'\n');
        writer.drain();
        writer
    }

    fn drain(&mut self) {
        if let Some(out) = &mut self.out
            && !self.lines.is_empty()
            && let Err(error) = out.write_all(&self.lines).and_then(|()| out.flush())
        {
            tracing::error!(%error, "the trace cannot be written and ends here; the node goes on");
            self.out = None;
        }
        self.lines.clear();
    }

    fn input<A: Traced>(&mut self, input: &InputOf<A>, origin: Origin) {
        let out = &mut self.lines;
        match input {
            Input::Start(storage) => {
                out.extend_from_slice(b"{\"start\":{\"rows\":");
                let rows = storage.as_ref().map(|storage| {
                    let mut rows = Vec::new();
                    storage.difference(None, &mut |key, value| {
                        rows.push((to_hex(&key), to_hex(&value.unwrap_or_default())));
                    });
                    rows
                });
                put(out, &rows);
            }
            Input::Deliver { src, msg } => {
                match origin {
                    Origin::Datagram { incarnation, sequence } => {
                        out.extend_from_slice(b"{\"deliver\":{\"src\":");
                        number(out, usize::from(*src) as u64);
                        out.extend_from_slice(b",\"inc\":");
                        number(out, incarnation.into());
                        out.extend_from_slice(b",\"seq\":");
                        number(out, sequence.into());
                        out.extend_from_slice(b",\"msg\":");
                    }
                    Origin::Own => out.extend_from_slice(b"{\"own\":{\"msg\":"),
                    _ => out.extend_from_slice(b"{\"told\":{\"msg\":"),
                }
                put(out, msg);
            }
            Input::Fire(timer) => {
                out.extend_from_slice(b"{\"fire\":{\"timer\":");
                put(out, timer);
                out.extend_from_slice(b",\"due\":");
                let Origin::Timer(due) = origin else { panic!("a timer has a deadline") };
                number(out, due);
            }
            Input::Choose(choice) => {
                out.extend_from_slice(b"{\"choose\":{\"choice\":");
                put(out, choice);
            }
        }
        out.extend_from_slice(b"}}");
    }

    fn list(&mut self, name: &str, list: fn(&mut Self) -> &mut Vec<u8>) {
        let mut items = std::mem::take(list(self));
        if !items.is_empty() {
            self.lines.extend_from_slice(name.as_bytes());
            // Each item begins with the comma that parts it from the one before.
            self.lines.extend_from_slice(&items[1..]);
            self.lines.push(b']');
            items.clear();
        }
        *list(self) = items;
    }
}

impl<A, W> Recorder<A> for Writer<W>
where
    A: Traced<Msg: Hash>,
    W: Write + Send,
{
    fn begin(&mut self, lease: u16, at: u64, durable: u64, input: &InputOf<A>, origin: Origin) {
        self.lease = lease;
        self.saves = 0;
        self.save = None;
        self.lines.extend_from_slice(b"{\"i\":");
        number(&mut self.lines, self.i);
        self.i += 1;
        self.lines.extend_from_slice(b",\"lease\":");
        number(&mut self.lines, lease.into());
        self.lines.extend_from_slice(b",\"at\":");
        number(&mut self.lines, at);
        if let Some(sim) = self.sim {
            self.lines.extend_from_slice(b",\"sim\":");
            number(&mut self.lines, sim);
        }
        self.lines.extend_from_slice(b",\"durable\":");
        number(&mut self.lines, durable);
        self.lines.extend_from_slice(b",\"in\":");
        self.input::<A>(input, origin);
    }

    fn save(&mut self, storage: &A::Storage, number: Option<u64>) {
        self.saves += 1;
        let number = number.or_else(|| self.save.and_then(|(_, number)| number));
        self.save = Some((A::storage_digest(storage), number));
    }

    fn set(&mut self, timer: &A::Timer, range: &Range<Duration>, due: u64) {
        let out = &mut self.timers;
        out.extend_from_slice(b",{\"set\":{\"timer\":");
        put(out, timer);
        out.extend_from_slice(b",\"lo\":");
        number(out, nanos(range.start));
        out.extend_from_slice(b",\"hi\":");
        number(out, nanos(range.end));
        out.extend_from_slice(b",\"due\":");
        number(out, due);
        out.extend_from_slice(b"}}");
    }

    fn cancel(&mut self, timer: &A::Timer) {
        self.timers.extend_from_slice(b",{\"cancel\":");
        put(&mut self.timers, timer);
        self.timers.push(b'}');
    }

    fn choose(&mut self, key: &str, alternatives: &[A::Random]) {
        self.choices.push(b',');
        put(&mut self.choices, &(key, alternatives));
    }

    fn send(&mut self, to: Id, msg: &A::Msg, sequence: Option<u32>) {
        let out = &mut self.sends;
        out.extend_from_slice(b",{\"to\":");
        number(out, usize::from(to).min(usize::from(u16::MAX)) as u64);
        if let Some(sequence) = sequence {
            out.extend_from_slice(b",\"seq\":");
            number(out, sequence.into());
        }
        out.extend_from_slice(b",\"msg\":");
        put(out, msg);
        out.push(b'}');
    }

    fn end(&mut self, state: &A::State, deadline: Option<u64>) {
        if let Some((digest, number_)) = self.save {
            self.lines.extend_from_slice(b",\"save\":{\"count\":");
            number(&mut self.lines, self.saves.into());
            if let Some(number_) = number_ {
                self.lines.extend_from_slice(b",\"number\":");
                number(&mut self.lines, number_);
            }
            self.lines.extend_from_slice(b",\"digest\":\"");
            hex(&mut self.lines, digest);
            self.lines.extend_from_slice(b"\"}");
        }
        self.list(",\"timers\":[", |writer| &mut writer.timers);
        self.list(",\"choices\":[", |writer| &mut writer.choices);
        self.list(",\"sends\":[", |writer| &mut writer.sends);
        if let Some(deadline) = deadline {
            self.lines.extend_from_slice(b",\"deadline\":");
            number(&mut self.lines, deadline);
        }
        let post = A::digest(state);
        let pre = match self.states.iter_mut().find(|(lease, _)| *lease == self.lease) {
            Some((_, digest)) => std::mem::replace(digest, post),
            None => {
                self.states.push((self.lease, post));
                0
            }
        };
        self.lines.extend_from_slice(b",\"pre\":\"");
        hex(&mut self.lines, pre);
        self.lines.extend_from_slice(b"\",\"post\":\"");
        hex(&mut self.lines, post);
        self.lines.extend_from_slice(b"\"}\n");
        if self.lines.len() > BUFFER_MAX {
            self.drain();
        }
    }

    fn write_out(&mut self) {
        self.drain();
    }

    fn stop(&mut self, at: u64) {
        self.lines.extend_from_slice(b"{\"stop\":");
        number(&mut self.lines, at);
        self.lines.extend_from_slice(b"}\n");
        self.drain();
    }

    fn simulated(&mut self, now: u64) {
        self.sim = Some(now);
    }
}

impl<W> Drop for Writer<W> {
    /// What nothing depended on is lost with the node, as it is in a crash.
    fn drop(&mut self) {
        self.lines.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_json_has_them() {
        for value in [0, 7, 10, 1_234_567, u64::MAX] {
            let mut out = Vec::new();
            number(&mut out, value);
            assert_eq!(out, value.to_string().into_bytes());
            out.clear();
            hex(&mut out, value);
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!("{:?}", crate::trace::format::Hex(value))
            );
        }
    }
}
