//! Once a move, a removal or a change is acknowledged, not one packet goes where it went before.
//!
//! Numbered probes are sent without a pause through the express lane while stations move and
//! endpoints, peers and static stations come and go; ten thousand of each in `cargo xtask soak`.
//!
//! Needs root.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that cannot go on has failed")]

use std::{
    cell::Cell,
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use vxlane_tests::{
    alone::{Alone, AloneOptions},
    frames::{Talk, Vxlan},
    lab::{MacAddr, Network, Station, UPLINK, Underlay},
    netns::Netns,
    peer::VxlaneOptions,
    soak,
    traffic::raw::{Heading, RawSender, Watch},
};

const LIMIT: Duration = Duration::from_secs(20);
/// Probes that are sent before the next change, so that the express lane has their flow.
const SOME: u64 = 12;

/// What arrived at one place: by station, the numbers of its probes in the order they came in.
type Arrivals = Arc<Mutex<HashMap<u64, Vec<u64>>>>;

/// Numbered probes to one station at a time.
struct Prober {
    /// The number of the last probe whose sending has begun.
    begun: Arc<AtomicU64>,
    station: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u64>>,
}

impl Prober {
    /// Sends what `frame` makes of a station and a number.
    fn start(sender: RawSender, frame: impl Fn(u64, u64) -> Vec<u8> + Send + 'static) -> Self {
        let (begun, station, stop): (Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicBool>) = Default::default();
        let thread = {
            let (begun, station, stop) = (Arc::clone(&begun), Arc::clone(&station), Arc::clone(&stop));
            thread::spawn(move || {
                let mut stations = vec![0];
                while !stop.load(SeqCst) {
                    let target = station.load(SeqCst);
                    let number = stations.len() as u64;
                    stations.push(target);
                    begun.store(number, SeqCst);
                    sender.send(&frame(target, number)).unwrap();
                    thread::sleep(Duration::from_micros(20));
                }
                stations
            })
        };
        Self { begun, station, stop, thread }
    }

    /// Probes with higher numbers than this are sent after now.
    fn now(&self) -> u64 {
        self.begun.load(SeqCst)
    }

    fn aim(&self, station: u64) {
        self.station.store(station, SeqCst);
    }

    /// Waits until `count` more probes were sent.
    fn await_more(&self, count: u64) {
        let goal = self.now() + count;
        await_true("probes", || self.now() >= goal);
    }

    /// Stops, and tells the station of each number.
    fn finish(self) -> Vec<u64> {
        self.stop.store(true, SeqCst);
        self.thread.join().unwrap()
    }
}

/// A place where frames arrive, and from where stations speak.
struct Place {
    sender: RawSender,
    arrivals: Arrivals,
    /// The last announcement that arrived.
    announced: Arc<AtomicU64>,
    watch: Watch,
    /// What is around frames here.
    tunnel: Option<Vxlan>,
}

impl Place {
    fn of(ns: &Netns, device: &str, tunnel: Option<Vxlan>) -> Self {
        let (arrivals, announced): (Arrivals, Arc<AtomicU64>) = Default::default();
        let skip = if tunnel.is_some() { OUTER } else { 0 };
        let watch = {
            let (arrivals, announced) = (Arc::clone(&arrivals), Arc::clone(&announced));
            Watch::start(ns, device, Heading::Incoming, move |frame| {
                match frame.get(skip..).and_then(read) {
                    Some((ANNOUNCEMENT, number)) => announced.store(number, SeqCst),
                    Some((station, number)) => arrivals.lock().unwrap().entry(station).or_default().push(number),
                    None => {}
                }
                false
            })
        };
        Self { sender: RawSender::open(ns, device).unwrap(), arrivals, announced, watch: watch.unwrap(), tunnel }
    }

    /// Has a station speak from here.
    fn announce(&self, from: Station, to: Station, number: u64) {
        let frame = written(from, to, ANNOUNCEMENT, number);
        let frame = self.tunnel.as_ref().map_or(frame.clone(), |tunnel| tunnel.wrap(&frame));
        self.sender.send(&frame).unwrap();
    }

    fn has_heard(&self, number: u64) -> bool {
        self.announced.load(SeqCst) == number
    }

    /// The numbers of the probes to `station` that arrived here.
    fn numbers(&self, station: u64) -> Vec<u64> {
        assert_eq!(self.watch.lost(), 0, "the watch was too slow");
        self.arrivals.lock().unwrap().get(&station).cloned().unwrap_or_default()
    }

    /// The number of the probe to `station` that arrived here last.
    fn last(&self, station: u64) -> u64 {
        self.arrivals.lock().unwrap().get(&station).and_then(|numbers| numbers.last().copied()).unwrap_or(0)
    }

    fn count(&self) -> usize {
        self.arrivals.lock().unwrap().values().map(Vec::len).sum()
    }
}

/// A host with vxlane and the container that probes, another container, and two other VTEPs.
///
/// Fields go in this order when dropped: what watches before what it watches.
struct Rig {
    near: Place,
    local: Place,
    wires: [Place; 2],
    announcements: AtomicU64,
    alone: Alone,
}

impl Rig {
    /// With so many of the containers on the network from the start, and the other hosts or none.
    fn new(endpoints: usize, peers: bool) -> Self {
        let vxlane = VxlaneOptions { express: true, ..VxlaneOptions::default() };
        let others = vec!["b", "c"];
        let endpoints = 0..endpoints;
        let options = AloneOptions {
            others,
            containers: 2,
            endpoints,
            network: true,
            peers,
            mtu: 1450,
            underlay: Underlay::V4,
            vxlane,
        };
        let alone = Alone::start(&options).unwrap();
        let [near, local] = [0, 1].map(|number| Place::of(alone.containers[number].ns(), "eth0", None));
        let wires = ["b", "c"].map(|name| Place::of(alone.lab.host(name).ns(), UPLINK, Some(alone.tunnel(name))));
        Self { near, local, wires, announcements: AtomicU64::new(0), alone }
    }

    fn ask(&self, command: &str) {
        self.alone.ask(command).unwrap_or_else(|error| panic!("{error}"));
    }

    fn asked(&self) -> u64 {
        self.alone.asked().unwrap()
    }

    fn near_station(&self) -> Station {
        self.alone.containers[0].station()
    }

    /// Has `station` speak at `place` until the container that probes has heard it.
    fn settle(&self, place: &Place, station: Station) {
        let number = self.announcements.fetch_add(1, SeqCst) + 1;
        place.announce(station, self.near_station(), number);
        await_true(&format!("announcement {number}"), || self.near.has_heard(number));
    }

    fn probe_from_container(&self, station_of: impl Fn(u64) -> Station + Send + 'static) -> Prober {
        let from = self.near_station();
        let sender = RawSender::open(self.alone.containers[0].ns(), "eth0").unwrap();
        Prober::start(sender, move |station, number| written(from, station_of(station), station, number))
    }

    /// Probes from a station behind the first of the other VTEPs.
    fn probe_from_wire(&self, station: Station, to: Station) -> Prober {
        let tunnel = self.wires[0].tunnel.clone().unwrap();
        let sender = self.alone.wire("b").unwrap();
        Prober::start(sender, move |key, number| tunnel.wrap(&written(station, to, key, number)))
    }

    /// Waits until nothing arrives anywhere any more.
    fn await_silence(&self) {
        let total =
            || [&self.near, &self.local, &self.wires[0], &self.wires[1]].map(Place::count).iter().sum::<usize>();
        let (mut before, mut since) = (total(), Instant::now());
        while since.elapsed() < Duration::from_millis(100) {
            thread::sleep(Duration::from_millis(5));
            let now = total();
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
    }
}

fn await_true(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        thread::sleep(Duration::from_micros(50));
    }
}

/// A frame that says for which station it is and which number it has.
fn written(from: Station, to: Station, station: u64, number: u64) -> Vec<u8> {
    let payload = [MARK, &station.to_be_bytes(), &number.to_be_bytes()].concat();
    Talk::new(from, to).udp4(7, 9, &payload)
}

fn read(frame: &[u8]) -> Option<(u64, u64)> {
    let payload = frame.get(42..)?.strip_prefix(MARK)?;
    let (station, number) = (payload.first_chunk()?, payload.get(8..)?.first_chunk()?);
    Some((u64::from_be_bytes(*station), u64::from_be_bytes(*number)))
}

const MARK: &[u8] = b"probe of an old place: ";
const ANNOUNCEMENT: u64 = u64::MAX;
/// Bytes of the outer headers.
const OUTER: usize = 50;

/// Where a station was: from when it was acknowledged until the next change began.
struct Stay {
    station: u64,
    place: usize,
    from: u64,
    until: u64,
}

#[test]
fn after_a_station_has_moved_no_packet_goes_where_it_was_and_none_is_lost() {
    /// More moves of one station within three minutes are one too many.
    const MOVES: u64 = 4;
    let rig = Rig::new(2, true);
    let station_of = |key: u64| {
        let [.., a, b] = key.to_be_bytes();
        Station {
            mac: MacAddr([2, 0x77, 0, 0, a, b]),
            ipv4: [10, 0, 200, 1].into(),
            ..Network::new("", 0).station(9, 9)
        }
    };
    let places = [&rig.wires[0], &rig.wires[1], &rig.local];
    rig.settle(places[0], station_of(0));
    let prober = rig.probe_from_container(station_of);
    let stations = soak::choose(1000, 10_000) / MOVES;
    let (mut stays, before, began) = (Vec::new(), rig.asked(), Instant::now());
    for key in 0..stations {
        for step in 0..=MOVES {
            // Each station starts elsewhere, so that all moves there are happen.
            let place = ((key + step) % 3) as usize;
            let until = prober.now();
            if let Some(last) = stays.last_mut().filter(|last: &&mut Stay| last.station == key) {
                last.until = until;
            }
            rig.settle(places[place], station_of(key));
            if step == 0 {
                prober.aim(key);
            }
            stays.push(Stay { station: key, place, from: prober.now(), until: u64::MAX });
            prober.await_more(SOME);
        }
    }
    let sent = prober.finish();
    rig.await_silence();
    let asked = rig.asked() - before;
    let moves = stations * MOVES;
    println!("{moves} moves in {:.1?}, {} probes, of which workers saw {asked}", began.elapsed(), sent.len());
    for stay in &stays {
        let arrived = places.map(|place| place.numbers(stay.station));
        let (first, end) = (stay.from + 1, stay.until.min(sent.len() as u64));
        for number in (first..end).filter(|&number| sent[number as usize] == stay.station) {
            let counts = arrived.each_ref().map(|numbers| numbers.iter().filter(|&&n| n == number).count());
            let mut expected = [0; 3];
            expected[stay.place] = 1;
            assert_eq!(counts, expected, "probe {number} of station {}: {}..{}", stay.station, stay.from, stay.until);
        }
    }
    let delivered: usize = places.iter().map(|place| place.count()).sum();
    assert_eq!(delivered, sent.len() - 1, "every probe arrived once");
    assert!(asked < sent.len() as u64 / 2, "{asked} of {} went to workers", sent.len());
}

/// Probes, the place that they go to, and the one that they go to instead when that has been taken
/// from it, if there is one.
struct Course<'a> {
    prober: Prober,
    place: &'a Place,
    instead: Option<&'a Place>,
}

