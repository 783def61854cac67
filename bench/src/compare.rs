//! A run beside an earlier one: what has become worse.
//!
//! Only figures that a run measures side by side with something else are compared, since two runs may be on two machines.

use std::collections::HashMap;

use serde::Deserialize;

use crate::bars::Ratio;

/// A figure that is worse by this factor is reported as worse; machines that others use, too, differ by less.
const WORSE: f64 = 1.5;

/// What is read of an earlier run's JSON.
#[derive(Debug, Deserialize)]
pub(crate) struct Earlier {
    ratios: Vec<EarlierRatio>,
}

#[derive(Debug, Deserialize)]
struct EarlierRatio {
    name: String,
    measured: Option<f64>,
}

/// One figure of both runs.
#[derive(Debug, PartialEq)]
pub(crate) struct Change {
    name: String,
    earlier: f64,
    now: f64,
    /// Above 1: so much better.
    better: f64,
}

impl Change {
    fn is_worse(&self) -> bool {
        self.better * WORSE < 1.0
    }
}

/// The figures that both runs have.
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

/// A line for each figure, and whether some are worse.
pub(crate) fn table(changes: &[Change]) -> (String, bool) {
    let lines = changes.iter().map(|change| {
        let mark = if change.is_worse() { "  WORSE" } else { "" };
        let (earlier, now, better) = (change.earlier, change.now, change.better);
        format!(
            "{earlier:9.2} {now:9.2} {better:6.2}  {}{mark}\n",
            change.name
        )
    });
    let mut text = "beside the earlier run: earlier, now, better by (below 1: worse)\n".to_owned();
    text.extend(lines);
    if changes.is_empty() {
        text.push_str("nothing was measured in both\n");
    }
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
    fn what_is_worse_is_told_on_either_side_of_a_bar() {
        let worse = |bar, now| {
            let now = [Ratio::new("a", bar, Some(now))];
            table(&compare(&earlier("10.0"), &now)).1
        };
        assert!(worse(Bar::AtLeast(8.0), 6.0) && worse(Bar::AtMost(8.0), 16.0));
        assert!(!worse(Bar::AtLeast(8.0), 7.0) && !worse(Bar::AtMost(8.0), 14.0));
        assert!(!worse(Bar::AtLeast(8.0), 90.0) && !worse(Bar::AtMost(8.0), 0.1));
    }

    #[test]
    fn what_only_one_run_measured_is_not_compared() {
        let now = [
            Ratio::new("a", Bar::AtMost(1.0), Some(2.0)),
            Ratio::new("b", Bar::AtMost(1.0), Some(2.0)),
            Ratio::new("c", Bar::AtMost(1.0), None),
        ];
        assert_eq!(compare(&earlier("1.0"), &now).len(), 1);
        assert_eq!(compare(&earlier("null"), &now), []);
        let (text, worse) = table(&[]);
        assert!(text.contains("nothing was measured in both") && !worse);
    }
}
