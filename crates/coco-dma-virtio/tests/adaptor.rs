//! The adaptor as a driver of `virtio-drivers` uses it.
// UNSAFETY: the interface is unsafe to use.
#![expect(unsafe_code)]

#[path = "../../coco-dma/tests/machine/mod.rs"]
mod machine;

use std::ptr::NonNull;

use coco_dma::Dma;
use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::platform::Platform;
use coco_dma::reason::Refuse;
use coco_dma::regime::PlatformName;
use coco_dma::state::PoolLabel;
use coco_dma_virtio::Adaptor;
use coco_dma_virtio::AlreadyBound;
use coco_dma_virtio::Record;
use coco_dma_virtio::UNREACHABLE;
use machine::Machine;
use virtio_drivers::BufferDirection;
use virtio_drivers::Hal;

const POOL_LEN: usize = 32 << 10;

/// Runs a test with an adaptor over a machine whose pool lies at `base`.
fn with_adaptor(
    base: u64,
    records: usize,
    test: impl FnOnce(&Machine, &Adaptor<'_, dyn Platform + '_>),
) {
    let machine = Machine::with_pool_at(PlatformName::Tdx, base, POOL_LEN);
    let pools = [machine.pool(PoolLabel::GuestShared)];
    let platform: &dyn Platform = &machine;
    let dma = Dma::new(platform, &pools);
    let device = dma.bind(Endpoint::new("disk"), Limits::NONE).expect("bound");
    let records: Vec<Record> = (0..records).map(|_| Record::new()).collect();
    let adaptor = Adaptor::new(device, &records);
    test(&machine, &adaptor);
}

fn pool_offset(addr: u64) -> usize {
    usize::try_from(addr - machine::POOL).expect("an address in the pool")
}

#[test]
fn a_share_goes_out_and_comes_back() {
    with_adaptor(machine::POOL, 4, |machine, adaptor| {
        let mut buffer = [9u8; 600];
        let bytes = NonNull::from(buffer.as_mut_slice());
        for direction in [
            BufferDirection::DriverToDevice,
            BufferDirection::DeviceToDriver,
            BufferDirection::Both,
        ] {
            // SAFETY: the buffer is ours; the device is this test.
            let addr = unsafe { adaptor.share(bytes, direction) };
            let at = pool_offset(addr);
            let wanted = if direction == BufferDirection::DeviceToDriver { 0 } else { 9 };
            assert_eq!(machine.device_reads(at, 600), vec![wanted; 600]);
            machine.device_writes(at, b"typed-by-host");
            // SAFETY: as above.
            unsafe { adaptor.unshare(addr, bytes, direction) };
            if direction == BufferDirection::DriverToDevice {
                assert_eq!(buffer, [9; 600]);
            } else {
                assert_eq!(&buffer[..13], b"typed-by-host");
                assert!(buffer[13..].iter().all(|byte| *byte == wanted));
                buffer.fill(9);
            }
        }
        assert_eq!(adaptor.counters(), Default::default());
        assert_eq!(adaptor.device().counters().live(), 0);
    });
}

#[test]
fn what_finds_no_room_is_a_stray_that_no_device_reaches() {
    with_adaptor(machine::POOL, 2, |_, adaptor| {
        let mut large = vec![1u8; POOL_LEN + 1];
        let large = NonNull::from(large.as_mut_slice());
        assert_eq!(adaptor.capacity_for(&[large]), Err(Refuse::TooLarge));
        // SAFETY: the buffer is ours; there is no device.
        let addr = unsafe { adaptor.share(large, BufferDirection::Both) };
        assert_eq!(addr, UNREACHABLE);
        // SAFETY: as above.
        unsafe { adaptor.unshare(addr, large, BufferDirection::Both) };
        assert_eq!(adaptor.counters().failed_shares, 1);
        // The table is full before the pool is.
        let mut small = [[0u8; 8]; 3];
        let small = small.each_mut().map(|buffer| NonNull::from(buffer.as_mut_slice()));
        assert_eq!(adaptor.capacity_for(&small[..2]), Ok(()));
        assert_eq!(adaptor.capacity_for(&small), Err(Refuse::PoolFull));
        // SAFETY: as above.
        let addrs = small.map(|buffer| unsafe { adaptor.share(buffer, BufferDirection::Both) });
        assert_eq!(addrs[2], UNREACHABLE);
        assert_ne!(addrs[0], addrs[1]);
        for (addr, buffer) in addrs.into_iter().zip(small) {
            // SAFETY: as above.
            unsafe { adaptor.unshare(addr, buffer, BufferDirection::Both) };
        }
        assert_eq!(adaptor.counters().failed_shares, 2);
        assert_eq!(adaptor.counters().unknown_unshares, 0);
        assert_eq!(adaptor.device().counters().live(), 0, "nothing is held");
    });
}

