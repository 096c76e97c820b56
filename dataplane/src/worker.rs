//! A worker: takes frames in, has the pipeline decide, carries the decisions out.
//!
//! One breath visits every queue once. For each, a burst is inhaled, each of its frames is
//! decided about and carried out, and all go back; at the end of the breath everything that was
//! put into ports is submitted. Nothing in a breath allocates, waits or asks the time.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::RawFd,
    sync::Arc,
};

use crossbeam::queue::ArrayQueue;
use mio::{Interest, Registry, Token, unix::SourceFd};

use crate::{
    clock::Instant,
    events::Event,
    exits::{Exits, tag},
    express::{Express, FlowCounts},
    handover::Mailbox,
    ids::{PortId, QueueId, WorkerId},
    nat::Nat,
    pipeline::Pipeline,
    port::{Census, KernelDrops, Receive, Transmit},
    router::Family,
    shortcut::{Elsewhere, Entrance, Shortcut},
    stats::Counters,
    tables::Tables,
    verdict::DropReason,
};

/// What a breath came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breath {
    /// This many frames were taken in.
    Worked(usize),
    /// Nothing came in, but the kernel has not yet taken everything that should go out.
    Stalled,
    /// Nothing to do.
    Idle,
}

/// How a worker calls control.
#[derive(Clone)]
pub struct Bell(Arc<dyn Fn() + Send + Sync>);

impl Bell {
    /// A bell that calls `ring`, which must not wait.
    pub fn new(ring: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(ring))
    }

    fn ring(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Bell")
    }
}

/// One worker's share of the dataplane.
#[derive(Debug)]
pub struct Worker<R, T> {
    /// Decides.
    pub pipeline: Pipeline,
    tables: Arc<Tables>,
    inlets: Vec<Inlet<R>>,
    exits: Exits<T>,
    registry: Option<Registry>,
    /// Where events go; until there is such a place they stay in the pipeline.
    events: Option<Arc<EventQueue>>,
    bell: Option<Bell>,
    express: Option<Express>,
}

/// Events on their way to control.
pub(crate) type EventQueue = ArrayQueue<(Instant, Event)>;

#[derive(Debug)]
struct Inlet<R> {
    port: PortId,
    queue: QueueId,
    receive: R,
    /// Frames of many ports come in here, with a tag that says which.
    tagged: bool,
}

/// One queue of a port, as a report shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueReport {
    /// The port.
    pub port: PortId,
    /// Which of its queues.
    pub queue: QueueId,
    /// Frames lost before we saw them.
    pub kernel: KernelDrops,
    /// Where the receive frames are.
    pub receive: Census,
}

/// What a worker tells of itself.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its counters.
    pub counters: Counters,
    /// Its receive queues.
    pub queues: Vec<QueueReport>,
    /// Its transmit halves.
    pub transmit: Vec<(PortId, Census)>,
    /// Stations in its MAC table.
    pub stations: usize,
    /// What it did in the express lane.
    pub flows: FlowCounts,
}

/// Frames of one queue, held, and what it takes to see to them.
struct Burst<'a, R, T> {
    pipeline: &'a mut Pipeline,
    exits: &'a mut Exits<T>,
    receive: &'a mut R,
    tables: &'a Tables,
    port: PortId,
    now: Instant,
    count: usize,
}

