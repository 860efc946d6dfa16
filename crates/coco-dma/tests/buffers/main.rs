//! Owned and lent buffers: the bytes flow, nothing else does, and no way of leaving a mapping
//! behind frees what a device may still be at.
// UNSAFETY: a buffer type of the test's own, and shared memory looked at through its guard.
#![expect(unsafe_code)]
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

mod machine;

use std::mem;
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use coco_dma::attrs::Attrs;
use coco_dma::reason::Refuse;
use coco_dma::shared::OutOfBounds;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;
use coco_dma::stream::MapError;
use coco_dma::stream::Mapping;
use coco_dma::stream::OwnedBuffer;
use coco_dma::stream::ScopedMapError;
use machine::Bench;
use machine::DIRECTIONS;
use machine::POOL_LEN;

const NONE: Attrs = Attrs::NONE;

fn leaked(bytes: &[u8]) -> &'static mut [u8] {
    Box::leak(Box::<[u8]>::from(bytes))
}

/// A round trip with both directions: what went in comes out as the device left it.
fn round_trip<B>(buffer: B, bounced: bool, bench: &Bench) -> B
where
    B: OwnedBuffer + Deref<Target: AsRef<[u8]>>,
{
    let mapping = bench.device.map(buffer, Direction::Both, NONE).unwrap();
    assert_eq!((mapping.len(), mapping.is_bounced()), (6, bounced));
    assert_eq!(mapping.direction(), Direction::Both);
    assert_eq!(bench.sees(mapping.addr(), 6), b"driver");
    bench.writes(mapping.addr(), b"device");
    let buffer = mapping.unmap(6).unwrap();
    assert_eq!((*buffer).as_ref(), b"device");
    buffer
}

#[test]
fn bytes_flow_through_every_kind_of_buffer() {
    for (bench, bounced) in [
        (Bench::guest(), true),
        (Bench::new("open", PoolLabel::Ordinary, false), false),
        (Bench::new("tdx", PoolLabel::GuestPrivate, true), false),
    ] {
        round_trip(leaked(b"driver"), bounced, &bench);
        #[cfg(feature = "alloc")]
        {
            round_trip(Box::<[u8]>::from(*b"driver"), bounced, &bench);
            round_trip(Box::new(*b"driver"), bounced, &bench);
            let mut vec = Vec::with_capacity(100);
            vec.extend(b"driver");
            let (start, capacity) = (vec.as_ptr(), vec.capacity());
            let mut vec = round_trip(vec, bounced, &bench);
            assert_eq!((vec.as_ptr(), vec.capacity()), (start, capacity));
            vec.extend([0; 90]);
        }
        assert_eq!(bench.pool.used(), 0);
        assert_eq!((bench.device.counters().live(), bench.device.counters().lost), (0, 0));
    }
}

/// Where the device only writes, it never sees the old buffer nor what an earlier owner left, and
/// what it did not write is either left alone or zero.
#[test]
fn no_byte_comes_or_goes_that_was_not_given() {
    let bench = Bench::guest();
    for written in [0, 3, 6, 7, usize::MAX] {
        let mapping = bench.device.map(leaked(b"secret"), Direction::FromDevice, NONE).unwrap();
        assert_eq!(bench.sees(mapping.addr(), 6), [0; 6]);
        bench.writes(mapping.addr(), b"dev");
        let expected = match written {
            0 => b"secret",
            3 => b"devret",
            // The device says more than it did: zeroes, no old bytes.
            _ => b"dev\0\0\0",
        };
        assert_eq!(mapping.unmap(written).unwrap(), expected, "{written} said to be written");
    }
    // What a device may only read comes back as it was, whatever it wrote and said.
    let mapping = bench.device.map(leaked(b"secret"), Direction::ToDevice, NONE).unwrap();
    bench.writes(mapping.addr(), b"device");
    assert_eq!(mapping.unmap(6).unwrap(), b"secret");
}

