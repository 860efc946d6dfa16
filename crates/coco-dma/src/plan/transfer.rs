//! What happens to the bytes of a map: at its start, at each sync, at its end. The rule behind all
//! of it: no byte goes out that was not given, and none comes back that did not arrive.

use super::step::Step;
use super::step::Trace;
use crate::attrs::Attrs;
use crate::state::Direction;

/// What a map was made as: the part of its record that its end depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapFace {
    /// Which way the bytes go.
    pub direction: Direction,
    /// The attributes that it was made with.
    pub attrs: Attrs,
    /// Whether they go through a pool.
    pub bounced: bool,
    /// Whether the device sees the CPU's caches.
    pub coherent: bool,
    /// Whether the device may still be believed: neither revoked nor distrusted.
    pub alive: bool,
}

/// When something is to be done about the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The map is made.
    Map,
    /// The driver shows the device what it wrote meanwhile.
    SyncForDevice,
    /// The driver wants to see what the device wrote meanwhile.
    SyncForCpu,
    /// The map ends.
    Unmap,
}

/// What is done to the bytes of a slot. Memory that is mapped in place is never copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    /// Nothing.
    Stay,
    /// The driver's buffer is copied into the slot.
    Out,
    /// The slot is zeroed.
    Zero,
    /// What arrived in the slot is copied into the driver's buffer.
    Back,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Transfer {
    /// The copy.
    pub bytes: Bytes,
    /// Whether caches are cleaned (towards the device) or invalidated (from it).
    pub cache_work: bool,
}

/// Decides what is done to the bytes of a map at one moment.
#[inline]
pub fn transfer(map: &MapFace, moment: Moment, trace: &mut impl Trace) -> Transfer {
    // sabotage: sync-other-way
    let (to, from) = (map.direction.to_device(), map.direction.from_device());
    if !map.alive {
        trace.step(Step::Revoked);
    }
    let skips = map.attrs.contains(Attrs::SKIP_CPU_SYNC);
    let bytes = match moment {
        // Linux copies the old buffer in where the device only writes; here it is zeroes.
        Moment::Map if to => Bytes::Out,
        Moment::Map => Bytes::Zero, // sabotage: old-bytes-out, slot-not-zeroed
        // A device that is dead or distrusted is shown nothing more, and nobody vouches for what
        // it left.
        _ if !map.alive => Bytes::Stay, // sabotage: revoked-brought-back
        Moment::SyncForDevice if to => Bytes::Out,
        // A driver may hand a buffer back this way after the device wrote: nothing is touched.
        Moment::SyncForDevice => Bytes::Stay,
        Moment::SyncForCpu if from => Bytes::Back,
        Moment::Unmap if from && !skips => Bytes::Back, // sabotage: nothing-back
        Moment::SyncForCpu | Moment::Unmap => Bytes::Stay,
    };
    let bytes = if map.bounced { bytes } else { Bytes::Stay };
    // Who leaves the cache work out at the map and at its end does it by syncs.
    let cache_work = !map.coherent
        && !map.attrs.contains(Attrs::MMIO)
        && match moment {
            Moment::Map => !skips,           // sabotage: map-without-clean
            Moment::SyncForDevice => true,   // sabotage: sync-without-clean
            Moment::SyncForCpu => from,      // sabotage: sync-without-invalidate
            Moment::Unmap => from && !skips, // sabotage: unmap-without-invalidate
        };
    let transfer = Transfer { bytes, cache_work };
    trace.step(Step::Transfer(transfer));
    transfer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(direction: Direction, bounced: bool) -> MapFace {
        MapFace { direction, attrs: Attrs::NONE, bounced, coherent: true, alive: true }
    }

    #[test]
    fn the_table_of_copies() {
        use Bytes::{Back, Out, Stay, Zero};
        use Direction::{Both, FromDevice, ToDevice};
        let moments = [Moment::Map, Moment::SyncForDevice, Moment::SyncForCpu, Moment::Unmap];
        for (direction, row) in [
            (ToDevice, [Out, Out, Stay, Stay]),
            (FromDevice, [Zero, Stay, Back, Back]),
            (Both, [Out, Out, Back, Back]),
        ] {
            let does = moments.map(|at| transfer(&map(direction, true), at, &mut ()).bytes);
            assert_eq!(does, row, "{direction}");
            let in_place = moments.map(|at| transfer(&map(direction, false), at, &mut ()).bytes);
            assert_eq!(in_place, [Stay; 4]);
        }
    }

    #[test]
    fn nothing_comes_back_from_a_device_that_is_not_believed_or_where_the_driver_syncs() {
        let dead = MapFace { alive: false, ..map(Direction::Both, true) };
        assert_eq!(transfer(&dead, Moment::Unmap, &mut ()).bytes, Bytes::Stay);
        assert_eq!(transfer(&dead, Moment::SyncForCpu, &mut ()).bytes, Bytes::Stay);
        let skips = MapFace { attrs: Attrs::SKIP_CPU_SYNC, ..map(Direction::Both, true) };
        assert_eq!(transfer(&skips, Moment::Unmap, &mut ()).bytes, Bytes::Stay);
        assert_eq!(transfer(&skips, Moment::SyncForCpu, &mut ()).bytes, Bytes::Back);
        assert_eq!(transfer(&skips, Moment::Map, &mut ()).bytes, Bytes::Out, "as Linux does");
    }

    #[test]
    fn caches_are_maintained_for_memory_of_a_device_that_does_not_see_them() {
        use Direction::{Both, FromDevice, ToDevice};
        let moments = [Moment::Map, Moment::SyncForDevice, Moment::SyncForCpu, Moment::Unmap];
        let works = |info: MapFace| moments.map(|at| transfer(&info, at, &mut ()).cache_work);
        for (direction, always, skipping) in [
            (ToDevice, [true, true, false, false], [false, true, false, false]),
            (FromDevice, [true, true, true, true], [false, true, true, false]),
            (Both, [true, true, true, true], [false, true, true, false]),
        ] {
            for bounced in [false, true] {
                let blind = MapFace { coherent: false, ..map(direction, bounced) };
                assert_eq!(works(blind), always, "{direction}");
                let skips = MapFace { attrs: Attrs::SKIP_CPU_SYNC, ..blind };
                assert_eq!(works(skips), skipping, "{direction}");
                assert_eq!(works(MapFace { attrs: Attrs::MMIO, ..blind }), [false; 4]);
                assert_eq!(works(map(direction, bounced)), [false; 4]);
            }
        }
    }
}
