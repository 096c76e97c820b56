//! Sessions of address translation outlive the process: at a planned restart those there are, and
//! after a crash those there were some seconds before.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use vxlane_dataplane::{ids::NetworkId, nat::SessionView, router::Family};

use super::Daemon;
use crate::keep::{Keeper, SESSIONS, SESSIONS6, sessions};

/// How often they are kept, should nobody have the time to do it at the end.
const KEEP_EVERY: Duration = Duration::from_secs(5);

impl Daemon {
    /// Has the sessions kept, if it is time to.
    pub(super) fn keep_sessions_at_times(&mut self) {
        if self.sessions_kept.elapsed() < KEEP_EVERY {
            return;
        }
        self.sessions_kept = Instant::now();
        if let Err(error) = self.keep_sessions() {
            tracing::warn!(%error, "sessions of address translation would not outlive this process");
        }
    }

    /// Has the sessions kept that there are now.
    pub(super) fn keep_sessions(&mut self) -> io::Result<()> {
        if self.way_out.is_some() {
            self.keep_sessions_as::<Ipv4Addr>(SESSIONS)?;
        }
        if self.way_out6.is_some() {
            self.keep_sessions_as::<Ipv6Addr>(SESSIONS6)?;
        }
        Ok(())
    }

    fn keep_sessions_as<A: Family>(&mut self, name: &str) -> io::Result<()> {
        if matches!(self.keeper, Keeper::Nobody) {
            return Ok(());
        }
        let mut all: Vec<SessionView<A>> = Vec::new();
        for worker in self.engine.workers() {
            self.each_session(worker, |page| {
                all.extend(page);
                true
            })
            .map_err(io::Error::other)?;
        }
        let file = sessions::write(&all, &self.vnis().into_iter().map(|(vni, id)| (id, vni)).collect())?;
        self.keeper.put(name, file.as_fd())
    }

    /// Has the workers take up the sessions that were kept, if any were.
    pub(super) fn recall_sessions<A: Family>(&self, kept: Option<OwnedFd>) {
        let Some(kept) = kept else { return };
        if let Err(error) = self.try_recall_sessions::<A>(kept) {
            tracing::warn!(%error, "sessions of address translation have ended");
        }
    }

    fn try_recall_sessions<A: Family>(&self, kept: OwnedFd) -> io::Result<()> {
        let kept: Vec<SessionView<A>> = sessions::read(kept.into(), &self.vnis())?;
        let (now, count) = (self.engine.now(), kept.len());
        let recalled = self.with_nat::<A, _>(move |nat| nat.recall(now, &kept)).map_err(io::Error::other)?;
        let recalled: usize = recalled.into_iter().map(|(_, recalled)| recalled).sum();
        tracing::info!(kept = count, recalled, "sessions of address translation");
        Ok(())
    }

    fn vnis(&self) -> HashMap<u32, NetworkId> {
        let networks = self.plan.networks.iter();
        networks.filter_map(|network| Some((network.vni.get(), self.ids.network(&network.name)?))).collect()
    }
}