impl<R: Receive, T: Transmit> Burst<'_, R, T> {
    /// Takes each frame through `entrance`, the short way where it may go that; returns how many
    /// bytes they have. On its own for each kind of entrance, for the registers' sake.
    #[inline(never)]
    fn take(self, mut entrance: impl Shortcut) -> u64 {
        let Self { pipeline, exits, receive, tables, port, now, count } = self;
        if let Some(foresight) = pipeline.bridge.foresight() {
            entrance.foresee(foresight, receive, count);
        }
        if let Some(lookout) = pipeline.router.lookout(tables, port) {
            pipeline.router.look_ahead::<Ipv4Addr>(count, |index| lookout.glimpse(receive.frame(index)));
            pipeline.router.look_ahead::<Ipv6Addr>(count, |index| lookout.glimpse(receive.frame(index)));
        }
        let mut bytes = 0;
        for index in 0..count {
            let frame = receive.frame(index);
            bytes += frame.len() as u64;
            match entrance.way(&mut pipeline.bridge, frame) {
                Some(way) => exits.take_way(tables, &way, frame),
                None => match entrance.rare_way(&mut pipeline.bridge, frame) {
                    Some(way) => exits.take_rare_way(tables, &way, frame),
                    None => {
                        let decision = pipeline.process(tables, now, port, frame);
                        exits.carry_out(tables, port, &decision, frame);
                    }
                },
            }
        }
        bytes
    }
}

impl<R: Receive, T: Transmit> Worker<R, T> {
    /// Worker `me`, without ports, with room for `stations` in its MAC table.
    pub fn new(me: WorkerId, stations: usize, tables: Arc<Tables>, mail: Arc<[Mailbox]>) -> Self {
        Self {
            pipeline: Pipeline::new(stations),
            tables,
            inlets: Vec::new(),
            exits: Exits::new(me, mail),
            registry: None,
            events: None,
            bell: None,
            express: None,
        }
    }

    /// Has decisions repeated by the programs of the express lane from now on.
    pub fn use_express(&mut self, express: Express) {
        self.express = Some(express);
        self.watch::<Ipv4Addr>();
        self.watch::<Ipv6Addr>();
    }

    /// Has `nat` translate from now on, if that is any. The sessions of the one before end.
    pub fn use_nat<A: Family>(&mut self, nat: Option<Box<Nat<A>>>) -> Option<Box<Nat<A>>> {
        self.with_nat::<A, _>(|nat| nat.retain(|_| false));
        let before = std::mem::replace(A::place(&mut self.pipeline.router), nat);
        self.watch::<A>();
        before
    }

    /// Has the translation tell of its sessions, where somebody wants to know.
    fn watch<A: Family>(&mut self) {
        if let (Some(_), Some(nat)) = (&self.express, A::nat(&mut self.pipeline.router)) {
            nat.watch();
        }
    }

    /// Has the translation, if there is one, do something. It knows of everything that its
    /// sessions were used for, and of those that it ends nothing is repeated any more by programs
    /// that start after this returns.
    pub fn with_nat<A: Family, B>(&mut self, errand: impl FnOnce(&mut Nat<A>) -> B) -> Option<B> {
        let router = &mut self.pipeline.router;
        A::nat(router)?;
        if let Some(express) = &mut self.express {
            express.tell_all(router);
        }
        let answer = A::nat(router).map(errand);
        self.drop_left();
        answer
    }

    /// Has events passed on through `events`; those that find it full are lost.
    pub(crate) fn tell_through(&mut self, events: Arc<EventQueue>) {
        self.events = Some(events);
    }

    /// Has `bell` rung whenever a packet waits for what control alone can find out; at most ten
    /// times a second.
    pub fn ring_with(&mut self, bell: Bell) {
        self.bell = Some(bell);
    }

    /// Has the descriptors of ports watched through `registry`, now and from now on.
    pub(crate) fn watch_with(&mut self, registry: Registry) {
        self.registry = Some(registry);
    }

    /// Swaps the tables. Everything that came in before has been carried out under the old.
    pub fn adopt(&mut self, tables: Arc<Tables>) {
        self.pipeline.router.adopt(&self.tables, &tables);
        self.drop_left();
        self.tables = tables;
        self.pipeline.bridge.adopt(&self.tables);
        self.pipeline.neighbours.adopt(&self.tables);
    }

    /// Starts to serve one queue of `port`.
    ///
    /// # Errors
    /// If its descriptor cannot be watched; the queue is not served then.
    pub fn open(&mut self, port: PortId, queue: QueueId, receive: R, transmit: T) -> io::Result<()> {
        self.open_exit(port, transmit);
        self.open_inlet(port, queue, receive).inspect_err(|_| drop(self.exits.close(port)))
    }

