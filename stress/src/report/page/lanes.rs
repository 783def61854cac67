//! Timelines, one below the other, as SVG that follows the style sheet.

use crate::report::page::escaped;
use crate::report::page::plot::{Axis, Mark, Size};

const TOP: f64 = 8.0;
const BOTTOM: f64 = 38.0;
const LANE: f64 = 22.0;
/// The least width that is seen.
const THIN: f64 = 0.8;
/// Spans that are nearer to each other than this look like one.
const GAP: f64 = 0.25;

/// How a kind of span is drawn: each has its own height, so that the colour does not decide.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// The meaning.
    pub name: &'static str,
    /// A class of the style sheet.
    pub class: &'static str,
    /// The upper edge within the lane, in parts of it.
    pub top: f64,
    /// The height, in parts of the lane.
    pub height: f64,
}

impl Look {
    /// How it looks, for a legend.
    #[must_use]
    pub fn sample(&self) -> String {
        format!(
            "<rect class=\"{}\" x=\"1\" y=\"{:.1}\" width=\"26\" height=\"{:.1}\"/>",
            self.class,
            10.0 * self.top,
            10.0 * self.height
        )
    }
}

/// One timeline.
#[derive(Debug, Clone, Default)]
pub struct Lane {
    /// The name.
    pub name: String,
    /// Spans of time: the index in [`Lanes::looks`], from, to.
    pub spans: Vec<(usize, f64, f64)>,
    /// Events.
    pub marks: Vec<Mark>,
}

/// Timelines, one below the other.
#[derive(Debug, Clone)]
pub struct Lanes<'a> {
    /// The title.
    pub title: &'a str,
    /// A description for screen readers.
    pub description: String,
    /// The time.
    pub x: Axis,
    /// The kinds of spans; later ones are drawn over earlier ones.
    pub looks: &'a [Look],
    /// From above.
    pub lanes: Vec<Lane>,
}

impl Lanes<'_> {
    /// As an element of a page.
    #[must_use]
    pub fn svg(&self) -> String {
        let width = Size::Wide.width();
        let lanes = self.lanes.iter().map(|_| LANE).sum::<f64>();
        let height = TOP + lanes + BOTTOM;
        let mut svg = format!(
            "<svg class=\"{}\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{}</title>\n<desc>{}</desc>\n",
            Size::Wide.class(),
            escaped(self.title),
            escaped(&self.description),
        );
        let floor = TOP + lanes;
        for (value, name) in self.x.ticks() {
            let x = place(&self.x, *value);
            put!(
                &mut svg,
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{:.1}\"/>\n\
                     <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                floor + 4.0,
                floor + 16.0,
                escaped(name)
            );
        }
        put!(
            &mut svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            f64::midpoint(Size::Wide.left(), Size::Wide.right()),
            height - 6.0,
            escaped(self.x.title())
        );
        let mut top = TOP;
        for lane in &self.lanes {
            self.draw(&mut svg, lane, top);
            top += LANE;
        }
        svg + "</svg>"
    }

    fn draw(&self, svg: &mut String, lane: &Lane, top: f64) {
        let (left, middle) = (Size::Wide.left(), top + LANE / 2.0);
        put!(
            svg,
            "<g><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
                 <path class=\"grid\" d=\"M{left} {:.1}H{:.1}\"/>\n",
            left - 8.0,
            middle + 4.0,
            escaped(&lane.name),
            top + LANE,
            Size::Wide.right()
        );
        for (index, look) in self.looks.iter().enumerate() {
            let spans = lane.spans.iter().filter(|(kind, ..)| *kind == index);
            let spans = spans.map(|(_, from, to)| (place(&self.x, *from), place(&self.x, *to)));
            let spans = joined(spans.collect());
            if spans.is_empty() {
                continue;
            }
            let inner = LANE - 4.0;
            let (y, height) = (top + 2.0 + inner * look.top, inner * look.height);
            put!(svg, "<path class=\"{}\" d=\"", look.class);
            for (from, to) in spans {
                let width = (to - from).max(THIN);
                put!(svg, "M{from:.1} {y:.1}h{width:.1}v{height:.1}h-{width:.1}z");
            }
            svg.push_str("\"/>\n");
        }
        for mark in &lane.marks {
            let x = place(&self.x, mark.at);
            put!(
                svg,
                "<g><title>{}</title>{}</g>\n",
                escaped(&mark.title),
                mark.sign.svg(x, middle)
            );
        }
        svg.push_str("</g>\n");
    }
}

fn place(x: &Axis, value: f64) -> f64 {
    let (left, right) = (Size::Wide.left(), Size::Wide.right());
    left + x.place(value).clamp(0.0, 1.0) * (right - left)
}

/// The spans in order, those that look like one merged.
fn joined(mut spans: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut joined: Vec<(f64, f64)> = Vec::new();
    for (from, to) in spans {
        match joined.last_mut() {
            Some((_, end)) if from - *end < GAP => *end = end.max(to),
            _ => joined.push((from, to)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::page::plot::Unit;

    #[test]
    fn what_cannot_be_told_apart_is_one() {
        let spans = vec![(5.0, 6.0), (1.0, 2.0), (2.1, 2.2), (4.0, 9.0)];
        assert_eq!(joined(spans), [(1.0, 2.2), (4.0, 9.0)]);
    }

    #[test]
    fn a_lane_has_a_path_for_each_kind_that_it_has() {
        let look = |class, top| Look {
            name: "n",
            class,
            top,
            height: 0.5,
        };
        let lanes = Lanes {
            title: "t<",
            description: String::new(),
            x: Axis::between("", Unit::Microseconds, 0.0, 100.0),
            looks: &[look("held", 0.0), look("led", 0.5)],
            lanes: vec![
                Lane {
                    name: "agent <0>".to_owned(),
                    spans: vec![(0, 0.0, 10.0), (0, 50.0, 300.0)],
                    marks: Vec::new(),
                },
                Lane::default(),
            ],
        };
        let svg = lanes.svg();
        assert_eq!(
            (
                svg.matches("\"held\"").count(),
                svg.matches("\"led\"").count()
            ),
            (1, 0)
        );
        assert!(svg.contains("agent &lt;0&gt;") && svg.contains("<title>t&lt;</title>"));
    }
}
