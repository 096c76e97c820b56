//! Two namespaces joined by a veth, and a plain packet socket to look at it from outside.
//!
//! Needs root. Everything is named after this process, so that runs do not meet, and goes away
//! with the rig, whether the test passed or not.

#![expect(unsafe_code, reason = "packet sockets, and a program that is not ours")]
#![allow(dead_code, reason = "each test binary uses its own part of the rig")]

pub(crate) mod lane;
pub(crate) mod steered;

use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};
use vxlane_dataplane::{link::XdpMode, tables::LocalVtep};

/// The name of the veth's end in either namespace.
pub(crate) const VETH: &str = "veth0";
pub(crate) const NEAR_IP: [u8; 4] = [10, 9, 0, 1];
pub(crate) const FAR_IP: [u8; 4] = [10, 9, 0, 2];
pub(crate) const NEAR_VTEP: LocalVtep = LocalVtep::new(Some(Ipv4Addr::new(10, 9, 0, 1)), None, 4789);
pub(crate) const NEAR_IP6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const FAR_IP6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);
pub(crate) const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// `near`, where the code under test runs, and `far`, the rest of the world.
pub(crate) struct Rig {
    pub(crate) near: Namespace,
    pub(crate) far: Namespace,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with_queues(1)
    }

    pub(crate) fn with_queues(queues: u32) -> Self {
        let (near, far) = (Namespace::new(), Namespace::new());
        let count = format!("numrxqueues {queues} numtxqueues {queues}");
        near.ip(&format!("link add {VETH} {count} type veth peer name {VETH} {count} netns {}", far.name));
        near.raise(NEAR_IP, NEAR_MAC);
        far.raise(FAR_IP, FAR_MAC);
        Self { near, far }
    }
}

/// A network namespace that goes away when dropped.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let this = Self { name: format!("vxl-xdp-{}-{number}", process::id()) };
        run("ip", &["netns", "add", &this.name]);
        this.ip("link set lo up");
        this
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Address and link up, and quiet: no IPv6, whose own traffic nobody asked for.
    fn raise(&self, ip: [u8; 4], mac: [u8; 6]) {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        let ip = ip.map(|byte| byte.to_string()).join(".");
        self.exec("sysctl", &["-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
        self.ip(&format!("link set {VETH} address {mac} up"));
        self.ip(&format!("addr add {ip}/24 dev {VETH}"));
    }

    /// `ip -n <this> <words>`
    pub(crate) fn ip(&self, words: &str) -> String {
        let mut arguments = vec!["-n", &self.name];
        arguments.extend(words.split_whitespace());
        run("ip", &arguments)
    }

    /// Runs a command in here, and wants it to succeed.
    pub(crate) fn exec(&self, program: &str, arguments: &[&str]) -> String {
        let mut words = vec!["netns", "exec", &self.name, program];
        words.extend(arguments);
        run("ip", &words)
    }

    /// Runs `work` on a thread that is in here.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("namespace file");
        let on_thread = || {
            setns(&file, CloneFlags::CLONE_NEWNET).expect("setns");
            work()
        };
        thread::scope(|scope| match scope.spawn(on_thread).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// A socket that sees, and sends, every frame of `interface`.
    pub(crate) fn packets(&self, interface: &str) -> Packets {
        self.inside(|| Packets::open(interface))
    }

    pub(crate) fn gro(&self, interface: &str) -> bool {
        let features = self.exec("ethtool", &["-k", interface]);
        features.contains("generic-receive-offload: on")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A packet socket on one interface.
pub(crate) struct Packets(File);

impl Packets {
    fn open(interface: &str) -> Self {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: no pointers; the answer is checked before it is used.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(protocol)) };
        assert!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
        // SAFETY: just opened, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let index = nix::net::if_::if_nametoindex(interface).expect("interface");
        // SAFETY: plain C data, for which all zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index as i32;
        let length = size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: points to `length` bytes, which outlive the call.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
        assert_eq!(bound, 0, "bind: {}", io::Error::last_os_error());
        set(&fd, libc::SO_RCVBUFFORCE, &(64_i32 << 20));
        set(&fd, libc::SO_RCVTIMEO, &libc::timeval { tv_sec: 2, tv_usec: 0 });
        Self(File::from(fd))
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        let sent = self.0.write(frame).expect("send");
        assert_eq!(sent, frame.len());
    }

    /// A frame that begins with `head`, if one is there.
    pub(crate) fn poll(&mut self, head: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 70_000];
        loop {
            let flags = nix::sys::socket::MsgFlags::MSG_DONTWAIT;
            let length = nix::sys::socket::recv(self.0.as_raw_fd(), &mut buffer, flags).ok()?;
            if buffer[..length].starts_with(head) {
                return Some(buffer[..length].to_vec());
            }
        }
    }

    /// The next frame that begins with `head`, or `None` after two seconds of none.
    pub(crate) fn receive(&mut self, head: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 70_000];
        loop {
            let length = self.0.read(&mut buffer).ok()?;
            if buffer[..length].starts_with(head) {
                return Some(buffer[..length].to_vec());
            }
        }
    }
}

