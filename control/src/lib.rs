//! The daemon and the command line of vxlane.
//!
//! [`config`] reads what is asked for, [`desired`] says whether it can be, [`commit`] turns it
//! into tables for the workers, [`events`] tells what happened and [`metrics`] how often, [`netlink`] tells what the kernel knows that they need,
//! [`daemon`] has it all, [`run`] starts and ends it, [`api`] and [`cli`] talk about it, and
//! [`notify`] tells the service manager.

pub mod api;
mod causes;
pub mod cli;
pub mod commit;
pub mod config;
pub mod daemon;
pub mod desired;
pub mod events;
mod host;
pub mod ipam;
pub mod keep;
pub mod mac;
pub mod metrics;
pub mod netlink;
pub mod notify;
pub mod publish;
pub mod run;
pub mod sockets;
pub mod store;