/// Changes what a place is, again and again: what `undo` has taken from a place it must not get,
/// from when that returned until `redo` is called.
fn check_removals(rig: &Rig, what: &str, cycles: u64, courses: Vec<Course<'_>>, redo: impl Fn(), undo: impl Fn()) {
    let (mut spans, before, began) = (vec![Vec::new(); courses.len()], rig.asked(), Instant::now());
    let now = || courses.iter().map(|course| course.prober.now()).collect::<Vec<_>>();
    for _ in 0..cycles {
        redo();
        let there = now();
        courses.iter().for_each(|course| course.prober.await_more(SOME));
        let going = now();
        undo();
        let gone = now();
        courses.iter().for_each(|course| course.prober.await_more(3));
        let again = now();
        // What has been sent may wait in a queue of the kernel until it may go there again.
        for (key, (course, &again)) in (0..).zip(courses.iter().zip(&again)) {
            let Some(instead) = course.instead else { continue };
            await_true("probes elsewhere", || instead.last(key) >= again);
        }
        for (index, span) in spans.iter_mut().enumerate() {
            span.push([there[index], going[index], gone[index], again[index]]);
        }
    }
    let (mut total, host) = (0, rig.alone.lab.host("a").ns());
    let finished: Vec<(Vec<u64>, &Place)> =
        courses.into_iter().map(|course| (course.prober.finish(), course.place)).collect();
    rig.await_silence();
    for (key, ((sent, place), spans)) in finished.iter().zip(spans).enumerate() {
        total += sent.len() as u64;
        let mut numbers = place.numbers(key as u64);
        numbers.sort_unstable();
        let within = |from: u64, to: u64| {
            let (from, to) = (numbers.partition_point(|&n| n <= from), numbers.partition_point(|&n| n < to));
            to.saturating_sub(from) as u64
        };
        for [there, going, gone, again] in spans {
            assert_eq!(within(gone, again), 0, "{what}, prober {key}: none may arrive between {gone} and {again}");
            let (all, counted) = ((going - there).saturating_sub(1), host.lost_by_links().unwrap());
            assert_eq!(within(there, going), all, "{what}, prober {key}: none is lost; interfaces lost {counted}");
        }
    }
    let asked = rig.asked() - before;
    println!("{what}: {cycles} in {:.1?}, {total} probes, of which workers saw {asked}", began.elapsed());
    assert!(asked < total, "{asked} of {total} went to workers");
}

