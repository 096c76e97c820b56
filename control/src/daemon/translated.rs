//! What the workers' translations have in common, of whichever internet protocol.

use vxlane_dataplane::{
    engine::WorkerGone,
    ids::WorkerId,
    nat::{Nat, SessionView},
    port::xdp::{XdpReceive, XdpTransmit},
    router::Family,
    worker::Worker,
};

use super::Daemon;

/// Sessions that are read from a worker at once.
const PAGE: usize = 1024;

impl Daemon {
    /// Has every worker's translation do something, and returns what that returned.
    pub(super) fn with_nat<A: Family, T: Send + 'static>(
        &self,
        errand: impl Fn(&mut Nat<A>) -> T + Send + Clone + 'static,
    ) -> Result<Vec<(WorkerId, T)>, WorkerGone> {
        let mut answers = Vec::new();
        for worker in self.engine.workers() {
            let errand = errand.clone();
            let answer = self.engine.ask(worker, move |worker| worker.with_nat(errand))?;
            answers.extend(answer.map(|answer| (worker, answer)));
        }
        Ok(answers)
    }

    /// Reads the sessions of `worker`, some at a time, for as long as `take` wants more.
    pub(super) fn each_session<A: Family>(
        &self,
        worker: WorkerId,
        mut take: impl FnMut(Vec<SessionView<A>>) -> bool,
    ) -> Result<(), WorkerGone> {
        let mut from = Some(0);
        while let Some(start) = from {
            let now = self.engine.now();
            let page = move |worker: &mut Worker<XdpReceive, XdpTransmit>| {
                worker.with_nat(|nat: &mut Nat<A>| nat.page(now, start, PAGE))
            };
            let (sessions, next) = self.engine.ask(worker, page)?.unwrap_or_default();
            from = if take(sessions) { next } else { None };
        }
        Ok(())
    }
}
