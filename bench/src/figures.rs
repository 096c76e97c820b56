//! Which plots a run gives, and the picture that has the most telling four.

use plotters::prelude::*;
use vxlane_tests::LabError;

use crate::load::SMALLEST;
use crate::measure::{self, FLOWS, LARGEST, cell};
use crate::plot::{Drawn, INK, LEFT, PALE, Plot, Shape, legend};
use crate::results::{Metric, Results, Row, Section};
use crate::stats::Spread;

/// Every plot of a run, those without anything to show left out.
pub(crate) fn plots(results: &Results) -> Vec<Plot> {
    let mut plots = vec![
        by_size(results, FLOWS[0], "1 flow"),
        by_size(results, FLOWS[2], "1000 flows"),
        by_flows(results, SMALLEST, "64 B"),
        by_flows(results, LARGEST, "1450 B IP"),
        costs(results, Metric::CpuGross, "generator and sink included"),
        costs(results, Metric::CpuNet, "generator and sink taken off"),
    ];
    let mut cases: Vec<String> = Vec::new();
    for latency in &results.latencies {
        if !cases.contains(&latency.case) {
            cases.push(latency.case.clone());
        }
    }
    plots.extend(cases.iter().map(|case| distribution(results, case)));
    plots.push(named(results, Section::Tcp, Metric::Throughput, ("TCP, container to container", "Gbit/s", 1.0)));
    let half = ("Half path: one VTEP, one direction, under flood", "thousand packets per second", 1e3);
    plots.push(named(results, Section::Half, Metric::Flood, half));
    let cost = ("Half path: processor time per packet", "µs per packet, less is better", 1.0);
    plots.push(named(results, Section::Half, Metric::CpuGross, cost));
    plots.retain(|plot| !plot.is_empty());
    plots
}

/// The picture: four plots, one legend, and the machine's name.
///
/// # Errors
/// [`LabError::Unfit`] when it cannot be drawn.
pub fn picture(results: &Results) -> Result<String, LabError> {
    let four = [
        by_size(results, FLOWS[0], "1 flow"),
        by_flows(results, SMALLEST, "64 B"),
        costs(results, Metric::CpuGross, "generator and sink included"),
        distribution(results, measure::ALONE),
    ];
    svg(PICTURE, |area| {
        let (head, body) = area.split_vertically(PICTURE_HEAD);
        let title = ("sans-serif", 22).into_font().color(&INK);
        head.draw(&Text::new("From container to container over two VTEPs on one machine", (LEFT, 14), title))?;
        let small = ("sans-serif", 13).into_font().color(&PALE);
        head.draw(&Text::new(machine(results), (LEFT, 44), small))?;
        let (_, row) = head.split_vertically(70);
        let peers = results.peers();
        legend(
            &row,
            &peers.into_iter().filter(|peer| four.iter().any(|plot| plot.peers().contains(peer))).collect::<Vec<_>>(),
        )?;
        let areas = body.split_evenly((2, 2));
        four.iter().zip(&areas).filter(|(plot, _)| !plot.is_empty()).try_for_each(|(plot, area)| plot.draw(area))
    })
}

/// One plot with a legend of its own.
///
/// # Errors
/// [`LabError::Unfit`] when it cannot be drawn.
pub(crate) fn single(plot: &Plot) -> Result<String, LabError> {
    svg(SINGLE, |area| {
        let (body, foot) = area.split_vertically(SINGLE.1.cast_signed() - 32);
        plot.draw(&body)?;
        legend(&foot, &plot.peers())
    })
}

fn svg(
    size: (u32, u32),
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Drawn,
) -> Result<String, LabError> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
    let drawn = area
        .fill(&WHITE)
        .map_err(Into::into)
        .and_then(|()| draw(&area))
        .and_then(|()| area.present().map_err(Into::into));
    drop(area);
    drawn.map_err(|error| LabError::Unfit { what: "a plot that can be drawn", text: error.to_string() })?;
    Ok(text)
}

/// The machine and how the figures were made, in one line.
fn machine(results: &Results) -> String {
    let about = &results.about;
    format!(
        "{}, {}; {} rounds in turns: bars and lines are medians, whiskers and bands the whole range",
        about.machine_line(),
        about.date.split('T').next().unwrap_or_default(),
        about.rounds,
    )
}

