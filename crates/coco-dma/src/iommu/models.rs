//! Domains under loom: in every interleaving an address is mapped for one at a time, and given out
//! again only after it was unmapped.
// UNSAFETY: a driver of an IOMMU that has no device behind it.
#![expect(unsafe_code)]

use std::boxed::Box;
use std::vec::Vec;

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering;
use loom::thread;

use super::Domain;
use super::Entry;
use super::Fit;
use super::Iommu;
use super::IommuError;
use super::IovaWindow;
use crate::addr::DmaAddr;
use crate::addr::PhysAddr;
use crate::addr::PhysRange;
use crate::plan::DeviceInfo;
use crate::slots::Owner;
use crate::state::Direction;
use crate::state::State;
use crate::word::Word;

const PAGE: u64 = 4096;
const PAGES: usize = 2;

/// A table of flags. Relaxed: nothing but the domain's own order keeps two apart.
struct Flags {
    mapped: [AtomicUsize; PAGES],
    /// Not 0: unmaps fail.
    fail: AtomicUsize,
}

impl Flags {
    fn pages(&self, iova: DmaAddr, len: u64) -> &[AtomicUsize] {
        let first = usize::try_from(iova.raw() / PAGE - 1).unwrap();
        &self.mapped[first..first + usize::try_from(len / PAGE).unwrap()]
    }
}

// SAFETY: no device is behind it.
unsafe impl Iommu for Flags {
    fn page(&self) -> u64 {
        PAGE
    }

    unsafe fn map(&self, iova: DmaAddr, run: PhysRange, _: Entry) -> Result<(), IommuError> {
        for page in self.pages(iova, run.len()) {
            let seen = page.load(Ordering::Relaxed);
            assert_eq!(seen, 0, "given out before it was unmapped");
            page.store(1, Ordering::Relaxed);
        }
        Ok(())
    }

    unsafe fn unmap(&self, iova: DmaAddr, len: u64) -> Result<(), IommuError> {
        if self.fail.load(Ordering::Relaxed) > 0 {
            return Err(IommuError { code: 0 });
        }
        for page in self.pages(iova, len) {
            assert_eq!(page.swap(0, Ordering::Relaxed), 1, "unmapped twice");
        }
        Ok(())
    }
}

fn domain(fail: bool) -> Arc<Domain<'static>> {
    domain_on(fail).0
}

fn domain_on(fail: bool) -> (Arc<Domain<'static>>, &'static Flags) {
    let len = PAGES as u64 * PAGE;
    let words: Vec<_> = (0..Domain::words(len, PAGE)).map(|_| Word::new()).collect();
    let mapped = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let flags = Box::leak(Box::new(Flags { mapped, fail: AtomicUsize::new(fail.into()) }));
    let window = IovaWindow::new(PAGE, len).unwrap();
    (Arc::new(Domain::new(flags, window, words.leak()).unwrap()), flags)
}

/// Maps and unmaps once; false where there was no room.
fn use_once(domain: &Domain<'_>, owner: usize, pages: u64) -> bool {
    let owner = Owner::new(owner).unwrap();
    let run = PhysRange::new(PhysAddr::new(0x8000), pages * PAGE).unwrap();
    let entry = Entry::new(Direction::Both, State::SHARED);
    // SAFETY: there is no device.
    let Ok((addr, mapped)) =
        (unsafe { domain.map(run, Fit::Like(0), entry, &DeviceInfo::PLAIN, owner) })
    else {
        return false;
    };
    assert_ne!(addr.raw(), 0);
    // SAFETY: as above.
    let _ = unsafe { domain.unmap(&mapped, owner) };
    // SAFETY: as above.
    let _ = unsafe { domain.unmap(&mapped, owner) };
    true
}

