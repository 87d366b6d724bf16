//! What the demo prints: as it happens, and in a table at the end; or as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::CellAlignment;
use serde_json::{Value, json};

use super::meter::Meter;
use super::{Run, TIMING};
use crate::cli::paint::{Paint, Tone};
use crate::node::clock::BootInstant;

/// One thing that was measured or checked.
pub(super) struct Row {
    what: String,
    measured: String,
    bound: Option<String>,
    /// Nothing if it was only measured.
    is_ok: Option<bool>,
}

/// The narrator.
pub(super) struct Show {
    paint: Paint,
    json: bool,
    begun: BootInstant,
    step: u32,
    step_begun: BootInstant,
    /// What the machine withholds, and what it had withheld when the step began.
    meter: Option<Meter>,
    withheld_before: Duration,
    rows: Vec<Row>,
}

impl Show {
    pub(super) fn new(json: bool) -> Self {
        let now = BootInstant::now();
        Self {
            paint: Paint::stdout(),
            json,
            begun: now,
            step: 0,
            step_begun: now,
            meter: None,
            withheld_before: Duration::ZERO,
            rows: Vec::new(),
        }
    }

    /// From now on bounds are later by what this measures.
    pub(super) fn allow_for(&mut self, meter: Meter) {
        self.meter = Some(meter);
    }

    fn withheld(&self) -> Duration {
        self.meter.as_ref().map_or(Duration::ZERO, Meter::lost)
    }

    pub(super) fn print(&self, text: &str) {
        if !self.json {
            crate::cli::print(text);
        }
    }

    pub(super) fn say(&self, mut event: Value) {
        if self.json {
            let since = BootInstant::now().saturating_duration_since(self.begun);
            event["at_ms"] = millis(since);
            crate::cli::print(&format!("{event}\n"));
        }
    }

    pub(super) fn title(&self) {
        let paint = self.paint;
        let numbers = TIMING.inequality();
        let need = numbers.need_ns().unwrap_or_default() as f64 / 1e9;
        let title = "tenure: one lease, three hosts in three zones, over UDP, with faults";
        self.print(&format!(
            "\n {}\n {}\n {}\n",
            paint.strong(title),
            paint.faint(format!(
                "L {} s  G {} s  R {} s  S {} s  clocks within {} ppm: L must be above {need:.3} s, so \
                 there is {:.3} s to spare",
                TIMING.lease.as_secs_f64(),
                TIMING.give_up.as_secs_f64(),
                TIMING.renew.as_secs_f64(),
                TIMING.hook.as_secs_f64(),
                TIMING.clock_error_ppm,
                numbers.margin_ns() as f64 / 1e9,
            )),
            paint.faint("Meanwhile a client writes to the table, and a monitor watches all hosts."),
        ));
        self.say(json!({
            "event": "begin", "lease_ms": millis(TIMING.lease), "give_up_ms": millis(TIMING.give_up),
            "renew_ms": millis(TIMING.renew), "hook_ms": millis(TIMING.hook),
            "clock_error_ppm": TIMING.clock_error_ppm,
        }));
    }

    pub(super) fn step(&mut self, title: &str) {
        self.step += 1;
        self.print(&format!("\n {}  {}\n", self.paint.strong(self.step), self.paint.strong(title)));
        self.say(json!({ "event": "step", "step": self.step, "title": title }));
        self.withheld_before = self.withheld();
        self.step_begun = BootInstant::now();
    }

    /// Something has happened now.
    pub(super) fn tell(&self, what: &str) {
        self.tell_at(BootInstant::now(), what);
    }

    pub(super) fn tell_at(&self, at: BootInstant, what: &str) {
        let since = at.saturating_duration_since(self.step_begun);
        let since_text = self.paint.faint(format!("{:>8.3} s", since.as_secs_f64()));
        self.print(&format!("   {since_text}  {what}\n"));
        self.say(
            json!({ "event": "note", "step": self.step, "since_ms": millis(since), "what": what }),
        );
    }

    /// Something has happened that was promised to take no longer than a bound, on a machine that withholds nothing.
    pub(super) fn measure(&mut self, what: &str, told: &str, took: Duration, bound: Duration) {
        let withheld = self.withheld().saturating_sub(self.withheld_before);
        let is_ok = took <= bound + withheld;
        let mut bound_text = seconds(bound);
        if is_ok && took > bound {
            let _ = write!(bound_text, " and {} that the machine withheld", seconds(withheld));
        }
        let paint = self.paint;
        let share = took.as_secs_f64() / bound.as_secs_f64();
        let verdict = if is_ok { paint.good("ok") } else { paint.bad("LATE") };
        let since = BootInstant::now().saturating_duration_since(self.step_begun);
        self.print(&format!(
            "   {}  {told:<44} {}  {} of {}  {verdict}\n",
            paint.faint(format!("{:>8.3} s", since.as_secs_f64())),
            bar(share, is_ok, paint),
            paint.strong(seconds(took)),
            bound_text,
        ));
        self.say(json!({
            "event": "measure", "step": self.step, "what": what, "told": told,
            "measured_ms": millis(took), "bound_ms": millis(bound),
            "withheld_ms": millis(withheld), "ok": is_ok,
        }));
        let (measured, bound) = (seconds(took), Some(bound_text));
        self.rows.push(Row { what: what.to_owned(), measured, bound, is_ok: Some(is_ok) });
    }

    /// A fact that has to be so.
    pub(super) fn check(&mut self, what: &str, measured: impl Into<String>, is_ok: bool) {
        let measured = measured.into();
        self.say(json!({
            "event": "check", "step": self.step, "what": what, "measured": measured, "ok": is_ok,
        }));
        self.rows.push(Row { what: what.to_owned(), measured, bound: None, is_ok: Some(is_ok) });
    }