fn by_size(results: &Results, flows: u32, name: &str) -> Plot {
    let sizes = [(SMALLEST, "64 B"), (512, "512 B"), (LARGEST, "1450 B IP")];
    let groups = sizes.map(|(size, name)| (name.to_owned(), rate(size, flows)));
    bars(results, groups.to_vec(), (&format!("Rate by frame size, {name}"), RATE_UNIT, 1e3))
}

fn by_flows(results: &Results, size: usize, name: &str) -> Plot {
    let groups = FLOWS.map(|flows| {
        let flows_named = if flows == 1 { "1 flow".to_owned() } else { format!("{flows} flows") };
        (flows_named, rate(size, flows))
    });
    bars(results, groups.to_vec(), (&format!("Rate by number of flows, {name}"), RATE_UNIT, 1e3))
}

fn rate(size: usize, flows: u32) -> Row {
    Row { section: Section::Pps, case: cell(size, flows), metric: Metric::Lossless }
}

fn costs(results: &Results, metric: Metric, what: &str) -> Plot {
    let rows = results.rows(Section::Cpu).into_iter().filter(|row| row.metric == metric);
    let groups = rows.map(|row| (row.case.replace("its lossless rate", "its rate"), row)).collect();
    let unit = format!("µs of processor per delivered packet, {what}; less is better");
    bars(results, groups, ("Cost per packet, 64 B, 1 flow", &unit, 1.0))
}

fn named(results: &Results, section: Section, metric: Metric, labels: (&str, &str, f64)) -> Plot {
    let rows = results.rows(section).into_iter().filter(|row| row.metric == metric);
    bars(results, rows.map(|row| (row.case.clone(), row)).collect(), labels)
}

/// A plot of groups with a row each, under a title, in a unit, its values divided by a scale.
fn bars(results: &Results, groups: Vec<(String, Row)>, (title, unit, scale): (&str, &str, f64)) -> Plot {
    let groups: Vec<_> = groups
        .into_iter()
        .filter(|(_, row)| results.peers().into_iter().any(|peer| results.spread(row, peer).is_some()))
        .collect();
    let series = results.peers().into_iter().map(|peer| {
        let spread = |(_, row): &(String, Row)| results.spread(row, peer).map(|spread| scaled(spread, scale));
        (peer, groups.iter().map(spread).collect::<Vec<_>>())
    });
    let series = series.filter(|(_, spreads)| spreads.iter().any(Option::is_some)).collect();
    let groups = groups.into_iter().map(|(name, _)| name).collect();
    Plot { title: title.to_owned(), unit: unit.to_owned(), shape: Shape::Bars { groups, series } }
}

fn scaled(spread: Spread, scale: f64) -> Spread {
    let Spread { median, min, max, count } = spread;
    Spread { median: median / scale, min: min / scale, max: max / scale, count }
}

/// How long answers took in one case: every round's percentiles, spread by spread.
fn distribution(results: &Results, case: &str) -> Plot {
    let series = results.peers().into_iter().map(|peer| {
        let rounds: Vec<_> =
            results.latencies.iter().filter(|latency| latency.peer == peer && latency.case == case).collect();
        let percents =
            rounds.first().map(|first| first.curve.iter().map(|(percent, _)| *percent)).into_iter().flatten();
        let spread = |percent: f64| {
            let at = |curve: &[(f64, f64)]| curve.iter().find(|(other, _)| *other == percent).map(|(_, time)| *time);
            let times: Vec<f64> = rounds.iter().filter_map(|latency| at(&latency.curve)).collect();
            Spread::of(&times).map(|spread| (percent, spread))
        };
        (peer, percents.filter_map(spread).collect::<Vec<_>>())
    });
    let series = series.filter(|(_, points)| !points.is_empty()).collect();
    let beside = if case == measure::ALONE { "on an idle path".to_owned() } else { format!("{case} of other traffic") };
    Plot {
        title: format!("Request and response, {beside}"),
        unit: "µs (logarithmic) within which so many of the answers came; less is better".to_owned(),
        shape: Shape::Curves { series },
    }
}

const RATE_UNIT: &str = "thousand packets per second delivered with loss under 0.5 %; more is better";

/// Width and height of the picture, in pixels.
const PICTURE: (u32, u32) = (1280, 900);

const PICTURE_HEAD: i32 = 104;

/// Width and height of a plot on a page, in pixels.
const SINGLE: (u32, u32) = (640, 400);
