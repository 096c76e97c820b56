//! Metrics as Prometheus reads them: families of numbers, and their text.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

/// What is measured by one name.
#[derive(Clone, Debug)]
pub struct Family {
    /// Without the prefix that all have, and without the `_total` that counters get.
    pub name: &'static str,
    /// In words.
    pub help: &'static str,
    /// What kind of number.
    pub kind: Kind,
    /// The numbers.
    pub samples: Vec<Sample>,
}

/// A kind of number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It comes and goes.
    Gauge,
}

/// A number, and what it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Names and values, of which there is a bounded number.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: f64,
}

impl Family {
    /// A counter without any number yet.
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Counter, samples: Vec::new() }
    }

    /// A gauge without any number yet.
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Gauge, samples: Vec::new() }
    }

    /// Adds a number.
    #[must_use]
    pub fn with(mut self, labels: &[(&'static str, &dyn fmt::Display)], value: f64) -> Self {
        let labels = labels.iter().map(|(name, value)| (*name, value.to_string())).collect();
        self.samples.push(Sample { labels, value });
        self
    }
}

/// The type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `families` in the text format of OpenMetrics 1.0, every name beginning with `vxlane_`.
///
/// # Errors
/// Never, as writing to a string does not fail.
pub fn render(families: Vec<Family>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("vxlane");
    registry.register_collector(Box::new(Families(families)));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, kind, samples } in &self.0 {
            let kind_told = match kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut family = encoder.encode_descriptor(name, help, None, kind_told)?;
            for Sample { labels, value } in samples {
                let metric: &dyn EncodeMetric = match kind {
                    Kind::Counter => &ConstCounter::new(*value),
                    Kind::Gauge => &ConstGauge::new(*value),
                };
                metric.encode(family.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_with_their_help_their_kind_and_escaped_labels() {
        let drops = Family::counter("drops", "Frames that ended here").with(&[("reason", &"a\"b")], 3.0);
        let up = Family::gauge("uptime_seconds", "Since the start").with(&[], 1.5);
        let text = render(vec![drops, up]).unwrap();
        let expected = "# HELP vxlane_drops Frames that ended here\n\
                        # TYPE vxlane_drops counter\n\
                        vxlane_drops_total{reason=\"a\\\"b\"} 3.0\n\
                        # HELP vxlane_uptime_seconds Since the start\n\
                        # TYPE vxlane_uptime_seconds gauge\n\
                        vxlane_uptime_seconds{} 1.5\n\
                        # EOF\n";
        assert_eq!(text, expected);
    }
}
