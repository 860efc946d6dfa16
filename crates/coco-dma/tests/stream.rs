//! Raw maps: what the device sees, what the driver gets back, and what nobody ever sees.
// UNSAFETY: raw maps are unsafe to make.
#![expect(unsafe_code)]
#![expect(clippy::multiple_unsafe_ops_per_block, reason = "pointer arithmetic of a test")]
#![expect(clippy::cast_possible_truncation, reason = "patterns of bytes")]

mod machine;

use std::ptr::NonNull;

use coco_dma::Dma;
use coco_dma::attrs::Attrs;
use coco_dma::device::Attested;
use coco_dma::device::BindError;
use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::pool::Pool;
use coco_dma::reason::Refuse;
use coco_dma::regime::PlatformName;
use coco_dma::state::Context;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;
use coco_dma::stream::UnmapRawError;
use machine::Machine;
use machine::POOL;
use proptest::prelude::*;

const POOL_LEN: usize = 64 << 10;
const GUESTS: [PlatformName; 9] = [
    PlatformName::Sev,
    PlatformName::Snp,
    PlatformName::SnpVtom,
    PlatformName::Tdx,
    PlatformName::Cca,
    PlatformName::Pkvm,
    PlatformName::Hyperv,
    PlatformName::S390,
    PlatformName::Pef,
];

