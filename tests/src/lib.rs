//! Namespaces, labs, peers, traffic and packet builders that test vxlane from the outside.
//!
//! A test builds a [`Lab`](lab::Lab) of hosts (network
//! namespaces on one underlay), gives each host containers, starts a VTEP of some kind on each
//! host ([`VtepKind`](peer::VtepKind): the kernel's own vxlan device, Open vSwitch, or the real
//! `vxlane` binary) and then measures what arrives with the tools of [`traffic`]. The same
//! scenario runs with any kind on either side. Everything a lab made goes away when its values
//! are dropped, also when the test panics. It takes root; [`sim`] takes none and runs real workers
//! on hosts in memory instead.
//!
//! ```no_run
//! use vxlane_tests::lab::{Lab, Network};
//! use vxlane_tests::peer::{Segment, VtepKind};
//! use vxlane_tests::traffic::udp::{self, UdpOptions};
//!
//! # fn main() -> Result<(), vxlane_tests::LabError> {
//! let lab = Lab::new(&["a", "b"])?;
//! let blue = Network::new("blue", 5000);
//! let c0 = lab.host("a").container("c0", &blue)?;
//! let c1 = lab.host("b").container("c1", &blue)?;
//! let _near = VtepKind::vxlane().start(lab.host("a"), &[Segment::of(&lab, "a", &blue, &[&c0])])?;
//! let _far = VtepKind::kernel().start(lab.host("b"), &[Segment::of(&lab, "b", &blue, &[&c1])])?;
//! let (sent, received) = udp::exchange(&c0, &c1, &UdpOptions::default())?;
//! assert!(received.exactly(sent.packets));
//! # Ok(())
//! # }
//! ```

pub mod alone;
pub mod error;
pub mod frames;
pub mod fuzz;
pub mod lab;
pub mod netns;
pub mod peer;
pub mod process;
pub mod rig;
pub mod sim;
pub mod soak;
pub mod traffic;
pub mod ways_out;

pub use error::LabError;
