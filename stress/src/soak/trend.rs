//! Whether a measurement grows during a soak: the first quarter of its samples against the last.

use serde::Serialize;

/// Fewer samples show no trend.
pub const SAMPLES_MIN: usize = 8;

/// The limit of growth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limit {
    /// Grown by more than this factor …
    pub factor: f64,
    /// … and by more than this.
    pub slack: f64,
    /// Whether growth fails the soak or is only reported: latency also depends on the machine.
    pub fails: bool,
}

/// A series of measurements.
#[derive(Debug, Clone)]
pub struct Series {
    /// The name, with the unit.
    pub name: String,
    /// In the order of time.
    pub samples: Vec<f64>,
    /// When each was taken, in seconds from the beginning.
    pub at_s: Vec<f64>,
    /// The limit of growth.
    pub limit: Limit,
}

/// The trend of a series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trend {
    /// The name, with the unit.
    pub name: String,
    /// In the order of time.
    pub samples: Vec<f64>,
    /// When, in seconds from the beginning.
    pub at_s: Vec<f64>,
    /// The median of the first quarter.
    pub first: f64,
    /// The median of the last quarter.
    pub last: f64,
    /// The highest of all.
    pub max: f64,
    /// The limit of growth.
    pub limit: Limit,
    /// The verdict.
    pub growth: Growth,
}

/// The verdict on a trend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Growth {
    /// There are too few samples.
    TooShort,
    /// It does not grow, or not by much.
    None,
    /// It has grown by more than its limit.
    Grows,
}

impl Series {
    /// The first quarter against the last.
    #[must_use]
    pub fn trend(&self) -> Trend {
        let quarter = (self.samples.len() / 4).max(1);
        let first = median(self.samples.iter().take(quarter));
        let last = median(self.samples.iter().rev().take(quarter));
        let grown = last > first * self.limit.factor && last > first + self.limit.slack;
        let growth = if self.samples.len() < SAMPLES_MIN {
            Growth::TooShort
        } else if grown {
            Growth::Grows
        } else {
            Growth::None
        };
        Trend {
            name: self.name.clone(),
            samples: self.samples.clone(),
            at_s: self.at_s.clone(),
            first,
            last,
            max: self.samples.iter().copied().fold(0.0, f64::max),
            limit: self.limit,
            growth,
        }
    }
}

impl Trend {
    /// Whether it fails the soak.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.limit.fails && self.growth == Growth::Grows
    }

    /// In one word or two.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match (self.growth, self.limit.fails) {
            (Growth::TooShort, _) => "too short to tell",
            (Growth::None, _) => "no growth",
            (Growth::Grows, true) => "GROWS",
            (Growth::Grows, false) => "grows (not counted: also the machine's)",
        }
    }
}

fn median<'a>(samples: impl Iterator<Item = &'a f64>) -> f64 {
    let mut sorted: Vec<f64> = samples.copied().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit {
        factor: 1.5,
        slack: 2.0,
        fails: true,
    };

    fn trend(samples: &[f64]) -> Trend {
        let series = Series {
            name: "open files".to_owned(),
            samples: samples.to_vec(),
            at_s: Vec::new(),
            limit: LIMIT,
        };
        series.trend()
    }

    #[test]
    fn the_last_quarter_is_compared_with_the_first() {
        let steady = trend(&[9.0, 10.0, 50.0, 10.0, 10.0, 10.0, 11.0, 11.0]);
        assert_eq!((steady.first, steady.last, steady.max), (10.0, 11.0, 50.0));
        assert_eq!(steady.growth, Growth::None);
        let slow = trend(&[10.0, 11.0, 12.0, 13.0, 13.0, 14.0, 15.0, 16.0]);
        assert_eq!(slow.growth, Growth::None, "one and a half times is allowed");
        let leak = trend(&[10.0, 12.0, 14.0, 16.0, 18.0, 20.0, 22.0, 24.0]);
        assert_eq!(leak.growth, Growth::Grows);
        assert!(leak.fails());
    }

    #[test]
    fn little_is_no_growth_and_few_samples_tell_nothing() {
        assert_eq!(
            trend(&[1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0]).growth,
            Growth::None
        );
        assert_eq!(trend(&[1.0, 9.0]).growth, Growth::TooShort);
        assert_eq!(trend(&[]).growth, Growth::TooShort);
    }
}
