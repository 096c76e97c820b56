//! Keeps the kernel from merging received frames while a generic XDP program is on a device.
//!
//! Generic XDP runs after GRO, so it would be handed frames longer than any of ours. The kernel
//! itself turns LRO off when such a program arrives (`dev_disable_lro` in `net/core/dev.c`)
//! but never on again; both are put back here.

use crate::link::ethtool::{Ethtool, Merging};
use std::io;

/// Merging is off as long as this lives; what was on comes back when it is dropped.
#[derive(Debug)]
pub(super) struct Unmerged {
    device: Ethtool,
    was_on: Vec<Merging>,
}

impl Unmerged {
    /// Turns off, on the interface `index`, whatever merges received frames.
    ///
    /// # Errors
    /// What the kernel answered to an order to turn off something that is on. A device that
    /// cannot tell whether it merges is taken not to.
    pub(super) fn new(index: u32) -> io::Result<Self> {
        let mut this = Self { device: Ethtool::open(index)?, was_on: Vec::new() };
        for what in [Merging::Gro, Merging::Lro] {
            if this.device.merges(what).unwrap_or(false) {
                this.device.set_merging(what, false)?;
                this.was_on.push(what);
            }
        }
        Ok(this)
    }

    /// Puts `was_on` back when dropped, which an earlier process turned off.
    ///
    /// # Errors
    /// If the interface cannot be spoken to.
    pub(super) fn kept(index: u32, was_on: Vec<Merging>) -> io::Result<Self> {
        Ok(Self { device: Ethtool::open(index)?, was_on })
    }

    /// What was on.
    pub(super) fn was_on(&self) -> &[Merging] {
        &self.was_on
    }
}

impl Drop for Unmerged {
    fn drop(&mut self) {
        for what in self.was_on.drain(..) {
            // The device may be gone, and then there is nothing to put back.
            let _ = self.device.set_merging(what, true);
        }
    }
}
