//! The report of a bench: figures with their spread, for people and as JSON.

use std::fmt;

use serde_json::json;

/// Faults that are shown. Further ones are only counted.
const FAULTS_SHOWN_MAX: usize = 10;

/// A figure, with one value per run.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub name: &'static str,
    /// The unit.
    pub unit: &'static str,
    /// One value per run, sorted.
    values: Vec<f64>,
}

impl Figure {
    /// Returns the median.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.values[self.values.len() / 2]
    }

    fn least(&self) -> f64 {
        self.values[0]
    }

    fn most(&self) -> f64 {
        self.values[self.values.len() - 1]
    }
}

/// The report of a bench.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BenchReport {
    /// What was measured, in words.
    pub title: String,
    /// The figures, in the order in which they were first added.
    pub rows: Vec<Figure>,
    /// The messages of the first faults.
    pub faults: Vec<String>,
    /// The number of all faults.
    pub fault_count: u64,
}

impl BenchReport {
    pub(super) fn new(title: String) -> Self {
        Self { title, ..Self::default() }
    }

    /// Adds the value of one run.
    pub(super) fn add(&mut self, name: &'static str, unit: &'static str, value: f64) {
        let known = self.rows.iter_mut().find(|row| row.name == name);
        let Some(row) = known else {
            return self.rows.push(Figure { name, unit, values: vec![value] });
        };
        let at = row.values.partition_point(|other| *other < value);
        row.values.insert(at, value);
    }

    pub(super) fn fault(&mut self, fault: String) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_SHOWN_MAX {
            self.faults.push(fault);
        }
    }

    /// Returns whether every expected event was received once and in order, and no connection was lost.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        self.fault_count == 0
    }

    /// Returns the report as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let row = |row: &Figure| {
            json!({ "name": row.name, "unit": row.unit, "median": row.median(),
                "least": row.least(), "most": row.most(), "values": row.values })
        };
        json!({ "title": self.title, "figures": self.rows.iter().map(row).collect::<Vec<_>>(),
            "fault_count": self.fault_count, "faults": self.faults })
    }
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        writeln!(f, "{:<44}{:>12}{:>12}{:>12}", "", "median", "least", "most")?;
        for row in &self.rows {
            let name = format!("{}, {}", row.name, row.unit);
            let shown = [row.median(), row.least(), row.most()].map(figure);
            writeln!(f, "{name:<44}{:>12}{:>12}{:>12}", shown[0], shown[1], shown[2])?;
        }
        match self.fault_count {
            0 => writeln!(f, "every expected event was received once and in order"),
            count => {
                writeln!(f, "{count} FAULTS")?;
                self.faults.iter().try_for_each(|fault| writeln!(f, "  {fault}"))
            }
        }
    }
}

/// Formats a value with three or four digits.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_its_median_and_its_spread() {
        let mut report = BenchReport::new("test".to_owned());
        [3.0, 1.0, 2000.0].into_iter().for_each(|value| report.add("cost", "µs", value));
        assert_eq!(report.rows[0].median(), 3.0);
        let line = report.to_string().lines().nth(2).unwrap().to_owned();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["cost,", "µs", "3.00", "1.00", "2000"]
        );
        assert!(report.is_exact());
    }
}
