//! What happens to the bytes of a map, at every moment of every map.

use coco_dma::attrs::Attrs;
use coco_dma::plan::{self, Bytes, MapFace, Moment};
use coco_dma::state::Direction;

#[test]
fn every_moment_of_every_map() {
    let moments = [Moment::Map, Moment::SyncForDevice, Moment::SyncForCpu, Moment::Unmap];
    let mut points = 0u64;
    for direction in [Direction::ToDevice, Direction::FromDevice, Direction::Both] {
        for (moment, bits) in moments.iter().flat_map(|moment| (0..32).map(move |b| (*moment, b))) {
            points += 1;
            let flag = |bit: u32| bits >> bit & 1 == 1;
            let skip = if flag(3) { Attrs::SKIP_CPU_SYNC } else { Attrs::NONE };
            let attrs = if flag(4) { skip.with(Attrs::MMIO) } else { skip };
            let [bounced, coherent, alive] = [0, 1, 2].map(flag);
            let info = MapFace { direction, attrs, bounced, coherent, alive };
            let done = plan::transfer(&info, moment, &mut ());
            let (to, from) = (direction.to_device(), direction.from_device());
            let said = format!("{info:?} {moment:?} {done:?}");
            // Nothing that lies in place is copied, and no byte goes against the direction.
            assert!(bounced || done.bytes == Bytes::Stay, "{said}");
            assert!(done.bytes != Bytes::Out || to, "{said}");
            assert!(done.bytes != Bytes::Back || from, "{said}");
            // What a dead device left is never believed, and nothing more is shown to it.
            assert!(alive || moment == Moment::Map || done.bytes == Bytes::Stay, "{said}");
            // A new slot never shows what lay in it.
            if moment == Moment::Map && bounced {
                assert!(matches!(done.bytes, Bytes::Out | Bytes::Zero), "{said}");
            } else {
                assert!(done.bytes != Bytes::Zero, "{said}");
            }
            // What arrived reaches the driver, unless it syncs by itself.
            if moment == Moment::Unmap && bounced && alive && from {
                assert_eq!(done.bytes == Bytes::Back, !flag(3), "{said}");
            }
            assert!(!done.cache_work || !(coherent || flag(4)), "{said}");
            if flag(3) && matches!(moment, Moment::Map | Moment::Unmap) {
                assert!(!done.cache_work, "{said}");
            }
        }
    }
    println!("{points} moments of maps");
}
