//! Converting some granules of a run and not others, as a conversion that fails does.
// UNSAFETY: converts through the platform's own unsafe function.
#![expect(unsafe_code)]

use coco_dma::addr::PhysRange;
use coco_dma::platform::Platform;
use coco_dma::state::State;

use crate::number;

/// Converts the granules of `run` that `picked` picks by their number, one by one.
///
/// # Safety
///
/// As for [`Platform::convert`] of the run.
pub(super) unsafe fn convert_some(
    platform: &impl Platform,
    run: PhysRange,
    (from, to): (State, State),
    mut picked: impl FnMut(u64) -> bool,
) {
    let granule = platform.regime().granule();
    for (number, part) in (0..).zip(number::granules(run, granule)) {
        if picked(number) {
            // SAFETY: the caller's condition, for a part of the run. A failure underneath leaves
            // the granule as it is, which the answer that is told instead does not depend on.
            let _ = unsafe { platform.convert(part, from, to) };
        }
    }
}