fn cycles() -> u64 {
    soak::choose(20, 10_000)
}

#[test]
fn after_an_endpoint_was_disconnected_no_packet_reaches_it() {
    let rig = Rig::new(1, true);
    let (station, far) = (rig.alone.containers[1].station(), rig.alone.station("b"));
    let name = rig.alone.containers[1].port();
    let [inside, outside] = [rig.probe_from_container(move |_| station), rig.probe_from_wire(far, station)];
    outside.aim(1);
    // A station that nobody knows is sent for everywhere.
    let courses = vec![
        Course { prober: inside, place: &rig.local, instead: Some(&rig.wires[0]) },
        Course { prober: outside, place: &rig.local, instead: Some(&rig.near) },
    ];
    let redo = || {
        rig.ask(&format!("network connect blue --interface {name} --name mover"));
        rig.settle(&rig.local, station);
    };
    let undo = || rig.ask("network disconnect blue --name mover");
    check_removals(&rig, "endpoints disconnected", cycles(), courses, redo, undo);
}

#[test]
fn after_a_peer_was_removed_no_packet_reaches_it_and_none_of_its_is_delivered() {
    let rig = Rig::new(2, false);
    let (far, near) = (rig.alone.station("b"), rig.near_station());
    let peer = rig.alone.lab.host("b").address();
    let [inside, outside] = [rig.probe_from_container(move |_| far), rig.probe_from_wire(far, near)];
    outside.aim(1);
    let courses = vec![
        Course { prober: inside, place: &rig.wires[0], instead: Some(&rig.local) },
        Course { prober: outside, place: &rig.near, instead: None },
    ];
    let redo = || {
        rig.ask(&format!("peer add {peer} --network blue"));
        rig.settle(&rig.wires[0], far);
        // Its next hop may have to be asked for.
        let before = rig.wires[0].count();
        await_true("a probe", || rig.wires[0].count() > before);
    };
    let undo = || rig.ask(&format!("peer del {peer} --network blue"));
    check_removals(&rig, "peers removed", cycles(), courses, redo, undo);
}

