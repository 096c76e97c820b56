//! The few `ethtool` questions and orders we need, by the ioctl (`include/uapi/linux/ethtool.h`).

#![expect(unsafe_code, reason = "no crate we use wraps SIOCETHTOOL")]

use std::{
    ffi::{c_char, c_void},
    io, mem,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// A way to ask one interface, from any thread: the socket belongs to the namespace of the
/// thread that opened it, and the interface is found by its index whatever it is called by now.
#[derive(Debug)]
pub(crate) struct Ethtool {
    socket: OwnedFd,
    index: u32,
}

/// An offload that merges received frames into longer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merging {
    /// By the network stack.
    Gro,
    /// By the driver or the device.
    Lro,
}

impl Ethtool {
    /// Prepares to ask the interface `index` of the calling thread's namespace.
    ///
    /// # Errors
    /// What `socket` answered.
    pub(crate) fn open(index: u32) -> io::Result<Self> {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Self { socket, index })
    }

    /// How many (receive, transmit) queues are in use.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the driver has nothing to say about it.
    pub(crate) fn channels(&self) -> io::Result<(u32, u32)> {
        let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
        self.call(&mut channels)?;
        let both = channels.combined_count;
        let queues = (channels.rx_count + both, channels.tx_count + both);
        if queues.0 == 0 { Err(io::ErrorKind::Unsupported.into()) } else { Ok(queues) }
    }

    /// Whether `what` is on.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(crate) fn merges(&self, what: Merging) -> io::Result<bool> {
        Ok(match what {
            Merging::Gro => self.get(ETHTOOL_GGRO)? != 0,
            Merging::Lro => self.get(ETHTOOL_GFLAGS)? & ETH_FLAG_LRO != 0,
        })
    }

    /// Turns `what` on or off.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(crate) fn set_merging(&self, what: Merging, on: bool) -> io::Result<()> {
        match what {
            Merging::Gro => self.set(ETHTOOL_SGRO, u32::from(on)),
            Merging::Lro => {
                let others = self.get(ETHTOOL_GFLAGS)? & !ETH_FLAG_LRO;
                self.set(ETHTOOL_SFLAGS, if on { others | ETH_FLAG_LRO } else { others })
            }
        }
    }

    /// Has the kernel hand over frames only when they are finished: checksums computed, segmented
    /// to what the wire takes, and with their VLAN tag among their bytes.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(crate) fn finish_frames(&self) -> io::Result<()> {
        self.set(ETHTOOL_STXCSUM, 0)?;
        let others = self.get(ETHTOOL_GFLAGS)? & !ETH_FLAG_TXVLAN;
        self.set(ETHTOOL_SFLAGS, others)
    }

    fn get(&self, command: u32) -> io::Result<u32> {
        let mut value = Value { command, data: 0 };
        self.call(&mut value)?;
        Ok(value.data)
    }

    fn set(&self, command: u32, data: u32) -> io::Result<()> {
        self.call(&mut Value { command, data })
    }

    fn call<T: Request>(&self, request: &mut T) -> io::Result<()> {
        let mut ifreq = self.named()?;
        ifreq.ifr_ifru.ifru_data = (request as *mut T).cast::<c_char>();
        self.ioctl(libc::SIOCETHTOOL, &mut ifreq)
    }

    /// An `ifreq` with the name that the index has now.
    fn named(&self) -> io::Result<libc::ifreq> {
        // SAFETY: `ifreq` is plain C data, for which all zero is a value.
        let mut ifreq: libc::ifreq = unsafe { mem::zeroed() };
        ifreq.ifr_ifru.ifru_ifindex = self.index.try_into().map_err(io::Error::other)?;
        self.ioctl(libc::SIOCGIFNAME, &mut ifreq)?;
        Ok(ifreq)
    }

    fn ioctl(&self, request: libc::Ioctl, ifreq: &mut libc::ifreq) -> io::Result<()> {
        let argument: *mut c_void = (ifreq as *mut libc::ifreq).cast();
        // SAFETY: the socket is open as long as `self`. Both requests made through here read
        // and write one `ifreq`, borrowed exclusively above. `SIOCETHTOOL` follows
        // `ifru_data` too: `call` set it to a `Request`, which it borrows beyond this call
        // and which has, as that trait promises, the size its command writes.
        let answer = unsafe { libc::ioctl(self.socket.as_raw_fd(), request, argument) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// What `SIOCETHTOOL` may be pointed at.
///
/// # Safety
/// The type is `repr(C)`, begins with the command, and is at least as long as what the kernel
/// writes for any command that is ever put there.
unsafe trait Request {}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

// SAFETY: `get` and `set` put only commands there that take a `struct ethtool_value`, whose two
// fields these are.
unsafe impl Request for Value {}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

// SAFETY: `channels` puts only `ETHTOOL_GCHANNELS` there, which takes a `struct
// ethtool_channels`, whose nine fields these are.
unsafe impl Request for Channels {}

const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETH_FLAG_TXVLAN: u32 = 1 << 7;
const ETH_FLAG_LRO: u32 = 1 << 15;
