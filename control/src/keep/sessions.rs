//! Sessions of address translation in a file in memory, from one daemon to the next.
//!
//! One record for each, in the order of bytes of this machine: the file never leaves it. What
//! numbers mean may change with the version, which is why the file begins with one.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    net::Ipv4Addr,
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use vxlane_dataplane::{
    clock::Ticks,
    ids::NetworkId,
    nat::{Protocol, SessionView, State, Traffic},
    wire::MacAddr,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The beginning of the file.
const HEAD: &[u8; 16] = b"vxlane nat 1\n\0\0\0";

/// A session. Times are on the workers' clock, which counts from the start of the machine.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Record {
    out: [u64; 2],
    back: [u64; 2],
    vni: u32,
    inside: u32,
    outside: u32,
    remote: u32,
    created: u32,
    deadline: u32,
    ports: [u16; 3],
    mac: [u8; 6],
    protocol: u8,
    state: u8,
    unused: [u8; 2],
}

/// Writes `sessions`, of networks that have these VNIs; those of other networks are left out.
///
/// # Errors
/// If there is no memory for it.
pub fn write<'a>(
    sessions: impl IntoIterator<Item = &'a SessionView>,
    vnis: &HashMap<NetworkId, u32>,
) -> io::Result<File> {
    let mut file = BufWriter::new(File::from(memfd_create("vxlane-sessions", MFdFlags::MFD_CLOEXEC)?));
    file.write_all(HEAD)?;
    for session in sessions {
        if let Some(&vni) = vnis.get(&session.network) {
            file.write_all(Record::of(session, vni).as_bytes())?;
        }
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)
}

/// Reads what [`write()`] has written, as sessions of the networks that have these VNIs now; those of
/// networks that are gone are left out.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if it is of another version, or cut short.
pub fn read(mut file: File, networks: &HashMap<u32, NetworkId>) -> io::Result<Vec<SessionView>> {
    file.rewind()?;
    let mut bytes = Vec::new();
    BufReader::new(file).read_to_end(&mut bytes)?;
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let records = bytes.strip_prefix(HEAD).ok_or_else(|| bad("sessions of another version"))?;
    let records = records.chunks(size_of::<Record>()).map(Record::read_from_bytes);
    let records: Vec<Record> = records.collect::<Result<_, _>>().map_err(|_| bad("sessions that are cut short"))?;
    Ok(records.iter().filter_map(|record| record.view(networks)).collect())
}

impl Record {
    fn of(session: &SessionView, vni: u32) -> Self {
        Self {
            out: [session.out.packets(), session.out.bytes()],
            back: [session.back.packets(), session.back.bytes()],
            vni,
            inside: session.inside.0.to_bits(),
            outside: session.outside.0.to_bits(),
            remote: session.remote.0.to_bits(),
            created: session.created.0,
            deadline: session.deadline.0,
            ports: [session.inside.1, session.outside.1, session.remote.1],
            mac: session.mac.0,
            protocol: session.protocol as u8,
            state: session.state as u8,
            unused: [0; 2],
        }
    }

    fn view(&self, networks: &HashMap<u32, NetworkId>) -> Option<SessionView> {
        let [inside, outside, remote] = self.ports;
        let at = |address, port| (Ipv4Addr::from_bits(address), port);
        Some(SessionView {
            protocol: *Protocol::ALL.get(usize::from(self.protocol))?,
            network: *networks.get(&self.vni)?,
            inside: at(self.inside, inside),
            mac: MacAddr(self.mac),
            outside: at(self.outside, outside),
            remote: at(self.remote, remote),
            state: *State::ALL.get(usize::from(self.state))?,
            created: Ticks(self.created),
            deadline: Ticks(self.deadline),
            out: Traffic::new(self.out[0], self.out[1]),
            back: Traffic::new(self.back[0], self.back[1]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(network: u16, port: u16, state: State) -> SessionView {
        SessionView {
            protocol: Protocol::Udp,
            network: NetworkId(network),
            inside: ([10, 0, 0, 2].into(), port),
            mac: MacAddr([2, 0, 0, 0, 0, 2]),
            outside: ([192, 0, 2, 1].into(), 20_000),
            remote: ([198, 51, 100, 7].into(), 53),
            state,
            created: Ticks(77),
            deadline: Ticks(4000),
            out: Traffic::new(1 << 35, 1 << 50),
            back: Traffic::new(3, 4),
        }
    }

    #[test]
    fn what_is_written_is_read_with_the_numbers_that_networks_have_then() {
        let before = [session(1, 1000, State::Udp), session(2, 2000, State::Reset), session(3, 3000, State::Udp)];
        let file = write(&before, &HashMap::from([(NetworkId(1), 5000), (NetworkId(2), 6000)])).unwrap();
        let after = read(file, &HashMap::from([(5000, NetworkId(7)), (6000, NetworkId(1))])).unwrap();
        assert_eq!(after, [session(7, 1000, State::Udp), session(1, 2000, State::Reset)]);
    }

    #[test]
    fn sessions_of_a_network_that_is_gone_are_left_out() {
        let file = write(&[session(1, 1000, State::Udp)], &HashMap::from([(NetworkId(1), 5000)])).unwrap();
        assert_eq!(read(file, &HashMap::new()).unwrap(), []);
    }

    #[test]
    fn another_version_and_half_a_record_are_refused() {
        for (text, reason) in [("vxlane nat 2\n\0\0\0", "another version"), ("vxlane nat 1\n\0\0\0half", "cut short")] {
            let mut file = File::from(memfd_create("test", MFdFlags::empty()).unwrap());
            file.write_all(text.as_bytes()).unwrap();
            let error = read(file, &HashMap::new()).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