#[test]
fn after_a_station_was_said_to_be_elsewhere_no_packet_goes_where_it_was() {
    let rig = Rig::new(1, true);
    let (far, elsewhere) = (rig.alone.station("b"), rig.alone.lab.host("c").address());
    let prober = rig.probe_from_container(move |_| far);
    let undo = || rig.ask(&format!("fdb add {} --network blue --dst {elsewhere}", far.mac));
    let is_elsewhere = Cell::new(false);
    let redo = || {
        if is_elsewhere.replace(true) {
            rig.ask(&format!("fdb del {} --network blue", far.mac));
        }
        rig.settle(&rig.wires[0], far);
    };
    let courses = vec![Course { prober, place: &rig.wires[0], instead: Some(&rig.wires[1]) }];
    check_removals(&rig, "stations said to be elsewhere", cycles(), courses, redo, undo);
}

#[test]
fn after_stations_were_flushed_every_packet_is_flooded_again() {
    let rig = Rig::new(1, true);
    let far = rig.alone.station("b");
    let prober = rig.probe_from_container(move |_| far);
    let mut flushed = Vec::new();
    for _ in 0..cycles().min(1000) {
        rig.settle(&rig.wires[0], far);
        prober.await_more(SOME);
        rig.ask("fdb flush --network blue");
        let from = prober.now();
        prober.await_more(3);
        flushed.push((from, prober.now()));
    }
    prober.finish();
    rig.await_silence();
    for (from, until) in flushed {
        for wire in &rig.wires {
            let numbers = wire.numbers(0);
            let missing: Vec<u64> = (from + 1..until).filter(|number| !numbers.contains(number)).collect();
            assert!(missing.is_empty(), "not flooded: {missing:?} of {from}..{until}");
        }
    }
}
