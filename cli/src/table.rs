//! Text in columns.

use std::{fmt::Write as _, iter};

use clap::builder::styling::{AnsiColor, Style};
use comfy_table::{Table, presets};

/// Left-aligned columns, two spaces apart, as wide as their widest cell on a terminal.
pub(crate) fn columns<R: Into<comfy_table::Row>>(rows: Vec<R>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// Highlights the head of a table, and each row by the status of its issue.
pub(crate) fn highlighted(table: &str, statuses: impl Iterator<Item = Option<String>>) -> String {
    let head = Style::new().bold();
    let rows = statuses.map(|status| match status.as_deref() {
        Some("in_progress") => AnsiColor::Yellow.on_default(),
        Some("blocked") => AnsiColor::Red.on_default(),
        Some("closed") => Style::new().dimmed(),
        _ => Style::new(),
    });
    let mut text = String::new();
    for (line, style) in table.lines().zip(iter::once(head).chain(rows)) {
        writeln!(text, "{style}{line}{style:#}").ok();
    }
    text
}

/// Highlights the names in the first column.
pub(crate) fn with_names(table: &str) -> String {
    let name = Style::new().bold();
    let mut text = String::new();
    for line in table.lines() {
        let (first, rest) = line.split_at(line.find("  ").unwrap_or(line.len()));
        writeln!(text, "{name}{first}{name:#}{rest}").ok();
    }
    text
}

/// The text with its control characters escaped, so that it stays on its line and can't control the
/// terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_on_a_terminal() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let rows = [
            ["ID", "TITLE", "S"],
            ["é-1234", "", "x"],
            ["a", "漢字 👩‍👩‍👧", ""],
            ["b", "🎉e\u{301}", "y"],
        ];
        assert_eq!(
            columns(rows.map(row).to_vec()),
            "ID      TITLE    S\n\
             é-1234           x\n\
             a       漢字 👩‍👩‍👧\n\
             b       🎉e\u{301}      y\n"
        );
        assert_eq!(columns::<Vec<String>>(Vec::new()), "\n");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[31m\nb\té"), "a\\u{1b}[31m\\nb\\té");
    }
}
