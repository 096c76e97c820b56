//! Two workers of one express lane, at times that the test chooses.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::*;

/// The maps, as all workers have them.
type Shared = Arc<Mutex<HashMap<TunnelKey, Way>>>;

struct Maps(Shared);

impl Flows for Maps {
    fn put_flow(&mut self, _: &FlowKey, _: &Encap) -> Result<(), FlowsError> {
        Err(FlowsError)
    }

    fn put_tunnel(&mut self, key: &TunnelKey, way: &Way) -> Result<(), FlowsError> {
        self.0.lock().unwrap().insert(*key, *way);
        Ok(())
    }

    fn put_session(&mut self, _: &SessionKey, _: &Rewrite) -> Result<(), FlowsError> {
        Ok(())
    }

    fn remove_flow(&mut self, _: &FlowKey, _: u64) {}

    fn remove_tunnel(&mut self, key: &TunnelKey, expires: u64) {
        let mut maps = self.0.lock().unwrap();
        if maps.get(key).is_some_and(|way| way.expires == expires) {
            maps.remove(key);
        }
    }

    fn remove_session(&mut self, _: &SessionKey) {}
}

const KEY: TunnelKey = TunnelKey { vni: [1, 2, 3, 0], vtep: [9; 16], destination: [2; 6], source: [4; 6] };
const NETWORK: NetworkId = NetworkId(7);

fn flow() -> Flow {
    let way = Way { network: NETWORK.0.into(), ..BLANK.way };
    let vouched = Vouched { left: Duration::from_secs(300), ageing: Duration::from_secs(300) };
    Flow { key: Key::Tunnel(KEY), network: NETWORK, way, encap: BLANK, vouched, crossing: None }
}

/// Nanoseconds, as all workers of the test have them.
static CLOCK: AtomicU64 = AtomicU64::new(0);

fn at(milliseconds: u64) {
    CLOCK.store(milliseconds * 1_000_000, Ordering::Relaxed);
}

#[test]
fn two_workers_with_one_flow_do_not_take_it_from_each_other_and_one_that_is_gone_comes_back() {
    let (shared, epochs) = (Shared::default(), Arc::new(Epochs::unshared()));
    let [mut one, mut two] = [0, 1].map(|number| {
        let maps = Box::new(Maps(Arc::clone(&shared)));
        let mut express = Express::new(WorkerId(number), maps, Arc::clone(&epochs), Uses::unshared(0), 100);
        express.clock = || CLOCK.load(Ordering::Relaxed);
        express
    });
    let expires = || shared.lock().unwrap().get(&KEY).map(|way| way.expires / 1_000_000);
    at(0);
    one.place(&flow());
    at(29_000);
    two.place(&flow());
    assert_eq!(expires(), Some(59_000));
    at(31_000);
    (0..100).for_each(|_| one.tick(Instant::default(), &mut Router::new()));
    assert_eq!((expires(), one.counts().removed), (Some(59_000), 1), "it is the other's now");

    // The other hears of a move last, when the first has placed what is good from then on.
    epochs.end(NETWORK);
    one.begin();
    one.place(&flow());
    (0..100).for_each(|_| two.tick(Instant::default(), &mut Router::new()));
    assert_eq!((expires(), two.counts().removed), (Some(61_000), 1));

    // Whoever took it out: a worker that still gets its frames a little later notices.
    shared.lock().unwrap().clear();
    at(31_050);
    one.place(&flow());
    assert_eq!(expires(), None, "these may have been under way");
    at(31_101);
    one.place(&flow());
    assert_eq!(expires(), Some(61_101));
}
