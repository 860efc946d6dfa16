//! The published vectors of the algorithm: a pool at 0x4000000 with 512 slots in two areas.

use super::Ask;
use super::Copyable;
use super::Reference;
use super::SLOT;
use super::book::INVALID;

const BASE: usize = 0x400_0000;

fn pool() -> Reference {
    Reference::new(BASE, 512, 2).unwrap()
}

fn ask(original: usize, len: usize, align_mask: usize, keep_mask: usize) -> Ask {
    Ask { align_mask, keep_mask, ..Ask::of(original, len) }
}

fn lists(pool: &Reference, slots: impl IntoIterator<Item = usize>) -> Vec<u16> {
    slots.into_iter().map(|slot| pool.slots[slot].list()).collect()
}

/// The area's index and its slots in use.
fn area(pool: &Reference, area: usize) -> (usize, usize) {
    let area = pool.area(area).unwrap();
    (area.index(), area.used())
}

const A: (usize, usize, usize, usize) = (0x1234_5678, 512, 0, 0);
const B: (usize, usize, usize, usize) = (0x2000_0000, 5000, 0, 0);
const C: (usize, usize, usize, usize) = (0x3000_0100, 6000, 0, 0xfff);
const D: (usize, usize, usize, usize) = (0x3000_0e00, 6000, 0, 0xfff);
const E: (usize, usize, usize, usize) = (0x5000_0800, 100, 0xfff, 0xfff);

/// Makes the maps A to I, checking each against the table.
fn mapped() -> Reference {
    let pool = pool();
    // What is asked; the address, its first slot and its slots, the padding, index and use after.
    let table = [
        (A, 0x400_0000, 0, 1, 0, 1, 1),
        (B, 0x400_1000, 2, 3, 0, 5, 4),
        (C, 0x400_3100, 6, 4, 0, 10, 8),
        (D, 0x400_5e00, 11, 4, 0, 15, 12),
        (E, 0x400_8800, 16, 2, 1, 18, 14),
        ((0x6000_0000, 262_144, 0, 0), 0x404_0000, 128, 128, 0, 0, 142),
    ];
    for ((original, len, align, keep), addr, first, count, pad, index, used) in table {
        let before = pool.used();
        assert_eq!(pool.map(0, &ask(original, len, align, keep)), Some(addr), "{original:#x}");
        assert_eq!((addr - BASE) / SLOT - pad, first);
        assert_eq!(pool.used() - before, count);
        assert_eq!(usize::from(pool.slots[first + pad].pad()), pad);
        assert_eq!(area(&pool, 0), (index, used));
        assert!(lists(&pool, first..first + count).iter().all(|list| *list == 0));
    }
    // G finds no room in area 0; H is the same request in area 1, to which a map falls over.
    let whole = ask(0x6000_0000, 262_144, 0, 0);
    assert_eq!(pool.map(0, &whole), Some(0x408_0000));
    assert_eq!((area(&pool, 0), area(&pool, 1)), ((0, 142), (128, 128)));
    // I is more than a set.
    assert_eq!(pool.map(0, &ask(0x6000_0000, 262_145, 0, 0)), None);
    pool
}

#[test]
fn the_first_counts() {
    assert_eq!(lists(&pool(), [0, 127, 128, 255, 511]), [128, 1, 128, 1, 1]);
}

#[test]
fn maps() {
    let pool = mapped();
    assert_eq!(lists(&pool, 0..15), [0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(lists(&pool, [127, 18]), [1, 110]);
}

#[test]
fn unmaps() {
    let pool = mapped();
    assert!(pool.unmap(0x400_3100, 0xfff));
    assert_eq!(lists(&pool, 5..=10), [6, 5, 4, 3, 2, 1]);
    assert!(pool.unmap(0x400_1000, 0));
    assert_eq!(lists(&pool, 1..=10), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
    assert!(pool.unmap(0x400_8800, 0xfff));
    assert_eq!(lists(&pool, 15..=17), [113, 112, 111]);
    assert!(pool.unmap(0x400_5e00, 0xfff));
    assert_eq!(lists(&pool, [1, 2]), [127, 126]);
    assert!(pool.unmap(0x400_0000, 0));
    assert_eq!(lists(&pool, [0]), [128]);
    // F is mapped still.
    assert_eq!(area(&pool, 0).1, 128);
    assert!(!pool.unmap(0x400_0000, 0), "it is not mapped any more");
}

#[test]
fn what_is_left_of_an_allocation_wraps() {
    let pool = mapped();
    let lens: Vec<_> = pool.slots[11..15].iter().map(|slot| slot.len()).collect();
    assert_eq!(lens, [6000, 3952, 1904, 144usize.wrapping_neg()]);
    let originals: Vec<_> = pool.slots[11..15].iter().map(|slot| slot.original()).collect();
    assert_eq!(originals, [0x3000_0e00, 0x3000_1600, 0x3000_1e00, 0x3000_2600]);
    // From byte x of the last slot 1392 - x are left, although its own length is below zero.
    let last = BASE + 14 * SLOT + 100;
    let original = 0x3000_2600 + 100 - 1536;
    assert_eq!(pool.copyable(last, 4096, 0xfff), Some(Copyable { original, len: 1292 }));
    assert_eq!(
        pool.copyable(0x400_5e00, 6000, 0xfff),
        Some(Copyable { original: 0x3000_0e00, len: 6000 })
    );
    assert_eq!(pool.copyable(BASE + 10 * SLOT, 1, 0), None, "a free slot");
}

#[test]
fn padding_has_no_original() {
    let pool = mapped();
    let (padding, first) = (&pool.slots[16], &pool.slots[17]);
    assert_eq!((padding.original(), padding.len()), (INVALID, 4096));
    assert_eq!((first.original(), first.len(), first.pad()), (0x5000_0800, 2048, 1));
    // The rounded allocation is the limit, not the mapping: 100 bytes were asked for.
    let most = pool.copyable(0x400_8800, 4096, 0xfff).unwrap();
    assert_eq!(most.len, 2048);
}

#[test]
fn a_segment_boundary_is_not_crossed() {
    let pool = pool();
    let within = |len| Ask { boundary_mask: 0x3fff, ..Ask::of(0x1000, len) };
    assert_eq!(pool.map(0, &within(0x2800)), Some(BASE));
    assert_eq!(pool.map(0, &within(0x2800)), Some(BASE + 0x4000));
    assert_eq!(pool.map(0, &within(0x4001)), None);
}

#[test]
fn pools_that_cannot_be() {
    for (slots, areas) in [(512, 0), (512, 3), (0, 1), (128, 2), (384, 2)] {
        assert!(Reference::new(BASE, slots, areas).is_none(), "{slots} {areas}");
    }
}
