//! Plain text: columns and numbers.

use comfy_table::{CellAlignment, Row, Table, presets};
use indicatif::HumanCount;
use serde::Serialize;

/// Rows in columns that are as wide as their widest cell and two spaces apart, with a newline
/// after each row. `numbers` are the columns that are aligned to the right, counted from 0.
pub fn columns<R: Into<Row>>(rows: impl IntoIterator<Item = R>, numbers: &[usize]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        if numbers.contains(&column.index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt() + "\n"
}

/// A report as JSON, with a newline at its end.
pub(crate) fn json(report: &impl Serialize) -> String {
    serde_json::to_string_pretty(report)
        .unwrap_or_else(|error| unreachable!("plain data can be written: {error}"))
        + "\n"
}

/// `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    HumanCount(number).to_string()
}

pub(crate) fn plural(count: u64, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_on_a_terminal() {
        let rows = [["what", "µs", ""], ["a", "12", "漢字"], ["longer", "5", ""]];
        assert_eq!(
            columns(rows, &[1]),
            "what    µs\na       12  漢字\nlonger   5\n"
        );
    }

    #[test]
    fn figures_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
