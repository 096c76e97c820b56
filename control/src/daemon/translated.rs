//! What the workers' translations have in common, of whichever internet protocol.

use std::net::{Ipv4Addr, Ipv6Addr};

use vxlane_dataplane::{
    engine::WorkerGone,
    ids::WorkerId,
    nat::{Nat, SessionView},
    port::xdp::{XdpReceive, XdpTransmit},
    wire::Address,
    worker::Worker,
};

use super::Daemon;

/// Sessions that are read from a worker at once.
const PAGE: usize = 1024;

/// An internet protocol that workers translate.
pub(super) trait Translated: Address {
    /// Has the translation of one worker, if it has one, do something.
    fn with_nat<T>(worker: &mut Worker<XdpReceive, XdpTransmit>, errand: impl FnOnce(&mut Nat<Self>) -> T)
    -> Option<T>;
}

impl Translated for Ipv4Addr {
    fn with_nat<T>(worker: &mut Worker<XdpReceive, XdpTransmit>, errand: impl FnOnce(&mut Nat) -> T) -> Option<T> {
        worker.with_nat(errand)
    }
}

impl Translated for Ipv6Addr {
    fn with_nat<T>(
        worker: &mut Worker<XdpReceive, XdpTransmit>,
        errand: impl FnOnce(&mut Nat<Self>) -> T,
    ) -> Option<T> {
        worker.pipeline.router.nat6.as_deref_mut().map(errand)
    }
}

impl Daemon {
    /// Has every worker's translation do something, and returns what that returned.
    pub(super) fn with_nat<A: Translated, T: Send + 'static>(
        &self,
        errand: impl Fn(&mut Nat<A>) -> T + Send + Clone + 'static,
    ) -> Result<Vec<(WorkerId, T)>, WorkerGone> {
        let mut answers = Vec::new();
        for worker in self.engine.workers() {
            let errand = errand.clone();
            let answer = self.engine.ask(worker, move |worker| A::with_nat(worker, errand))?;
            answers.extend(answer.map(|answer| (worker, answer)));
        }
        Ok(answers)
    }

    /// Reads the sessions of `worker`, some at a time, for as long as `take` wants more.
    pub(super) fn each_session<A: Translated>(
        &self,
        worker: WorkerId,
        mut take: impl FnMut(Vec<SessionView<A>>) -> bool,
    ) -> Result<(), WorkerGone> {
        let mut from = Some(0);
        while let Some(start) = from {
            let now = self.engine.now();
            let page = move |worker: &mut _| A::with_nat(worker, |nat| nat.page(now, start, PAGE));
            let (sessions, next) = self.engine.ask(worker, page)?.unwrap_or_default();
            from = if take(sessions) { next } else { None };
        }
        Ok(())
    }
}
