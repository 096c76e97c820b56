//! Errors with everything that caused them, on one line.

use std::{error::Error, iter};

/// `error` and its causes, the outermost first.
pub(crate) fn chain(error: &dyn Error) -> String {
    let causes = iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
