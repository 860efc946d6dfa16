//! The host's eye: what the host could see, now and at every moment at which it changed.

use coco_dma::addr::PhysRange;
use coco_dma::state::State;

use crate::number;
use crate::ram::Path;
use crate::ram::Ram;

/// Memory as the host reads it, in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRun {
    /// Where it lies.
    pub range: PhysRange,
    /// What the host reads there: what is shared in clear, what is private as the platform gives
    /// it.
    pub bytes: Vec<u8>,
}

/// A marker that the host could see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leak {
    /// Which of the markers watched for, in the order in which the watch began.
    pub marker: usize,
    /// Where it lay.
    pub at: PhysRange,
    /// When it was first seen there.
    pub moment: Moment,
}

/// A moment at which the eye looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// In a conversion.
    Convert {
        /// The granule at work.
        granule: PhysRange,
        /// Where it is going.
        to: State,
        /// How far it came.
        step: Step,
    },
    /// A device has read or written.
    Access {
        /// The address that the device used.
        addr: u64,
    },
    /// The layer handed bytes over to a device.
    HandOver,
    /// The layer took bytes back from a device.
    TakeBack,
    /// A view of memory began or ended.
    View,
    /// A test asked, or the watch began.
    Look,
}

/// How far the conversion of a granule came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Neither the bytes nor the state have changed.
    Before,
    /// One of the two has.
    Between,
    /// Both have.
    After,
}

/// The markers that are watched for, and what was seen of them.
#[derive(Debug, Default)]
pub(crate) struct Eye {
    markers: Vec<Marker>,
    leaks: Vec<Leak>,
}

impl Eye {
    /// Watches for one more marker.
    pub(crate) fn watch(&mut self, marker: &[u8]) -> usize {
        self.markers.push(Marker::new(marker));
        self.markers.len() - 1
    }

    pub(crate) fn leaks(&self) -> &[Leak] {
        &self.leaks
    }

    /// Looks at everything that is clear to the host.
    pub(crate) fn look(&mut self, ram: &Ram, moment: Moment) {
        if !self.markers.is_empty() {
            for run in ram.clear_runs() {
                self.look_at(ram, run, moment);
            }
        }
    }

    /// Looks at what is clear to the host in `part` and around it, as far as a marker could reach.
    pub(crate) fn look_near(&mut self, ram: &Ram, part: PhysRange, moment: Moment) {
        let Some(reach) = self.markers.iter().map(|marker| marker.bytes.len()).max() else {
            return;
        };
        let reach = number::wide(reach);
        for run in ram.clear_runs() {
            let first = part.base().raw().saturating_sub(reach).max(run.base().raw());
            let last = part.last().raw().saturating_add(reach).min(run.last().raw());
            let len = last.checked_sub(first).and_then(|len| len.checked_add(1));
            if let Some(near) = len.and_then(|len| number::run(first, len)) {
                self.look_at(ram, near, moment);
            }
        }
    }

    fn look_at(&mut self, ram: &Ram, run: PhysRange, moment: Moment) {
        // What is in the caches is seen, and so is what still lies under it.
        for path in [Path::Coherent, Path::Memory] {
            let mut bytes = vec![0; number::size(run.len())];
            ram.copy_out(path, run.base().raw(), &mut bytes);
            for (index, marker) in self.markers.iter().enumerate() {
                for at in marker.finds_in(run, &bytes) {
                    // A place is told once for each marker: when it was first seen there.
                    if !self.leaks.iter().any(|leak| leak.marker == index && leak.at == at) {
                        self.leaks.push(Leak { marker: index, at, moment });
                    }
                }
            }
            if !ram.has_caches() {
                break;
            }
        }
    }
}

/// Bytes to look for, with what a search needs (Horspool's).
#[derive(Debug)]
pub(crate) struct Marker {
    bytes: Vec<u8>,
    /// How far the search may move on, for each byte that it meets at the end of the window.
    skips: Vec<usize>,
}

impl Marker {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut skips = vec![bytes.len().max(1); 256];
        let (_, body) = bytes.split_last().unwrap_or((&0, &[]));
        for (place, byte) in body.iter().enumerate() {
            if let Some(skip) = skips.get_mut(usize::from(*byte)) {
                *skip = bytes.len() - 1 - place;
            }
        }
        Self { bytes: bytes.to_vec(), skips }
    }

    /// Every place where the marker lies in `run`, which holds `bytes`.
    pub(crate) fn finds_in<'a>(
        &'a self,
        run: PhysRange,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = PhysRange> + 'a {
        let len = number::wide(self.bytes.len());
        self.finds(bytes).filter_map(move |place| run.slice(number::wide(place), len))
    }

    /// Every place where the marker lies in `hay`; an empty marker lies nowhere.
    fn finds<'a>(&'a self, hay: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        let mut at: usize = 0;
        core::iter::from_fn(move || {
            let last = *self.bytes.last()?;
            loop {
                let place = at;
                let window = hay.get(place..place.checked_add(self.bytes.len())?)?;
                let end = *window.last()?;
                at += self.skips.get(usize::from(end)).copied().unwrap_or(1);
                if end == last && window == self.bytes {
                    return Some(place);
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Rng;

    #[test]
    fn a_search_finds_what_a_plain_one_finds() {
        let mut rng = Rng::new(7);
        for _ in 0..2000 {
            let hay: Vec<u8> = (0..rng.below(60)).map(|_| u8::from(rng.below(3) == 0)).collect();
            let word: Vec<u8> = (0..=rng.below(5)).map(|_| u8::from(rng.below(2) == 0)).collect();
            let plain: Vec<usize> = hay
                .windows(word.len())
                .enumerate()
                .filter_map(|(place, window)| (window == word).then_some(place))
                .collect();
            assert_eq!(Marker::new(&word).finds(&hay).collect::<Vec<_>>(), plain);
        }
        assert_eq!(Marker::new(&[]).finds(&[1, 2]).count(), 0);
    }
}
