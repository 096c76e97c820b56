//! The report as one HTML file that needs nothing else: plots as inline SVG, tables as text.

use std::fs;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use vxlane_tests::LabError;

use crate::load::SMALLEST;
use crate::measure::{FLOWS, LARGEST, cell};
use crate::peer::Peer;
use crate::results::{Metric, Results, Row, Section};
use crate::stats::Spread;
use crate::table;

/// Writes the report of `results` to `path`.
///
/// # Errors
/// [`LabError`] when a plot cannot be drawn or the file not be written.
pub fn write(results: &Results, path: &Path) -> Result<(), LabError> {
    let mut body = String::new();
    for plot in plots(results).iter().filter(|plot| !plot.is_empty()) {
        body += &plot.svg(results)?;
    }
    let about = &results.about;
    let title = format!("vxlane-bench on {}, Linux {}, {}", about.machine.cpu, about.machine.kernel, about.date);
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n\
         <p>Bars are medians, whiskers the whole range of {} rounds. Load average {:.1} to {:.1}. \
         Command: <code>{}</code></p>\n<div>{body}</div>\n<pre>{}</pre></body></html>\n",
        about.rounds,
        about.load_average.0,
        about.load_average.1,
        escaped(&about.command),
        escaped(&table::report(results)),
        title = escaped(&title),
    );
    fs::write(path, page).map_err(LabError::syscall("write", path.display().to_string()))
}

/// One plot: groups of bars, a bar for each peer.
struct Plot {
    title: String,
    unit: String,
    /// Whether each step up is a factor, not a sum.
    logarithmic: bool,
    /// Name and line of each group.
    groups: Vec<(String, Row)>,
    /// Divides the values.
    scale: f64,
    bars: Vec<(Peer, Vec<Option<Spread>>)>,
}

fn plots(results: &Results) -> Vec<Plot> {
    let row = |section, case: String, metric| Row { section, case, metric };
    let rate = |size, flows| row(Section::Pps, cell(size, flows), Metric::Lossless);
    let named = |row: Row| (format!("{} {}", row.case, row.metric.label()), row);
    let costs = results.rows(Section::Cpu).into_iter();
    let costs = costs.filter(|row| matches!(row.metric, Metric::CpuGross | Metric::CpuNet));
    let times = results.rows(Section::Rr).into_iter().filter(|row| row.metric != Metric::Loss);
    let halves = results.rows(Section::Half).into_iter().filter(|row| row.metric == Metric::Flood);
    let streams = results.rows(Section::Tcp).into_iter();
    let by_size = [(SMALLEST, "64 B"), (512, "512 B"), (LARGEST, "1450 B IP")];
    let by_size = by_size.map(|(size, name)| (name.to_owned(), rate(size, 1))).to_vec();
    let by_flows = FLOWS.map(|flows| (format!("{flows} flows"), rate(SMALLEST, flows))).to_vec();
    let plot = |title: &str, unit: &str, scale, logarithmic, groups| {
        Plot::new(results, title, unit, scale, logarithmic, groups)
    };
    vec![
        plot("Rate with loss < 0.5 % by frame size, 1 flow", "kpps", 1e3, false, by_size),
        plot("Rate with loss < 0.5 % by flows, 64 B", "kpps", 1e3, false, by_flows),
        plot("Request and response", "µs", 1.0, true, times.map(named).collect()),
        plot("Processor time per delivered packet", "µs", 1.0, false, costs.map(named).collect()),
        plot("TCP", "Gbit/s", 1.0, false, streams.map(named).collect()),
        plot("Half path under flood", "kpps", 1e3, false, halves.map(named).collect()),
    ]
}

impl Plot {
    fn new(
        results: &Results,
        title: &str,
        unit: &str,
        scale: f64,
        logarithmic: bool,
        groups: Vec<(String, Row)>,
    ) -> Self {
        let bars = results.peers().into_iter().map(|peer| {
            let spreads: Vec<_> = groups.iter().map(|(_, row)| results.spread(row, peer)).collect();
            (peer, spreads)
        });
        let bars = bars.filter(|(_, spreads)| spreads.iter().any(Option::is_some)).collect();
        Self { title: title.to_owned(), unit: unit.to_owned(), logarithmic, groups, scale, bars }
    }

