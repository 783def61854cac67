//! HTML reports: one file each, without scripts and without anything from the network.
//!
//! They only draw. All share [`document`], [`table`], and the drawings of [`plot`] and [`lanes`].

pub mod lanes;
pub mod plot;
pub mod run;
pub mod soak;
pub mod tiers;

use std::fmt::Display;

use crate::evidence::verdict::Verdict;

/// The style of all pages and drawings.
pub const STYLE: &str = include_str!("style.css");

/// Tables of so many columns fit a telephone.
const COLUMNS_NARROW_MAX: usize = 3;
/// How many findings a page shows; the JSON report has them all.
const FINDINGS_SHOWN: usize = 50;
/// How many characters of a finding a page shows.
const FINDING_LENGTH: usize = 2_000;

/// A whole page. `body` is markup, `title` is text.
#[must_use]
pub fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escaped(title)
    )
}

/// Text escaped for markup and attributes.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The head of a column: words are aligned to the left, numbers to the right.
#[derive(Debug, Clone, Copy)]
pub enum Column<'a> {
    /// Of words.
    Words(&'a str),
    /// Of figures.
    Numbers(&'a str),
}

/// A cell of a table: text, and a class of the style sheet.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    class: &'static str,
}

impl Cell {
    /// In the colour of what is well, or of what is not; the text has to say it, too.
    #[must_use]
    pub fn verdict(text: &str, is_good: bool) -> Cell {
        let (mark, class) = if is_good {
            ('✓', "met")
        } else {
            ('✗', "missed")
        };
        Cell {
            text: format!("{mark} {text}"),
            class,
        }
    }

    /// Less visible.
    #[must_use]
    pub fn soft(text: &str) -> Cell {
        Cell {
            text: text.to_owned(),
            class: "unknown",
        }
    }

    /// As it was typed, or is to be typed.
    #[must_use]
    pub fn code(text: &str) -> Cell {
        Cell {
            text: text.to_owned(),
            class: "code",
        }
    }
}

impl<T: Display> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell {
            text: text.to_string(),
            class: "",
        }
    }
}

/// A table that scrolls in a box of its own. `label` names it for screen readers.
#[must_use]
pub fn table<const N: usize>(
    label: &str,
    columns: [Column<'_>; N],
    rows: impl IntoIterator<Item = [Cell; N]>,
) -> String {
    // On a narrow screen, a row of many columns becomes a card, and each cell names its column.
    let is_wide = N > COLUMNS_NARROW_MAX;
    let mut text = format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{}\" tabindex=\"0\"><table{}>\n<tr>",
        escaped(label),
        if is_wide { " class=\"cards\"" } else { "" }
    );
    for column in columns {
        let (name, class) = match column {
            Column::Words(name) => (name, ""),
            Column::Numbers(name) => (name, " class=\"figure\""),
        };
        put!(text, "<th scope=\"col\"{class}>{}</th>", escaped(name));
    }
    text += "</tr>\n";
    for row in rows {
        text += "<tr>";
        for (cell, column) in row.into_iter().zip(columns) {
            let (name, figure) = match column {
                Column::Words(name) => (name, ""),
                Column::Numbers(name) => (name, "figure "),
            };
            let name = if is_wide {
                format!(" data-column=\"{}\"", escaped(name))
            } else {
                String::new()
            };
            let class = format!("{figure}{}", cell.class);
            let class = match class.trim_end() {
                "" => String::new(),
                class => format!(" class=\"{class}\""),
            };
            put!(text, "<td{class}{name}>{}</td>", escaped(&cell.text));
        }
        text += "</tr>\n";
    }
    text + "</table></div>\n"
}

/// A section that opens on a click. `content` is markup.
#[must_use]
pub fn details(summary: &str, content: &str) -> String {
    format!(
        "<details><summary>{}</summary>\n{content}</details>\n",
        escaped(summary)
    )
}