    /// Has frames to `port` leave by `transmit`. Together with [`open_inlet`](Self::open_inlet)
    /// this is [`open`](Self::open), for whoever opens many ports at once: with every exit open
    /// before the first inlet is, no frame comes in that cannot leave.
    pub fn open_exit(&mut self, port: PortId, transmit: T) {
        self.exits.open(port, transmit);
    }

    /// Takes in the frames of one queue of `port`.
    ///
    /// # Errors
    /// If its descriptor cannot be watched; the queue is not served then.
    pub fn open_inlet(&mut self, port: PortId, queue: QueueId, receive: R) -> io::Result<()> {
        if let (Some(registry), Some(fd)) = (&self.registry, receive.fd()) {
            registry.register(&mut SourceFd(&fd), Token(usize::from(port.0)), Interest::READABLE)?;
        }
        self.pipeline.events.make_room(port);
        self.inlets.push(Inlet { port, queue, receive, tagged: false });
        Ok(())
    }

    /// Starts to serve one queue of `port`, through which tagged frames of other ports come and go.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_tagged(&mut self, port: PortId, queue: QueueId, receive: R, transmit: T) -> io::Result<()> {
        self.open(port, queue, receive, transmit)?;
        self.have_tagged(port);
        Ok(())
    }

    /// Has the frames of `port`, which is open, come and go tagged as those of other ports.
    pub fn have_tagged(&mut self, port: PortId) {
        self.exits.tag_through(port);
        self.inlets.iter_mut().filter(|inlet| inlet.port == port).for_each(|inlet| inlet.tagged = true);
    }

    /// Makes room for a port whose frames come and go tagged.
    pub fn admit(&mut self, port: PortId) {
        self.exits.admit(port);
        self.pipeline.events.make_room(port);
    }

    /// Stops to serve `port` and returns its halves.
    ///
    /// No worker has tables any more that name the port, so that what waits in the mailbox is
    /// all that will ever come for it. That is carried out first: the number may soon belong
    /// to another port, of another network.
    pub fn close(&mut self, port: PortId) -> (Vec<(QueueId, R)>, Option<T>) {
        self.exits.take_over();
        self.exits.submit();
        let (closed, kept) = self.inlets.drain(..).partition::<Vec<_>, _>(|inlet| inlet.port == port);
        self.inlets = kept;
        for inlet in &closed {
            self.unwatch(inlet.receive.fd());
        }
        (closed.into_iter().map(|inlet| (inlet.queue, inlet.receive)).collect(), self.exits.close(port))
    }

    /// Takes nothing in any more. What waits in the rings stays there, for whoever is given them.
    pub fn stop_inhaling(&mut self) {
        for inlet in std::mem::take(&mut self.inlets) {
            self.unwatch(inlet.receive.fd());
        }
    }

    /// Sends everything that other workers have handed over. Once none of them inhales any more
    /// there is nothing left in this process after that.
    pub fn exhale(&mut self) {
        self.exits.take_over();
        self.exits.submit();
    }

    fn unwatch(&self, fd: Option<RawFd>) {
        if let (Some(registry), Some(fd)) = (&self.registry, fd) {
            // The descriptor is about to be closed, which ends the watch in any case.
            let _ = registry.deregister(&mut SourceFd(&fd));
        }
    }

    /// Takes in what is there, decides, sends.
    pub fn breathe(&mut self, now: Instant) -> Breath {
        if let Some(express) = &mut self.express {
            express.begin();
        }
        let mut count = usize::from(self.read_mail(now));
        for inlet in 0..self.inlets.len() {
            count += if self.inlets[inlet].tagged { self.inhale_tagged(inlet, now) } else { self.inhale(inlet, now) };
        }
        let waiting = self.exits.submit();
        match (count, waiting) {
            (0, 0) => Breath::Idle,
            (0, _) => Breath::Stalled,
            _ => Breath::Worked(count),
        }
    }

    /// One burst of one queue.
    #[inline]
    fn inhale(&mut self, inlet: usize, now: Instant) -> usize {
        let Self { pipeline, tables, inlets, exits, .. } = self;
        let Inlet { port, receive, .. } = &mut inlets[inlet];
        let count = receive.take();
        if count == 0 {
            return 0;
        }
        let entrance = Entrance::of(tables, &mut pipeline.bridge, *port, now);
        let burst = Burst { pipeline, exits, receive, tables, port: *port, now, count };
        let bytes = match entrance {
            Entrance::Endpoint(endpoint) => burst.take(endpoint),
            Entrance::Uplink(uplink) => burst.take(uplink),
            Entrance::Elsewhere => burst.take(Elsewhere),
        };
        let counters = exits.counters.port(*port);
        counters.rx_packets += count as u64;
        counters.rx_bytes += bytes;
        exits.counters.received += count as u64;
        receive.release();
        self.send_released(now);
        self.spread_news();
        count
    }

    /// One burst of a queue whose frames are of many ports.
    fn inhale_tagged(&mut self, inlet: usize, now: Instant) -> usize {
        let Self { pipeline, tables, inlets, exits, express, .. } = self;
        let Inlet { port: punt, receive, .. } = &mut inlets[inlet];
        let count = receive.take();
        for index in 0..count {
            exits.counters.received += 1;
            let frame = receive.frame(index);
            let Some((port, frame)) = tag::take_off(frame).filter(|&(port, _)| is_tagged(tables, port)) else {
                exits.drop(*punt, DropReason::PortGone);
                continue;
            };
            let counters = exits.counters.port(port);
            counters.rx_packets += 1;
            counters.rx_bytes += frame.len() as u64;
            let decision = pipeline.process(tables, now, port, frame);
            exits.carry_out(tables, port, &decision, frame);
            if let Some(express) = express {
                express.repeat(tables, pipeline, now, port, &decision, frame);
            }
        }
        if count > 0 {
            receive.release();
            self.send_released(now);
            self.spread_news();
        }
        count
    }

    /// Sends fragments on that waited for the first of their datagram.
    #[inline]
    fn send_released(&mut self, now: Instant) {
        let Self { pipeline, tables, exits, .. } = self;
        while let Some(mut frame) = pipeline.router.take_released() {
            exits.counters.released += 1;
            let decision = pipeline.process_released(tables, now, &mut frame);
            let from = tables.outside().map_or(PortId(0), |outside| outside.uplink);
            exits.carry_out(tables, from, &decision, &frame);
            pipeline.router.give_back(frame);
        }
    }

    /// Decides about frames that other workers had no right to; says whether there were any.
    fn decide_for_others(&mut self, mailbox: &Mailbox, now: Instant) -> bool {
        let Self { pipeline, tables, exits, express, .. } = self;
        let mut any = false;
        while let Some(mut letter) = mailbox.open_undecided() {
            any = true;
            exits.counters.taken_over += 1;
            exits.counters.make_room(letter.port);
            let decision = pipeline.process(tables, now, letter.port, &mut letter.frame);
            exits.carry_out(tables, letter.port, &decision, &letter.frame);
            if let Some(express) = express {
                express.repeat(tables, pipeline, now, letter.port, &decision, &letter.frame);
            }
            mailbox.give_back(letter);
        }
        if any {
            self.send_released(now);
            self.spread_news();
        }
        any
    }

    /// Sends what the pipeline would like to know of endpoints.
    #[inline]
    fn ask_neighbours(&mut self) {
        let Self { pipeline, tables, exits, .. } = self;
        for question in pipeline.neighbours.questions.drain(..) {
            exits.ask(tables, &question);
        }
    }

    /// Tells the other workers what this burst taught us.
    #[inline]
    fn spread_news(&mut self) {
        let me = self.exits.me.index();
        for news in self.pipeline.news.drain(..) {
            for (_, mailbox) in self.exits.mail.iter().enumerate().filter(|&(worker, _)| worker != me) {
                mailbox.tell(news);
            }
        }
        self.end_epochs();
    }

    /// Has no flow repeated any more that was decided before a station moved. Other workers have
    /// been told of it by now.
    #[inline]
    fn end_epochs(&mut self) {
        for network in self.pipeline.moved.drain(..) {
            if let Some(express) = &self.express {
                express.end(network);
            }
        }
    }

    /// Has nothing be repeated any more of sessions that have ended.
    fn drop_left(&mut self) {
        if let Some(express) = &mut self.express {
            express.drop_left(&mut self.pipeline.router);
        }
    }

    /// Sends what others handed over and learns what they tell; says whether there was any.
    fn read_mail(&mut self, now: Instant) -> bool {
        if self.exits.mail.len() < 2 {
            return false;
        }
        let mail = Arc::clone(&self.exits.mail);
        let mailbox = &mail[self.exits.me.index()];
        if mailbox.missed_news() {
            self.pipeline.bridge.flush(None);
            self.pipeline.neighbours.flush_told();
        }
        while let Some(news) = mailbox.hear() {
            self.pipeline.hear(&self.tables, now, news);
            self.end_epochs();
        }
        self.decide_for_others(mailbox, now) | self.exits.take_over()
    }

    /// The slow work, off the packet path: forgets some of the stations that fell silent.
    /// Call it ten times a second; the whole table is looked at within seven seconds.
    pub fn tick(&mut self, now: Instant) {
        let slots = self.pipeline.bridge.slots().div_ceil(64);
        self.pipeline.bridge.age(&self.tables, now, slots);
        let places = self.pipeline.neighbours.capacity().div_ceil(64);
        self.pipeline.neighbours.tick(&self.tables, now, places);
        self.ask_neighbours();
        if let Some(bell) = self.bell.as_ref().filter(|_| !self.pipeline.router.wanted.is_empty()) {
            bell.ring();
        }
        if let Some(express) = &mut self.express {
            express.tick(now, &mut self.pipeline.router);
        }
        self.pipeline.router.expire(now);
        self.drop_left();
        self.send_released(now);
        if let Some(events) = &self.events {
            for event in self.pipeline.events.take() {
                // Control does not keep up, and has more than enough to tell of already.
                let _ = events.push(event);
            }
        }
        self.exits.tick();
        self.inlets.iter_mut().for_each(|inlet| inlet.receive.tick());
    }

    /// Whether the worker may sleep: nobody put anything into its mailbox meanwhile.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.exits.mail.len() < 2 || self.exits.mail[self.exits.me.index()].fall_asleep()
    }

    pub(crate) fn wake_up(&self) {
        if self.exits.mail.len() > 1 {
            self.exits.mail[self.exits.me.index()].wake_up();
        }
    }

    /// Counters, queues and frames. Asks the kernel: not for the packet path.
    pub fn report(&mut self) -> Report {
        let queues = self.inlets.iter_mut().map(|Inlet { port, queue, receive, .. }| QueueReport {
            port: *port,
            queue: *queue,
            kernel: receive.kernel_drops(),
            receive: receive.census(),
        });
        Report {
            queues: queues.collect(),
            transmit: self.exits.halves().map(|(port, half)| (port, half.census())).collect(),
            counters: self.exits.counters.clone(),
            stations: self.pipeline.bridge.len(),
            flows: self.express.as_ref().map(Express::counts).unwrap_or_default(),
        }
    }

    /// What it has counted so far.
    pub fn counters(&self) -> &Counters {
        &self.exits.counters
    }

    /// The receiving half of every queue that it serves.
    pub fn queues(&self) -> impl Iterator<Item = (PortId, QueueId, &R)> {
        self.inlets.iter().map(|inlet| (inlet.port, inlet.queue, &inlet.receive))
    }

    /// The tables it works with.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }
}

/// Whether frames of `port` come and go tagged.
fn is_tagged(tables: &Tables, port: PortId) -> bool {
    tables.port(port).is_some_and(|port| port.express.is_some())
}
