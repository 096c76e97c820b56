//! The rules for static stations.

use super::{News, quoted};
use crate::desired::{Desired, Place, Problem};

/// Everything that is wrong with the static stations of `desired`. What is stored may wait for
/// its place to come back; what is new may not.
pub(super) fn check(desired: &Desired, news: &News<'_>, found: &mut Vec<Problem>) {
    for station in &desired.stations {
        let (network, place) = (&station.item.network, &station.item.place);
        if !station.item.mac.0.is_station() {
            let reason = "not an address that a station can have";
            found.push(Problem::new(station.field("mac"), station.item.mac, reason));
        }
        if news.has(station, |desired| &desired.stations) && !desired.has_place(network, place) {
            found.push(match place {
                Place::Dst(address) => {
                    let reason = format!("not a peer of network \"{network}\"");
                    Problem::new(station.field("dst"), address, reason)
                }
                Place::Dev(interface) => {
                    let reason = format!("no endpoint of network \"{network}\" is on this interface");
                    Problem::new(station.field("dev"), quoted(interface), reason)
                }
            });
        }
    }
    if let Some(last) = desired.stations.last()
        && desired.stations.len() > desired.dataplane.stations
    {
        let reason = format!("there is room for {} static stations (dataplane.stations)", desired.dataplane.stations);
        found.push(Problem::new(last.field("mac"), last.item.mac, reason));
    }
}
