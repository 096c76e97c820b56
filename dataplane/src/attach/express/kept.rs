//! Going on with the lane where the programs of an earlier process still are.
//!
//! These stay, with what they know, until ours are put in their place with empty maps: no decision
//! of an earlier process outlives that.

use std::os::fd::OwnedFd;

use vxlane_abi::express as abi;

use super::{
    super::tc::{KeptProgram, Placed},
    Express, ExpressError, Leg, PortId, Role, program, program_of, step,
};
use crate::link::Link;

/// What a leg of the lane lives on when the process that attached it has ended.
#[derive(Debug)]
pub struct KeptLeg {
    /// The number of its port; none of the interface that leads to the workers.
    pub tag: Option<u16>,
    pub(super) program: KeptProgram,
}

impl KeptLeg {
    /// What has to be known, in letters, digits and dots.
    pub fn label(&self) -> String {
        let tag = self.tag.map_or_else(|| EXIT.to_owned(), |tag| tag.to_string());
        format!("{tag}.{}", self.program.label())
    }

    /// The opposite of [`label`](Self::label); none if it is not one.
    pub fn from_label(label: &str, fd: OwnedFd) -> Option<Self> {
        let (tag, program) = label.split_once('.')?;
        let tag = if tag == EXIT { None } else { Some(tag.parse().ok()?) };
        Some(Self { tag, program: KeptProgram::from_label(program, fd)? })
    }

    /// What keeps it.
    pub fn fd(&self) -> &OwnedFd {
        self.program.fd()
    }

    /// Takes the program off `interface`.
    pub fn detach(self, interface: &str) {
        // If the interface has gone so has the program.
        if let Ok(link) = Link::get(interface) {
            drop(Placed::kept(self.program, &link));
        }
    }
}

impl Express {
    /// Goes on with `interface`, on which an earlier process has left its program. That stays, with
    /// what it knows, until [`take_over`](Self::take_over).
    ///
    /// # Errors
    /// [`ExpressError`]; the program then leaves the interface.
    pub fn resume(&mut self, interface: &str, role: Role, port: PortId, kept: KeptLeg) -> Result<Leg, ExpressError> {
        let link = Link::get(interface)?;
        let placed = Placed::kept(kept.program, &link).map_err(step("the program that was kept"))?;
        let unfit = |why| ExpressError::Unfit { interface: interface.to_owned(), why };
        let placed = placed.ok_or_else(|| unfit("the program that was kept is no longer there"))?;
        if kept.tag != Some(port.0) {
            return Err(unfit("it has another number now"));
        }
        let leg = self.register(&link, role, port)?;
        self.attached.insert(port, (link.index, placed));
        self.resumed.push((port, program_of(role)));
        Ok(leg)
    }

    /// Has our own programs, and no flow, be in the place of those that an earlier process has left.
    /// What these had decided is at an end when this returns.
    ///
    /// # Errors
    /// [`ExpressError`]
    pub fn take_over(&mut self) -> Result<(), ExpressError> {
        if let Some(exit) = &mut self.exit {
            let program = program(&mut self.object, abi::EXIT_PROGRAM)?;
            exit.replace(program).map_err(step("putting express_exit in the place of another"))?;
        }
        for (port, name) in std::mem::take(&mut self.resumed) {
            let Some((index, placed)) = self.attached.get_mut(&port) else { continue };
            let program = program(&mut self.object, name)?;
            placed.replace(program).map_err(step(&format!("putting {name} in the place of another on {index}")))?;
        }
        self.settle();
        Ok(())
    }

    /// What keeps the program on the interface of `port`.
    ///
    /// # Errors
    /// [`ExpressError::NotAttached`], or if there are no descriptors left.
    pub fn keep(&self, port: PortId) -> Result<KeptLeg, ExpressError> {
        let (_, placed) = self.attached.get(&port).ok_or(ExpressError::NotAttached(port))?;
        Ok(KeptLeg { tag: Some(port.0), program: placed.keep().map_err(step("another descriptor of a program"))? })
    }

    /// What keeps the program on the interface that leads to the workers.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn keep_exit(&self) -> Result<Option<KeptLeg>, ExpressError> {
        let keep = |placed: &Placed| placed.keep().map(|program| KeptLeg { tag: None, program });
        self.exit.as_ref().map(keep).transpose().map_err(step("another descriptor of a program"))
    }
}

/// What the interface that leads to the workers has in the place of a number.
const EXIT: &str = "exit";
