//! The maps of a BPF object, and what can be wrong with them.

use std::io;

use aya::{
    Ebpf,
    maps::{Map, MapError},
};

/// Why a map cannot be had, or would not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MapFault {
    /// The object is not the one this was written for.
    #[error("the object has no {name}")]
    Missing {
        /// The map it lacks.
        name: &'static str,
    },
    /// It would not be mapped into memory.
    #[error("mmap of BPF map {name}")]
    Unmapped {
        /// Its name.
        name: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// It would not be read or written.
    #[error("BPF map {name}")]
    Refused {
        /// Its name.
        name: &'static str,
        /// What aya or the kernel answered.
        source: MapError,
    },
}

/// Takes a map out of `object`.
pub(super) fn take<T>(object: &mut Ebpf, name: &'static str) -> Result<T, MapFault>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = object.take_map(name).ok_or(MapFault::Missing { name })?;
    map.try_into().map_err(refused(name))
}

/// What to make of an error of the map `name`.
pub(super) fn refused(name: &'static str) -> impl FnOnce(MapError) -> MapFault {
    move |source| MapFault::Refused { name, source }
}
