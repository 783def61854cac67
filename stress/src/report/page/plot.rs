//! Curves over an axis, as SVG that follows the style sheet.

use crate::report::page::{STYLE, escaped};

const HEIGHT: f64 = 280.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 40.0;

/// The unit of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number of something.
    Count,
    /// Durations, given in microseconds.
    Microseconds,
    /// Lengths, given in bytes.
    Bytes,
}

impl Unit {
    /// A value, short.
    #[must_use]
    pub fn text(self, value: f64) -> String {
        let prefixes: &[&str] = match self {
            Unit::Count => &["", " k", " M", " G"],
            Unit::Microseconds => &[" µs", " ms", " s"],
            Unit::Bytes => &[" B", " kB", " MB", " GB"],
        };
        if value == 0.0 {
            return "0".to_owned();
        }
        let mut value = value;
        let mut prefixes = prefixes.iter();
        let mut prefix = prefixes.next().copied().unwrap_or_default();
        while value.abs() >= 999.5
            && let Some(next) = prefixes.next()
        {
            value /= 1_000.0;
            prefix = next;
        }
        format!("{}{prefix}", short(value))
    }
}

/// A number with three digits that count, or all of those before the point.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    if decimals == 0 {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    Log,
}

/// An axis: its ends, and what is written along it.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    title: String,
    unit: Unit,
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

/// A share is placed by the number of its nines; the longest duration is behind them.
#[must_use]
pub fn at_share(share: f64) -> f64 {
    const ALL: f64 = 3.5;
    if share < 1.0 {
        -(1.0 - share).log10()
    } else {
        ALL
    }
}

impl Axis {
    /// Whole powers of ten around all values; those that are not above zero have no place on it.
    #[expect(clippy::cast_possible_truncation, reason = "logarithms are small")]
    #[must_use]
    pub fn powers_of_ten(title: &str, unit: Unit, values: impl Iterator<Item = f64>) -> Axis {
        let logs = values.map(f64::log10).filter(|log| log.is_finite());
        let (low, high) = ends(logs).unwrap_or((0.0, 0.0));
        let low = low.floor() as i32;
        let high = (high.ceil() as i32).max(low + 1);
        let power = |power| 10_f64.powi(power);
        // The ends alone would say little.
        let between: &[f64] = if high == low + 1 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let ticks =
            (low..=high).flat_map(|tick| between.iter().map(move |part| part * power(tick)));
        Axis {
            title: title.to_owned(),
            unit,
            scale: Scale::Log,
            low: power(low),
            high: power(high),
            ticks: ticks
                .filter(|tick| *tick <= power(high))
                .map(|tick| (tick, unit.text(tick)))
                .collect(),
        }
    }

    /// From zero to beyond the highest value, with round numbers along it.
    #[must_use]
    pub fn from_zero(title: &str, unit: Unit, values: impl Iterator<Item = f64>) -> Axis {
        let highest = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        let highest = if highest > 0.0 { highest } else { 1.0 };
        let mut axis = Axis::between(title, unit, 0.0, highest);
        // The last tick is where the axis ends.
        let step = round_step(highest);
        let high = (highest / step - 1e-9).ceil() * step;
        if high > highest {
            axis = Axis::between(title, unit, 0.0, high);
        }
        axis
    }

    /// Exactly from one value to another, with round numbers along it.
    #[must_use]
    pub fn between(title: &str, unit: Unit, low: f64, high: f64) -> Axis {
        let high = if high > low { high } else { low + 1.0 };
        let step = round_step(high - low);
        let mut ticks = Vec::new();
        let mut at = (low / step - 1e-9).ceil() * step;
        while at <= high + step * 1e-9 {
            ticks.push((at, unit.text(if at.abs() < step * 1e-9 { 0.0 } else { at })));
            at += step;
        }
        Axis {
            title: title.to_owned(),
            unit,
            scale: Scale::Linear,
            low,
            high,
            ticks,
        }
    }

    /// With these ticks, and ends that hold the ticks and all values.
    #[must_use]
    pub fn of_ticks(
        title: &str,
        is_log: bool,
        ticks: Vec<(f64, String)>,
        values: impl Iterator<Item = f64>,
    ) -> Axis {
        let (low, high) =
            ends(values.chain(ticks.iter().map(|(tick, _)| *tick))).unwrap_or((1.0, 1.0));
        Axis {
            title: title.to_owned(),
            unit: Unit::Count,
            scale: if is_log { Scale::Log } else { Scale::Linear },
            low,
            high,
            ticks,
        }
    }

