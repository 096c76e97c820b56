//! What can go wrong in a lab, always naming the command or the call that failed.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

/// A failure of the lab itself, or of something it ran.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program ended badly.
    #[error("`{command}` ended with {status}: {stderr}")]
    Command {
        /// The command line as it was run.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said about it.
        stderr: String,
    },
    /// A system call failed.
    #[error("{call} on {object}: {source}")]
    Syscall {
        /// The call's name.
        call: &'static str,
        /// What it was applied to.
        object: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something that should have happened did not happen in time.
    #[error("no {what} within {waited:?}; found: {found}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// For how long.
        waited: Duration,
        /// What there was instead.
        found: String,
    },
    /// A program's output, or a caller's argument, does not have the expected form.
    #[error("{what}: {text}")]
    Unfit {
        /// What was expected.
        what: &'static str,
        /// What there was.
        text: String,
    },
}

impl LabError {
    /// Returns a closure for `map_err` that wraps what `call` on `object` answered.
    pub fn syscall<E: Into<io::Error>>(call: &'static str, object: impl Into<String>) -> impl FnOnce(E) -> Self {
        let object = object.into();
        move |source| Self::Syscall { call, object, source: source.into() }
    }
}
