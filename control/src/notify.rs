//! What the service manager is told: `sd_notify(3)`, and nothing where there is no such manager.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use vxlane_dataplane::engine::Pulse;

/// The daemon forwards; `status` says what.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The daemon reads its file anew; [`ready`] follows.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "reading the monotonic clock"),
    }
}

/// The daemon takes down what it put up.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Feeds the service manager's watchdog, where there is one, for as long as every worker makes
/// progress. A worker that has hung lets it starve, and the manager starts the daemon again.
pub async fn feed_watchdog(pulse: Pulse) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    feed(&pulse, limit / 2, || tell(&[NotifyState::Watchdog])).await
}

/// Calls `feed` after every `pause` in which every worker's heart has beaten.
async fn feed(pulse: &Pulse, pause: Duration, feed: impl Fn()) {
    let mut pauses = interval(pause.max(SHORTEST_PAUSE));
    pauses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = pulse.beats();
    pauses.tick().await;
    loop {
        pauses.tick().await;
        let now = pulse.beats();
        match before.iter().zip(&now).position(|(before, now)| before == now) {
            None => feed(),
            Some(worker) => tracing::error!(worker, "no progress for {pause:?}"),
        }
        before = now;
    }
}

/// A worker's heart beats ten times a second; between two looks at it there is to be one beat.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!(%error, "telling the service manager");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        sync::{Arc, mpsc},
        thread,
    };

    use vxlane_dataplane::{
        engine::{Engine, EngineConfig},
        ids::WorkerId,
        port::memory::{MemoryReceive, MemoryTransmit},
        tables::{LocalVtep, Tables},
    };

    use super::*;

    /// Feeds for a second and says how often that was.
    fn meals(pulse: &Pulse) -> u32 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let meals = Cell::new(0);
        let feeding = feed(pulse, SHORTEST_PAUSE, || meals.set(meals.get() + 1));
        let _ = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(1), feeding).await });
        meals.get()
    }

    #[test]
    fn one_worker_that_hangs_starves_the_watchdog() {
        let config = EngineConfig { workers: 2, cpus: vec![], stations: 16 };
        let local = LocalVtep::new(Some([192, 0, 2, 1].into()), None, 4789);
        let tables = Arc::new(Tables::new(local));
        let engine: Engine<MemoryReceive, MemoryTransmit> = Engine::start(&config, &tables).unwrap();
        let pulse = engine.pulse();
        assert!(meals(&pulse) >= 2);
        let (let_go, held) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(|| engine.ask(WorkerId(1), move |_| held.recv()));
            // The second look at the latest finds that nothing has happened since the first.
            assert!(meals(&pulse) <= 1);
            assert_eq!(meals(&pulse), 0);
            let_go.send(()).unwrap();
        });
        assert!(meals(&pulse) >= 2);
    }
}
