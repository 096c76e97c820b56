//! Sessions of address translation outlive the process: at a planned restart those there are, and
//! after a crash those there were some seconds before.

use std::{
    collections::HashMap,
    fs::File,
    io,
    net::Ipv4Addr,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use vxlane_dataplane::{ids::NetworkId, nat::SessionView};

use super::Daemon;
use crate::keep::{Keeper, SESSIONS, sessions};

/// How often they are kept, should nobody have the time to do it at the end.
const KEEP_EVERY: Duration = Duration::from_secs(5);

impl Daemon {
    /// Has the sessions kept, if it is time to.
    pub(super) fn keep_sessions_at_times(&mut self) {
        let due = self.way_out.as_mut().filter(|way_out| way_out.kept.elapsed() >= KEEP_EVERY);
        let Some(way_out) = due else { return };
        way_out.kept = Instant::now();
        if let Err(error) = self.keep_sessions() {
            tracing::warn!(%error, "sessions of address translation would not outlive this process");
        }
    }

    /// Has the sessions kept that there are now.
    pub(super) fn keep_sessions(&mut self) -> io::Result<()> {
        if self.way_out.is_none() || matches!(self.keeper, Keeper::Nobody) {
            return Ok(());
        }
        let mut all: Vec<SessionView> = Vec::new();
        for worker in self.engine.workers() {
            self.each_session(worker, |page| {
                all.extend(page);
                true
            })
            .map_err(io::Error::other)?;
        }
        let file = sessions::write(&all, &self.vnis().into_iter().map(|(vni, id)| (id, vni)).collect())?;
        self.keeper.put(SESSIONS, file.as_fd())
    }

    /// Has the workers take up the sessions that are in `file`.
    pub(super) fn recall_sessions(&self, file: File) -> io::Result<()> {
        let kept = sessions::read(file, &self.vnis())?;
        let (now, count) = (self.engine.now(), kept.len());
        let recalled = self.with_nat::<Ipv4Addr, _>(move |nat| nat.recall(now, &kept)).map_err(io::Error::other)?;
        let recalled: usize = recalled.into_iter().map(|(_, recalled)| recalled).sum();
        tracing::info!(kept = count, recalled, "sessions of address translation");
        Ok(())
    }

    fn vnis(&self) -> HashMap<u32, NetworkId> {
        let networks = self.plan.networks.iter();
        networks.filter_map(|network| Some((network.vni.get(), self.ids.network(&network.name)?))).collect()
    }
}