fn guest(platform: PlatformName) -> (Machine, [Pool<'static>; 1]) {
    let machine = Machine::new(platform, POOL_LEN);
    let pools = [machine.pool(PoolLabel::GuestShared)];
    (machine, pools)
}

/// Where in the pool an address of this machine lies, marks taken off independently.
fn in_pool(platform: PlatformName, addr: u64) -> usize {
    let bare = if platform == PlatformName::Cca { addr - (1 << 47) } else { addr };
    usize::try_from(bare - POOL).expect("an address in the pool")
}

#[test]
fn bytes_go_out_and_come_back_on_every_platform() {
    for platform in GUESTS {
        let (machine, pools) = guest(platform);
        let dma = Dma::new(&machine, &pools);
        let device = dma.bind(Endpoint::new("disk"), Limits::NONE).expect("bound");
        let mut buffer = (0..5000u32).map(|n| n as u8).collect::<Vec<_>>();
        let bytes = NonNull::from(buffer.as_mut_slice());
        // SAFETY: the buffer is ours and untouched until the end; the device is this test.
        let mapping =
            unsafe { device.map_raw(bytes, Direction::Both, Attrs::NONE) }.expect("mapped");
        let at = in_pool(platform, mapping.addr().raw());
        let seen = machine.device_reads(at, 5000);
        assert!(seen.iter().enumerate().all(|(n, byte)| *byte == n as u8), "{platform}");
        machine.device_writes(at, &[0xAB; 100]);
        // SAFETY: as above.
        unsafe { device.unmap_raw(mapping, 64) }.expect("its own");
        assert!(buffer[..64].iter().all(|byte| *byte == 0xAB), "{platform}: what arrived");
        assert!((64..5000).all(|n| buffer[n] == n as u8), "{platform}: what did not arrive");
        assert_eq!(pools[0].used(), 0);
    }
}

#[test]
fn a_map_from_the_device_shows_no_old_byte_in_either_direction() {
    let (machine, pools) = guest(PlatformName::Tdx);
    let dma = Dma::new(&machine, &pools);
    let device = dma.bind(Endpoint::new("disk"), Limits::NONE).expect("bound");
    let mut buffer = vec![0x5A; 3000];
    let bytes = NonNull::from(buffer.as_mut_slice());
    // SAFETY: the buffer is ours and untouched until the end; the device is this test.
    let mapping =
        unsafe { device.map_raw(bytes, Direction::FromDevice, Attrs::NONE) }.expect("mapped");
    let at = in_pool(PlatformName::Tdx, mapping.addr().raw());
    assert_eq!(machine.device_reads(at, 3000), vec![0; 3000], "not the buffer, not the old pool");
    machine.device_writes(at, b"typed-by-host");
    // The device claims more than there is, and more than it wrote.
    // SAFETY: as above.
    unsafe { device.unmap_raw(mapping, usize::MAX) }.expect("its own");
    assert_eq!(&buffer[..13], b"typed-by-host");
    assert_eq!(buffer[13..], vec![0; 2987], "zeroes, never old bytes");
}

#[test]
fn syncs_move_the_part_they_name_and_only_where_the_direction_lets_them() {
    let (machine, pools) = guest(PlatformName::Snp);
    let dma = Dma::new(&machine, &pools);
    let device = dma.bind(Endpoint::new("nic"), Limits::NONE).expect("bound");
    for direction in [Direction::ToDevice, Direction::FromDevice, Direction::Both] {
        let mut buffer = vec![1u8; 4096];
        let bytes = NonNull::from(buffer.as_mut_slice());
        let start = bytes.cast::<u8>();
        // SAFETY: the buffer is ours; what follows touches it only between the syncs.
        let mapping = unsafe { device.map_raw(bytes, direction, Attrs::NONE) }.expect("mapped");
        let at = in_pool(PlatformName::Snp, mapping.addr().raw());
        // SAFETY: inside the buffer, before the sync for the device.
        unsafe { start.add(100).write_bytes(2, 50) };
        // SAFETY: the mapping is the device's; a range past the end is cut off.
        unsafe { device.sync_for_device(&mapping, 100..150) };
        let (seen, other) =
            (machine.device_reads(at + 100, 50), machine.device_reads(at + 150, 10));
        match direction {
            Direction::FromDevice => assert_eq!((seen, other), (vec![0; 50], vec![0; 10])),
            _ => assert_eq!((seen, other), (vec![2; 50], vec![1; 10])),
        }
        machine.device_writes(at + 200, &[7; 100]);
        // SAFETY: as above.
        unsafe { device.sync_for_cpu(&mapping, 200..250) };
        // SAFETY: inside the buffer, after the sync for the CPU.
        let got = unsafe { std::slice::from_raw_parts(start.add(200).as_ptr(), 100) }.to_vec();
        match direction {
            Direction::ToDevice => assert_eq!(got, vec![1; 100]),
            _ => assert_eq!(got, [vec![7; 50], vec![1; 50]].concat()),
        }
        #[expect(clippy::reversed_empty_ranges, reason = "a hostile range")]
        for range in [4000..usize::MAX, usize::MAX..0, 5000..6000, 9..9] {
            // SAFETY: as above; the ranges are what is tested.
            unsafe { device.sync_for_device(&mapping, range.clone()) };
            // SAFETY: as above.
            unsafe { device.sync_for_cpu(&mapping, range) };
        }
        // SAFETY: as above.
        unsafe { device.unmap_raw(mapping, 0) }.expect("its own");
    }
    assert_eq!(pools[0].used(), 0);
}

#[test]
fn memory_in_the_pool_is_given_in_place_and_a_full_pool_says_so() {
    let (machine, pools) = guest(PlatformName::Cca);
    let dma = Dma::new(&machine, &pools);
    let device = dma.bind(Endpoint::new("disk"), Limits::NONE).expect("bound");
    let ring = device.alloc_raw(5000, Context::Blocking).expect("room");
    assert_eq!(ring.bytes().len(), 8192);
    assert_eq!(ring.addr().raw() % 4096, 0);
    let at = in_pool(PlatformName::Cca, ring.addr().raw());
    assert_eq!(machine.device_reads(at, 8192), vec![0; 8192]);
    // SAFETY: the memory is ours.
    let mapping =
        unsafe { device.map_raw(ring.bytes(), Direction::Both, Attrs::NONE) }.expect("mapped");
    assert!(!mapping.is_bounced());
    assert_eq!(mapping.addr(), ring.addr());
    // SAFETY: the device is this test.
    unsafe { device.unmap_raw(mapping, 0) }.expect("its own");
    let mut large = vec![0u8; POOL_LEN - 8191];
    let large = NonNull::from(large.as_mut_slice());
    // SAFETY: never written.
    let full = unsafe { device.map_raw(large, Direction::Both, Attrs::NONE) };
    assert_eq!(full.expect_err("full").reason, Refuse::PoolFull);
    assert_eq!(device.capacity_for(&[large]), Err(Refuse::PoolFull));
    let mut half = vec![0u8; POOL_LEN / 2];
    let half = NonNull::from(half.as_mut_slice());
    assert_eq!(device.capacity_for(&[half]), Ok(()));
    assert_eq!(
        device.capacity_for(&[half, half]),
        Err(Refuse::PoolFull),
        "together they do not fit"
    );
    // SAFETY: the device is this test.
    assert!(unsafe { device.free_raw(ring) }.is_ok());
    assert_eq!(device.capacity_for(&[half, half]), Ok(()));
    assert_eq!(pools[0].used(), 0);
    let counters = device.counters();
    assert_eq!((counters.direct, counters.refused, counters.live()), (1, 1, 0));
}

#[test]
fn another_devices_mapping_comes_back() {
    let (machine, pools) = guest(PlatformName::Tdx);
    let dma = Dma::new(&machine, &pools);
    let one = dma.bind(Endpoint::new("one"), Limits::NONE).expect("bound");
    let two = dma.bind(Endpoint::new("two"), Limits::NONE).expect("bound");
    let mut buffer = [0u8; 16];
    let bytes = NonNull::from(buffer.as_mut_slice());
    // SAFETY: the buffer is ours; the device is this test.
    let mapping = unsafe { one.map_raw(bytes, Direction::ToDevice, Attrs::NONE) }.expect("mapped");
    // SAFETY: as above.
    let back = unsafe { two.unmap_raw(mapping, 0) }.expect_err("not its own");
    let UnmapRawError::NotThisDevice(back) = back else { panic!("{back}") };
    assert_eq!(pools[0].used(), 1);
    // SAFETY: as above.
    unsafe { one.unmap_raw(back, 0) }.expect("its own");
    assert_eq!(pools[0].used(), 0);
}

#[test]
fn what_cannot_work_is_refused_when_the_device_is_made() {
    let (machine, pools) = guest(PlatformName::Tdx);
    let restricted = machine.pool(PoolLabel::GuestShared).restricted();
    let own = [&restricted];
    let dma = Dma::new(&machine, &pools);
    // SAFETY: nobody believes this test.
    let attested = unsafe { Attested::vouch() };
    let endpoint = Endpoint::new("gpu").pools(&own).accepted(attested);
    assert_eq!(dma.bind(endpoint, Limits::NONE).err(), Some(BindError::AcceptedWithSharedPool));
    let ordinary = machine.pool(PoolLabel::Ordinary).restricted();
    let own = [&ordinary];
    let endpoint = Endpoint::new("gpu").pools(&own);
    let wrong = BindError::RestrictedLabel(PoolLabel::Ordinary);
    assert_eq!(dma.bind(endpoint, Limits::NONE).err(), Some(wrong));
    let s390 = Machine::new(PlatformName::S390, 4096);
    let dma = Dma::new(&s390, &[]);
    // SAFETY: as above.
    let attested = unsafe { Attested::vouch() };
    let endpoint = Endpoint::new("nic").accepted(attested);
    assert_eq!(dma.bind(endpoint, Limits::NONE).err(), Some(BindError::NoAcceptedDevices));
}

#[test]
fn an_open_machine_maps_in_place_up_to_the_mask() {
    let machine = Machine::new(PlatformName::Open, 4096);
    let dma = Dma::new(&machine, &[]);
    let wide = dma.bind(Endpoint::new("nvme"), Limits::NONE).expect("bound");
    let short = dma.bind(Endpoint::new("edu"), Limits::mask_bits(28)).expect("bound");
    let mut buffer = [0u8; 64];
    let bytes = NonNull::from(buffer.as_mut_slice());
    // SAFETY: the buffer is ours; the device is this test.
    let mapping = unsafe { wide.map_raw(bytes, Direction::Both, Attrs::NONE) }.expect("mapped");
    assert!(!mapping.is_bounced());
    // SAFETY: as above.
    unsafe { wide.unmap_raw(mapping, 64) }.expect("its own");
    assert_eq!(wide.counters(), Default::default(), "nothing was stored");
    // SAFETY: as above.
    let refused = unsafe { short.map_raw(bytes, Direction::Both, Attrs::NONE) };
    assert_eq!(refused.expect_err("out of reach").reason, Refuse::NoPool);
}

proptest! {
    /// Many maps at once: each sees its own bytes, whatever the others do.
    #[test]
    fn mappings_do_not_touch_each_other(
        lens in prop::collection::vec(1..9000usize, 1..12),
        order in prop::collection::vec(0..12usize, 12),
    ) {
        let (machine, pools) = guest(PlatformName::Pkvm);
        let dma = Dma::new(&machine, &pools);
        let device = dma.bind(Endpoint::new("disk"), Limits::NONE).expect("bound");
        let mut live = Vec::new();
        for (number, len) in lens.into_iter().enumerate() {
            let mut buffer = vec![number as u8 + 1; len].into_boxed_slice();
            let bytes = NonNull::from(&mut *buffer);
            // SAFETY: the box stays where it is and is untouched; the device is this test.
            match unsafe { device.map_raw(bytes, Direction::Both, Attrs::NONE) } {
                Ok(mapping) => live.push((number as u8 + 1, buffer, mapping)),
                Err(error) => prop_assert_eq!(error.reason, Refuse::PoolFull),
            }
        }
        for (number, buffer, mapping) in &live {
            let at = in_pool(PlatformName::Pkvm, mapping.addr().raw());
            prop_assert_eq!(machine.device_reads(at, buffer.len()), vec![*number; buffer.len()]);
            machine.device_writes(at, &vec![number + 100; buffer.len()]);
        }
        for pick in order {
            if live.is_empty() { break }
            let (number, buffer, mapping) = live.swap_remove(pick % live.len());
            let len = buffer.len();
            // SAFETY: as above.
            unsafe { device.unmap_raw(mapping, len) }.expect("its own");
            prop_assert!(buffer.iter().all(|byte| *byte == number + 100));
        }
        prop_assert_eq!(pools[0].used(), 0);
    }
}
