//! Compares the ratios of a run with those of an earlier one.
//!
//! Only ratios: they compare values from one run, so that the two runs may be on two machines.

use std::collections::HashMap;

use serde::Deserialize;
use strand_stress::report::text::columns;

use crate::bars::Ratio;

/// A ratio that is worse by this factor is reported. Shared machines vary by less.
const WORSE: f64 = 1.5;

/// The part of an earlier run's JSON that is compared.
#[derive(Debug, Deserialize)]
pub(crate) struct Earlier {
    ratios: Vec<EarlierRatio>,
}

#[derive(Debug, Deserialize)]
struct EarlierRatio {
    name: String,
    measured: Option<f64>,
}

/// A ratio that both runs have.
#[derive(Debug, PartialEq)]
pub(crate) struct Change {
    name: String,
    earlier: f64,
    now: f64,
    /// The factor by which it is better; worse if below 1.
    better: f64,
}

impl Change {
    fn is_worse(&self) -> bool {
        self.better * WORSE < 1.0
    }
}

pub(crate) fn compare(earlier: &Earlier, now: &[Ratio]) -> Vec<Change> {
    let known = earlier.ratios.iter().filter_map(|ratio| {
        let measured = ratio.measured.filter(|measured| *measured > 0.0)?;
        Some((ratio.name.as_str(), measured))
    });
    let known: HashMap<&str, f64> = known.collect();
    let change = |ratio: &Ratio| {
        let now = ratio.measured.filter(|measured| *measured > 0.0)?;
        let earlier = *known.get(ratio.name.as_str())?;
        let grown = now / earlier;
        Some(Change {
            name: ratio.name.clone(),
            earlier,
            now,
            better: if ratio.wants_more() {
                grown
            } else {
                1.0 / grown
            },
        })
    };
    now.iter().filter_map(change).collect()
}

/// A line for each ratio, and whether some are worse.
pub(crate) fn table(changes: &[Change]) -> (String, bool) {
    if changes.is_empty() {
        return ("the runs have no ratio in common\n".to_owned(), false);
    }
    let head = ["earlier", "now", "better by", "(below 1: worse)"].map(str::to_owned);
    let rows = changes.iter().map(|change| {
        let mark = if change.is_worse() { "  WORSE" } else { "" };
        let numbers = [change.earlier, change.now, change.better];
        let [earlier, now, better] = numbers.map(|number| format!("{number:.2}"));
        [earlier, now, better, format!("{}{mark}", change.name)]
    });
    let text = columns(std::iter::once(head).chain(rows), &[0, 1, 2]);
    (text, changes.iter().any(Change::is_worse))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bars::Bar;

    fn earlier(measured: &str) -> Earlier {
        let text =
            format!(r#"{{"rows":[],"ratios":[{{"name":"a","bar":"x","measured":{measured}}}]}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_worse_ratio_is_reported_on_either_side_of_a_bar() {
        let worse = |bar, now| {
            let now = [Ratio::new("a", bar, Some(now))];
            table(&compare(&earlier("10.0"), &now)).1
        };
        assert!(worse(Bar::AtLeast(8.0), 6.0) && worse(Bar::AtMost(8.0), 16.0));
        assert!(!worse(Bar::AtLeast(8.0), 7.0) && !worse(Bar::AtMost(8.0), 14.0));
        assert!(!worse(Bar::AtLeast(8.0), 90.0) && !worse(Bar::AtMost(8.0), 0.1));
    }

    #[test]
    fn ratios_of_one_run_alone_are_not_compared() {
        let now = [
            Ratio::new("a", Bar::AtMost(1.0), Some(2.0)),
            Ratio::new("b", Bar::AtMost(1.0), Some(2.0)),
            Ratio::new("c", Bar::AtMost(1.0), None),
        ];
        assert_eq!(compare(&earlier("1.0"), &now).len(), 1);
        assert_eq!(compare(&earlier("null"), &now), []);
        let (text, worse) = table(&[]);
        assert!(text.contains("no ratio in common") && !worse);
    }
}
