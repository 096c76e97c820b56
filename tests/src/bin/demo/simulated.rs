//! The demo without a kernel: simulated hosts, the real pipeline.

use vxlane_dataplane::wire::MacAddr;
use vxlane_tests::{
    frames::Talk,
    lab,
    sim::{NetworkPlan, Place, Sim, at},
};

use crate::matrix::{Cell, HOSTS, Matrix, NETWORKS, Station};

/// Runs the demo and shows it.
pub(crate) fn run() -> Matrix {
    let plan = NETWORKS.map(|(_, vni)| NetworkPlan::new(vni, 1));
    let mut sim = Sim::mesh(HOSTS.len(), &plan);
    println!("Three simulated hosts, each with a container in blue (VNI 5000) and one in green (VNI 6000).\n");
    let mut cells = Vec::new();
    for from in Station::all() {
        for to in Station::all() {
            cells.push(Cell { from, to, answer: ask(&mut sim, from, to) });
        }
    }
    let matrix = Matrix(cells);
    println!("{matrix}");
    println!("  ● reached, as it must be    · not reached, as it must be    ✗ wrong\n");
    for (host, name) in HOSTS.iter().enumerate() {
        let counters = sim.counters(host);
        println!(
            "  host {name}: received {} + copies {} = transmitted {} + drops {}",
            counters.received,
            counters.copies,
            counters.transmitted,
            counters.drops.total()
        );
    }
    matrix
}

/// Sends one frame to the address of `to`; who has that address takes it.
fn ask(sim: &mut Sim, from: Station, to: Station) -> Option<Station> {
    if from == to || from.number() == to.number() {
        // Its own address: a container answers itself.
        return Some(from);
    }
    let frame = Talk::new(address(from), address(to)).udp4(7, 7, b"who are you?");
    sim.send(place(from), &frame);
    let reached = Station::all().filter(|&station| !sim.received(place(station)).is_empty());
    // A flood shows the frame to all of a network; the one it is addressed to answers.
    reached.filter(|station| station.number() == to.number()).last()
}

fn place(station: Station) -> Place {
    at(station.host, station.network, 0)
}

fn address(station: Station) -> lab::Station {
    let MacAddr(mac) = MacAddr([2, 0, 0, 0, 0, station.number()]);
    lab::Station {
        mac: lab::MacAddr(mac),
        ipv4: [10, 0, 0, station.number()].into(),
        ipv6: [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(station.number())].into(),
    }
}
