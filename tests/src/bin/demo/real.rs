//! The demo on real namespaces: our daemons, real sockets, and the kernel's VXLAN beside it.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use vxlane_tests::{
    LabError,
    lab::{self, Container, Lab, LabOptions, Network},
    peer::{Segment, Vtep, VtepKind},
    rig::Rig,
};

use crate::matrix::{Cell, HOSTS, Matrix, NETWORKS, Station};

/// Why this machine cannot show the real thing, if it cannot.
pub(crate) fn why_not() -> Option<String> {
    // The kernel tells who we are in a file.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    if !root {
        return Some("not root, so no namespaces and no AF_XDP".to_owned());
    }
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Packet,
        nix::sys::socket::SockType::Raw,
        nix::sys::socket::SockFlag::empty(),
        None,
    );
    socket.err().map(|error| format!("no raw sockets here ({error})"))
}

/// Runs the demo and shows it.
///
/// # Errors
/// Whatever could not be set up.
pub(crate) fn run() -> Result<Matrix, LabError> {
    println!("Three hosts on one underlay, each with a container in blue (VNI 5000) and one in green (VNI 6000).");
    println!("Both networks are 10.0.0.0/16, with overlapping IP and MAC addresses.\n");
    let names = HOSTS.map(str::to_lowercase);
    let lab = Lab::with(&names.each_ref().map(String::as_str), &options())?;
    let networks = NETWORKS.map(|(name, vni)| Network::new(name, vni));
    let mut containers = HashMap::new();
    for station in Station::all() {
        let name = format!("{}-{}", NETWORKS[station.network].0, names[station.host]);
        let host = lab.host(&names[station.host]);
        let container = host.container_as(&name, &networks[station.network], address(station))?;
        containers.insert((station.network, station.host), container);
    }
    let containers = Containers(containers);
    let matrix = {
        let _vteps = start(&lab, &names, &networks, &containers)?;
        let matrix = containers.matrix()?;
        println!("{matrix}");
        println!("  ● reached, as it must be    · not reached, as it must be    ✗ wrong\n");
        matrix
    };
    drop((containers, lab));
    show_rates()?;
    Ok(matrix)
}

fn options() -> LabOptions {
    LabOptions { wire_offload: true, ..LabOptions::default() }
}

fn address(station: Station) -> lab::Station {
    lab::Station {
        mac: lab::MacAddr([2, 0, 0, 0, 0, station.number()]),
        ipv4: [10, 0, 0, station.number()].into(),
        ipv6: [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(station.number())].into(),
    }
}

fn start(
    lab: &Lab,
    names: &[String],
    networks: &[Network; NETWORKS.len()],
    containers: &Containers,
) -> Result<Vec<Box<dyn Vtep>>, LabError> {
    let mut vteps = Vec::new();
    for (host, name) in names.iter().enumerate() {
        let segment = |(network, entry)| Segment::of(lab, name, entry, &[containers.get(Station { host, network })]);
        let segments: Vec<_> = networks.iter().enumerate().map(segment).collect();
        vteps.push(VtepKind::vxlane().start(lab.host(name), &segments)?);
    }
    Ok(vteps)
}

struct Containers(HashMap<(usize, usize), Container>);

impl Containers {
    fn get(&self, station: Station) -> &Container {
        // `run` made one for every station.
        &self.0[&(station.network, station.host)]
    }

    /// Has everybody ask for every address, all askers at the same time.
    fn matrix(&self) -> Result<Matrix, LabError> {
        let stop = Arc::new(AtomicBool::new(false));
        let answering = Station::all().map(|station| self.answer(station, &stop)).collect::<Result<Vec<_>, _>>()?;
        let rows = thread::scope(|scope| {
            let askers: Vec<_> = Station::all().map(|from| scope.spawn(move || self.row(from))).collect();
            askers.into_iter().map(|asker| asker.join()).collect::<Result<Vec<_>, _>>()
        });
        stop.store(true, Ordering::Relaxed);
        for thread in answering {
            let _ = thread.join();
        }
        let rows = rows.map_err(|_| LabError::Unfit { what: "an asking thread panicked", text: String::new() })?;
        Ok(Matrix(rows.into_iter().collect::<Result<Vec<_>, _>>()?.concat()))
    }

    /// Answers with one's own place whoever asks, until told to stop.
    fn answer(&self, station: Station, stop: &Arc<AtomicBool>) -> Result<thread::JoinHandle<()>, LabError> {
        let socket = self.open(station, PORT)?;
        let stop = Arc::clone(stop);
        Ok(thread::spawn(move || {
            let mut question = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((_, asker)) = socket.recv_from(&mut question) {
                    // An answer that is lost is asked for again.
                    let _ = socket.send_to(&[index(station.network), index(station.host)], asker);
                }
            }
        }))
    }

    fn row(&self, from: Station) -> Result<Vec<Cell>, LabError> {
        let socket = self.open(from, 0)?;
        let cell = |to: Station| Cell { from, to, answer: ask(&socket, to) };
        Ok(Station::all().map(cell).collect())
    }

    fn open(&self, station: Station, port: u16) -> Result<UdpSocket, LabError> {
        let open = || {
            let socket = UdpSocket::bind(("0.0.0.0", port))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        };
        let opened: std::io::Result<UdpSocket> = self.get(station).ns().run(open)?;
        opened.map_err(LabError::syscall("bind", station.to_string()))
    }
}

/// Asks for the address of `to` a few times; says who answered.
fn ask(socket: &UdpSocket, to: Station) -> Option<Station> {
    let mut answer = [0; 2];
    for _ in 0..3 {
        // A refusal (no such address on the segment) shows as silence, too.
        let _ = socket.send_to(b"who are you?", (Ipv4Addr::new(10, 0, 0, to.number()), PORT));
        if socket.recv(&mut answer).is_ok() {
            return Some(Station { network: answer[0].into(), host: answer[1].into() });
        }
    }
    None
}

fn index(value: usize) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

const PORT: u16 = 7777;
const PATIENCE: Duration = Duration::from_millis(300);

/// Rounds of the rate comparison; an odd number, so that there is a median.
const ROUNDS: usize = 3;

/// One flow of 64-byte UDP frames from host to host, through us and through the kernel in turns.
fn show_rates() -> Result<(), LabError> {
    println!("One flow of UDP in 64-byte frames, container to container on two hosts, in turns:");
    let pair = |kind: &VtepKind| Rig::start(&options(), [kind, kind]);
    let rigs = [pair(&VtepKind::kernel())?, pair(&VtepKind::vxlane())?];
    let mut rates = [[0.0; ROUNDS]; 2];
    for round in 0..ROUNDS {
        for (rig, rates) in rigs.iter().zip(&mut rates) {
            rates[round] = rig.flood(64, Duration::from_secs(2))?.1.pps();
        }
    }
    let [kernel, ours] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[ROUNDS / 2]
    });
    println!("  kernel vxlan + bridge   {:>6.0} kpps delivered", kernel / 1e3);
    println!("  vxlane                  {:>6.0} kpps delivered   {:.2} times the kernel\n", ours / 1e3, ours / kernel);
    Ok(())
}
