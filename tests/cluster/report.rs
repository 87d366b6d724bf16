//! Plain tables.

use std::time::Duration;

use tenure::node::clock::BootInstant;

/// The value below which this part of the sorted samples lies: the nearest rank.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

pub fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

pub fn since(later: BootInstant, earlier: BootInstant) -> Duration {
    later.saturating_duration_since(earlier)
}

/// n, p50, p99 and the largest, as cells of a table.
pub fn cells(samples: &mut [Duration]) -> [String; 4] {
    samples.sort_unstable();
    if samples.is_empty() {
        return ["0", "-", "-", "-"].map(str::to_owned);
    }
    [
        samples.len().to_string(),
        seconds(percentile(samples, 50)),
        seconds(percentile(samples, 99)),
        seconds(percentile(samples, 100)),
    ]
}

/// Prints rows under a head, each column as wide as it must be, in one piece.
pub fn print(title: &str, head: &[&str], rows: &[Vec<String>]) {
    let mut text = format!("\n{title}\n");
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut line = |cells: Vec<&str>| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        text += &format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
    };
    line(head.to_vec());
    let rules: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
    line(rules.iter().map(String::as_str).collect());
    for row in rows {
        line(row.iter().map(String::as_str).collect());
    }
    println!("{text}");
}
