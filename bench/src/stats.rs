//! Median, range, and whether one set of figures is really better than another.

use serde::{Deserialize, Serialize};

/// Several measurements of one thing, as a report shows them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one; of an even number, the mean of the middle two.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many there are.
    pub count: usize,
}

impl Spread {
    /// The spread of `values`; none when there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        Some(Self { median, min, max, count: sorted.len() })
    }

    /// Whether the ranges of the two have a value in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }

    /// Whether this is better than `other` beyond doubt: the ranges do not touch, and there are
    /// measurements enough for a range to mean something.
    pub fn beats(&self, other: &Self, better: Better) -> bool {
        let apart = self.count >= FEWEST && other.count >= FEWEST && !self.overlaps(other);
        apart
            && match better {
                Better::Higher => self.median > other.median,
                Better::Lower => self.median < other.median,
            }
    }
}

/// Which way a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More is better: rates.
    Higher,
    /// Less is better: costs and delays.
    Lower,
}

/// Measurements below which nothing is claimed.
pub const FEWEST: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_middle_two() {
        let odd = Spread::of(&[5.0, 1.0, 3.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max, odd.count), (3.0, 1.0, 5.0, 3));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 9.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ranges_that_touch_overlap() {
        let spread = |values: &[f64]| Spread::of(values).unwrap();
        let low = spread(&[1.0, 2.0, 3.0]);
        assert!(low.overlaps(&spread(&[3.0, 4.0, 5.0])));
        assert!(low.overlaps(&spread(&[0.0, 9.0])));
        assert!(spread(&[0.0, 9.0]).overlaps(&low));
        assert!(!low.overlaps(&spread(&[3.1, 4.0])));
    }

    #[test]
    fn a_win_needs_ranges_apart_and_enough_of_them() {
        let low = Spread::of(&[1.0, 2.0, 3.0]).unwrap();
        let high = Spread::of(&[4.0, 5.0, 6.0]).unwrap();
        assert!(high.beats(&low, Better::Higher) && !low.beats(&high, Better::Higher));
        assert!(low.beats(&high, Better::Lower) && !high.beats(&low, Better::Lower));
        let few = Spread::of(&[7.0, 8.0]).unwrap();
        assert!(!few.beats(&low, Better::Higher));
    }
}