    /// Something that was measured, and for which nothing is promised.
    pub(super) fn remark(&mut self, what: &str, measured: Duration) {
        let text = seconds(measured);
        self.say(json!({
            "event": "remark", "step": self.step, "what": what, "measured_ms": millis(measured),
        }));
        self.rows.push(Row { what: what.to_owned(), measured: text, bound: None, is_ok: None });
    }

    /// The table of everything that was measured; an error if something was not as promised.
    pub(super) fn finish(&self) -> Run<()> {
        let paint = self.paint;
        let mut table = paint.table(["", "measured", "bound", ""]);
        for row in &self.rows {
            let (tone, verdict) = match row.is_ok {
                Some(true) => (Tone::Good, "ok"),
                Some(false) => (Tone::Bad, "FAILED"),
                None => (Tone::Plain, ""),
            };
            table.add_row([
                paint.cell(Tone::Plain, &row.what),
                paint.cell(Tone::Strong, &row.measured),
                paint.cell(Tone::Plain, row.bound.as_deref().unwrap_or("")),
                paint.cell(tone, verdict),
            ]);
        }
        for column in [1, 2] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = String::from("\n");
        for line in table.lines() {
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let took = BootInstant::now().saturating_duration_since(self.begun);
        let failed: Vec<_> = self.rows.iter().filter(|row| row.is_ok == Some(false)).collect();
        let verdict = match failed.len() {
            0 => paint.good("Everything held."),
            _ => paint.bad("Not everything held."),
        };
        let _ = writeln!(
            text,
            "\n {verdict} {}\n",
            paint.faint(format!(
                "{:.0} s. One run shows one schedule; the models explore the others.",
                took.as_secs_f64()
            ))
        );
        self.print(&text);
        let rows = self.rows.iter().map(|row| {
            json!({ "what": row.what, "measured": row.measured, "bound": row.bound, "ok": row.is_ok })
        });
        self.say(
            json!({ "event": "end", "ok": failed.is_empty(), "rows": rows.collect::<Vec<_>>() }),
        );
        self.judge()
    }

    /// The reason to fail, if there is one.
    pub(super) fn judge(&self) -> Run<()> {
        match self.rows.iter().find(|row| row.is_ok == Some(false)) {
            None => Ok(()),
            Some(row) => Err(format!(
                "{}: {}{}; a machine that is very busy can be late, anything else is a bug: please report it",
                row.what,
                row.measured,
                row.bound
                    .as_ref()
                    .map(|bound| format!(", and the bound is {bound}"))
                    .unwrap_or_default()
            )),
        }
    }
}

/// How much of its bound something took, as a bar.
pub(super) fn bar(share: f64, is_ok: bool, paint: Paint) -> String {
    const WIDTH: usize = 12;
    let filled = ((share * WIDTH as f64).ceil() as usize).min(WIDTH);
    let (taken, left) = ("━".repeat(filled), "╌".repeat(WIDTH - filled));
    let taken = if is_ok { paint.good(taken) } else { paint.bad(taken) };
    format!("{taken}{}", paint.faint(left))
}

pub(super) fn seconds(duration: Duration) -> String {
    if duration < Duration::from_millis(100) {
        return format!("{:.1} ms", duration.as_secs_f64() * 1e3);
    }
    format!("{:.3} s", duration.as_secs_f64())
}

pub(super) fn millis(duration: Duration) -> Value {
    (duration.as_micros() as f64 / 1e3).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_later_by_what_the_machine_withholds_and_by_no_more() {
        let (took, bound) = (Duration::from_millis(150), Duration::from_millis(100));
        for (withheld, is_ok) in [(0, false), (49, false), (50, true)] {
            let mut meter = Meter::new();
            // Once, and in this step.
            let is_over = std::sync::atomic::AtomicBool::new(false);
            meter.measure(move || {
                std::thread::sleep(Duration::from_millis(1));
                let is_over = is_over.swap(true, std::sync::atomic::Ordering::Relaxed);
                Duration::from_millis(if is_over { 0 } else { withheld })
            });
            let mut show = Show::new(true);
            show.allow_for(meter);
            show.measure("a thing", "it", took, bound);
            let row = show.rows.first().unwrap();
            assert_eq!(row.is_ok, Some(is_ok), "{withheld} ms");
            let text = row.bound.as_ref().unwrap();
            assert_eq!(text.contains("that the machine withheld"), is_ok, "{text}");
            // What was withheld before a step is no excuse in it.
            show.step("the next");
            show.measure("a thing", "it", took, bound);
            assert_eq!(show.rows.last().unwrap().is_ok, Some(false));
        }
    }

    #[test]
    fn what_is_late_fails_and_says_so() {
        let mut show = Show::new(false);
        let row = |measured: &str, bound: Option<&str>, is_ok| Row {
            what: "takeover".to_owned(),
            measured: measured.to_owned(),
            bound: bound.map(str::to_owned),
            is_ok,
        };
        show.rows = vec![row("1 s", Some("2 s"), Some(true)), row("9 s", None, None)];
        assert_eq!(show.judge(), Ok(()));
        show.rows.push(row("3 s", Some("2 s"), Some(false)));
        let reason = show.judge().unwrap_err();
        assert!(reason.starts_with("takeover: 3 s, and the bound is 2 s"), "{reason}");
    }

    #[test]
    fn a_bar_is_never_longer_than_its_bound() {
        let bar = |share| bar(share, true, Paint::PLAIN);
        assert_eq!(bar(0.0), "╌".repeat(12));
        assert_eq!(bar(0.5), format!("{}{}", "━".repeat(6), "╌".repeat(6)));
        assert_eq!(bar(7.0), "━".repeat(12));
    }
}
