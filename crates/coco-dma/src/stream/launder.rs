//! What keeps the records of the quick paths in registers.
// UNSAFETY: a value is read from where it was written, which the compiler is kept from seeing.
#![expect(unsafe_code)]

use core::hint::black_box;
use core::mem::MaybeUninit;

/// The same value at a place of its own, for the way into a function that is not inlined, or out of
/// it.
///
/// Such a function takes and gives a record by its address, and what has an address anywhere is
/// kept in memory everywhere, on the quick path too. There a record that was just written in words
/// is moved in pairs of words, which a processor cannot forward from its store buffer: two such
/// moves were 10 of the 26 ns of a map and its end.
#[inline(always)]
pub(super) fn launder<T>(value: T) -> T {
    let mut place = MaybeUninit::uninit();
    let seen = black_box(&mut place);
    seen.write(value);
    // SAFETY: it was written the line before.
    unsafe { seen.assume_init_read() }
}
