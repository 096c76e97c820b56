//! Three hosts, two networks with the same addresses, and who reaches whom.
//!
//! Exits with 0 only if every expectation held.

mod matrix;
mod real;
mod simulated;

use std::{env, process::ExitCode};

use matrix::Matrix;

fn main() -> ExitCode {
    let simulate = env::args().any(|argument| argument == "--simulate");
    let reason = if simulate { None } else { real::why_not() };
    let outcome = match reason {
        _ if simulate => Ok(simulated::run()),
        Some(reason) => {
            println!("{reason}: showing the same hosts, networks and pipeline in one process instead.\n");
            Ok(simulated::run())
        }
        None => real::run(),
    };
    match outcome {
        Ok(matrix) => report(&matrix),
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(matrix: &Matrix) -> ExitCode {
    let failures = matrix.failures();
    for failure in &failures {
        eprintln!("demo: {failure}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
