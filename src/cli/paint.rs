//! Colours, for a terminal alone.

use std::fmt::Display;
use std::io::IsTerminal as _;

use comfy_table::{Attribute, Cell, Color, Table, presets};

/// Colours text, or leaves it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint {
    is_on: bool,
}

/// What a text is, for those who choose its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    Plain,
    /// What is well.
    Good,
    /// What is wrong.
    Bad,
    /// What is unwise.
    Warn,
    /// A name.
    Strong,
    /// A label or a remark.
    Faint,
}

impl Paint {
    /// Leaves all text as it is.
    pub const PLAIN: Self = Self { is_on: false };

    /// Colours what goes to standard output if that is a terminal and `NO_COLOR` is not set.
    pub fn stdout() -> Self {
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { is_on: !is_unwanted && std::io::stdout().is_terminal() }
    }

    /// For what is well.
    pub fn good(self, text: impl Display) -> String {
        self.code("1;32", text)
    }

    /// For what is wrong.
    pub fn bad(self, text: impl Display) -> String {
        self.code("1;31", text)
    }

    /// For what is unwise.
    pub fn warn(self, text: impl Display) -> String {
        self.code("1;33", text)
    }

    /// For names and headings.
    pub fn strong(self, text: impl Display) -> String {
        self.code("1", text)
    }

    /// For labels and remarks.
    pub fn faint(self, text: impl Display) -> String {
        self.code("2", text)
    }

    /// An aligned table without lines, whose cells come from [`Paint::cell`].
    pub fn table<'a>(self, titles: impl IntoIterator<Item = &'a str>) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if self.is_on {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(titles.into_iter().map(|title| self.cell(Tone::Faint, title)));
        table
    }

    /// A cell of a table: only the table can align text that has colours.
    pub fn cell(self, tone: Tone, text: impl Display) -> Cell {
        let cell = Cell::new(text);
        match tone {
            _ if !self.is_on => cell,
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::DarkGreen).add_attribute(Attribute::Bold),
            Tone::Bad => cell.fg(Color::DarkRed).add_attribute(Attribute::Bold),
            Tone::Warn => cell.fg(Color::DarkYellow).add_attribute(Attribute::Bold),
            Tone::Strong => cell.add_attribute(Attribute::Bold),
            Tone::Faint => cell.add_attribute(Attribute::Dim),
        }
    }

    fn code(self, code: &str, text: impl Display) -> String {
        if self.is_on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_plain() {
        assert_eq!(Paint::PLAIN.good("SAFE"), "SAFE");
        assert_eq!(Paint { is_on: true }.bad("UNSAFE"), "\x1b[1;31mUNSAFE\x1b[0m");
    }
}
