//! How long a test goes on: briefly in the suite, thoroughly in `cargo xtask soak`.
//!
//! A test that is worth repeating for minutes takes its figures from [`choose`]. The suite runs
//! it with the smaller one, so that it cannot rot; `cargo xtask soak` runs the programs in which
//! such tests are, with the larger one.

use std::env;

/// Set by `cargo xtask soak`.
pub const VARIABLE: &str = "VXLANE_SOAK";

/// Whether this run has time.
pub fn is_on() -> bool {
    env::var_os(VARIABLE).is_some_and(|value| value == "1")
}

/// `suite`, or `soak` where there is time.
pub fn choose<T>(suite: T, soak: T) -> T {
    if is_on() { soak } else { suite }
}