    /// For shares of many durations, each at [`at_share`], from the shortest to the longest.
    #[must_use]
    pub fn of_shares(title: &str) -> Axis {
        let ticks = [
            (0.5, "50 %"),
            (0.9, "90 %"),
            (0.99, "99 %"),
            (0.999, "99.9 %"),
            (1.0, "max"),
        ];
        let ticks = ticks.map(|(share, name)| (at_share(share), name.to_owned()));
        Self::of_ticks(title, false, ticks.to_vec(), std::iter::once(0.0))
    }

    /// The place of a value, from 0 at the low end to 1 at the high one.
    pub(super) fn place(&self, value: f64) -> f64 {
        let scaled = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log => value.log10(),
        };
        let (low, high) = (scaled(self.low), scaled(self.high));
        if high > low {
            (scaled(value) - low) / (high - low)
        } else {
            0.5
        }
    }

    fn has(&self, value: f64) -> bool {
        value.is_finite() && (self.scale == Scale::Linear || value > 0.0)
    }

    pub(super) fn ticks(&self) -> &[(f64, String)] {
        &self.ticks
    }

    pub(super) fn title(&self) -> &str {
        &self.title
    }
}

fn ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |ends, value| {
        let (low, high) = ends.unwrap_or((value, value));
        Some((value.min(low), value.max(high)))
    })
}

/// 1, 2 or 5 times a power of ten, so that there are four to ten of them in `length`.
pub(crate) fn round_step(length: f64) -> f64 {
    let power = 10_f64.powf((length / 10.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| length / step <= 8.0)
        .unwrap_or(10.0 * power)
}

/// How a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A line with a dot at each point.
    Dotted,
    /// A line.
    Line,
    /// Columns that reach from each point to the next, filled to the ground.
    Columns,
}

/// A line through points.
#[derive(Debug, Clone)]
pub struct Curve<'a> {
    /// The name.
    pub title: &'a str,
    /// A colour of the style sheet: `--held`.
    pub colour: &'a str,
    /// A line style of the style sheet: `dashed`, or nothing.
    pub style: &'a str,
    /// How it is drawn.
    pub form: Form,
    /// Across, and up.
    pub points: Vec<(f64, f64)>,
}

/// Something that happened at one place of the axis across.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Where.
    pub at: f64,
    /// Its form.
    pub sign: Sign,
    /// The title.
    pub title: String,
}

/// The form of a mark: each is different, so that colour is not needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// A cross.
    Cross,
    /// Two bars.
    Pause,
    /// A triangle that points down.
    Triangle,
    /// A ring.
    Ring,
    /// A diamond.
    Diamond,
}

impl Sign {
    /// As markup, with its middle at a place.
    #[must_use]
    pub fn svg(self, x: f64, y: f64) -> String {
        let (class, path) = match self {
            Sign::Cross => ("cross", "m-3.5 -3.5l7 7m0 -7l-7 7"),
            Sign::Pause => ("pause", "m-2 -3.5v7m4 -7v7"),
            Sign::Triangle => ("triangle", "m-4 -3.5h8l-4 7z"),
            Sign::Ring => ("ring", "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0"),
            Sign::Diamond => ("diamond", "m0 -4l4 4l-4 4l-4 -4z"),
        };
        format!("<path class=\"sign {class}\" d=\"M{x:.1} {y:.1}{path}\"/>")
    }
}

/// How wide a drawing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Several fit side by side.
    Small,
    /// It has the width of the page, and scrolls if that is narrow.
    Wide,
}

impl Size {
    pub(super) fn width(self) -> f64 {
        match self {
            Size::Small => 400.0,
            Size::Wide => 900.0,
        }
    }

    /// Left of the horizontal axis; the same in all wide drawings, so that they align.
    pub(super) fn left(self) -> f64 {
        match self {
            Size::Small => 54.0,
            Size::Wide => 92.0,
        }
    }

    /// Where the axis across ends.
    pub(super) fn right(self) -> f64 {
        self.width() - 24.0
    }

    /// Between the ends of the horizontal axis and its labels.
    fn margin(self) -> f64 {
        match self {
            Size::Small => 10.0,
            Size::Wide => 0.0,
        }
    }

    pub(super) fn class(self) -> &'static str {
        match self {
            Size::Small => "small",
            Size::Wide => "wide",
        }
    }
}

