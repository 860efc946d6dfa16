//! What safe code has in its hands when an IOMMU does not unmap: never memory that the device may
//! still reach, until it is tried again.
// UNSAFETY: memory of the simulated machine as buffers; lists are raw.
#![expect(unsafe_code)]

use std::ptr::NonNull;

use coco_dma::attrs::Attrs;
use coco_dma::coherent::NotFreed;
use coco_dma::coherent::ObjectLayout;
use coco_dma::coherent::ObjectPage;
use coco_dma::coherent::ObjectPool;
use coco_dma::plan::Limits;
use coco_dma::regime::PlatformName;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::Trust;
use coco_dma::stream::ListError;
use coco_dma::stream::NotUnmapped;
use coco_dma::stream::OwnedBuffer;
use coco_dma::stream::ScopedMapError;
use coco_dma::stream::UnmapListError;
use coco_dma_sim::GuestBuffer;
use coco_dma_sim::Outcome;

use super::rig::PAGE;
use super::rig::Rig;
use super::rig::leak;

const NONE: Attrs = Attrs::NONE;

/// Memory of the machine, which lives as long as the program.
#[derive(Debug, PartialEq)]
struct Given(NonNull<[u8]>);

// SAFETY: 1. and 2. the machine is leaked and gave the memory to the test alone, which looks at it
// by copies. 3. it is private. 4. bytes are bytes.
unsafe impl OwnedBuffer for Given {
    type Rest = ();

    fn into_parts(self) -> (NonNull<[u8]>, ()) {
        (self.0, ())
    }

    unsafe fn from_parts(bytes: NonNull<[u8]>, (): ()) -> Self {
        Self(bytes)
    }
}

/// A rig whose device maps in place, or bounces.
fn rig(in_place: bool) -> Rig {
    Rig::new(PlatformName::Tdx, if in_place { Trust::Accepted } else { Trust::Untrusted })
}

fn buffer(rig: &Rig) -> (GuestBuffer, Given) {
    let buffer = rig.machine.alloc(64).unwrap();
    buffer.write(&[1; 64]);
    let given = Given(buffer.bytes());
    (buffer, given)
}

#[test]
fn a_buffer_comes_back_when_it_is_unmapped_and_not_before() {
    for in_place in [false, true] {
        let rig = rig(in_place);
        let (device, other, disk) = (rig.bind(Limits::NONE), rig.bind(Limits::NONE), rig.disk());
        let (buffer, given) = buffer(&rig);
        let mapping = device.map(given, Direction::Both, NONE).unwrap();
        assert_eq!(mapping.is_bounced(), !in_place);
        let addr = mapping.addr().raw();
        disk.write(addr, &[2; 64]);
        rig.iommu.fail_unmap(0);
        let failed = mapping.unmap(64).unwrap_err();
        let NotUnmapped::StillMapped(error) = failed.error() else { panic!("{failed}") };
        assert_eq!((error.len, error.code), (PAGE, Some(0x5c21)));
        assert_eq!(disk.write(addr, &[3; 64]), Outcome::Clear);
        assert_eq!(buffer.read(), if in_place { [3; 64] } else { [1; 64] });
        // Nobody else has what it is in, and another device does not end it.
        assert_eq!((rig.domain.lost(), rig.pool.used()), (PAGE, if in_place { 0 } else { 2 }));
        assert_eq!(device.counters().live(), 1);
        let failed = failed.retry(&other).unwrap_err();
        rig.iommu.fail_unmap(0);
        let failed = failed.retry(&device).unwrap_err();
        assert_eq!(disk.write(addr, &[4; 64]), Outcome::Clear);
        assert_eq!(failed.retry(&device).unwrap(), Given(buffer.bytes()));
        assert_eq!(buffer.read(), [4; 64]);
        assert_eq!(disk.write(addr, &[5; 64]), Outcome::Fault);
        assert_eq!((device.counters().live(), device.counters().lost), (0, 0));
        rig.assert_clean();
    }
}

