//! Plots of a run: bars with their spreads, and distributions as curves.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::peer::Peer;
use crate::stats::Spread;

/// Where plots are drawn.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What may go wrong while drawing.
pub(crate) type Drawn = Result<(), Box<dyn std::error::Error>>;

/// One plot.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    /// What it shows.
    pub(crate) title: String,
    /// The unit of its values, and which way they are good.
    pub(crate) unit: String,
    /// What is drawn.
    pub(crate) shape: Shape,
}

/// What a plot draws.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// Groups of bars, a bar for each peer.
    Bars {
        /// Names of the groups.
        groups: Vec<String>,
        /// A spread for each group, where the peer has one.
        series: Vec<(Peer, Vec<Option<Spread>>)>,
    },
    /// Distributions: a curve for each peer, and a band for its spread.
    Curves {
        /// Percentages with the spread of their values.
        series: Vec<(Peer, Vec<(f64, Spread)>)>,
    },
}

impl Plot {
    /// Whether there is nothing to draw.
    pub(crate) fn is_empty(&self) -> bool {
        self.peers().is_empty()
    }

    /// Whom it shows.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        match &self.shape {
            Shape::Bars { series, .. } => series.iter().map(|(peer, _)| *peer).collect(),
            Shape::Curves { series } => series.iter().map(|(peer, _)| *peer).collect(),
        }
    }

    /// Draws it, with its title and without a legend.
    pub(crate) fn draw(&self, area: &Area<'_>) -> Drawn {
        let (head, body) = area.split_vertically(HEAD);
        head.draw(&Text::new(self.title.clone(), (LEFT, 8), text(17, &INK)))?;
        head.draw(&Text::new(self.unit.clone(), (LEFT, 30), text(13, &PALE)))?;
        match &self.shape {
            Shape::Bars { groups, series } => bars(&body, groups, series),
            Shape::Curves { series } => curves(&body, series),
        }
    }
}

/// Draws a square and a name for each of `peers`, in one row.
pub(crate) fn legend(area: &Area<'_>, peers: &[Peer]) -> Drawn {
    let mut x = LEFT;
    for peer in peers {
        area.draw(&Rectangle::new([(x, 6), (x + 13, 19)], color_of(*peer).filled()))?;
        let named = text(14, &INK).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(peer.name(), (x + 19, 13), named))?;
        // No font is measured: these are wide enough for any sans-serif of this size.
        x += 19 + 7 * i32::try_from(peer.name().len()).unwrap_or(0) + 14;
    }
    Ok(())
}

fn bars(area: &Area<'_>, groups: &[String], series: &[(Peer, Vec<Option<Spread>>)]) -> Drawn {
    let spreads = || series.iter().flat_map(|(_, spreads)| spreads.iter().flatten());
    let top = spreads().map(|spread| spread.max).fold(0.0, f64::max).max(1e-9);
    let bottom = spreads().map(|spread| spread.min).fold(0.0, f64::min);
    let width = groups.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .margin_right(RIGHT)
        .margin_top(14)
        .x_label_area_size(30)
        .y_label_area_size(AXIS)
        .build_cartesian_2d(0.0..width, bottom * 1.1..top * 1.08)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(6)
        .y_label_formatter(&|value| shown(*value))
        .y_label_style(text(12, &PALE))
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(TRANSPARENT)
        .draw()?;
    let step = GROUP / series.len().max(1) as f64;
    for (number, (peer, spreads)) in series.iter().enumerate() {
        for (group, spread) in spreads.iter().enumerate() {
            let Some(spread) = spread else { continue };
            let left = group as f64 + (1.0 - GROUP) / 2.0 + step * (number as f64 + (1.0 - BAR) / 2.0);
            let (right, middle) = (left + step * BAR, left + step * BAR / 2.0);
            let bar = Rectangle::new([(left, 0.0), (right, spread.median)], color_of(*peer).filled());
            let whisker = PathElement::new(vec![(middle, spread.min), (middle, spread.max)], INK.stroke_width(1));
            chart.draw_series([bar])?;
            chart.draw_series([whisker])?;
            let ends = [spread.min, spread.max].map(|end| {
                let half = step * BAR / 5.0;
                PathElement::new(vec![(middle - half, end), (middle + half, end)], INK.stroke_width(1))
            });
            chart.draw_series(ends)?;
            // At the foot of its bar, where a whisker seldom comes, or above where there is no room.
            let inside = spread.median > top * ROOMY;
            let (at, offset) = if inside { ((middle, 0.0), -4) } else { ((middle, spread.max), -3) };
            let ink = if inside { ink_on(*peer) } else { &INK };
            let label = text(11, ink).pos(Pos::new(HPos::Center, VPos::Bottom));
            chart.draw_series([EmptyElement::at(at) + Text::new(shown(spread.median), (0, offset), label)])?;
        }
    }
    let floor = PathElement::new(vec![(0.0, 0.0), (width, 0.0)], INK.stroke_width(1));
    chart.draw_series([floor])?;
    for (group, name) in groups.iter().enumerate() {
        let label = text(13, &INK).pos(Pos::new(HPos::Center, VPos::Top));
        let below = EmptyElement::at((group as f64 + 0.5, bottom * 1.1)) + Text::new(name.clone(), (0, 9), label);
        chart.draw_series([below])?;
    }
    Ok(())
}