#[test]
fn a_mapped_buffer_is_looked_at_by_copies() {
    let bench = Bench::guest();
    let mut mapping = bench.device.map(leaked(b"driver"), Direction::Both, NONE).unwrap();
    let mut out = [0; 3];
    bench.writes(mapping.addr(), b"device");
    mapping.read(0, &mut out).unwrap();
    assert_eq!(&out, b"dri", "nothing is brought before a sync");
    mapping.sync_for_cpu(1..3);
    mapping.read(0, &mut out).unwrap();
    assert_eq!(&out, b"dev");
    mapping.write(3, b"XYZ").unwrap();
    assert_eq!(bench.sees(mapping.addr(), 6), b"device", "nothing is shown before a sync");
    mapping.sync_for_device(4..usize::MAX);
    assert_eq!(bench.sees(mapping.addr(), 6), b"deviYZ");
    for (offset, len) in [(6, 1), (4, 3), (usize::MAX, 3)] {
        let wrong = Err(OutOfBounds { offset, len, size: 6 });
        assert_eq!(mapping.read(offset, &mut out[..len]), wrong);
        assert_eq!(mapping.write(offset, &out[..len]), wrong);
    }
    assert_eq!(mapping.unmap(0).unwrap(), b"devXYZ");
}

/// A buffer that tells when it is freed, and may not be sent anywhere.
#[derive(Debug)]
struct Told {
    bytes: &'static mut [u8],
    freed: &'static AtomicUsize,
    _here: Option<Rc<()>>,
}

impl Told {
    fn new() -> Self {
        let freed = Box::leak(Box::new(AtomicUsize::new(0)));
        Self { bytes: leaked(&[1; 3000]), freed, _here: None }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.freed.fetch_add(1, SeqCst);
    }
}

// SAFETY: as for the `&'static mut [u8]` in it; nothing else of it is needed.
unsafe impl OwnedBuffer for Told {
    type Rest = &'static AtomicUsize;

    fn into_parts(mut self) -> (NonNull<[u8]>, Self::Rest) {
        let (bytes, freed) = (mem::take(&mut self.bytes), self.freed);
        mem::forget(self);
        (NonNull::from(bytes), freed)
    }

    unsafe fn from_parts(mut bytes: NonNull<[u8]>, freed: Self::Rest) -> Self {
        // SAFETY: the caller's conditions.
        Self { bytes: unsafe { bytes.as_mut() }, freed, _here: None }
    }
}

#[test]
fn what_is_dropped_or_forgotten_is_kept_for_good() {
    for direction in DIRECTIONS {
        let bench = Bench::guest();
        let buffer = Told::new();
        let freed = buffer.freed;
        let mapping = bench.device.map(buffer, direction, NONE).unwrap();
        let addr = mapping.addr();
        drop(mapping);
        assert_eq!(freed.load(SeqCst), 0, "dropped while the device may be at it");
        let now = bench.device.counters();
        assert_eq!((now.lost, now.live(), now.finished), (1, 1, 0));
        assert_eq!(bench.pool.used(), 2);

        mem::forget(bench.device.map(Told::new(), direction, NONE).unwrap());
        let now = bench.device.counters();
        assert_eq!((now.lost, now.live(), now.finished), (1, 2, 0));
        assert_eq!(bench.pool.used(), 4);

        // The slots go to nobody else, and the device may go on for ever.
        let others = (bench.pool.capacity() - 4) / 2;
        let others: Vec<_> =
            (0..others).map(|_| bench.device.map(Told::new(), direction, NONE).unwrap()).collect();
        assert!(others.iter().all(|other| other.addr().raw().abs_diff(addr.raw()) >= 4096));
        let full = bench.device.map(Told::new(), direction, NONE).unwrap_err();
        assert_eq!(full.error().reason, Refuse::PoolFull);
        bench.writes(addr, &[9; 3000]);
        for other in others {
            let buffer = other.unmap(0).unwrap();
            assert_eq!(buffer.bytes, [1; 3000]);
            let freed = buffer.freed;
            drop(buffer);
            assert_eq!(freed.load(SeqCst), 1, "a buffer that came back is its owner's");
        }
        assert_eq!((bench.pool.used(), bench.device.counters().lost), (4, 1));
    }
}

