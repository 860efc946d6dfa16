//! How full of small mappings a pool may be before a large one finds no room.
// UNSAFETY: buffers are mapped raw.
#![expect(unsafe_code)]

use super::fill::Filling;
use super::fill::SMALL;
use crate::hand::Subject;
use crate::hand::Worker;
use crate::memory::Buffers;

/// The occupancies that are tried, in percent.
fn steps() -> impl Iterator<Item = usize> {
    (24..88).step_by(4).chain(88..100)
}

/// The occupancy in percent up to which each of `sizes` can still be had, while small mappings are
/// churned from one processor, an eighth of them `churns` times at each step. (One size at a time
/// is tried and given back.)
pub(crate) fn lasts_to<const N: usize, S: Subject>(
    subject: &S,
    capacity: usize,
    buffers: &Buffers,
    sizes: [usize; N],
    churns: usize,
) -> [usize; N] {
    let mut filling = Filling::new(subject.worker(0).into_iter().collect(), SMALL);
    let mut lasts = sizes.map(|size| (size, 0, true));
    for percent in steps() {
        let slots = capacity * percent / 100;
        filling.up_to(subject, slots, buffers);
        filling.churn(subject, slots, buffers, churns);
        let Some(hand) = filling.worker() else { break };
        for (size, last, lives) in lasts.iter_mut().filter(|(.., lives)| *lives) {
            // SAFETY: the scratch buffer is there as long as the pool is.
            match unsafe { hand.map(buffers.scratch(*size)) } {
                // SAFETY: as above; the record is of this subject.
                Some(record) => unsafe { hand.unmap(record) },
                None => *lives = false,
            }
            if *lives {
                *last = percent;
            }
        }
    }
    lasts.map(|(_, last, _)| last)
}