#[test]
fn loom_no_address_is_mapped_for_two() {
    loom::model(|| {
        let domain = domain(false);
        let other = domain.clone();
        let thread = thread::spawn(move || use_once(&other, 1, 2));
        let mine = use_once(&domain, 2, 1);
        let theirs = thread.join().unwrap();
        assert!(mine || theirs, "one of the two gets on");
        assert_eq!((domain.mapped(), domain.lost()), (0, 0));
        assert!(use_once(&domain, 3, 2));
    });
}

/// Whoever says that a device is stopped and then revokes it leaves nothing mapped, whatever is
/// being mapped for it meanwhile.
#[test]
fn loom_a_device_that_is_cut_off_keeps_nothing() {
    loom::model(|| {
        let domain = domain(false);
        let stopped = Arc::new(AtomicUsize::new(0));
        let (other, seen) = (domain.clone(), stopped.clone());
        let owner = Owner::new(1).unwrap();
        let thread = thread::spawn(move || {
            let run = PhysRange::new(PhysAddr::new(0x8000), PAGE).unwrap();
            let entry = Entry::new(Direction::Both, State::SHARED);
            // SAFETY: there is no device.
            let made = unsafe { other.map(run, Fit::Like(0), entry, &DeviceInfo::PLAIN, owner) };
            let (_, mapped) = made.unwrap();
            if seen.load(Ordering::Relaxed) == 1 {
                // SAFETY: as above.
                let ended = unsafe { other.unmap(&mapped, owner) };
                // Or the revocation is at it.
                assert!(ended.is_ok() || ended.is_err_and(|stuck| stuck.error.is_none()));
            }
        });
        stopped.store(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { domain.revoke(owner, |stuck| assert_eq!(stuck.error, None)) };
        thread.join().unwrap();
        assert_eq!((domain.mapped(), domain.lost()), (0, 0));
    });
}

/// One thread revokes what another ends, which could be ended or could not before: who is told that
/// it is over finds it unmapped, and whoever is not told so finds it so by asking again.
#[test]
fn loom_who_is_told_that_it_is_over_finds_it_unmapped() {
    for stuck in [false, true] {
        loom::model(move || {
            let (domain, flags) = domain_on(stuck);
            let owner = Owner::new(1).unwrap();
            let run = PhysRange::new(PhysAddr::new(0x8000), PAGE).unwrap();
            let entry = Entry::new(Direction::Both, State::SHARED);
            // SAFETY: there is no device.
            let made = unsafe { domain.map(run, Fit::Like(0), entry, &DeviceInfo::PLAIN, owner) };
            let (_, mapped) = made.unwrap();
            if stuck {
                // SAFETY: as above.
                assert!(unsafe { domain.unmap(&mapped, owner) }.is_err());
                flags.fail.store(0, Ordering::Relaxed);
            }
            let other = domain.clone();
            let thread = thread::spawn(move || {
                // SAFETY: as above.
                unsafe { other.revoke(owner, |stuck| assert_eq!(stuck.error, None)) };
            });
            // SAFETY: as above.
            let mut told = unsafe { domain.unmap(&mapped, owner) };
            if told.is_err() {
                thread.join().unwrap();
                // SAFETY: as above.
                told = unsafe { domain.unmap(&mapped, owner) };
            } else {
                assert_eq!(flags.mapped[0].load(Ordering::Relaxed), 0);
                thread.join().unwrap();
            }
            assert_eq!(told, Ok(()));
            assert_eq!((domain.mapped(), domain.lost()), (0, 0));
            assert!(use_once(&domain, 3, 2));
        });
    }
}

#[test]
fn loom_what_is_not_unmapped_is_never_given_out() {
    loom::model(|| {
        let domain = domain(true);
        let other = domain.clone();
        let thread = thread::spawn(move || use_once(&other, 1, 1));
        assert!(use_once(&domain, 2, 1));
        assert!(thread.join().unwrap());
        assert_eq!((domain.mapped(), domain.lost()), (0, 2 * PAGE));
        assert!(!use_once(&domain, 3, 1));
    });
}
