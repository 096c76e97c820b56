//! The worker threads, and how control reaches them.
//!
//! Control never shares memory with a worker. It sends *errands*, closures that a worker runs
//! between two breaths, and waits for what they return: when [`Engine::publish`] comes back,
//! every worker has the new tables, and no packet was ever under half of each.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam::channel::{self, Receiver, Sender};
use mio::{Events, Poll, Token, Waker};

use crate::{
    clock::{Clock, Instant},
    events::Event,
    handover::Mailbox,
    ids::WorkerId,
    port::{Receive, Transmit},
    tables::Tables,
    worker::{Breath, EventQueue, Worker},
};

/// How the workers are set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// How many, at least one.
    pub workers: usize,
    /// The CPU that each is pinned to; those beyond the list run where the kernel puts them.
    pub cpus: Vec<usize>,
    /// Stations that each worker's MAC table has room for.
    pub stations: usize,
}

/// A worker thread has ended, by a panic or because the engine is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker {0} has ended")]
pub struct WorkerGone(pub WorkerId);

type Errand<R, T> = Box<dyn FnOnce(&mut Worker<R, T>) -> Onward + Send>;

/// Whether a worker goes on after an errand.
enum Onward {
    Continue,
    Stop,
}

/// The running workers.
#[derive(Debug)]
pub struct Engine<R, T> {
    workers: Vec<Handle<R, T>>,
    clock: Clock,
    pulse: Pulse,
    events: Arc<EventQueue>,
}

/// The heartbeats of the workers, to be looked at from anywhere, at any time.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<[AtomicU64]>);

impl Pulse {
    /// How often the heart of each worker has beaten: ten times a second, busy or idle, for as
    /// long as it makes progress.
    pub fn beats(&self) -> Vec<u64> {
        // Nothing else is read by what these say, so they need no order.
        self.0.iter().map(|beats| beats.load(Ordering::Relaxed)).collect()
    }

