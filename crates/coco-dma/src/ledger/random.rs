//! The ledger against a plain model: random calls, and after each one every granule agrees.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::state::Cipher;
use crate::state::Visibility;
use crate::word::Word;

const PAGE: u64 = 0x1000;
const BASE: u64 = 0x8000_0000;
/// Pages that the calls name: some below the first range, some above the last.
const WINDOW: usize = 33;

/// What the model keeps of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Untracked,
    Foreign(Visibility),
    Kept(GranuleState, usize),
}

/// The model: pages, each with the number of its range, and what is held.
struct Model {
    pages: Vec<(u8, Page)>,
    pins: Vec<(Pin, PhysRange)>,
    conversions: Vec<(Conversion, bool)>,
    /// Pages that are in quarantine and under retry.
    retried: usize,
}

/// One call. Places and lengths are in 16ths of a page.
#[derive(Clone, Copy, Debug)]
enum Call {
    Pin(Run, Kind),
    Unpin(usize),
    Begin(Run, GranuleState),
    Settle(usize, u64, u64, Visibility),
    Declare(Run, Kind),
}

/// A state that can be asked for: a guest's or a host's.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Guest(Visibility),
    Host(Cipher),
}

impl From<Kind> for GranuleState {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Guest(visibility) => visibility.into(),
            Kind::Host(cipher) => cipher.into(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Run(u64, u64);

impl Run {
    fn range(self) -> PhysRange {
        let start = PhysAddr::new(BASE + self.0 * PAGE / 16);
        PhysRange::new(start, self.1 * PAGE / 16).unwrap()
    }
}

fn page(index: usize) -> PhysAddr {
    PhysAddr::new(BASE + index as u64 * PAGE)
}

fn index(at: PhysAddr) -> usize {
    usize::try_from((at.raw() - BASE) / PAGE).unwrap()
}

impl Model {
    fn touched(run: PhysRange) -> std::ops::RangeInclusive<usize> {
        index(run.base())..=index(run.last())
    }

    /// Where a run leaves, or comes to, what is tracked; else whether it is.
    fn place(&self, run: PhysRange) -> Result<bool, (PhysAddr, Found)> {
        let tracked = |at: usize| !matches!(self.pages[at].1, Page::Untracked);
        let mut touched = Self::touched(run);
        let first = tracked(touched.next().unwrap());
        match touched.find(|&page| tracked(page) != first) {
            Some(other) => Err((page(other), Found::Border)),
            None => Ok(first),
        }
    }

    fn pin(&self, run: PhysRange, expect: GranuleState) -> Result<bool, (PhysAddr, Found)> {
        let (tracked, mut counted) = (self.place(run)?, false);
        for at in Self::touched(run).filter(|_| tracked) {
            match self.pages[at].1 {
                Page::Kept(state, _) if state == expect => counted = true,
                Page::Kept(state, _) => return Err((page(at), Found::State(state))),
                Page::Foreign(other) if GranuleState::from(other) == expect => {}
                Page::Foreign(other) => {
                    return Err((page(at).max(run.base()), Found::Foreign(other)));
                }
                Page::Untracked => unreachable!(),
            }
        }
        Ok(counted)
    }

    fn begin(&self, run: PhysRange, from: GranuleState) -> Result<(), (PhysAddr, Found)> {
        if !self.place(run)? {
            return Err((run.base(), Found::Untracked));
        }
        let aligned = |at: u64| at.is_multiple_of(PAGE);
        let misaligned = Err((run.base(), Found::Misaligned { granule: PAGE }));
        let end = index(run.last());
        for at in Self::touched(run) {
            match self.pages[at].1 {
                Page::Foreign(other) => {
                    return Err((page(at).max(run.base()), Found::Foreign(other)));
                }
                _ if at == index(run.base()) && !aligned(run.base().raw()) => return misaligned,
                _ if self.pages[at].0 == self.pages[end].0
                    && !aligned(run.base().raw() + run.len()) =>
                {
                    return misaligned;
                }
                _ => {}
            }
        }
        for at in Self::touched(run) {
            match self.pages[at].1 {
                Page::Kept(state, _) if state != from => {
                    return Err((page(at), Found::State(state)));
                }
                Page::Kept(_, 1..) => return Err((page(at), Found::Pinned)),
                _ => {}
            }
        }
        Ok(())
    }

    fn put(&mut self, run: PhysRange, state: impl Fn(usize) -> GranuleState) {
        for at in Self::touched(run) {
            self.pages[at].1 = Page::Kept(state(at - index(run.base())), 0);
        }
    }

    fn count(&mut self, run: PhysRange, by: isize) {
        for at in Self::touched(run) {
            if let Page::Kept(_, pins) = &mut self.pages[at].1 {
                *pins = pins.checked_add_signed(by).unwrap();
            }
        }
    }

    fn settle(&mut self, run: PhysRange, from: GranuleState, answer: (u64, u64), to: Visibility) {
        let (done, doubt) = answer;
        let end = u128::from(done) + u128::from(doubt);
        self.put(run, |place| {
            // A page is in the new state or the old one only if all its bytes are.
            let first = u128::from(place as u64 * PAGE);
            let behind = first + u128::from(PAGE);
            if done > run.len() {
                GranuleState::Quarantined
            } else if behind <= u128::from(done) {
                to.into()
            } else if end <= first {
                from
            } else {
                GranuleState::Quarantined
            }
        });
    }

    /// Every granule, every count and every list agree.
    fn check(&self, ledger: &Ledger<'_>) {
        let mut lost = Vec::new();
        for (at, &(range, kept)) in self.pages.iter().enumerate() {
            let run = PhysRange::new(page(at), PAGE).unwrap();
            let seen = match kept {
                Page::Untracked => RangeState::Untracked,
                Page::Foreign(visibility) => RangeState::Foreign(visibility),
                Page::Kept(state, pins) => {
                    assert_eq!(ledger.granule(page(at)), Some(Granule { run, state, pins }));
                    if state == GranuleState::Quarantined {
                        lost.push((range, at));
                    }
                    RangeState::Uniform(state)
                }
            };
            assert_eq!(ledger.peek(run), seen);
        }
        assert_eq!(ledger.quarantined(), (lost.len() + self.retried) as u64 * PAGE);
        let listed: Vec<PhysRange> = ledger.quarantine().collect();
        let runs = lost.chunk_by(|a, b| a.0 == b.0 && a.1 + 1 == b.1);
        let merged: Vec<PhysRange> = runs
            .map(|run| PhysRange::new(page(run[0].1), run.len() as u64 * PAGE).unwrap())
            .collect();
        assert_eq!(listed, merged);
    }

    /// What a look at a run should answer.
    fn peek(&self, run: PhysRange) -> RangeState {
        match self.place(run) {
            Err((first, _)) => return RangeState::Border { first },
            Ok(false) => return RangeState::Untracked,
            Ok(true) => {}
        }
        let state = |at: usize| match self.pages[at].1 {
            Page::Kept(state, _) => state,
            Page::Foreign(visibility) => visibility.into(),
            Page::Untracked => unreachable!(),
        };
        let before = state(index(run.base()));
        if let Some(at) = Self::touched(run).find(|at| state(*at) != before) {
            return RangeState::Mixed { first: page(at), before, after: state(at) };
        }
        match before.visibility() {
            Some(visibility)
                if Self::touched(run).all(|at| matches!(self.pages[at].1, Page::Foreign(_))) =>
            {
                RangeState::Foreign(visibility)
            }
            _ => RangeState::Uniform(before),
        }
    }

    fn call(&mut self, ledger: &Ledger<'_>, call: Call) {
        let split = |conflict: Conflict| (conflict.at, conflict.found);
        match call {
            Call::Pin(run, expect) => {
                let run = run.range();
                assert_eq!(ledger.peek(run), self.peek(run));
                let got = match expect {
                    Kind::Guest(visibility) => ledger.pin(run, visibility),
                    Kind::Host(cipher) => ledger.pin_cipher(run, cipher),
                };
                let is_counted = got.as_ref().map(Pin::is_counted).map_err(|e| split(*e));
                assert_eq!(is_counted, self.pin(run, expect.into()));
                if let Ok(pin) = got {
                    self.count(run, 1);
                    self.pins.push((pin, run));
                }
            }
            Call::Unpin(which) if !self.pins.is_empty() => {
                let (pin, run) = self.pins.swap_remove(which % self.pins.len());
                ledger.unpin(pin);
                self.count(run, -1);
            }
            Call::Begin(run, from) => {
                let run = run.range();
                let got = match from {
                    GranuleState::Private => ledger.begin(run, Visibility::Private),
                    GranuleState::Shared => ledger.begin(run, Visibility::Shared),
                    GranuleState::Unaccepted => ledger.begin_accept(run),
                    _ => ledger.begin_retry(run),
                };
                assert_eq!(got.as_ref().map(|_| ()).map_err(|e| split(*e)), self.begin(run, from));
                if let Ok(conversion) = got {
                    self.put(run, |_| GranuleState::Converting);
                    let retry = from == GranuleState::Quarantined;
                    self.retried += if retry { Self::touched(run).count() } else { 0 };
                    self.conversions.push((conversion, retry));
                }
            }
            Call::Settle(which, done, doubt, to) if !self.conversions.is_empty() => {
                let (conversion, retry) =
                    self.conversions.swap_remove(which % self.conversions.len());
                let (run, from) = (conversion.run(), conversion.from());
                ledger.settle(conversion, done, doubt, to);
                self.retried -= if retry { Self::touched(run).count() } else { 0 };
                self.settle(run, from, (done, doubt), to);
            }
            Call::Declare(run, to) => {
                let run = run.range();
                use GranuleState::{Encrypted, Plain, Private, Shared, Unaccepted};
                let first = match (self.pages[index(run.base())].1, to) {
                    (Page::Kept(state @ (Private | Shared | Unaccepted), _), Kind::Guest(_)) => {
                        state
                    }
                    (Page::Kept(state @ (Encrypted | Plain), _), Kind::Host(_)) => state,
                    (_, to) => to.into(),
                };
                let wanted = self.begin(run, first);
                let got = match to {
                    Kind::Guest(visibility) => ledger.declare(run, visibility),
                    Kind::Host(cipher) => ledger.declare_cipher(run, cipher),
                };
                assert_eq!(got.map_err(split), wanted);
                if wanted.is_ok() {
                    self.put(run, |_| to.into());
                }
            }
            Call::Unpin(_) | Call::Settle(..) => {}
        }
    }
}

fn visibility() -> impl Strategy<Value = Visibility> {
    prop_oneof![Just(Visibility::Private), Just(Visibility::Shared)]
}

fn kind() -> impl Strategy<Value = Kind> {
    let cipher = prop_oneof![Just(Cipher::Encrypted), Just(Cipher::Plain)];
    prop_oneof![3 => visibility().prop_map(Kind::Guest), 1 => cipher.prop_map(Kind::Host)]
}

/// Mostly whole pages, mostly short.
fn run() -> impl Strategy<Value = Run> {
    let end = WINDOW as u64 * 16;
    let whole = (0..WINDOW as u64, 1..9u64).prop_map(|(at, len)| (at * 16, len * 16));
    let bytes = (0..end, 1..100u64);
    prop_oneof![3 => whole, 1 => bytes].prop_map(move |(at, len)| Run(at, len.min(end - at)))
}

fn from() -> impl Strategy<Value = GranuleState> {
    prop_oneof![
        3 => Just(GranuleState::Private),
        3 => Just(GranuleState::Shared),
        1 => Just(GranuleState::Unaccepted),
        2 => Just(GranuleState::Quarantined),
    ]
}

/// Bytes that a platform may say, liars' numbers among them.
fn answer() -> impl Strategy<Value = u64> {
    prop_oneof![4 => (0..9u64).prop_map(|pages| pages * PAGE), 2 => 0..8 * PAGE, 1 => any::<u64>()]
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        3 => (run(), kind()).prop_map(|(run, expect)| Call::Pin(run, expect)),
        3 => any::<usize>().prop_map(Call::Unpin),
        4 => (run(), from()).prop_map(|(run, from)| Call::Begin(run, from)),
        4 => (any::<usize>(), answer(), answer(), visibility())
            .prop_map(|(which, done, doubt, to)| Call::Settle(which, done, doubt, to)),
        2 => (run(), kind()).prop_map(|(run, to)| Call::Declare(run, to)),
    ]
}

proptest! {
    #[test]
    fn the_ledger_does_what_a_plain_model_does(
        calls in prop::collection::vec(call(), 1..80),
    ) {
        let storage = |pages: u64| -> Vec<Word> {
            (0..Tracked::words(pages * PAGE, PAGE)).map(|_| Word::new()).collect()
        };
        let range = |first: usize, count: u64| PhysRange::new(page(first), count * PAGE).unwrap();
        let words = [storage(11), storage(6), storage(2), storage(5)];
        let kept = |first, count, initial, words| {
            Tracked::new(range(first, count), PAGE, initial, words).unwrap()
        };
        // Two side by side, a hole, and one between memory of others; a host's, as no machine has
        // it beside a guest's.
        let ranges = [
            kept(1, 11, Initial::Private, &words[0]),
            kept(12, 6, Initial::Unaccepted, &words[1]),
            Tracked::foreign(range(20, 2), Visibility::Shared),
            kept(22, 2, Initial::Shared, &words[2]),
            Tracked::foreign(range(24, 1), Visibility::Private),
            kept(27, 5, Initial::Encrypted, &words[3]),
        ];
        let ledger = Ledger::new(&ranges).unwrap();
        let mut pages = std::vec![(0, Page::Untracked); WINDOW];
        for (number, (first, count, page)) in (1..).zip([
            (1, 11, Page::Kept(GranuleState::Private, 0)),
            (12, 6, Page::Kept(GranuleState::Unaccepted, 0)),
            (20, 2, Page::Foreign(Visibility::Shared)),
            (22, 2, Page::Kept(GranuleState::Shared, 0)),
            (24, 1, Page::Foreign(Visibility::Private)),
            (27, 5, Page::Kept(GranuleState::Encrypted, 0)),
        ]) {
            pages[first..first + count].fill((number, page));
        }
        let mut model = Model { pages, pins: Vec::new(), conversions: Vec::new(), retried: 0 };
        model.check(&ledger);
        for call in calls {
            model.call(&ledger, call);
            model.check(&ledger);
        }
    }
}
