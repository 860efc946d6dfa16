//! What the kernel does to private and shared memory.
// UNSAFETY: shared memory has no safe access, and is read into here.
#![expect(unsafe_code)]

use core::ptr::NonNull;
use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{ArenaKind, MAX_ARENA, MemoryError, PrivateArena, SharedRegion};

#[test]
fn buffers_are_apart_aligned_and_come_back_together() {
    let arena = PrivateArena::new(4096).unwrap();
    let mut one = arena.take(1).unwrap();
    let mut two = arena.take(100).unwrap();
    one.bytes_mut().fill(1);
    two.bytes_mut().fill(2);
    assert_eq!((one.bytes(), two.bytes()), (&[1][..], &[2; 100][..]));
    let starts = [&one, &two].map(|buffer| arena.offset_of(buffer.raw(usize::MAX)).unwrap());
    assert_eq!(starts, [0, 64]);
    assert!(matches!(arena.take(4096), Err(MemoryError::ArenaFull { wanted: 4096, .. })));
    assert!(arena.take(0).is_err() && arena.take(usize::MAX).is_err());
    drop(one);
    // One is still out: the room of the other serves its like, and nobody else.
    let (small, large) = (arena.take(7).unwrap(), arena.take(100).unwrap());
    assert_eq!(arena.offset_of(small.raw(1)), Some(0));
    assert_eq!(arena.offset_of(large.raw(1)), Some(192));
    assert_eq!(two.bytes(), [2; 100]);
    drop((small, large, two));
    assert_eq!(arena.take(4096).unwrap().len(), 4096);
}

#[test]
fn an_arena_has_a_limit_and_whole_pages() {
    for wrong in [0, MAX_ARENA + 1, usize::MAX] {
        assert!(matches!(PrivateArena::new(wrong), Err(MemoryError::Size { .. })));
    }
    assert_eq!(PrivateArena::new(1).unwrap().len(), 4096);
    assert_eq!(PrivateArena::anonymous(MAX_ARENA).unwrap().kind(), ArenaKind::Anonymous);
    for wrong in [0, 100, 4097, usize::MAX] {
        assert!(matches!(SharedRegion::new(wrong), Err(MemoryError::Size { .. })));
    }
}

#[test]
fn an_arena_says_why_it_is_not_secret() {
    let arena = PrivateArena::new(4096).unwrap();
    assert_eq!(arena.why_not_secret().is_none(), arena.kind() == ArenaKind::Secret);
    assert_eq!(PrivateArena::anonymous(4096).unwrap().why_not_secret(), None);
}

#[test]
fn an_arena_is_kept_out_of_children_and_core_dumps() {
    for arena in [PrivateArena::new(8192).unwrap(), PrivateArena::anonymous(8192).unwrap()] {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let start = format!("{:x}-", arena.start().addr().get());
        let part = maps.split_once(&start).unwrap().1;
        let flags = part.lines().find(|line| line.starts_with("VmFlags")).unwrap();
        let has = |flag| flags.split_whitespace().any(|word| word == flag);
        assert!(has("dc") && has("dd"), "{:?}: {flags}", arena.kind());
    }
}

#[test]
fn a_shared_region_is_sealed() {
    let region = SharedRegion::new(8192).unwrap();
    for size in [4096, 12288] {
        assert_eq!(rustix::fs::ftruncate(region.file(), size), Err(Errno::PERM));
    }
    let seals = rustix::fs::SealFlags::WRITE;
    assert_eq!(rustix::fs::fcntl_add_seals(region.file(), seals), Err(Errno::PERM));
}

/// The kernel's rule for pinning pages stands in for a device: O_DIRECT is DMA into the buffer.
#[test]
fn dma_of_a_disk_reaches_shared_memory_and_no_secret_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, vec![0x5A; 4096]).unwrap();
    let Ok(disk) = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECT, Mode::empty()) else {
        eprintln!("LEFT OUT: O_DIRECT, which the file system of temporary files does not have");
        return;
    };
    let disk = File::from(disk);

    let region = SharedRegion::new(4096).unwrap();
    let mut start = NonNull::slice_from_raw_parts(region.start(), 4096);
    // SAFETY: this process's alone as long as nobody was given the descriptor.
    let shared = unsafe { start.as_mut() };
    assert_eq!(rustix::io::pread(disk.as_fd(), &mut *shared, 0), Ok(4096));
    assert!(shared.iter().all(|byte| *byte == 0x5A));

    let arena = PrivateArena::new(4096).unwrap();
    if arena.kind() != ArenaKind::Secret {
        eprintln!("LEFT OUT: DMA into secret memory: {}", arena.why_not_secret().unwrap());
        return;
    }
    let mut private = arena.take(4096).unwrap();
    private.bytes_mut().fill(7);
    assert_eq!(rustix::io::pread(disk.as_fd(), private.bytes_mut(), 0), Err(Errno::FAULT));
    assert!(private.bytes().iter().all(|byte| *byte == 7));
    // Copied by the CPU it works: the memory itself is ours to use.
    let buffered = File::open(&path).unwrap();
    assert_eq!(rustix::io::pread(buffered.as_fd(), private.bytes_mut(), 0), Ok(4096));
}