/// On an open machine, too, where a map is not counted.
#[test]
fn what_is_lost_in_place_is_kept_and_counted() {
    let bench = Bench::new("open", PoolLabel::Ordinary, false);
    let buffer = Told::new();
    let freed = buffer.freed;
    let mapping = bench.device.map(buffer, Direction::FromDevice, NONE).unwrap();
    let addr = mapping.addr();
    drop(mapping);
    bench.writes(addr, &[9; 3000]);
    assert_eq!((freed.load(SeqCst), bench.device.counters().lost), (0, 1));
}

#[test]
fn a_refusal_gives_the_buffer_back() {
    let bench = Bench::guest();
    for (len, attrs, reason) in [
        (0, NONE, Refuse::InvalidRange),
        (POOL_LEN + 1, NONE, Refuse::TooLarge),
        (9, Attrs::REQUIRE_COHERENT, Refuse::RequireCoherent),
        // A slice is no register and is not shared: nobody may say so of one.
        (9, Attrs::MMIO, Refuse::BadAttribute),
        (9, Attrs::CC_SHARED, Refuse::BadAttribute),
        (9, Attrs::CC_SHARED.with(Attrs::MMIO), Refuse::BadAttribute),
        (9, Attrs::ALLOC_CC_SHARED, Refuse::BadAttribute),
    ] {
        let refused = bench.device.counters().refused;
        let mut bytes = vec![5; len];
        let buffer = leaked(&bytes);
        let start = buffer.as_ptr();
        let failed = bench.device.map(buffer, Direction::Both, attrs).unwrap_err();
        assert_eq!((failed.error().reason, failed.error().len), (reason, len), "{attrs}");
        let text = failed.to_string();
        assert!(text.starts_with("disk: ") && text.ends_with(reason.way_out()), "{text}");
        assert!(!format!("{failed:?}").contains("5, 5"), "the bytes are nobody's business");
        let (error, buffer) = failed.into_parts();
        assert_eq!((buffer.as_ptr(), &*buffer), (start, &*bytes));

        let with = bench.device.with_mapped(&mut bytes, Direction::Both, attrs, |_| ());
        let refusal = |error| match error {
            ScopedMapError::Refused(error) => error,
            kept @ ScopedMapError::StillMapped { .. } => panic!("{kept}"),
        };
        assert_eq!(with.map_err(refusal), Err(error));
        let with = bench.device.with_mapped_ref(&bytes, attrs, |_| ());
        assert_eq!(with.map_err(|error| refusal(error).reason), Err(reason));
        assert_eq!(bench.device.counters().refused, refused + 3);
    }
    let buffer = Told::new();
    let freed = buffer.freed;
    let failed = bench.device.map(buffer, Direction::Both, Attrs::MMIO).unwrap_err();
    let buffer = failed.into_buffer();
    assert_eq!(freed.load(SeqCst), 0);
    let failed = bench.device.map(buffer, Direction::Both, Attrs::MMIO).unwrap_err();
    let error = MapError::from(failed);
    assert_eq!((freed.load(SeqCst), error.reason), (1, Refuse::BadAttribute));
    assert_eq!((bench.pool.used(), bench.device.counters().live()), (0, 0));
}

#[test]
fn a_lent_buffer_is_mapped_while_the_closure_runs() {
    for (bench, bounced) in [
        (Bench::guest(), true),
        (Bench::new("open", PoolLabel::Ordinary, false), false),
        (Bench::new("tdx", PoolLabel::GuestPrivate, true), false),
    ] {
        for written in [None, Some(3), Some(usize::MAX)] {
            let mut buffer = *b"driver";
            let got = bench.device.with_mapped(&mut buffer, Direction::Both, NONE, |lent| {
                assert_eq!((lent.len(), lent.is_bounced()), (6, bounced));
                assert_eq!(lent.direction(), Direction::Both);
                assert_eq!(bench.pool.used(), usize::from(bounced));
                lent.write(5, b"R").unwrap();
                lent.sync_for_device(5..6);
                assert_eq!(bench.sees(lent.addr(), 6), b"driveR");
                bench.writes(lent.addr(), b"device");
                lent.sync_for_cpu(0..2);
                let mut seen = [0; 2];
                lent.read(0, &mut seen).unwrap();
                assert_eq!(&seen, b"de");
                assert!(lent.read(5, &mut seen).is_err() && lent.write(5, &seen).is_err());
                if let Some(written) = written {
                    lent.written(1);
                    lent.written(written);
                }
                "answer"
            });
            assert_eq!(got.unwrap(), "answer");
            let expected = match written {
                // The two bytes that a sync brought stay; the third comes by being said.
                None if bounced => b"deiveR",
                Some(3) if bounced => b"devveR",
                _ => b"device",
            };
            assert_eq!(&buffer, expected, "{written:?} said to be written");
            assert_eq!((bench.pool.used(), bench.device.counters().live()), (0, 0));
        }
    }
}

