//! A plot with a logarithmic vertical axis, as SVG that follows the style sheet.

use std::fmt::Write as _;

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 38.0;

/// A line through points.
pub(super) struct Curve<'a> {
    pub(super) title: &'a str,
    pub(super) colour: &'a str,
    pub(super) style: &'a str,
    pub(super) points: Vec<(f64, f64)>,
}

/// Whole powers of ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogAxis {
    low: i32,
    high: i32,
}

impl LogAxis {
    /// The least axis that all points are on; those that are not above zero can't be.
    #[expect(clippy::cast_possible_truncation, reason = "logarithms are small")]
    pub(super) fn of(curves: &[Curve<'_>]) -> Self {
        let values = curves.iter().flat_map(|curve| &curve.points);
        let logs = values.map(|(_, y)| y.log10()).filter(|log| log.is_finite());
        let (low, high) = logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), log| {
            (log.min(low), log.max(high))
        });
        if low > high {
            return Self { low: 0, high: 1 };
        }
        let low = low.floor() as i32;
        Self {
            low,
            high: (high.ceil() as i32).max(low + 1),
        }
    }

    /// Where a value stands, from 0 at the bottom to 1 at the top.
    fn place(self, value: f64) -> f64 {
        (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low)
    }
}

/// What a vertical axis measures.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    PerSecond,
    Microseconds,
}

impl Unit {
    /// What stands above the axis.
    fn title(self) -> &'static str {
        match self {
            Self::PerSecond => "appends/s",
            Self::Microseconds => "",
        }
    }

    /// A power of ten, short.
    fn tick(self, power: i32) -> String {
        let prefixes: [&str; 3] = match self {
            Self::PerSecond => ["", " k", " M"],
            Self::Microseconds => [" µs", " ms", " s"],
        };
        let thousands = (power / 3).clamp(0, 2);
        let prefix = usize::try_from(thousands)
            .ok()
            .and_then(|index| prefixes.get(index));
        let value = 10_f64.powi(power - 3 * thousands);
        format!("{value}{}", prefix.copied().unwrap_or_default())
    }

    fn value(self, value: f64) -> String {
        match self {
            Self::PerSecond => format!("{value:.0} appends/s"),
            Self::Microseconds => format!("{value:.0} µs"),
        }
    }
}

pub(super) struct Plot<'a> {
    pub(super) label: &'a str,
    pub(super) ticks_x: Vec<(f64, String)>,
    pub(super) log_x: bool,
    pub(super) axis_y: LogAxis,
    pub(super) title_x: &'a str,
    pub(super) unit_y: Unit,
    pub(super) curves: Vec<Curve<'a>>,
}

