//! Finds the highest rate that a path carries with next to no loss, by bisection.

/// What one trial at one rate came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Packets per second that were really offered; a generator may fall short.
    pub offered: f64,
    /// Packets per second that arrived.
    pub delivered: f64,
    /// Share of the offered packets that did not arrive, 0 to 1.
    pub loss: f64,
}

/// Which trial is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// A short one, to find the way.
    Probe,
    /// A longer one, to be sure.
    Confirm,
}

/// How exact a search is to be.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// Loss up to this share passes.
    pub tolerated_loss: f64,
    /// The search ends when the bounds are this factor apart, such as 1.05.
    pub resolution: f64,
}

impl Search {
    /// Returns the delivered rate of the confirmed trial, 0 when not even [`LOWEST`] passes.
    ///
    /// `flood` is what happened without any limit on the rate, `hint` what an earlier search found,
    /// so that this one need not begin from nothing; `trial` makes one more trial. A
    /// trial that narrowly failed is made once more, because on a machine that also does other
    /// things a single loss says little; bursts of loss that come every time still count.
    ///
    /// # Errors
    /// Whatever `trial` failed with.
    pub fn highest_rate<E>(
        &self,
        flood: Outcome,
        hint: Option<f64>,
        mut trial: impl FnMut(f64, Length) -> Result<Outcome, E>,
    ) -> Result<f64, E> {
        let mut rate = self.bisect(flood, hint, &mut trial)?;
        for _ in 0..MOST_CONFIRMATIONS {
            if rate < LOWEST {
                break;
            }
            let outcome = self.twice(rate, Length::Confirm, &mut trial)?;
            if self.passes(outcome) {
                return Ok(outcome.delivered);
            }
            rate /= self.resolution;
        }
        Ok(0.0)
    }

    /// The highest rate that passed a short trial.
    fn bisect<E>(
        &self,
        flood: Outcome,
        hint: Option<f64>,
        trial: &mut impl FnMut(f64, Length) -> Result<Outcome, E>,
    ) -> Result<f64, E> {
        if self.passes(flood) {
            return Ok(flood.offered);
        }
        let mut high = flood.offered;
        // What arrives under flood is a fair guess at what can be carried, and overload may have
        // spoilt it, so the first bound is sought around it.
        let guess = hint.filter(|rate| *rate >= LOWEST).map_or(flood.delivered * FIRST_GUESS, |rate| rate / NEARBY);
        let mut low = guess.min(high).max(LOWEST);
        let mut step = NEARBY;
        loop {
            let outcome = self.twice(low, Length::Probe, trial)?;
            if self.passes(outcome) {
                if outcome.offered < low * FALLS_SHORT {
                    return Ok(outcome.offered);
                }
                break;
            }
            if low <= LOWEST {
                return Ok(0.0);
            }
            high = low;
            step *= step;
            low = (low / step.min(2.0)).max(LOWEST);
        }
        if let Some(near) = hint.map(|rate| rate * NEARBY).filter(|near| (low..high).contains(near)) {
            let outcome = self.twice(near, Length::Probe, trial)?;
            if self.passes(outcome) && outcome.offered >= near * FALLS_SHORT {
                low = near;
            } else {
                high = near;
            }
        }
        while high / low > self.resolution {
            let rate = (high * low).sqrt();
            let outcome = self.twice(rate, Length::Probe, trial)?;
            if !self.passes(outcome) {
                high = rate;
                continue;
            }
            low = rate.min(outcome.offered.max(low));
            if outcome.offered < rate * FALLS_SHORT {
                // The generator cannot offer more than this.
                break;
            }
        }
        Ok(low)
    }

    fn twice<E>(
        &self,
        rate: f64,
        length: Length,
        trial: &mut impl FnMut(f64, Length) -> Result<Outcome, E>,
    ) -> Result<Outcome, E> {
        let first = trial(rate, length)?;
        if self.passes(first) || first.loss > NARROW {
            return Ok(first);
        }
        trial(rate, length)
    }

    fn passes(&self, outcome: Outcome) -> bool {
        outcome.loss < self.tolerated_loss
    }
}

/// Packets per second below which a path is taken for closed.
pub const LOWEST: f64 = 500.0;

/// The first rate to be tried, relative to what arrives under flood.
const FIRST_GUESS: f64 = 0.8;

