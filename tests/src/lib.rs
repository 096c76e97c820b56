//! Namespaces, labs, peers, traffic and packet builders that test vxlane from the outside.
//!
//! Nothing here links the dataplane. A test builds a [`Lab`](lab::Lab) of hosts (network
//! namespaces on one underlay), gives each host containers, starts a VTEP of some kind on each
//! host ([`VtepKind`](peer::VtepKind): the kernel's own vxlan device, Open vSwitch, or the real
//! `vxlane` binary) and then measures what arrives with the tools of [`traffic`]. The same
//! scenario runs with any kind on either side. Everything a lab made goes away when its values
//! are dropped, also when the test panics. It takes root.

pub mod error;
pub mod frames;
pub mod lab;
pub mod netns;
pub mod peer;
pub mod process;
pub mod traffic;

pub use error::LabError;