/// Names with the colour and the line style, or the form, that they have in a drawing. `sample` is
/// markup within a box of 28 by 10.
#[must_use]
pub fn legend<'a>(entries: impl IntoIterator<Item = (String, &'a str)>) -> String {
    let mut text = "<ul class=\"legend\">\n".to_owned();
    for (sample, name) in entries {
        put!(
            text,
            "<li><svg viewBox=\"0 0 28 10\" aria-hidden=\"true\">{sample}</svg>{}</li>\n",
            escaped(name)
        );
    }
    text + "</ul>\n"
}

/// How it ended, in words and first of all; `details` is markup.
pub(crate) fn verdict(verdict: Verdict, line: &str, details: &str) -> String {
    let (class, mark) = match verdict {
        Verdict::Pass => ("pass", '✓'),
        Verdict::Interrupted => ("cut", '…'),
        _ => ("fail", '✗'),
    };
    format!(
        "<section class=\"verdict {class}\" aria-label=\"Verdict\"><strong>{mark} {}</strong>\n{details}</section>\n",
        escaped(line)
    )
}

/// The first findings. `of` names the file with all of them.
fn findings(lines: &[String], of: &str) -> String {
    let mut text = "<ul class=\"violations\">\n".to_owned();
    for line in lines.iter().take(FINDINGS_SHOWN) {
        put!(text, "<li>{}</li>\n", escaped(&clipped(line)));
    }
    if let more @ 1.. = lines.len().saturating_sub(FINDINGS_SHOWN) {
        put!(text, "<li>… and {more} more, all in {of}</li>\n");
    }
    text + "</ul>\n"
}

/// The beginning of a long text.
fn clipped(text: &str) -> String {
    match text.char_indices().nth(FINDING_LENGTH) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Names and their values, which are markup.
fn facts(facts: &[(&str, String)]) -> String {
    let mut text = "<dl>\n".to_owned();
    for (name, fact) in facts {
        put!(text, "<dt>{}</dt><dd>{fact}</dd>\n", escaped(name));
    }
    text + "</dl>\n"
}

/// A line to be typed.
fn command(line: &str) -> String {
    format!(
        "<pre class=\"command\"><code>{}</code></pre>",
        escaped(line)
    )
}

/// Every member of an object, those that are nothing left out.
fn members(label: &str, object: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(object).unwrap_or_default();
    let members = value.as_object().into_iter().flatten();
    let members = members.filter(|(_, value)| !value.is_null());
    let columns = [Column::Words("name"), Column::Words("value")];
    let rows = members.map(|(name, value)| {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        [Cell::from(name), Cell::code(&text)]
    });
    table(label, columns, rows)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Fails unless every element is closed in its order, and nothing is loaded from elsewhere.
    pub(crate) fn assert_is_whole(page: &str) {
        for outside in [
            "http:", "https:", "src=", "href=", "<link", "<script", "url(http", "@import",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(!page.contains("NaN") && !page.contains(">inf"), "{page}");
        assert!(page.starts_with("<!DOCTYPE html>\n") && page.ends_with("</html>\n"));
        let mut open: Vec<&str> = Vec::new();
        for part in page.split('<').skip(2) {
            let (tag, text) = part.split_once('>').expect("a tag has an end");
            assert!(!text.contains('>'), "{text}");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            let name = tag.split([' ', '/']).find(|name| !name.is_empty());
            let name = name.expect("a tag has a name");
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
            } else if !tag.ends_with('/') && name != "meta" {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn a_page_is_whole_and_follows_the_reader() {
        let cells = [Cell::from("a<b"), Cell::from(7), Cell::verdict("met", true)];
        let columns = [
            Column::Words("<what>"),
            Column::Numbers("n"),
            Column::Words(""),
        ];
        let body = table("a \"table\"", columns, [cells]) + &details("more", "<p>x</p>\n");
        let page = document("a & b", &body);
        assert_is_whole(&page);
        for part in [
            "<title>a &amp; b</title>",
            "prefers-color-scheme: dark",
            "width=device-width",
            "aria-label=\"a &quot;table&quot;\"",
            "<td>a&lt;b</td><td class=\"figure\">7</td><td class=\"met\">✓ met</td>",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }
}