fn curves(area: &Area<'_>, series: &[(Peer, Vec<(f64, Spread)>)]) -> Drawn {
    let points = || series.iter().flat_map(|(_, points)| points);
    let low = points().map(|(_, spread)| spread.min).fold(f64::INFINITY, f64::min).max(1.0);
    let high = points().map(|(_, spread)| spread.max).fold(low * 2.0, f64::max);
    let range: Range<f64> = low.log10() - 0.05..high.log10() + 0.1;
    let last = points().map(|(percent, _)| nines(*percent)).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin_right(RIGHT)
        .margin_top(14)
        .x_label_area_size(30)
        .y_label_area_size(AXIS)
        .build_cartesian_2d(0.0..last, range.clone())?;
    for (value, y) in ROUND_TIMES.map(|value| (value, value.log10())).into_iter().filter(|(_, y)| range.contains(y)) {
        chart.draw_series([PathElement::new(vec![(0.0, y), (last, y)], GRID.stroke_width(1))])?;
        let label = text(12, &PALE).pos(Pos::new(HPos::Right, VPos::Center));
        chart.draw_series([EmptyElement::at((0.0, y)) + Text::new(shown(value), (-8, 0), label)])?;
    }
    for percent in [50.0, 90.0, 99.0, 99.9] {
        let x = nines(percent);
        chart.draw_series([PathElement::new(vec![(x, range.start), (x, range.end)], GRID.stroke_width(1))])?;
        let label = text(13, &INK).pos(Pos::new(HPos::Center, VPos::Top));
        let name = format!("{percent} %");
        chart.draw_series([EmptyElement::at((x, range.start)) + Text::new(name, (0, 9), label)])?;
    }
    for (peer, points) in series {
        let at = |value: f64, percent: f64| (nines(percent), value.max(1.0).log10());
        let there = points.iter().map(|(percent, spread)| at(spread.max, *percent));
        let back = points.iter().rev().map(|(percent, spread)| at(spread.min, *percent));
        let band = Polygon::new(there.chain(back).collect::<Vec<_>>(), color_of(*peer).mix(0.13).filled());
        chart.draw_series([band])?;
        let line: Vec<_> = points.iter().map(|(percent, spread)| at(spread.median, *percent)).collect();
        chart.draw_series([PathElement::new(line, color_of(*peer).stroke_width(2))])?;
    }
    Ok(())
}

/// How many nines a percentage has: 90 % one, 99 % two.
fn nines(percent: f64) -> f64 {
    -(1.0 - percent / 100.0).log10()
}

/// A value with as many digits as one can use, and as fit on a bar.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 10_000.0 => format!("{:.0}k", value / 1e3),
        size if size >= 9.95 || size == 0.0 => format!("{value:.0}"),
        size if size >= 0.995 => trimmed(format!("{value:.1}")),
        _ => trimmed(format!("{value:.2}")),
    }
}

fn trimmed(number: String) -> String {
    number.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn text<'a>(size: u32, color: &'a RGBColor) -> TextStyle<'a> {
    TextStyle::from(("sans-serif", size).into_font()).color(color)
}

/// Distinct to eyes that do not tell red from green, too: they differ in brightness.
pub(crate) fn color_of(peer: Peer) -> RGBColor {
    match peer {
        Peer::Wire => RGBColor(0xbf, 0xc3, 0xc9),
        Peer::Kernel => RGBColor(0x3d, 0x6f, 0xa5),
        Peer::OvsSystem => RGBColor(0xf6, 0xc8, 0x5f),
        Peer::OvsAfxdp => RGBColor(0xe3, 0x8b, 0x2c),
        Peer::OvsPmd => RGBColor(0x9c, 0x5a, 0x1c),
        Peer::Null => RGBColor(0x8c, 0xbf, 0xb3),
        Peer::Vxlane => RGBColor(0xb8, 0x1d, 0x48),
        Peer::VxlaneExpress => RGBColor(0x7a, 0x4b, 0xbf),
    }
}

/// What can be read on a peer's colour.
fn ink_on(peer: Peer) -> &'static RGBColor {
    match peer {
        Peer::Kernel | Peer::OvsPmd | Peer::Vxlane | Peer::VxlaneExpress => &WHITE,
        Peer::Wire | Peer::OvsSystem | Peer::OvsAfxdp | Peer::Null => &INK_ON_BAR,
    }
}

/// Text and marks.
pub(crate) const INK: RGBColor = RGBColor(0x22, 0x26, 0x2b);

/// Text on a bar. A page that is shown dark turns [`INK`] light, and leaves this as it is.
const INK_ON_BAR: RGBColor = RGBColor(0x1b, 0x1e, 0x22);

/// What is not to be looked at first.
pub(crate) const PALE: RGBColor = RGBColor(0x68, 0x6e, 0x76);

const GRID: RGBColor = RGBColor(0xe4, 0xe6, 0xe9);

/// Height of title and unit, in pixels.
const HEAD: i32 = 46;

/// Where titles begin, in pixels from the left.
pub(crate) const LEFT: i32 = 14;

/// Room at the right, in pixels.
const RIGHT: i32 = 18;

/// Room for the numbers at the left, in pixels.
const AXIS: i32 = 52;

/// Share of a group's room that its bars take.
const GROUP: f64 = 0.88;

/// Share of a bar's room that it takes.
const BAR: f64 = 0.86;

/// Share of the plot's height that a bar must have to hold its number.
const ROOMY: f64 = 0.09;

/// Times that a logarithmic axis names, in microseconds.
const ROUND_TIMES: [f64; 12] =
    [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0, 50_000.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_two_digits_unless_it_is_large() {
        let cases = [(0.0, "0"), (0.104, "0.1"), (5.04, "5"), (9.86, "9.9"), (12.34, "12"), (9_999.0, "9999")];
        for (value, text) in cases {
            assert_eq!(shown(value), text, "{value}");
        }
        assert_eq!(shown(20_000.0), "20k");
    }

    #[test]
    fn each_nine_is_one_step_to_the_right() {
        assert!((nines(90.0) - 1.0).abs() < 1e-9 && (nines(99.9) - 3.0).abs() < 1e-9);
    }
}
