//! The small numbers that name things inside the dataplane.
//!
//! Control hands them out and never reuses one while a worker may still hold it;
//! a MAC table entry or a frame in flight can therefore keep a bare id.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $repr);

        impl $name {
            /// This id as an index into a table.
            #[inline]
            pub fn index(self) -> usize {
                usize::from(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A port: one uplink, access or host interface, whatever its number of queues.
    PortId(u16)
}
id! {
    /// A network, inside this process; on the wire a network is its [`Vni`](crate::wire::Vni).
    NetworkId(u16)
}
id! {
    /// A remote VTEP, whatever networks it takes part in.
    VtepId(u16)
}
id! {
    /// A worker thread.
    WorkerId(u16)
}
id! {
    /// One receive (and transmit) queue of an interface.
    QueueId(u16)
}