impl Plot<'_> {
    pub(super) fn svg(&self) -> String {
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            self.label
        );
        self.draw(&mut svg)
            .unwrap_or_else(|_| unreachable!("writing to a String can't fail"));
        svg + "</svg>"
    }

    /// The plot as an image of its own: with its style, a ground, and the names of its curves, each with
    /// its colour and line style, below.
    pub(super) fn image(&self, style: &str, names: &[(&str, &str, &str)]) -> String {
        const ROW: f64 = 18.0;
        const COLUMN: f64 = 150.0;
        let columns = ((WIDTH - LEFT) / COLUMN).floor();
        let mut legend = String::new();
        let (mut x, mut y) = (LEFT, HEIGHT + 14.0);
        for (colour, line, name) in names {
            if x + COLUMN > LEFT + columns * COLUMN {
                (x, y) = (LEFT, y + ROW);
            }
            let (line_y, text_x) = (y - 4.0, x + 32.0);
            write!(
                legend,
                "<path class=\"curve {line}\" style=\"stroke:var({colour})\" d=\"M{x:.1} {line_y:.1}h26\"/>\n\
                 <text x=\"{text_x:.1}\" y=\"{y:.1}\">{name}</text>\n"
            )
            .unwrap_or_else(|_| unreachable!("writing to a String can't fail"));
            x += COLUMN;
        }
        let height = y + 10.0;
        let head = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\">\n<style>\n{style}</style>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" style=\"fill:var(--panel)\"/>\n"
        );
        let plot = self
            .svg()
            .replacen("<svg", &format!("<svg height=\"{HEIGHT}\""), 1);
        head + &plot + &legend + "</svg>\n"
    }

    fn draw(&self, svg: &mut String) -> std::fmt::Result {
        let floor = HEIGHT - BOTTOM;
        for power in self.axis_y.low..=self.axis_y.high {
            let y = self.y(10_f64.powi(power));
            writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/>",
                WIDTH - RIGHT
            )?;
            let (x, y, name) = (LEFT - 6.0, y + 4.0, self.unit_y.tick(power));
            writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{name}</text>"
            )?;
        }
        for (value, name) in &self.ticks_x {
            let (x, y) = (self.x(*value), floor + 16.0);
            writeln!(svg, "<path class=\"grid\" d=\"M{x:.1} {floor:.1}v4\"/>")?;
            writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{name}</text>"
            )?;
        }
        let (middle, bottom) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 5.0);
        writeln!(
            svg,
            "<text x=\"{middle:.1}\" y=\"{bottom:.1}\" text-anchor=\"middle\">{}</text>",
            self.title_x
        )?;
        writeln!(svg, "<text x=\"2\" y=\"11\">{}</text>", self.unit_y.title())?;
        for curve in &self.curves {
            self.draw_curve(svg, curve)?;
        }
        Ok(())
    }

    fn draw_curve(&self, svg: &mut String, curve: &Curve<'_>) -> std::fmt::Result {
        let Curve {
            title,
            colour,
            style,
            points,
        } = curve;
        let mut drawn: Vec<&(f64, f64)> = points.iter().filter(|(_, y)| *y > 0.0).collect();
        drawn.sort_by(|a, b| a.0.total_cmp(&b.0));
        writeln!(svg, "<g style=\"stroke:var({colour});fill:var({colour})\">")?;
        let mut path = String::new();
        for (index, (x, y)) in drawn.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            write!(path, "{command}{:.1} {:.1}", self.x(*x), self.y(*y))?;
        }
        writeln!(svg, "<path class=\"curve {style}\" d=\"{path}\"/>")?;
        for (x, y) in drawn {
            writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" stroke=\"none\"><title>{title}: {}</title></circle>",
                self.x(*x),
                self.y(*y),
                self.unit_y.value(*y)
            )?;
        }
        writeln!(svg, "</g>")
    }

    fn x(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.log_x { value.log10() } else { value };
        let values = self.ticks_x.iter().map(|(tick, _)| *tick);
        let values = values.chain(
            self.curves
                .iter()
                .flat_map(|curve| curve.points.iter().map(|(x, _)| *x)),
        );
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
            (low.min(scale(x)), high.max(scale(x)))
        });
        let share = if high > low {
            (scale(value) - low) / (high - low)
        } else {
            0.5
        };
        LEFT + 10.0 + share * (WIDTH - LEFT - RIGHT - 20.0)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.axis_y.place(value) * (HEIGHT - BOTTOM - TOP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(f64, f64)]) -> Curve<'static> {
        Curve {
            title: "t",
            colour: "--strand",
            style: "",
            points: points.to_vec(),
        }
    }

    #[test]
    fn an_axis_ends_at_the_powers_of_ten_around_its_values() {
        let axis = LogAxis::of(&[curve(&[(1.0, 230.0), (2.0, 48_000.0)])]);
        assert_eq!(axis, LogAxis { low: 2, high: 5 });
        assert!((axis.place(100.0)).abs() < 1e-9 && (axis.place(100_000.0) - 1.0).abs() < 1e-9);
        assert_eq!(
            LogAxis::of(&[curve(&[(1.0, 10.0)])]),
            LogAxis { low: 1, high: 2 }
        );
        assert_eq!(
            LogAxis::of(&[curve(&[(1.0, 0.0)])]),
            LogAxis { low: 0, high: 1 }
        );
    }

    #[test]
    fn ticks_are_short() {
        let rates = [-1, 0, 2, 3, 5, 6].map(|power| Unit::PerSecond.tick(power));
        assert_eq!(rates, ["0.1", "1", "100", "1 k", "100 k", "1 M"]);
        let times = [0, 2, 3, 6, 7].map(|power| Unit::Microseconds.tick(power));
        assert_eq!(times, ["1 µs", "100 µs", "1 ms", "1 s", "10 s"]);
    }

    #[test]
    fn points_stay_inside() {
        let curves = vec![curve(&[(1.0, 5.0), (100.0, 5_000.0)])];
        let plot = Plot {
            label: "l",
            ticks_x: vec![(1.0, "1".into()), (100.0, "100".into())],
            log_x: true,
            axis_y: LogAxis::of(&curves),
            title_x: "x",
            unit_y: Unit::PerSecond,
            curves,
        };
        for (value, y) in [(1.0, 5.0), (100.0, 5_000.0)] {
            assert!((LEFT..=WIDTH - RIGHT).contains(&plot.x(value)));
            assert!((TOP..=HEIGHT - BOTTOM).contains(&plot.y(y)));
        }
    }
}
