//! Domains against a plain model: what is given out, what is mapped there, what is lost.
// UNSAFETY: a driver of an IOMMU that has no device behind it.
#![expect(unsafe_code)]

use std::boxed::Box;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::vec::Vec;

use proptest::prelude::*;

use super::Domain;
use super::Entry;
use super::Fit;
use super::Iommu;
use super::IommuError;
use super::IovaWindow;
use super::Mapped;
use crate::addr::AddressLimit;
use crate::addr::AlignMask;
use crate::addr::Boundary;
use crate::addr::DmaAddr;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::plan::DeviceInfo;
use crate::plan::Limits;
use crate::reason::Refuse;
use crate::slots::Owner;
use crate::state::Direction;
use crate::state::State;
use crate::waiters::CapacityListener;
use crate::waiters::Watch;
use crate::word::AtomicUsize;
use crate::word::Ordering;
use crate::word::Word;

const PAGE: u64 = 4096;
const BASE: u64 = 0x7000;
const COUNT: usize = 70;
const PAGES: u64 = COUNT as u64;

/// The table, by address of the page; and what the next calls answer.
#[derive(Default)]
struct Table(Mutex<(BTreeMap<u64, u64>, bool)>);

impl Table {
    fn live(&self) -> MutexGuard<'_, (BTreeMap<u64, u64>, bool)> {
        self.0.lock().expect("no call panics while it holds the lock, but in a failed test")
    }
}

// SAFETY: no device is behind it.
unsafe impl Iommu for Table {
    fn page(&self) -> u64 {
        PAGE
    }

    unsafe fn map(&self, iova: DmaAddr, run: PhysRange, _: Entry) -> Result<(), IommuError> {
        let (table, fail) = &mut *self.live();
        assert!(run.is_aligned(PAGE) && iova.raw().is_multiple_of(PAGE));
        if *fail {
            return Err(IommuError { code: 1 });
        }
        for offset in (0..run.len()).step_by(4096) {
            let before = table.insert(iova.raw() + offset, run.base().raw() + offset);
            assert_eq!(before, None, "mapped twice");
        }
        Ok(())
    }

    unsafe fn unmap(&self, iova: DmaAddr, len: u64) -> Result<(), IommuError> {
        let (table, fail) = &mut *self.live();
        if *fail {
            return Err(IommuError { code: 2 });
        }
        for offset in (0..len).step_by(4096) {
            assert!(table.remove(&(iova.raw() + offset)).is_some(), "was not mapped");
        }
        Ok(())
    }
}

/// How often it was told.
#[derive(Default)]
struct Told(AtomicUsize);