/// How far from an earlier search's rate this one's is expected, as a factor.
const NEARBY: f64 = 1.06;

/// Loss up to this share is narrow enough for a second try.
const NARROW: f64 = 0.05;

/// A generator that offers less than this share of a rate is taken to be at its limit.
const FALLS_SHORT: f64 = 0.97;

/// Longer trials that may fail, each at a rate a step lower.
const MOST_CONFIRMATIONS: u32 = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const SEARCH: Search = Search { tolerated_loss: 0.005, resolution: 1.02 };

    /// A path that carries `capacity` and drops the rest, behind a generator that offers `most`.
    fn path(capacity: f64, most: f64) -> impl FnMut(f64, Length) -> Result<Outcome, Infallible> {
        move |rate, _| {
            let offered = rate.min(most);
            let delivered = offered.min(capacity);
            Ok(Outcome { offered, delivered, loss: 1.0 - delivered / offered })
        }
    }

    fn found(capacity: f64, most: f64) -> f64 {
        let mut trial = path(capacity, most);
        let Ok(flood) = trial(f64::INFINITY, Length::Probe);
        let Ok(rate) = SEARCH.highest_rate(flood, None, trial);
        rate
    }

    #[test]
    fn the_capacity_of_a_simple_path_is_found() {
        for capacity in [1e3, 57e3, 171e3, 999e3] {
            let rate = found(capacity, 1e6);
            assert!(rate <= capacity && rate > capacity / 1.03, "{capacity}: {rate}");
        }
    }

    #[test]
    fn a_path_faster_than_the_generator_gives_the_generators_rate() {
        assert_eq!(found(2e6, 1e6), 1e6);
    }

    #[test]
    fn a_closed_path_gives_nothing() {
        assert_eq!(found(0.0, 1e6), 0.0);
    }

    #[test]
    fn a_path_that_collapses_under_flood_is_measured_below_it() {
        // Delivers all up to 100 k, and a tenth of that beyond.
        let trial = |rate: f64, _: Length| {
            let delivered = if rate <= 100e3 { rate } else { 10e3 };
            Ok::<_, Infallible>(Outcome { offered: rate, delivered, loss: 1.0 - delivered / rate })
        };
        let Ok(flood) = trial(1e6, Length::Probe);
        let Ok(rate) = SEARCH.highest_rate(flood, None, trial);
        assert!(rate > 97e3 && rate <= 100e3, "{rate}");
    }

    #[test]
    fn a_good_hint_saves_trials_and_a_bad_one_does_no_harm() {
        let count = |hint: Option<f64>| {
            let (mut calls, mut inner) = (0, path(100e3, 1e6));
            let Ok(flood) = inner(1e6, Length::Probe);
            let Ok(rate) = SEARCH.highest_rate(flood, hint, |rate, length| {
                calls += 1;
                inner(rate, length)
            });
            assert!(rate <= 100e3 && rate > 97e3, "{hint:?}: {rate}");
            calls
        };
        assert!(count(Some(99e3)) < count(None));
        for bad in [1.0, 10e3, 500e3, 5e6] {
            count(Some(bad));
        }
    }

    #[test]
    fn one_hiccup_does_not_spoil_a_search() {
        let (mut calls, mut inner) = (0, path(100e3, 1e6));
        let mut trial = |rate, length| {
            calls += 1;
            let outcome = inner(rate, length)?;
            Ok::<_, Infallible>(if calls % 4 == 2 { Outcome { loss: 0.01, ..outcome } } else { outcome })
        };
        let Ok(flood) = trial(1e6, Length::Probe);
        let Ok(rate) = SEARCH.highest_rate(flood, None, trial);
        assert!(rate > 90e3, "{rate}");
    }

    #[test]
    fn a_rate_that_a_longer_trial_refuses_is_not_reported() {
        let trial = |rate: f64, length: Length| {
            let capacity = if length == Length::Confirm { 80e3 } else { 100e3 };
            let delivered = rate.min(capacity);
            Ok::<_, Infallible>(Outcome { offered: rate, delivered, loss: 1.0 - delivered / rate })
        };
        let flood = Outcome { offered: 1e6, delivered: 100e3, loss: 0.9 };
        let Ok(rate) = SEARCH.highest_rate(flood, None, trial);
        assert!(rate <= 80.5e3 && rate > 75e3, "{rate}");
    }
}
