//! How full of small mappings a pool may be before a large one finds no room.
// UNSAFETY: buffers are mapped raw.
#![expect(unsafe_code)]

use super::fill::Filling;
use super::fill::SMALL;
use crate::hand::Hand;
use crate::hand::Subject;
use crate::memory::Buffers;

/// The occupancy in percent, in steps of one, up to which each of `sizes` can still be had, while
/// small mappings are churned from one processor. (One size at a time is tried and given back.)
pub(crate) fn lasts_to<const N: usize, S: Subject>(
    subject: &S,
    capacity: usize,
    buffers: &Buffers,
    sizes: [usize; N],
) -> [usize; N] {
    let mut filling = Filling::new(subject.hand(0).into_iter().collect(), SMALL);
    let mut lasts = sizes.map(|size| (size, 0, true));
    for percent in 1..100 {
        let slots = capacity * percent / 100;
        filling.up_to(subject, slots, buffers);
        // Below, a step of churn changes nothing that a later one does not.
        if percent >= 20 {
            filling.churn(subject, slots, buffers);
        }
        let Some(hand) = filling.hand() else { break };
        for (size, last, lives) in lasts.iter_mut().filter(|(.., lives)| *lives) {
            // SAFETY: the scratch buffer is there as long as the pool is.
            match unsafe { hand.map(buffers.scratch(*size)) } {
                // SAFETY: as above; the record is of this subject.
                Some(record) => unsafe { hand.finish(record) },
                None => *lives = false,
            }
            if *lives {
                *last = percent;
            }
        }
    }
    lasts.map(|(_, last, _)| last)
}