/// Curves over an axis.
#[derive(Debug, Clone)]
pub struct Plot<'a> {
    /// The title.
    pub title: &'a str,
    /// A description for screen readers.
    pub description: String,
    /// Across.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// Drawn in this order.
    pub curves: Vec<Curve<'a>>,
    /// At the upper edge, with a line to the ground.
    pub marks: Vec<Mark>,
    /// How wide it is.
    pub size: Size,
}

impl Plot<'_> {
    /// As an element of a page.
    #[must_use]
    pub fn svg(&self) -> String {
        let width = self.size.width();
        let mut svg = format!(
            "<svg class=\"{}\" viewBox=\"0 0 {width} {HEIGHT}\" role=\"img\">\n<title>{}</title>\n<desc>{}</desc>\n",
            self.size.class(),
            escaped(self.title),
            escaped(&self.description),
        );
        self.draw(&mut svg);
        svg + "</svg>"
    }

    /// The plot as an image of its own: with its style, a ground, and the names of its curves, each
    /// with its colour and line style, below.
    #[must_use]
    pub fn image(&self, names: &[(&str, &str, &str)]) -> String {
        const ROW: f64 = 18.0;
        const COLUMN: f64 = 150.0;
        let (width, left) = (self.size.width(), self.size.left());
        let columns = ((width - left) / COLUMN).floor();
        let mut legend = String::new();
        let (mut x, mut y) = (left, HEIGHT + 14.0);
        for (colour, line, name) in names {
            if x + COLUMN > left + columns * COLUMN {
                (x, y) = (left, y + ROW);
            }
            let (line_y, text_x) = (y - 4.0, x + 32.0);
            put!(
                &mut legend,
                "<path class=\"curve {line}\" style=\"stroke:var({colour})\" d=\"M{x:.1} {line_y:.1}h26\"/>\n\
                     <text x=\"{text_x:.1}\" y=\"{y:.1}\">{}</text>\n",
                escaped(name)
            );
            x += COLUMN;
        }
        let height = y + 10.0;
        let head = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\">\n<style>\n{STYLE}</style>\n\
             <rect width=\"{width}\" height=\"{height}\" style=\"fill:var(--panel)\"/>\n"
        );
        let plot = self
            .svg()
            .replacen("<svg", &format!("<svg height=\"{HEIGHT}\""), 1);
        head + &plot + &legend + "</svg>\n"
    }

    fn draw(&self, svg: &mut String) {
        let (floor, left, right) = (HEIGHT - BOTTOM, self.size.left(), self.size.right());
        for (value, name) in self.y.ticks() {
            let y = self.place_y(*value);
            put!(
                svg,
                "<path class=\"grid\" d=\"M{left} {y:.1}H{right:.1}\"/>\n\
                     <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                left - 6.0,
                y + 4.0,
                escaped(name)
            );
        }
        for (value, name) in self.x.ticks() {
            let x = self.place_x(*value);
            put!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {floor:.1}v4\"/>\n\
                     <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                floor + 16.0,
                escaped(name)
            );
        }
        put!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n<text x=\"2\" y=\"11\">{}</text>\n",
            f64::midpoint(left, right),
            HEIGHT - 6.0,
            escaped(self.x.title()),
            escaped(self.y.title())
        );
        for curve in &self.curves {
            self.draw_curve(svg, curve);
        }
        for mark in &self.marks {
            let x = self.place_x(mark.at);
            put!(
                svg,
                "<g><title>{}</title><path class=\"event\" d=\"M{x:.1} {TOP}V{floor:.1}\"/>{}</g>\n",
                escaped(&mark.title),
                mark.sign.svg(x, TOP - 6.0)
            );
        }
    }

    fn draw_curve(&self, svg: &mut String, curve: &Curve<'_>) {
        let Curve {
            title,
            colour,
            style,
            form,
            points,
        } = curve;
        let mut points: Vec<(f64, f64)> = points.clone();
        points.retain(|(x, y)| self.x.has(*x) && self.y.has(*y));
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let places: Vec<(f64, f64)> = points
            .iter()
            .map(|(x, y)| (self.place_x(*x), self.place_y(*y)))
            .collect();
        put!(
            svg,
            "<g style=\"stroke:var({colour});fill:var({colour})\">\n"
        );
        let mut path = String::new();
        for (index, (x, y)) in places.iter().enumerate() {
            match (index, form) {
                (0, _) => put!(&mut path, "M{x:.1} {y:.1}"),
                (_, Form::Columns) => put!(&mut path, "H{x:.1}V{y:.1}"),
                _ => put!(&mut path, "L{x:.1} {y:.1}"),
            }
        }
        if let (Form::Columns, Some((first, _))) = (form, places.first()) {
            let floor = HEIGHT - BOTTOM;
            put!(
                svg,
                "<path class=\"area\" d=\"{path}V{floor:.1}H{first:.1}z\"/>\n"
            );
        }
        put!(svg, "<path class=\"curve {style}\" d=\"{path}\"/>\n");
        if *form == Form::Dotted {
            for ((x, y), (_, value)) in places.iter().zip(&points) {
                put!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" stroke=\"none\"><title>{}: {}</title></circle>\n",
                    escaped(title),
                    self.y.unit.text(*value)
                );
            }
        }
        svg.push_str("</g>\n");
    }

    fn place_x(&self, value: f64) -> f64 {
        let (left, right) = (self.size.left(), self.size.right());
        let margin = self.size.margin();
        left + margin + self.x.place(value) * (right - left - 2.0 * margin)
    }

    fn place_y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - BOTTOM - TOP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-9
    }

    #[test]
    fn a_logarithmic_axis_ends_at_the_powers_of_ten_around_its_values() {
        let axis = |values: &[f64]| Axis::powers_of_ten("", Unit::Count, values.iter().copied());
        let wide = axis(&[230.0, 48_000.0]);
        assert!(near(wide.place(100.0), 0.0) && near(wide.place(100_000.0), 1.0));
        assert_eq!(wide.ticks().len(), 4);
        let one = axis(&[10.0]);
        assert!(near(one.place(10.0), 0.0) && near(one.place(100.0), 1.0));
        let ticks: Vec<&str> = one.ticks().iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(ticks, ["10", "20", "50", "100"]);
        // Zero has no place on it.
        assert_eq!(axis(&[0.0]), axis(&[]));
    }

    #[test]
    fn a_linear_axis_has_round_numbers_and_room_for_all() {
        let axis = Axis::from_zero("", Unit::Count, [3.0, 37.0].into_iter());
        let ticks: Vec<&str> = axis.ticks().iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(ticks, ["0", "5", "10", "15", "20", "25", "30", "35", "40"]);
        assert!(near(axis.place(40.0), 1.0));
        let nothing = Axis::from_zero("", Unit::Count, std::iter::empty());
        assert!(near(nothing.place(0.0), 0.0) && nothing.ticks().len() > 2);
        let part = Axis::between("", Unit::Microseconds, 1_234.0, 5_678.0);
        let ticks: Vec<&str> = part.ticks().iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(ticks, ["2 ms", "3 ms", "4 ms", "5 ms"]);
        for length in [0.001, 1.0, 7.0, 99.0, 12_345.0] {
            let number = length / round_step(length);
            assert!((3.0..=10.0).contains(&number), "{length}: {number}");
        }
    }

    #[test]
    fn values_are_short() {
        for (unit, value, text) in [
            (Unit::Count, 0.1, "0.1"),
            (Unit::Count, 100_000.0, "100 k"),
            (Unit::Count, 1_000_000.0, "1 M"),
            (Unit::Count, 0.0, "0"),
            (Unit::Microseconds, 1.0, "1 µs"),
            (Unit::Microseconds, 1_500.0, "1.5 ms"),
            (Unit::Microseconds, 999.9, "1 ms"),
            (Unit::Microseconds, 1e7, "10 s"),
            (Unit::Bytes, 1_500.0, "1.5 kB"),
            (Unit::Count, 123.456, "123"),
        ] {
            assert_eq!(unit.text(value), text);
        }
    }

    #[test]
    fn points_stay_inside() {
        for size in [Size::Small, Size::Wide] {
            let points = vec![(1.0, 5.0), (100.0, 5_000.0), (50.0, 0.0)];
            let plot = Plot {
                title: "t",
                description: String::new(),
                x: Axis::of_ticks("x", true, vec![(1.0, "1".into())], [100.0].into_iter()),
                y: Axis::powers_of_ten("y", Unit::Count, points.iter().map(|(_, y)| *y)),
                curves: vec![Curve {
                    title: "t",
                    colour: "--held",
                    style: "",
                    form: Form::Dotted,
                    points: points.clone(),
                }],
                marks: Vec::new(),
                size,
            };
            for (x, y) in points.iter().take(2) {
                assert!((size.left()..=size.right()).contains(&plot.place_x(*x)));
                assert!((TOP..=HEIGHT - BOTTOM).contains(&plot.place_y(*y)));
            }
            let svg = plot.svg();
            assert_eq!(svg.matches("<circle").count(), 2, "zero has no logarithm");
            assert!(!svg.contains("inf") && !svg.contains("NaN"), "{svg}");
        }
    }
}
