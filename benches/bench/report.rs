//! The results, as tables for people and as JSON.

use std::fmt::Write;

use serde::Serialize;

/// The results of one part of the benchmark.
pub struct Measured {
    /// Its tables.
    pub sections: Vec<Section>,
    /// Its limits.
    pub budgets: Vec<Budget>,
}

/// All results of one run.
#[derive(Serialize)]
pub struct Report {
    /// `YYYY-MM-DD`.
    pub date: String,
    /// Processor and kernel.
    pub machine: String,
    /// The tables.
    pub sections: Vec<Section>,
    /// The limits.
    pub budgets: Vec<Budget>,
}

/// One table.
#[derive(Serialize)]
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// How it was measured.
    pub how: String,
    /// The headings of the columns, with units.
    pub columns: Vec<&'static str>,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// The results of one subject.
#[derive(Serialize)]
pub struct Row {
    /// The measured function or situation.
    pub subject: String,
    /// In the order of the columns; `None` if there is nothing to measure.
    pub values: Vec<Option<Stat>>,
}

/// Several measurements of one value.
#[derive(Serialize, Clone, Copy, Debug)]
pub struct Stat {
    /// The median.
    pub median: f64,
    /// The minimum.
    pub least: f64,
    /// The maximum.
    pub greatest: f64,
    /// The number of measurements.
    pub samples: usize,
}

/// A limit, and whether it is kept.
#[derive(Serialize)]
pub struct Budget {
    /// The measured value in words.
    pub what: String,
    /// The value.
    pub measured: f64,
    /// The limit, e.g. `≤ 4`.
    pub limit: String,
    /// Whether the value is within the limit.
    pub kept: bool,
}

impl Stat {
    /// The statistics of some measurements; `None` if there are none.
    pub fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| quantile(&samples, share);
        Some(Self { median: at(0.5)?, least: at(0.0)?, greatest: at(1.0)?, samples: samples.len() })
    }

    /// A value that was measured once, or counted.
    pub fn one(value: f64) -> Option<Self> {
        Self::of(vec![value])
    }
}

/// The quantile of sorted samples, e.g. for `0.99`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "few samples")]
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * share).round() as usize).copied()
}

impl Budget {
    /// A limit from above.
    pub fn at_most(what: impl Into<String>, measured: f64, limit: f64) -> Self {
        Self { what: what.into(), measured, limit: format!("≤ {limit}"), kept: measured <= limit }
    }

    /// A limit from below.
    pub fn at_least(what: impl Into<String>, measured: f64, limit: f64) -> Self {
        Self { what: what.into(), measured, limit: format!("≥ {limit}"), kept: measured >= limit }
    }
}

impl Report {
    /// The report as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("Measured on {} on {}.\n", self.date, self.machine);
        for section in &self.sections {
            let _ = write!(text, "\n### {}\n\n{}\n\n| |", section.title, section.how);
            for column in &section.columns {
                let _ = write!(text, " {column} |");
            }
            let _ = write!(text, "\n|---|{}\n", "--:|".repeat(section.columns.len()));
            for row in &section.rows {
                let _ = write!(text, "| {} |", row.subject);
                for value in &row.values {
                    let _ = write!(text, " {} |", value.map_or_else(|| "–".to_owned(), |stat| show(&stat)));
                }
                text.push('\n');
            }
        }
        text.push_str("\n### Budgets\n\n| | measured | limit | |\n|---|--:|--:|---|\n");
        for Budget { what, measured, limit, kept } in &self.budgets {
            let _ = writeln!(
                text,
                "| {what} | {} | {limit} | {} |",
                number(*measured),
                if *kept { "✓" } else { "✗ broken" }
            );
        }
        text
    }
}

fn show(stat: &Stat) -> String {
    if stat.samples == 1 {
        return number(stat.median);
    }
    format!("{} ({}–{})", number(stat.median), number(stat.least), number(stat.greatest))
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || (value - value.round()).abs() < 1e-9 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