impl CapacityListener for Told {
    fn capacity(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn who_waits_for_addresses_is_told_when_they_are_unmapped() {
    let (table, told) = (Table::default(), Told::default());
    let words: Vec<_> = (0..Domain::words(PAGE, PAGE)).map(|_| Word::new()).collect();
    let window = IovaWindow::new(BASE, PAGE).unwrap();
    let domain = Domain::new(&table, window, &words).unwrap().with_listener(&told);
    let (owner, run) = (Owner::new(1).unwrap(), PhysRange::new(PhysAddr::new(0), PAGE).unwrap());
    let mapped = domain.alloc(run, Fit::Like(0), &DeviceInfo::PLAIN, owner).unwrap();
    assert_eq!(
        domain.alloc(run, Fit::Like(0), &DeviceInfo::PLAIN, owner).err(),
        Some(Refuse::IovaFull)
    );
    assert_eq!(domain.watch_capacity(), Watch::Set);
    assert_eq!(told.0.load(Ordering::Relaxed), 0);
    domain.free(&mapped, owner);
    assert_eq!(told.0.load(Ordering::Relaxed), 1);
}

#[derive(Clone, Debug)]
enum Call {
    Map { at: u64, len: u64, keep: u32, boundary: u32, limit: u64, fail: bool, owner: usize },
    Unmap { which: usize, fail: bool },
    Revoke { owner: usize },
}

fn call() -> impl Strategy<Value = Call> {
    let map = (
        0x10_0000u64..0x20_0000,
        prop_oneof![1u64..10_000, 1u64..100_000],
        prop_oneof![Just(0u32), 0u32..16],
        prop_oneof![Just(0u32), 10u32..20],
        prop_oneof![Just(u64::MAX), BASE..BASE + PAGES * PAGE],
        (prop::bool::weighted(0.05), 0usize..2),
    );
    prop_oneof![
        3 => map.prop_map(|(at, len, keep, boundary, limit, (fail, owner))| {
            Call::Map { at, len, keep, boundary, limit, fail, owner }
        }),
        2 => (any::<usize>(), prop::bool::weighted(0.05))
            .prop_map(|(which, fail)| Call::Unmap { which, fail }),
        1 => (0usize..2).prop_map(|owner| Call::Revoke { owner }),
    ]
}

struct Held {
    mapped: Mapped,
    owner: Owner,
    first: u64,
    pages: u64,
    revoked: bool,
}

proptest! {
    #[test]
    fn a_domain_gives_what_a_plain_search_finds(calls in prop::collection::vec(call(), 1..80)) {
        let table: &'static Table = Box::leak(Box::default());
        let words = (0..Domain::words(PAGES * PAGE, PAGE)).map(|_| Word::new());
        let words = words.collect::<Vec<_>>().leak();
        let window = IovaWindow::new(BASE, PAGES * PAGE).unwrap();
        let domain = Domain::new(table, window, words).unwrap();
        let entry = Entry::new(Direction::Both, State::Ordinary);
        // A page is free (0), held (1) or lost (2).
        let mut model = [0u8; COUNT];
        let index = |page: u64| usize::try_from((page - BASE) / PAGE).unwrap();
        let mut all: Vec<Held> = Vec::new();
        // A device that is bound after a revocation has another number.
        let (mut numbers, mut next) = ([1, 2], 3);
        for call in calls {
            match call {
                Call::Map { at, len, keep, boundary, limit, fail, owner } => {
                    let owner = Owner::new(numbers[owner]).unwrap();
                    let keep = (1u64 << keep) - 1;
                    let boundary = Boundary::new(if boundary == 0 { 0 } else { 1 << boundary });
                    let min_align = AlignMask::new(keep).unwrap();
                    let limits = Limits { boundary, min_align, ..Limits::NONE };
                    let bus_limit = AddressLimit::last(limit);
                    let info = DeviceInfo { limits, bus_limit, ..DeviceInfo::PLAIN };
                    let range = PhysRange::new(PhysAddr::new(at), len).unwrap();
                    table.live().1 = fail;
                    // SAFETY: there is no device.
                    let got = unsafe { domain.map(range, Fit::Like(at), entry, &info, owner) };
                    let low = keep | (PAGE - 1);
                    let grants = |page: u64| {
                        let addr = page + (at & (PAGE - 1));
                        let last = addr + len - 1;
                        let fits = last < BASE + PAGES * PAGE
                            && last <= limit
                            && addr & low == at & low
                            && boundary.is_none_or(|boundary| !boundary.crossed_by(addr, len))
                            && model[index(page)..=index(last)].iter().all(|page| *page == 0);
                        fits.then_some((addr, page, last))
                    };
                    let mut pages = (BASE..BASE + PAGES * PAGE).step_by(4096);
                    let any = pages.find_map(grants);
                    // Which of them is the allocator's matter.
                    let given = got.as_ref().ok().map(|(addr, _)| addr.raw() & !(PAGE - 1));
                    match (got, given.map_or(any, grants)) {
                        (Ok((addr, mapped)), Some((wanted, first, last))) => {
                            prop_assert!(!fail);
                            prop_assert_eq!(addr.raw(), wanted);
                            model[index(first)..=index(last)].fill(1);
                            let table = &table.live().0;
                            for byte in [0, len - 1] {
                                let (seen, meant) = (wanted + byte, at + byte);
                                let page = table.get(&(seen & !(PAGE - 1))).unwrap();
                                prop_assert_eq!(page + (seen & (PAGE - 1)), meant);
                            }
                            let pages = (last - first) / PAGE + 1;
                            all.push(Held { mapped, owner, first, pages, revoked: false });
                        }
                        (Err(Refuse::IommuFailed), Some(_)) => prop_assert!(fail),
                        (Err(Refuse::IovaFull), None) => {}
                        (got, wanted) => prop_assert!(false, "{got:?}, not {wanted:?}"),
                    }
                }
                Call::Unmap { .. } if all.is_empty() => {}
                Call::Unmap { which, fail } => {
                    let held = all.swap_remove(which % all.len());
                    table.live().1 = fail;
                    // SAFETY: there is no device.
                    let ended = unsafe { domain.unmap(&held.mapped, held.owner) };
                    let first = index(held.first);
                    let pages = first..first + usize::try_from(held.pages).unwrap();
                    if held.revoked {
                        // Whoever has the same pages by now keeps them.
                        prop_assert!(ended.is_ok());
                    } else {
                        prop_assert_eq!(ended.is_err(), fail);
                        model[pages].fill(if fail { 2 } else { 0 });
                        if fail {
                            // It is tried again, or comes after a revocation.
                            all.push(held);
                        }
                    }
                }
                Call::Revoke { owner } => {
                    let number = std::mem::replace(&mut numbers[owner], next);
                    next += 1;
                    let owner = Owner::new(number).unwrap();
                    table.live().1 = false;
                    // SAFETY: there is no device.
                    unsafe { domain.revoke(owner, |stuck| panic!("{stuck:?}")) };
                    for held in all.iter_mut().filter(|held| held.owner == owner) {
                        if !std::mem::replace(&mut held.revoked, true) {
                            let first = index(held.first);
                            model[first..first + usize::try_from(held.pages).unwrap()].fill(0);
                        }
                    }
                }
            }
            let count = |state| PAGE * model.iter().filter(|page| **page == state).count() as u64;
            prop_assert_eq!((domain.mapped(), domain.lost()), (count(1), count(2)));
            prop_assert_eq!(table.live().0.len() as u64 * PAGE, count(1) + count(2));
        }
    }
}
