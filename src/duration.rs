//! Durations as an operator writes them: `15s`, `2.9s`, `500ms`, `1m30s`.
//!
//! A lease period that loses a fraction on its way from the file to the record is a lease with two
//! lengths (L-4). So the text is read exactly, to the nanosecond, or refused: nothing is rounded,
//! and [`Exact`] writes what [`parse`] reads back.

use std::fmt;
use std::time::Duration;

/// The units, longest first, with their length in nanoseconds.
const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationError {
    /// There is nothing.
    #[error("a duration is missing: write a number and a unit, such as \"15s\" or \"500ms\"")]
    Empty,
    /// A number should stand here, with digits on both sides of its point.
    #[error("{text:?} is not a duration: a number is expected before {rest:?}, as in \"2.9s\"")]
    Number {
        /// The whole text.
        text: String,
        /// The text from where the number should begin.
        rest: String,
    },
    /// The unit is missing or unknown.
    #[error("{text:?} is not a duration: {unit:?} is no unit; use d, h, m, s, ms, us or ns")]
    Unit {
        /// The whole text.
        text: String,
        /// What stands where the unit should be.
        unit: String,
    },
    /// The units do not go from long to short, each at most once.
    #[error("{text:?} is not a duration: write each unit once, the longest first, as in \"1m30s\"")]
    Order {
        /// The whole text.
        text: String,
    },
    /// A fraction can only stand in the last part.
    #[error("{text:?} is not a duration: only its last number may have a fraction")]
    Fraction {
        /// The whole text.
        text: String,
    },
    /// It has a part shorter than a nanosecond.
    #[error("{text:?} cannot be kept exactly: nothing shorter than a nanosecond can")]
    TooFine {
        /// The whole text.
        text: String,
    },
    /// It is longer than any duration the program can hold.
    #[error("{text:?} is too long to be kept")]
    Overflow {
        /// The whole text.
        text: String,
    },
}

/// Reads a duration, exactly to the nanosecond.
///
/// One or more parts, each a decimal number and one of the units d, h, m, s, ms, us, ns, from the
/// longest unit to the shortest, without blanks or signs; the last number may have a fraction.
///
/// # Errors
///
/// [`DurationError`] for any other text, for a value finer than a nanosecond and for one that does
/// not fit.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let whole = || text.to_owned();
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    let mut total: u128 = 0;
    let mut unit_min = 0;
    let mut fraction_seen = false;
    let mut rest = text;
    while !rest.is_empty() {
        if fraction_seen {
            return Err(DurationError::Fraction { text: whole() });
        }
        let (integer, after) = split_digits(rest);
        if integer.is_empty() {
            return Err(DurationError::Number { text: whole(), rest: rest.to_owned() });
        }
        let (fraction, after) = match after.strip_prefix('.') {
            None => ("", after),
            Some(after) => {
                let (fraction, after) = split_digits(after);
                if fraction.is_empty() {
                    return Err(DurationError::Number { text: whole(), rest: rest.to_owned() });
                }
                (fraction, after)
            }
        };
        fraction_seen = !fraction.is_empty();
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let Some(index) = UNITS.iter().position(|(name, _)| *name == &after[..end]) else {
            let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            return Err(DurationError::Unit { text: whole(), unit: after[..end].to_owned() });
        };
        if index < unit_min {
            return Err(DurationError::Order { text: whole() });
        }
        unit_min = index + 1;
        let unit_ns = UNITS[index].1;
        let part = integer
            .parse::<u128>()
            .ok()
            .and_then(|count| count.checked_mul(unit_ns))
            .and_then(|ns| total.checked_add(ns))
            .ok_or_else(|| DurationError::Overflow { text: whole() })?;
        let fraction_ns = exact_fraction(fraction, unit_ns)
            .ok_or_else(|| DurationError::TooFine { text: whole() })?;
        // The fraction is below one unit, and u128 has room far above what `from_nanos` takes.
        total = part.saturating_add(fraction_ns);
        rest = &after[end..];
    }
    from_nanos(total).ok_or_else(|| DurationError::Overflow { text: whole() })
}