#[test]
fn bytes_lent_for_reading_stay_as_they_are() {
    let bench = Bench::guest();
    let bytes = *b"driver";
    let got = bench.device.with_mapped_ref(&bytes, NONE, |lent| {
        assert_eq!((lent.len(), lent.is_bounced()), (6, true));
        assert_eq!(bench.sees(lent.addr(), 6), b"driver");
        assert_eq!(bench.machine.handed_over(), Some(Direction::ToDevice));
        // What lends it may look at it meanwhile; a device that writes changes its slots alone.
        bench.writes(lent.addr(), b"device");
        bytes
    });
    assert_eq!(got.unwrap(), *b"driver");
    assert_eq!(&bytes, b"driver");
    assert_eq!((bench.pool.used(), bench.device.counters().live()), (0, 0));
}

#[test]
fn a_panic_in_the_closure_ends_the_map() {
    let bench = Bench::guest();
    let mut buffer = *b"driver";
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        bench.device.with_mapped(&mut buffer, Direction::Both, NONE, |lent| {
            bench.writes(lent.addr(), b"device");
            lent.written(3);
            assert_eq!(bench.pool.used(), 1);
            std::panic::resume_unwind(Box::new("on purpose"));
        })
    }));
    assert!(unwound.is_err());
    assert_eq!(&buffer, b"devver");
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        bench.device.with_mapped_ref(&buffer, NONE, |_| {
            std::panic::resume_unwind(Box::new("on purpose"));
        })
    }));
    assert!(unwound.is_err());
    let now = bench.device.counters();
    assert_eq!((bench.pool.used(), now.live(), now.finished, now.lost), (0, 0, 2, 0));
}

#[test]
fn coherent_memory_is_looked_at_by_copies() {
    let bench = Bench::guest();
    let memory = bench.device.alloc_raw(100, Context::Blocking).unwrap();
    // SAFETY: the device is here until the end, and the pointer is used by nobody else.
    let shared = unsafe { memory.shared_bytes() };
    assert_eq!(shared.len(), 4096);
    assert_eq!(shared.read_array(0), Ok([0; 4096]));
    bench.writes(memory.addr(), b"device");
    assert_eq!(shared.read_array(0), Ok(*b"device"));
    shared.write_u32_le(4092, 0x6b6f_7472).unwrap();
    assert_eq!(bench.sees(memory.addr(), 4096)[4092..], *b"rtok");
    assert_eq!(shared.write(4093, &[0; 4]), Err(OutOfBounds { offset: 4093, len: 4, size: 4096 }));
    // SAFETY: the device has stopped, and nobody looks any more.
    unsafe { bench.device.free_raw(memory) }.unwrap();
    assert_eq!(bench.pool.used(), 0);
}

/// A mapping goes where its buffer may go.
#[test]
fn a_mapping_may_be_sent() {
    let bench = Bench::guest();
    let mapping = bench.device.map(leaked(b"driver"), Direction::FromDevice, NONE).unwrap();
    let buffer = std::thread::scope(|scope| {
        let finish = |mapping: Mapping<_, _>| {
            bench.writes(mapping.addr(), b"device");
            mapping.unmap(6).unwrap()
        };
        scope.spawn(move || finish(mapping)).join().unwrap()
    });
    assert_eq!(buffer, b"device");
}