#[test]
fn an_unshare_that_fits_no_record_changes_nothing() {
    with_adaptor(machine::POOL, 4, |machine, adaptor| {
        let mut buffer = [3u8; 100];
        let mut other = [4u8; 100];
        let bytes = NonNull::from(buffer.as_mut_slice());
        // SAFETY: the buffers are ours; the device is this test.
        let addr = unsafe { adaptor.share(bytes, BufferDirection::Both) };
        machine.device_writes(pool_offset(addr), &[8; 100]);
        let shorter = NonNull::from(&mut other[..50]);
        let wrong = [
            (addr, NonNull::from(other.as_mut_slice()), BufferDirection::Both),
            (addr, shorter, BufferDirection::Both),
            (addr, bytes, BufferDirection::DeviceToDriver),
            (addr + 2048, bytes, BufferDirection::Both),
            (0, bytes, BufferDirection::Both),
        ];
        for (addr, buffer, direction) in wrong {
            // SAFETY: what is tested is that nothing happens.
            unsafe { adaptor.unshare(addr, buffer, direction) };
        }
        assert_eq!(adaptor.counters().unknown_unshares, wrong.len());
        assert_eq!((buffer, other), ([3; 100], [4; 100]));
        // SAFETY: as above, the right one; then once more.
        unsafe { adaptor.unshare(addr, bytes, BufferDirection::Both) };
        assert_eq!(buffer, [8; 100]);
        // SAFETY: as above.
        unsafe { adaptor.unshare(addr, bytes, BufferDirection::Both) };
        assert_eq!(adaptor.counters().unknown_unshares, wrong.len() + 1);
    });
}

#[test]
fn address_0_is_never_given() {
    with_adaptor(0, 4, |_, adaptor| {
        let (addr, start) = adaptor.dma_alloc(1);
        assert_eq!(addr, 4096);
        assert_eq!(adaptor.counters().lost, 1);
        // SAFETY: there is no device.
        assert_eq!(unsafe { adaptor.dma_dealloc(addr, start, 2) }, 0, "always a success");
        assert_eq!(adaptor.counters().unknown_unshares, 1, "but another size frees nothing");
        // SAFETY: as above.
        assert_eq!(unsafe { adaptor.dma_dealloc(addr, start, 1) }, 0);
        assert_eq!(adaptor.dma_alloc(usize::MAX).0, 0);
        assert_eq!(adaptor.dma_alloc(0).0, 0);
    });
}

coco_dma_virtio::hal! {
    /// Bound and unbound below.
    struct TestHal;
}

#[test]
fn a_type_is_bound_to_one_adaptor_at_a_time() {
    let mut buffer = [0u8; 8];
    let bytes = NonNull::from(buffer.as_mut_slice());
    // SAFETY: unbound, it reaches nothing.
    let addr = unsafe { TestHal::share(bytes, BufferDirection::Both) };
    assert_eq!(addr, UNREACHABLE);
    assert_eq!(TestHal::dma_alloc(1, BufferDirection::Both).0, 0);
    with_adaptor(machine::POOL, 4, |_, adaptor| {
        // SAFETY: the guard is dropped at the end of this block; nothing else uses the type.
        let bound = unsafe { TestHal::bind(&adaptor) }.expect("free");
        // SAFETY: as above.
        assert_eq!(unsafe { TestHal::bind(&adaptor) }.err(), Some(AlreadyBound));
        let (addr, start) = TestHal::dma_alloc(2, BufferDirection::Both);
        assert_eq!(addr % 4096, 0);
        assert_eq!(adaptor.device().counters().direct, 0);
        // SAFETY: there is no device.
        assert_eq!(unsafe { TestHal::dma_dealloc(addr, start, 2) }, 0);
        drop(bound);
    });
    assert_eq!(TestHal::dma_alloc(1, BufferDirection::Both).0, 0);
}

#[test]
fn a_revoked_device_holds_nothing_and_gets_nothing() {
    with_adaptor(machine::POOL, 4, |machine, adaptor| {
        let mut buffer = [9u8; 600];
        let bytes = NonNull::from(buffer.as_mut_slice());
        // SAFETY: the buffer is ours; the device is this test.
        let addr = unsafe { adaptor.share(bytes, BufferDirection::DeviceToDriver) };
        machine.device_writes(pool_offset(addr), b"half done");
        let (memory, _) = adaptor.dma_alloc(1);
        assert_ne!(memory, 0);
        assert_eq!(adaptor.live(), 2);
        // SAFETY: the device does nothing any more.
        assert_eq!(unsafe { adaptor.revoke() }, 1);
        assert_eq!((adaptor.live(), adaptor.device().counters().live()), (0, 0));
        assert_eq!(buffer, [9; 600], "what it left undone is nobody's");
        assert_eq!(adaptor.capacity_for(&[bytes]), Err(Refuse::Revoked));
        assert_eq!(adaptor.dma_alloc(1).0, 0);
        assert_eq!(adaptor.counters(), Default::default());
    });
}