#[test]
fn a_buffer_that_was_bounced_comes_back_without_its_slots() {
    for in_place in [false, true] {
        let rig = rig(in_place);
        let (device, disk) = (rig.bind(Limits::NONE), rig.disk());
        let (buffer, given) = buffer(&rig);
        let mapping = device.map(given, Direction::Both, NONE).unwrap();
        let addr = mapping.addr().raw();
        disk.write(addr, &[2; 64]);
        rig.iommu.fail_unmap(0);
        let failed = mapping.unmap(32).unwrap_err();
        let kept = match failed.into_buffer(&device) {
            Ok((given, kept)) if !in_place => {
                assert_eq!(given, Given(buffer.bytes()));
                kept
            }
            Err(failed) if in_place => {
                // Dropped, it stays where it is for good: nobody is given it, nor its memory.
                drop(failed);
                assert_eq!((rig.domain.lost(), device.counters().live()), (PAGE, 1));
                assert!(super::coherent::share(rig.dma, buffer.run()).is_err());
                continue;
            }
            other => panic!("{other:?}"),
        };
        let arrived = [[2; 32], [1; 32]].concat();
        assert_eq!(buffer.read(), arrived);
        assert_eq!(disk.write(addr, &[3; 64]), Outcome::Clear, "into slots that are nobody's");
        assert_eq!((rig.domain.lost(), rig.pool.used()), (PAGE, 2));
        rig.iommu.fail_unmap(0);
        let kept = kept.retry(&device).unwrap_err();
        kept.retry(&device).unwrap();
        assert_eq!(buffer.read(), arrived, "the buffer is its owner's, and not touched again");
        rig.assert_clean();
        assert_eq!(device.counters().live(), 0);
    }
}

#[test]
fn a_loan_ends_and_what_it_was_lent_is_kept() {
    for (in_place, panics) in [(false, false), (true, false), (false, true)] {
        let rig = rig(in_place);
        let (device, disk) = (rig.bind(Limits::NONE), rig.disk());
        let (buffer, mut given) = buffer(&rig);
        // SAFETY: the memory is the test's, and is looked at by copies.
        let bytes = unsafe { given.0.as_mut() };
        let work = std::panic::AssertUnwindSafe(|| {
            device.with_mapped(bytes, Direction::Both, NONE, |lent| {
                disk.write(lent.addr().raw(), &[2; 64]);
                lent.written(32);
                rig.iommu.fail_unmap(0);
                if panics {
                    std::panic::resume_unwind(Box::new("on purpose"));
                }
                lent.addr().raw()
            })
        });
        let ended = std::panic::catch_unwind(work);
        let arrived = if in_place { vec![2; 64] } else { [[2; 32], [1; 32]].concat() };
        assert_eq!(buffer.read(), arrived, "what arrived is there");
        assert_eq!((rig.domain.lost(), device.counters().live()), (PAGE, 1));
        let Ok(ended) = ended else {
            assert!(panics);
            continue;
        };
        let ScopedMapError::StillMapped { answer, kept } = ended.unwrap_err() else {
            panic!("mapped")
        };
        assert_eq!(disk.write(answer, &[3; 64]), Outcome::Clear);
        kept.retry(&device).unwrap();
        assert_eq!(disk.write(answer, &[3; 64]), Outcome::Fault);
        rig.assert_clean();
        assert_eq!(device.counters().live(), 0);
    }
}

/// The pieces of a list were told of before the domain had given them addresses.
#[test]
fn a_list_is_told_of_with_the_addresses_that_the_device_is_given() {
    let rig = rig(false);
    let device = rig.bind(Limits::NONE);
    let buffers = [64, 64].map(|len| rig.machine.alloc(len).unwrap());
    let list = [0, 1].map(|index| buffers[index].bytes());
    let mut entries = [const { None }; 2];
    // SAFETY: the buffers are the test's, and the device acts only when told.
    let made = unsafe { device.map_list(&list, Direction::ToDevice, NONE, &mut entries) }.unwrap();
    for view in made.views() {
        assert!(view.is_bounced());
        let addr = view.addr();
        assert!(rig.heard.has(&addr.to_string()), "no event has {addr}");
    }
    // SAFETY: as above.
    unsafe { device.unmap_list(made, 0) }.unwrap();
    rig.assert_clean();
}

