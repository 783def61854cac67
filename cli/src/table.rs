//! Text in columns. Pure.

/// Lines whose columns begin below each other, two spaces apart. Numbers are not treated in another way than words.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            let missing = width - cell.chars().count() + 2;
            line.extend(std::iter::repeat_n(' ', missing));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The text on one line, and without characters that would do something to a terminal.
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
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let rows = [
            row(["ID", "S", "TITLE"]),
            row(["é-1234", "", "x"]),
            row(["a", "open", ""]),
        ];
        assert_eq!(
            columns(&rows),
            "ID      S     TITLE\né-1234        x\na       open\n"
        );
        assert_eq!(columns::<3>(&[]), "");
    }

    #[test]
    fn no_text_moves_the_cursor() {
        assert_eq!(printable("a\u{1b}[31m\nb\té"), "a\\u{1b}[31m\\nb\\té");
    }
}
