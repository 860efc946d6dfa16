//! Four threads on the pools at once, real ones: maps and slots by hand, given back here and by
//! another thread, handles, a pool that comes and goes. Whoever has slots writes them with plain
//! stores, so that ThreadSanitizer sees two owners at once, and an owner that is not ordered behind
//! the last one (`cargo xtask deep --only tsan`). Without it, bytes that change under their owner
//! are seen.
//!
//! It has no test harness: the sanitizer would see the harness's own threads, whose half in the
//! standard library it knows nothing of.
// UNSAFETY: raw maps, slots taken by hand, and their memory.
#![expect(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]
#![expect(clippy::cast_possible_truncation, reason = "numbers of a small machine")]

mod dice;
mod machine;

use std::ptr::NonNull;
use std::ptr::null_mut;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use coco_dma::Dma;
use coco_dma::addr::Constraints;
use coco_dma::addr::SLOT;
use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::pool::Pool;
use coco_dma::pool::PoolHandle;
use coco_dma::pool::SlotRun;
use coco_dma::state::Direction;
use dice::Dice;
use machine::CACHES;
use machine::COMES;
use machine::Machine;

const THREADS: usize = 4;
/// Rounds of each thread, unless `STRESS_ROUNDS` says otherwise.
const ROUNDS: usize = 4000;

/// Slots that somebody took by hand.
struct Taken {
    run: SlotRun,
    pool: usize,
    /// What is written in them.
    mark: u64,
}

struct Stress<'m> {
    machine: &'m Machine,
    dma: &'m Dma<'m, Machine>,
    pools: &'m [Pool<'m>],
    device: Device<'m, Machine>,
    /// From one thread to another.
    post: [AtomicPtr<Taken>; 8],
    /// How often the pool came back.
    came: AtomicUsize,
}