/// What was unmapped is no more touched, and what was not holds all the rest: no byte is copied
/// before all of the list is out of the device's reach.
#[test]
fn of_a_list_nothing_is_given_back_before_all_of_it_is_unmapped() {
    let rig = rig(false);
    let (device, disk) = (rig.bind(Limits::NONE), rig.disk());
    let buffers = [64, 64, 64].map(|len| rig.machine.alloc(len).unwrap());
    let list = [0, 1, 2].map(|index| buffers[index].bytes());
    let mut entries = [const { None }; 3];
    // SAFETY: the buffers are the test's, and the device acts only when told.
    let made =
        unsafe { device.map_list(&list, Direction::FromDevice, NONE, &mut entries) }.unwrap();
    let at: Vec<_> = made.views().map(|view| view.addr().raw()).collect();
    at.iter().for_each(|at| _ = disk.write(*at, &[7; 64]));
    rig.iommu.fail_unmap(1);
    // SAFETY: as above.
    let left = unsafe { device.unmap_list(made, 160) }.unwrap_err();
    let UnmapListError::StillMapped(left, _) = left else { panic!("{left:?}") };
    assert_eq!(at.iter().filter(|at| disk.write(**at, &[7; 64]) == Outcome::Clear).count(), 1);
    buffers.iter().for_each(|buffer| assert_eq!(buffer.read(), [0; 64]));
    assert_eq!(device.counters().live(), 3);
    // SAFETY: as above.
    unsafe { device.unmap_list(left, 160) }.unwrap();
    assert_eq!(buffers[0].read(), [7; 64]);
    assert_eq!(buffers[1].read(), [7; 64]);
    assert_eq!(buffers[2].read(), [[7; 32], [0; 32]].concat());
    rig.assert_clean();

    // The third cannot be mapped, and of those before it the first does not go.
    rig.iommu.fail_map(2);
    rig.iommu.fail_unmap(0);
    // SAFETY: as above.
    let failed = unsafe { device.map_list(&list, Direction::FromDevice, NONE, &mut entries) };
    let failed = failed.unwrap_err();
    assert!(matches!(failed.error, ListError::Refused { .. }), "{failed}");
    // SAFETY: as above.
    unsafe { device.unmap_list(failed.left.unwrap(), 0) }.unwrap();
    assert!(entries.iter().all(Option::is_none));
    rig.assert_clean();
}

#[test]
fn coherent_memory_comes_back_to_be_freed_again() {
    let rig = rig(false);
    let (device, disk) = (rig.bind(Limits::NONE), rig.disk());
    let memory = device.alloc(64, Context::Atomic).unwrap().expose();
    let addr = memory.addr().raw();
    rig.iommu.fail_unmap(0);
    let error = memory.free(Context::Atomic).unwrap_err();
    assert!(matches!(error.reason, NotFreed::StillMapped(_)), "{error}");
    assert_eq!(disk.write(addr, &[1; 64]), Outcome::Clear);
    let mut memory = error.memory;
    assert_eq!(memory.bytes().read_array(0), Ok([1; 64]), "it is as it was");
    memory.free(Context::Atomic).map_err(|error| error.reason).unwrap();
    assert_eq!(disk.write(addr, &[1; 64]), Outcome::Fault);
    assert_eq!((device.counters().allocations(), device.counters().lost), (0, 0));
    rig.assert_clean();
}

#[test]
fn objects_of_a_page_that_could_not_be_unmapped_are_not_handed_out() {
    let rig = rig(false);
    let device = leak(rig.bind(Limits::NONE));
    let metadata = leak([const { ObjectPage::new() }; 2]);
    let pool = ObjectPool::new(device, ObjectLayout::new(64, 64).unwrap(), metadata).unwrap();
    let first = pool.alloc(Context::Atomic).unwrap();
    let addr = first.addr().raw();
    first.free();
    for _ in 0..2 {
        rig.iommu.fail_unmap(0);
        assert_eq!((pool.trim(Context::Atomic), pool.pages(), pool.used()), (0, 1, 0));
        assert_eq!(rig.disk().write(addr, &[9; 64]), Outcome::Clear);
    }
    let other = pool.alloc(Context::Atomic).unwrap();
    assert_ne!(other.addr().raw() & !(PAGE - 1), addr & !(PAGE - 1), "one of another page");
    other.free();
    assert_eq!((pool.trim(Context::Atomic), pool.pages()), (2, 0));
    assert_eq!(rig.disk().write(addr, &[9; 64]), Outcome::Fault);
    rig.assert_clean();
    assert_eq!(device.counters().allocations(), 0);
    // Of both pages there are objects again, and a pool that cannot close comes back.
    pool.alloc(Context::Atomic).unwrap().free();
    rig.iommu.fail_unmap(0);
    let pool = pool.close(Context::Atomic).unwrap_err();
    pool.close(Context::Atomic).unwrap();
    rig.assert_clean();
}
