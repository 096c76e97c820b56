//! Runs programs: to their end with the error kept, or in the background until dropped.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Output};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::LabError;

/// Runs `command` to its end and returns its output.
///
/// # Errors
/// [`LabError::Command`] with the command line and its stderr when it did not end with success.
pub fn run(command: &mut Command) -> Result<Output, LabError> {
    let output = command.output().map_err(LabError::syscall("run", line(command)))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(LabError::Command {
        command: line(command),
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Runs `command` to its end and returns what it printed.
///
/// # Errors
/// As [`run`].
pub fn stdout(command: &mut Command) -> Result<String, LabError> {
    let output = run(command)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts `command` in the background.
///
/// # Errors
/// [`LabError::Syscall`] when it cannot be started.
pub fn spawn(command: &mut Command) -> Result<Guard, LabError> {
    let child = command.spawn().map_err(LabError::syscall("spawn", line(command)))?;
    Ok(Guard { child, command: line(command) })
}

/// Calls `ready` until it gives a value, at most for `limit`.
///
/// # Errors
/// [`LabError::Timeout`] with what `found` says at the end.
pub fn await_value<T>(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Option<T>,
    found: impl FnOnce() -> String,
) -> Result<T, LabError> {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            return Err(LabError::Timeout { what: what.to_owned(), waited: limit, found: found() });
        }
        thread::sleep(POLL);
    }
}

/// A program running in the background; dropping it ends the program.
///
/// The end is `SIGTERM`, and `SIGKILL` if that did not help within two seconds.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    command: String,
}

impl Guard {
    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The command line it was started with.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Sends `signal`; does nothing when the program has already ended.
    ///
    /// # Errors
    /// [`LabError::Syscall`] when the kernel refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<(), LabError> {
        if self.ended().is_some() {
            return Ok(());
        }
        // The child has not been waited for, so its id cannot belong to another process.
        kill(pid_of(&self.child), signal).map_err(LabError::syscall("kill", self.command.clone()))
    }

    /// How the program ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for the end of the program, at most for `limit`.
    ///
    /// # Errors
    /// [`LabError::Timeout`] when it is still running then.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        let what = format!("end of `{}`", self.command);
        await_value(&what, limit, || self.ended(), || "still running".to_owned())
    }

    /// Ends the program the way dropping does, and says how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        if let Some(status) = self.ended() {
            return status;
        }
        // A refused signal means the program is gone; the waits below then return at once.
        let _ = self.signal(Signal::SIGTERM);
        if let Ok(status) = self.wait(TERM_PATIENCE) {
            return status;
        }
        let _ = self.child.kill();
        self.child.wait().unwrap_or_else(|_| ExitStatus::from_raw(Signal::SIGKILL as i32))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The command line as one readable string.
fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

fn pid_of(child: &Child) -> Pid {
    // Linux process ids are at most 2^22, so the cast keeps the value.
    Pid::from_raw(child.id().cast_signed())
}

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(2);

/// How long a program may take to heed `SIGTERM`.
const TERM_PATIENCE: Duration = Duration::from_secs(2);
