//! Long runs, word by word: those that begin with a word need no arithmetic on bits but at their
//! end.

use super::Bitmap;
use super::Shape;
use crate::word::Ordering;
use crate::word::Word;
use crate::word::fence_for_models;

impl Bitmap<'_> {
    /// Takes the lowest run of this shape, longer than a word, that begins with a word.
    #[inline(never)]
    pub(in super::super) fn claim_words(&self, shape: &Shape) -> Option<usize> {
        if shape.starts & 1 == 0 {
            return None;
        }
        let (whole, rest) = (shape.count / Word::BITS, shape.count % Word::BITS);
        let words = whole + usize::from(rest != 0);
        let mut from = 0;
        loop {
            let index = self.next(from, Word::BITS)?;
            if index * Word::BITS > shape.last {
                return None;
            }
            let run = self.bits.get(index..index + words)?;
            // A look first: what cannot be had is not touched.
            if let Some(taken) = run.iter().rposition(|word| word.0.load(Ordering::Relaxed) != 0) {
                self.correct(index + taken);
                from = index + taken + 1;
                continue;
            }
            if self.claim_these(index, run, rest) {
                return Some(index * Word::BITS);
            }
            from = index + words;
        }
    }

    /// Takes these words, the first of which has this number, and of the last one only `rest` bits
    /// unless that is 0; all or none.
    fn claim_these(&self, index: usize, run: &[Word], rest: usize) -> bool {
        for (number, word) in run.iter().enumerate() {
            let last = number + 1 == run.len() && rest != 0;
            let bits = if last { !(!0 << rest) } else { !0 };
            // Acquire: pairs with the release of the last owner.
            if word.0.compare_exchange(0, bits, Ordering::Acquire, Ordering::Relaxed).is_err() {
                self.release(index * Word::BITS, number * Word::BITS);
                return false;
            }
        }
        true
    }

    /// Frees as much of a run as begins with a word and fills words; answers how many slots that
    /// was. Who waits is told by the caller.
    #[inline]
    pub(super) fn release_words(&self, first: usize, count: usize) -> usize {
        let (index, words) = (first / Word::BITS, count / Word::BITS);
        if words == 0 || !first.is_multiple_of(Word::BITS) {
            return 0;
        }
        for index in index..index + words {
            let Some(word) = self.bits.get(index) else { continue };
            // Release: what this owner did with the memory happens before the next one's claim.
            word.0.swap(0, Ordering::SeqCst);
            fence_for_models();
            self.raise(index, !0);
        }
        words * Word::BITS
    }
}