fn set<T>(fd: &OwnedFd, option: i32, value: &T) {
    let length = size_of::<T>() as u32;
    let pointer = (value as *const T).cast();
    // SAFETY: points to `length` bytes, which outlive the call.
    let answer = unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, option, pointer, length) };
    assert_eq!(answer, 0, "setsockopt {option}: {}", io::Error::last_os_error());
}

/// An XDP program of somebody else's on `interface`, which passes everything; gone when dropped.
pub(crate) fn foreign_program(interface: &str, mode: XdpMode) -> OwnedFd {
    // `r0 = XDP_PASS; exit`: each instruction is code, registers, offset and a number.
    let code: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];
    let licence = c"GPL";
    let mut load = [0_u64; 16];
    load[0] = BPF_PROG_TYPE_XDP | (code.len() as u64) << 32;
    (load[1], load[2]) = (code.as_ptr() as u64, licence.as_ptr() as u64);
    let program = bpf(BPF_PROG_LOAD, &load);
    let index = nix::net::if_::if_nametoindex(interface).expect("interface");
    let flags = match mode {
        XdpMode::Native => XDP_FLAGS_DRV_MODE,
        XdpMode::Generic | XdpMode::Offloaded => XDP_FLAGS_SKB_MODE,
    };
    let mut link = [0_u64; 16];
    link[0] = program.as_raw_fd() as u64 | u64::from(index) << 32;
    link[1] = BPF_XDP | flags << 32;
    bpf(BPF_LINK_CREATE, &link)
}

/// `bpf(2)`, for commands that answer with a descriptor.
fn bpf(command: i32, attributes: &[u64; 16]) -> OwnedFd {
    // SAFETY: points to as many bytes as are announced, which the kernel only reads; the addresses
    // among them are those of values that outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    assert!(fd >= 0, "bpf {command}: {}", io::Error::last_os_error());
    // SAFETY: just opened, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// `include/uapi/linux/bpf.h`, like the next three.
const BPF_PROG_LOAD: i32 = 5;
const BPF_LINK_CREATE: i32 = 28;
const BPF_PROG_TYPE_XDP: u64 = 6;
const BPF_XDP: u64 = 37;
/// `include/uapi/linux/if_link.h`, like the next.
const XDP_FLAGS_SKB_MODE: u64 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u64 = 1 << 2;

/// Runs a command, wants it to succeed, and returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Tries until it works or two seconds have passed.
pub(crate) fn eventually(what: &str, mut works: impl FnMut() -> bool) {
    for _ in 0..400 {
        if works() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("not within two seconds: {what}");
}

/// An experimental EtherType (IEEE 802), so that no host answers.
pub(crate) const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Frame `number`, `length` bytes, from far to near; no two numbers give the same bytes.
pub(crate) fn frame(number: u32, length: usize) -> Vec<u8> {
    let mut frame = [&NEAR_MAC[..], &FAR_MAC, &ETHERTYPE, &number.to_be_bytes()].concat();
    let mut state = number.wrapping_mul(0x9e37_79b9) | 1;
    frame.resize_with(length, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    frame
}