/// The leading ASCII digits, and what follows them.
fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `0.digits` of a unit in nanoseconds, if that is a whole number.
fn exact_fraction(digits: &str, unit_ns: u128) -> Option<u128> {
    let digits = digits.trim_end_matches('0');
    // A day is 2^16 * 3^3 * 5^11 nanoseconds, and no other unit has more twos or fives. Digits
    // without a trailing zero cannot bring both, so more than 16 of them are never exact.
    if digits.len() > 16 {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    let product = digits.bytes().fold(0, |n, digit| n * 10 + u128::from(digit - b'0')) * unit_ns;
    product.is_multiple_of(scale).then_some(product / scale)
}

/// The duration of so many nanoseconds; `None` if it does not fit.
pub(crate) fn from_nanos(ns: u128) -> Option<Duration> {
    let secs = u64::try_from(ns / 1_000_000_000).ok()?;
    // A remainder of a division by 10^9 fits.
    Some(Duration::new(secs, (ns % 1_000_000_000) as u32))
}

/// Writes a duration so that [`parse`] reads back exactly the same one: `15s`, `2.9s`, `500ms`.
///
/// Seconds with a fraction where that is short, parts below a second in their own unit; minutes
/// and longer units are not used, so that the numbers of one set stand beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exact(pub Duration);

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        let (unit, digits) = match ns {
            0 => return f.pad("0s"),
            1..1_000 => ("ns", 0),
            1_000..1_000_000 => ("us", 3),
            1_000_000..1_000_000_000 => ("ms", 6),
            _ => ("s", 9),
        };
        let scale = 10_u128.pow(digits);
        let mut text = (ns / scale).to_string();
        if !ns.is_multiple_of(scale) {
            let fraction = format!("{:0width$}", ns % scale, width = digits as usize);
            text = format!("{text}.{}", fraction.trim_end_matches('0'));
        }
        f.pad(&format!("{text}{unit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn what_operators_write_is_read_exactly() {
        for (text, ns) in [
            ("15s", 15_000_000_000),
            ("2.9s", 2_900_000_000),
            ("500ms", 500_000_000),
            ("1m30s", 90_000_000_000),
            ("1h0m0.5s", 3_600_500_000_000),
            ("1d", 86_400_000_000_000),
            ("0s", 0),
            ("0.000000001s", 1),
            ("1.5000000000000000000s", 1_500_000_000),
            ("0.0000152587890625d", 1_318_359_375),
            ("7ns", 7),
            ("1.001us", 1_001),
            ("0.5m", 30_000_000_000),
        ] {
            assert_eq!(parse(text).map(|duration| duration.as_nanos()), Ok(ns), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(parse(""), Err(DurationError::Empty));
        for text in ["s", "-1s", "+1s", ".5s", "1.s", " 1s", "1s ", "1s 2ms", "1.2.3s", "१s"] {
            assert!(
                matches!(
                    parse(text),
                    Err(DurationError::Number { .. } | DurationError::Unit { .. })
                ),
                "{text:?}: {:?}",
                parse(text)
            );
        }
        for text in ["15", "15sec", "15 s", "1S", "1e3s", "1µs", "1w"] {
            assert!(matches!(parse(text), Err(DurationError::Unit { .. })), "{text:?}");
        }
        for text in ["1s1m", "1s1s", "1ms1s"] {
            assert!(matches!(parse(text), Err(DurationError::Order { .. })), "{text:?}");
        }
        assert!(matches!(parse("1.5m30s"), Err(DurationError::Fraction { .. })));
        for text in ["0.5ns", "1.0000000001s", "0.33333333333m", "0.000000000000000001d"] {
            assert!(matches!(parse(text), Err(DurationError::TooFine { .. })), "{text:?}");
        }
        for text in ["18446744073709551616s", "400000000000000d", &format!("{}s", "9".repeat(60))] {
            assert!(matches!(parse(text), Err(DurationError::Overflow { .. })), "{text:?}");
        }
        assert_eq!(parse("18446744073709551615.999999999s"), Ok(Duration::MAX));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(secs in any::<u64>(), ns in 0_u32..1_000_000_000, small in any::<bool>()) {
            let duration = Duration::new(if small { secs % 100 } else { secs }, ns);
            prop_assert_eq!(parse(&Exact(duration).to_string()), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "[0-9.dhmsun µ-]{0,20}") {
            let _ = parse(&text);
        }
    }
}
