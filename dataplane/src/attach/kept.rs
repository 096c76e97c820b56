//! Going on with an interface on which the program of an earlier process still is.
//!
//! The link alone is kept. The program is put in the place of the old one once its maps are
//! full, so every frame goes to the same sockets all along, and a new version of the program
//! can have other maps. Lent ports are among what these say, so until workers know of every
//! session again the old program and its maps decide what is the host's.

use std::{
    io,
    os::fd::{AsFd, OwnedFd, RawFd},
};

use super::{Attached, Installed, Port, Role, Steer, SteerError, Unmerged, program};
use crate::link::{Link, ethtool::Merging};

/// What the program on an interface lives on when the process that put it there has ended: its
/// link, and what has to be put back when it leaves. Dropping the link takes the program away.
#[derive(Debug)]
pub struct KeptLink {
    /// The BPF link.
    pub link: OwnedFd,
    merging: Vec<Merging>,
}

impl KeptLink {
    /// What is to be put back, in letters and dots.
    pub fn label(&self) -> String {
        let name = |merging: &Merging| match merging {
            Merging::Gro => "gro",
            Merging::Lro => "lro",
        };
        self.merging.iter().map(name).collect::<Vec<_>>().join(".")
    }

    /// The opposite of [`label`](Self::label).
    pub fn from_label(label: &str, link: OwnedFd) -> Self {
        let merging = label.split('.').filter_map(|name| match name {
            "gro" => Some(Merging::Gro),
            "lro" => Some(Merging::Lro),
            _ => None,
        });
        Self { merging: merging.collect(), link }
    }

    /// The index of the interface that the program is still on, and the program's number.
    ///
    /// # Errors
    /// What the kernel answered when asked about the link.
    pub fn place(&self) -> io::Result<Option<(u32, u32)>> {
        let info = super::installed::info(&self.link)?;
        Ok((info.ifindex != 0).then_some((info.ifindex, info.program)))
    }

    /// Takes the program away and puts back what was changed with it.
    pub fn detach(self) {
        let index = self.place().ok().flatten().map(|(index, _)| index);
        drop(Installed::kept(self.link));
        // Dropping this puts back, unless the interface is gone.
        drop(index.and_then(|index| Unmerged::kept(index, self.merging).ok()));
    }
}

impl Steer {
    /// What keeps the program on the interface.
    ///
    /// # Errors
    /// [`SteerError::NotAttached`], or [`SteerError::Keep`] if there are no descriptors left.
    pub fn keep(&self, ifindex: u32) -> Result<KeptLink, SteerError> {
        let port = self.attached.get(&ifindex).ok_or(SteerError::NotAttached { ifindex })?;
        let link = port.program.fd().try_clone_to_owned().map_err(|source| SteerError::Keep { ifindex, source })?;
        let merging = port.unmerged.as_ref().map(|unmerged| unmerged.was_on().to_vec()).unwrap_or_default();
        Ok(KeptLink { link, merging })
    }

    /// Goes on with `interface`, whose receive queues have these `sockets`. The program of the
    /// earlier process stays there until [`take_over`](Self::take_over).
    ///
    /// # Errors
    /// [`SteerError::NotKept`] if what was kept is not of this interface; the others say what
    /// failed. The program then leaves the interface.
    pub fn resume(
        &mut self,
        interface: &str,
        role: Role,
        kept: KeptLink,
        sockets: &[RawFd],
    ) -> Result<Attached, SteerError> {
        let link = Link::get(interface)?;
        let not_kept = || SteerError::NotKept { interface: interface.to_owned() };
        let failed = |source| SteerError::Keep { ifindex: link.index, source };
        let there = kept.place().map_err(failed)?;
        let mode = match (link.xdp, there) {
            (Some(found), Some((index, number))) if index == link.index && found.id == number => found.mode,
            _ => return Err(not_kept()),
        };
        let queues = u32::try_from(sockets.len()).unwrap_or(u32::MAX);
        let unmerged = Unmerged::kept(link.index, kept.merging).map_err(failed)?;
        let installed = Installed::kept(kept.link);
        let slots = self.register(&link, role, queues)?;
        let port = Port { slots, program: installed, unmerged: Some(unmerged) };
        self.attached.insert(link.index, port);
        for (queue, &socket) in (0..).zip(sockets) {
            self.serve(link.index, queue, socket)?;
        }
        Ok(Attached { ifindex: link.index, mode, queues })
    }

    /// Has our own program in the place of that of an earlier process on the interface, from one
    /// frame to the next.
    ///
    /// # Errors
    /// [`SteerError::NotAttached`]; [`SteerError::Keep`] if the interface has gone meanwhile.
    pub fn take_over(&mut self, ifindex: u32) -> Result<(), SteerError> {
        let steer = program(&mut self.object)?.fd().map_err(SteerError::Program)?;
        let port = self.attached.get(&ifindex).ok_or(SteerError::NotAttached { ifindex })?;
        port.program.replace(steer.as_fd()).map_err(|source| SteerError::Keep { ifindex, source })
    }
}