impl Stress<'_> {
    /// The first and the last word of each slot.
    fn words(&self, taken: &Taken) -> impl Iterator<Item = NonNull<u64>> + use<> {
        let start = self.machine.memory(taken.pool).cast::<u64>();
        let slot = SLOT as usize / 8;
        let slots = taken.run.first()..taken.run.first() + taken.run.count();
        slots.flat_map(move |at| [at * slot, at * slot + slot - 1]).map(move |at| {
            // SAFETY: the slots lie in the pool.
            unsafe { start.add(at) }
        })
    }

    fn fill(&self, taken: &Taken) {
        for word in self.words(taken) {
            // SAFETY: the slots are ours.
            unsafe { word.write(taken.mark) };
        }
    }

    fn check(&self, taken: &Taken) {
        for word in self.words(taken) {
            // SAFETY: the slots are ours.
            assert_eq!(unsafe { word.read() }, taken.mark, "somebody else's bytes");
        }
    }

    fn take(&self, mark: u64, cpu: usize, dice: &mut Dice) -> Option<Taken> {
        let pool = dice.below(self.pools.len());
        let run = self.pools[pool].alloc_raw(cpu, &constraints(dice)).ok()?;
        let taken = Taken { run, pool, mark };
        self.fill(&taken);
        Some(taken)
    }

    fn free(&self, taken: Taken, cpu: usize) {
        self.check(&taken);
        // SAFETY: it was taken from this pool, and nobody is at its bytes.
        assert!(unsafe { self.pools[taken.pool].free_raw(cpu, taken.run) }, "it was held");
    }

    /// Leaves slots for another thread, and answers what lay there.
    fn swap(&self, taken: Option<Taken>, dice: &mut Dice) -> Option<Taken> {
        let ours = taken.map_or(null_mut(), |taken| Box::into_raw(Box::new(taken)));
        let theirs = self.post[dice.below(self.post.len())].swap(ours, Ordering::AcqRel);
        // SAFETY: it came out of a box, and who swaps it out has it alone.
        (!theirs.is_null()).then(|| *unsafe { Box::from_raw(theirs) })
    }

    fn use_handle(&self, handle: &mut PoolHandle<'_>, mark: u64, dice: &mut Dice) {
        for _ in 0..4 {
            let Ok(run) = handle.alloc_raw(&constraints(dice)) else { return };
            let taken = Taken { run, pool: 0, mark };
            self.fill(&taken);
            self.check(&taken);
            // SAFETY: it was taken from this pool.
            assert!(unsafe { handle.free_raw(taken.run) }, "it was held");
        }
    }

    /// The whole way: the bytes go into a pool, and what the device answered comes back.
    fn map(&self, mark: u64, dice: &mut Dice) {
        let len = 1 + dice.below(9000);
        let mut buffer = vec![mark as u8; len];
        let bytes = NonNull::from(buffer.as_mut_slice());
        // SAFETY: the buffer is ours and untouched until the end; there is no device.
        let mapped = unsafe { self.device.map_raw(bytes, Direction::Both, Attrs::NONE) };
        let Ok(mapping) = mapped else { return };
        // SAFETY: the same.
        unsafe { self.device.unmap_raw(mapping, len) }.expect("its own");
        assert!(buffer.iter().all(|byte| *byte == mark as u8), "somebody else's bytes");
    }

    fn come_or_go(&self) {
        let pool = &self.pools[COMES];
        if pool.is_open() {
            let _ = self.dma.shrink(pool);
        } else if self.dma.grow(pool).is_ok() {
            self.came.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn run(&self, thread: usize, rounds: usize) {
        let mut dice = Dice(thread as u64);
        let mut held = Vec::new();
        for round in 0..rounds {
            let mark = (round * THREADS + thread) as u64;
            let cpu = if dice.below(8) == 0 { dice.below(CACHES + 1) } else { thread };
            machine::be_on(cpu);
            match dice.below(12) {
                0..4 => held.extend(self.take(mark, cpu, &mut dice)),
                4..6 => held.extend(self.swap(None, &mut dice)),
                6 => {
                    let ours = held.pop();
                    held.extend(self.swap(ours, &mut dice));
                }
                7 => held.drain(..).for_each(|taken| self.free(taken, cpu)),
                8 => {
                    if let Some(mut handle) = self.pools[0].claim(cpu) {
                        self.use_handle(&mut handle, mark, &mut dice);
                    }
                }
                9 => self.come_or_go(),
                _ => self.map(mark, &mut dice),
            }
        }
        held.drain(..).for_each(|taken| self.free(taken, thread));
    }
}

fn constraints(dice: &mut Dice) -> Constraints {
    let slots = if dice.below(8) == 0 { 65 + dice.below(100) } else { 1 + dice.below(20) };
    Constraints::of(slots as u64 * SLOT)
}

fn main() {
    // As a harness does: a name that is not this test's is some other test that is looked for.
    let mut wanted = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    if wanted.any(|name| !"stress".contains(&name)) {
        return;
    }
    let rounds = std::env::var("STRESS_ROUNDS").ok().and_then(|number| number.parse().ok());
    let rounds = rounds.unwrap_or(ROUNDS);
    let machine = Machine::new();
    let pools = machine.pools();
    let dma = Dma::new(&machine, &pools);
    let endpoint = Endpoint::new("disk").force_bounce().quota(1 << 20);
    let stress = Stress {
        machine: &machine,
        dma: &dma,
        pools: &pools,
        device: dma.bind(endpoint, Limits::NONE).expect("bound"),
        post: Default::default(),
        came: AtomicUsize::new(0),
    };
    thread::scope(|scope| {
        let stress = &stress;
        let threads = [0, 1, 2, 3].map(|thread| scope.spawn(move || stress.run(thread, rounds)));
        assert!(threads.map(thread::ScopedJoinHandle::join).iter().all(Result::is_ok));
    });
    for post in &stress.post {
        let left = post.swap(null_mut(), Ordering::AcqRel);
        if !left.is_null() {
            // SAFETY: as in `swap`.
            stress.free(*unsafe { Box::from_raw(left) }, 0);
        }
    }
    let came = stress.came.into_inner();
    println!("{THREADS} threads, {rounds} rounds each; a pool came back {came} times");
    assert!(came > 0);
    if !pools[COMES].is_open() {
        dma.grow(&pools[COMES]).expect("it is closed");
    }
    for (pool, (_, slots)) in pools.iter().zip(machine::POOLS) {
        assert_eq!(pool.used(), 0);
        let all = pool.alloc_raw(0, &Constraints::of(slots * SLOT)).expect("nothing is lost");
        // SAFETY: it was taken from this pool.
        assert!(unsafe { pool.free_raw(0, all) });
    }
}
