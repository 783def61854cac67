//! Text in columns.

use std::fmt::Write as _;

use clap::builder::styling::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr as _;

/// How wide the columns of a table are on a terminal.
#[derive(Debug, Default)]
pub(crate) struct Widths(Vec<usize>);

impl Widths {
    /// Makes the columns wide enough for this row.
    pub(crate) fn fit(&mut self, row: &[String]) {
        self.0.resize(self.0.len().max(row.len()), 0);
        for (width, cell) in self.0.iter_mut().zip(row) {
            *width = width_of(cell).max(*width);
        }
    }

    /// The row with left-aligned cells, two spaces apart.
    pub(crate) fn line(&self, row: &[String]) -> String {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&self.0) {
            line.push_str(cell);
            let room = width.saturating_sub(width_of(cell)) + 2;
            line.extend(std::iter::repeat_n(' ', room));
        }
        line.truncate(line.trim_end_matches(' ').len());
        line
    }
}

/// How wide a [`printable`] text is on a terminal.
fn width_of(cell: &str) -> usize {
    if cell.is_ascii() {
        cell.len() // As most are, and faster.
    } else {
        cell.width()
    }
}

/// A table, the columns of which are as wide as their widest cells.
pub(crate) fn columns<R: AsRef<[String]>>(rows: &[R]) -> String {
    let mut widths = Widths::default();
    for row in rows {
        widths.fit(row.as_ref());
    }
    let lines = rows.iter().map(|row| widths.line(row.as_ref()));
    lines.fold(String::new(), |table, line| table + &line + "\n")
}

/// How an issue with this status is highlighted.
pub(crate) fn style_of(status: Option<&str>) -> Style {
    match status {
        Some("in_progress") => AnsiColor::Yellow.on_default(),
        Some("blocked") => AnsiColor::Red.on_default(),
        Some("closed") => Style::new().dimmed(),
        _ => Style::new(),
    }
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
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
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
            columns(&rows.map(row)),
            "ID      TITLE    S\n\
             é-1234           x\n\
             a       漢字 👩‍👩‍👧\n\
             b       🎉e\u{301}      y\n"
        );
        assert_eq!(columns::<Vec<String>>(&[]), "");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[31m\nb\té"), "a\\u{1b}[31m\\nb\\té");
    }
}