    fn is_empty(&self) -> bool {
        self.bars.is_empty()
    }

    fn svg(&self, results: &Results) -> Result<String, LabError> {
        let mut text = String::new();
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let drawn = self.draw(&area, results).and_then(|()| Ok(area.present()?));
        drop(area);
        drawn.map_err(|error| LabError::Unfit { what: "a plot that can be drawn", text: error.to_string() })?;
        Ok(text)
    }

    fn draw(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        results: &Results,
    ) -> Result<(), Box<dyn std::error::Error>> {
        area.fill(&WHITE)?;
        let heights = self.heights();
        let machine = &results.about.machine;
        let caption = format!("{} ({}, {} CPUs)", self.title, machine.cpu, machine.cpus);
        let groups = self.groups.len() as f64;
        let mut chart = ChartBuilder::on(area)
            .caption(caption, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..groups, heights.clone())?;
        let name = |at: &f64| self.name_at(*at);
        let height =
            |value: &f64| if self.logarithmic { format!("{:.0}", 10f64.powf(*value)) } else { format!("{value}") };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(self.groups.len() * 2 + 1)
            .x_label_formatter(&name)
            .y_label_formatter(&height)
            .y_desc(self.unit.as_str())
            .draw()?;
        let width = 0.84 / self.bars.len() as f64;
        for (number, (peer, spreads)) in self.bars.iter().enumerate() {
            let color = color_of(*peer);
            let marks = spreads.iter().enumerate().filter_map(|(group, spread)| {
                let left = group as f64 + 0.08 + width * number as f64;
                spread.map(|spread| (left, self.scaled(&spread)))
            });
            let marks: Vec<_> = marks.collect();
            let floor = heights.start.max(0.0).min(heights.end);
            let bar = |(left, [low, high, median]): &(f64, [f64; 3])| {
                let _ = (low, high);
                Rectangle::new([(*left, floor), (left + width * 0.92, *median)], color.filled())
            };
            chart
                .draw_series(marks.iter().map(bar))?
                .label(peer.name())
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()));
            let whisker = |(left, [low, high, _]): &(f64, [f64; 3])| {
                let x = left + width * 0.46;
                PathElement::new(vec![(x, *low), (x, *high)], BLACK.stroke_width(1))
            };
            chart.draw_series(marks.iter().map(whisker))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        Ok(())
    }

    /// The name of the group whose middle is at `at`.
    fn name_at(&self, at: f64) -> String {
        let named = self.groups.iter().enumerate().find(|(group, _)| (*group as f64 + 0.5 - at).abs() < 1e-6);
        named.map(|(_, (name, _))| name.clone()).unwrap_or_default()
    }

    /// Lowest, highest and median height on the axis.
    fn scaled(&self, spread: &Spread) -> [f64; 3] {
        [spread.min, spread.max, spread.median].map(|value| {
            let value = value / self.scale;
            if self.logarithmic { value.max(1.0).log10() } else { value }
        })
    }

    fn heights(&self) -> Range<f64> {
        let all = self.bars.iter().flat_map(|(_, spreads)| spreads.iter().flatten());
        let (low, high) = all.fold((0.0f64, 0.0f64), |(low, high), spread| {
            let [least, most, _] = self.scaled(spread);
            (low.min(least), high.max(most))
        });
        low * 1.05..(high * 1.15).max(1e-3)
    }
}

fn color_of(peer: Peer) -> RGBColor {
    match peer {
        Peer::Wire => RGBColor(0xbb, 0xbb, 0xbb),
        Peer::Kernel => RGBColor(0x33, 0x66, 0x99),
        Peer::OvsSystem => RGBColor(0xcc, 0xaa, 0x66),
        Peer::OvsAfxdp => RGBColor(0xdd, 0x88, 0x33),
        Peer::OvsPmd => RGBColor(0xaa, 0x55, 0x22),
        Peer::Null => RGBColor(0x77, 0x99, 0x77),
        Peer::Vxlane => RGBColor(0xc0, 0x28, 0x48),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Width and height of a plot, in pixels.
const SIZE: (u32, u32) = (900, 380);

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:1400px;margin:2em auto;padding:0 1em}\
h1{font-size:1.3em}pre{font-size:12px;line-height:1.35;overflow-x:auto}svg{max-width:100%;height:auto}";
