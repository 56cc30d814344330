//! What was measured, as tables for people and as JSON.

use std::fmt::Write;

use serde::Serialize;

/// Everything that was measured in one run.
#[derive(Serialize)]
pub struct Report {
    /// When.
    pub date: String,
    /// On what.
    pub machine: String,
    /// By subject.
    pub sections: Vec<Section>,
    /// What must hold.
    pub budgets: Vec<Budget>,
}

/// One table.
#[derive(Serialize)]
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// How it was measured.
    pub how: String,
    /// What its columns are, with units.
    pub columns: Vec<&'static str>,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// What was measured of one subject.
#[derive(Serialize)]
pub struct Row {
    /// Of what.
    pub subject: String,
    /// In the order of the columns; `None` where there is nothing to measure.
    pub values: Vec<Option<Stat>>,
}

/// Several measurements of the same.
#[derive(Serialize, Clone, Copy, Debug)]
pub struct Stat {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
    /// How many.
    pub samples: usize,
}

/// What must hold.
#[derive(Serialize)]
pub struct Budget {
    /// What is compared.
    pub what: String,
    /// What was measured.
    pub measured: f64,
    /// What it may be.
    pub limit: String,
    /// Whether it is.
    pub kept: bool,
}

impl Stat {
    /// Of some measurements.
    pub fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| quantile(&samples, share);
        Some(Self { median: at(0.5)?, least: at(0.0)?, greatest: at(1.0)?, samples: samples.len() })
    }

    /// Something that was measured once, or counted.
    pub fn one(value: f64) -> Option<Self> {
        Self::of(vec![value])
    }
}

/// The value below which a share of the sorted samples lies.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "few samples")]
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * share).round() as usize).copied()
}

impl Budget {
    /// `measured` may be `limit` at most.
    pub fn at_most(what: impl Into<String>, measured: f64, limit: f64) -> Self {
        Self { what: what.into(), measured, limit: format!("≤ {limit}"), kept: measured <= limit }
    }

    /// `measured` must be `limit` at least.
    pub fn at_least(what: impl Into<String>, measured: f64, limit: f64) -> Self {
        Self { what: what.into(), measured, limit: format!("≥ {limit}"), kept: measured >= limit }
    }
}

impl Report {
    /// As tables in Markdown.
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
