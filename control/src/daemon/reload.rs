//! The configuration file, read again: what it says now is done whole, or not at all.

use std::{io, process::Command};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{ChangeError, Daemon};
use crate::{
    config::{ConfigError, ConfigFile, Underlay},
    desired::{Desired, Owner, Problem},
};

/// Why what the file says now is not done. Everything is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It cannot be had.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It could not be done.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The program that would go on does not run.
    #[error("{program} does not run: {reason}")]
    Program {
        /// Where it is.
        program: String,
        /// In words.
        reason: String,
    },
    /// This process cannot be told.
    #[error("SIGUSR2")]
    Signal(#[source] io::Error),
}

impl Daemon {
    /// Does what the configuration file says now. What it does not own, and what it says as
    /// before, is not disturbed.
    ///
    /// # Errors
    /// [`ReloadError`]; what ran keeps running.
    pub fn reload(&mut self) -> Result<(), ReloadError> {
        let file = ConfigFile::load(&self.places.file)?;
        let read = file.desired();
        let fixed = self.fixed(&file, &read);
        if !fixed.is_empty() {
            return Err(file.refuse(fixed).into());
        }
        let next = self.desired.with_part(Owner::File, &read);
        let plan = self.plan(&next)?.map_err(|problems| file.refuse(problems))?;
        Ok(self.adopt(next, plan, &[])?)
    }

    /// What the file says otherwise than when the daemon started, and cannot be changed since.
    fn fixed(&self, file: &ConfigFile, read: &Desired) -> Vec<Problem> {
        let (now, was) = (read, &self.desired);
        let (control, had) = (&file.config.control, &self.places.control);
        let differ = [
            ("underlay.interface", now.underlay.interface.clone(), was.underlay.interface.clone()),
            ("underlay.address", address(&now.underlay), address(&was.underlay)),
            ("underlay.port", now.underlay.port.to_string(), was.underlay.port.to_string()),
            (
                "underlay.udp6_zero_csum_tx",
                told(&now.underlay.udp6_zero_csum_tx),
                told(&was.underlay.udp6_zero_csum_tx),
            ),
            (
                "underlay.udp6_zero_csum_rx",
                told(&now.underlay.udp6_zero_csum_rx),
                told(&was.underlay.udp6_zero_csum_rx),
            ),
            ("underlay.xdp", told(&now.underlay.xdp), told(&was.underlay.xdp)),
            ("dataplane", told(&now.dataplane), told(&was.dataplane)),
            ("nat", told(&now.nat), told(&was.nat)),
            ("control.socket", control.socket.display().to_string(), had.socket.display().to_string()),
            ("control.state", control.state.display().to_string(), had.state.display().to_string()),
            ("control.hold", control.hold.to_string(), had.hold.to_string()),
        ];
        let changed = differ.into_iter().filter(|(_, now, was)| now != was);
        let refuse =
            |(field, now, was)| Problem::new(field, now, format!("cannot be changed while running; it is {was}"));
        let mut problems: Vec<Problem> = changed.map(refuse).collect();
        for endpoint in &now.endpoints {
            let attached = was.endpoints.iter().find(|other| other.item.interface == endpoint.item.interface);
            if let Some(other) = attached.filter(|other| other.item.xdp != endpoint.item.xdp) {
                let reason = format!("cannot be changed while attached; it is {}", told(&other.item.xdp));
                problems.push(Problem::new(format!("{}.xdp", endpoint.place), told(&endpoint.item.xdp), reason));
            }
        }
        problems
    }

    /// Makes sure that a new process would find a file that it can go on with, and that the
    /// program which is now where ours was runs.
    ///
    /// # Errors
    /// [`ReloadError`]
    pub fn check_restart(&self) -> Result<(), ReloadError> {
        let file = ConfigFile::load(&self.places.file)?;
        let next = self.desired.with_part(Owner::File, &file.desired());
        self.plan(&next)?.map_err(|problems| file.refuse(problems))?;
        let program = &self.places.program;
        let failed = |reason: String| ReloadError::Program { program: program.display().to_string(), reason };
        let output = Command::new(program).arg("--version").output().map_err(|error| failed(error.to_string()))?;
        if output.status.success() { Ok(()) } else { Err(failed(output.status.to_string())) }
    }

    /// Has this process restart, once whoever asked has been answered.
    ///
    /// # Errors
    /// [`ReloadError`]; nothing happens then.
    pub fn restart(&self) -> Result<(), ReloadError> {
        self.check_restart()?;
        kill(Pid::this(), Signal::SIGUSR2).map_err(|error| ReloadError::Signal(error.into()))
    }
}

fn address(underlay: &Underlay) -> String {
    underlay.address.as_ref().map_or_else(|| "that of the interface".to_owned(), ToString::to_string)
}

fn told(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}