    fn beat(&self, worker: WorkerId) {
        self.0[worker.index()].fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Handle<R, T> {
    errands: Sender<Errand<R, T>>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

const WAKE: Token = Token(usize::MAX);
/// Events of all workers that may wait to be asked for.
const EVENTS: usize = 1024;
const TICK: Duration = Duration::from_millis(100);
/// How often a worker that has run out of work gives its CPU to others, and looks again, before it
/// sleeps: where others wait for it, one of them sends meanwhile, and needs not wake the worker.
const YIELDS: u32 = 3;
/// How long a worker waits before it offers the kernel again what it would not take.
const STALL: Duration = Duration::from_micros(200);

impl<R: Receive + 'static, T: Transmit + 'static> Engine<R, T> {
    /// Starts the workers, without ports.
    ///
    /// # Errors
    /// If a poll or a thread cannot be made.
    pub fn start(config: &EngineConfig, tables: &Arc<Tables>) -> io::Result<Self> {
        let count = config.workers.max(1);
        let polls = (0..count).map(|_| Poll::new()).collect::<io::Result<Vec<_>>>()?;
        let wakers = polls.iter().map(|poll| Waker::new(poll.registry(), WAKE).map(Arc::new));
        let wakers = wakers.collect::<io::Result<Vec<_>>>()?;
        let mail: Arc<[Mailbox]> = wakers.iter().map(|waker| Mailbox::new(Arc::clone(waker))).collect();
        let clock = Clock::start();
        let pulse = Pulse((0..count).map(|_| AtomicU64::new(0)).collect());
        let events = Arc::new(EventQueue::new(EVENTS));
        let mut workers = Vec::with_capacity(count);
        for ((id, poll), waker) in (0u16..).map(WorkerId).zip(polls).zip(wakers) {
            let mut worker = Worker::new(id, config.stations, Arc::clone(tables), Arc::clone(&mail));
            worker.watch_with(poll.registry().try_clone()?);
            worker.tell_through(Arc::clone(&events));
            let (errands, inbox) = channel::unbounded();
            let cpu = config.cpus.get(id.index()).copied();
            let heart = pulse.clone();
            let thread = thread::Builder::new().name(format!("worker-{id}")).spawn(move || {
                pin(id, cpu);
                run(worker, poll, &inbox, clock, || heart.beat(id));
            })?;
            workers.push(Handle { errands, waker, thread: Some(thread) });
        }
        Ok(Self { workers, clock, pulse, events })
    }

    /// Whether the workers make progress.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// The next event that some worker told of, with its time on the [workers' clock](Self::now). It
    /// may have happened a tenth of a second before it is here.
    pub fn next_event(&self) -> Option<(Instant, Event)> {
        self.events.pop()
    }

    /// The time on the workers' clock.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// How many workers there are.
    pub fn workers(&self) -> impl Iterator<Item = WorkerId> + use<R, T> {
        (0u16..).map(WorkerId).take(self.workers.len())
    }

    /// Has `worker` run `errand` between two bursts, and returns what that returns.
    ///
    /// # Errors
    /// [`WorkerGone`] if the worker has ended.
    pub fn ask<A: Send + 'static>(
        &self,
        worker: WorkerId,
        errand: impl FnOnce(&mut Worker<R, T>) -> A + Send + 'static,
    ) -> Result<A, WorkerGone> {
        let gone = WorkerGone(worker);
        let handle = self.workers.get(worker.index()).ok_or(gone)?;
        let (answer, answered) = channel::bounded(1);
        let errand: Errand<R, T> = Box::new(move |worker| {
            // Whoever asked may have given up waiting.
            let _ = answer.send(errand(worker));
            Onward::Continue
        });
        handle.errands.send(errand).map_err(|_| gone)?;
        handle.waker.wake().map_err(|_| gone)?;
        answered.recv().map_err(|_| gone)
    }

    /// Gives every worker new tables; returns when all of them work with these.
    ///
    /// # Errors
    /// [`WorkerGone`] if one has ended; the others have the tables or will.
    pub fn publish(&self, tables: &Arc<Tables>) -> Result<(), WorkerGone> {
        self.workers().try_for_each(|worker| {
            let tables = Arc::clone(tables);
            self.ask(worker, move |worker| worker.adopt(tables))
        })
    }

    /// Ends the workers; their ports are closed as they go.
    pub fn stop(mut self) {
        self.end();
    }
}

impl<R, T> Engine<R, T> {
    fn end(&mut self) {
        for handle in &self.workers {
            // A worker that is gone already needs no telling.
            let _ = handle.errands.send(Box::new(|_| Onward::Stop));
            let _ = handle.waker.wake();
        }
        for thread in self.workers.iter_mut().filter_map(|handle| handle.thread.take()) {
            if thread.join().is_err() {
                tracing::error!("a worker ended in a panic");
            }
        }
    }
}

impl<R, T> Drop for Engine<R, T> {
    fn drop(&mut self) {
        self.end();
    }
}

fn pin(id: WorkerId, cpu: Option<usize>) {
    let Some(cpu) = cpu else { return };
    if !core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        tracing::warn!("worker {id} could not be pinned to CPU {cpu}");
    }
}

/// The life of a worker thread: breathe while there is anything to do, sleep when not.
fn run<R: Receive, T: Transmit>(
    mut worker: Worker<R, T>,
    mut poll: Poll,
    inbox: &Receiver<Errand<R, T>>,
    clock: Clock,
    beat: impl Fn(),
) {
    let mut events = Events::with_capacity(64);
    let mut next_tick = Instant::default();
    let mut yields = 0;
    loop {
        while let Ok(errand) = inbox.try_recv() {
            if matches!(errand(&mut worker), Onward::Stop) {
                return;
            }
        }
        let now = clock.now();
        if now >= next_tick {
            worker.tick(now);
            beat();
            next_tick = now + TICK;
        }
        let nap = match worker.breathe(now) {
            Breath::Worked(_) => {
                yields = YIELDS;
                continue;
            }
            Breath::Stalled => STALL.min(next_tick - now),
            Breath::Idle if yields > 0 => {
                yields -= 1;
                thread::yield_now();
                continue;
            }
            Breath::Idle => next_tick - now,
        };
        if worker.fall_asleep() {
            // An interrupted sleep is a short one; any other error would show as spinning,
            // and cannot happen to a poll that was made.
            let _ = poll.poll(&mut events, Some(nap));
            worker.wake_up();
        }
    }
}
