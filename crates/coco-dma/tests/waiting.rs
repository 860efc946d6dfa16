//! Waiting for space, and who is in whose way: with the listener, the wakers and the threads of a
//! user.
// UNSAFETY: raw maps are unsafe to make.
#![expect(unsafe_code)]

mod machine;

use std::future::poll_fn;
use std::pin::pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;
use std::thread::Thread;
use std::time::Duration;
use std::time::Instant;

use coco_dma::Dma;
use coco_dma::addr::Constraints;
use coco_dma::attrs::Attrs;
use coco_dma::device::Device;
use coco_dma::device::Endpoint;
use coco_dma::plan::Limits;
use coco_dma::pool::Cache;
use coco_dma::pool::Pool;
use coco_dma::reason::Refuse;
use coco_dma::regime::PlatformName;
use coco_dma::state::Direction;
use coco_dma::state::PoolLabel;
use coco_dma::stream::RawMapping;
use coco_dma::waiters::CapacityListener;
use coco_dma::waiters::Watch;
use machine::Machine;

const SLOT: usize = 2048;
/// Who sleeps for so long was forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);

type OnMachine<'d> = Device<'d, Machine>;

/// Who waits, and how often they were told.
#[derive(Default)]
struct Wakers {
    list: Mutex<Vec<Waker>>,
    told: AtomicUsize,
    /// How often somebody went to sleep.
    slept: AtomicUsize,
}

impl CapacityListener for Wakers {
    fn capacity(&self) {
        self.told.fetch_add(1, Ordering::SeqCst);
        let list = std::mem::take(&mut *self.list.lock().expect("the list"));
        list.into_iter().for_each(Waker::wake);
    }
}

impl Wakers {
    fn told(&self) -> usize {
        self.told.load(Ordering::SeqCst)
    }
}

/// What wakes a thread that waits.
struct Alarm(Thread, AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.1.store(true, Ordering::SeqCst);
        self.0.unpark();
    }
}

/// Runs a future on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let alarm = Arc::new(Alarm(std::thread::current(), AtomicBool::new(false)));
    let waker = Waker::from(alarm.clone());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        let asleep = Instant::now();
        while !alarm.1.swap(false, Ordering::SeqCst) {
            // Also ends early: for a wake-up that came while it was awake.
            std::thread::park_timeout(FORGOTTEN);
            assert!(asleep.elapsed() < FORGOTTEN, "nobody woke who waits");
        }
    }
}

fn map(device: &OnMachine<'_>, buffer: &mut [u8]) -> Result<RawMapping, Refuse> {
    // SAFETY: the buffer is the caller's, and no device reads it.
    let mapped = unsafe { device.map_raw(NonNull::from(buffer), Direction::ToDevice, Attrs::NONE) };
    mapped.map_err(|error| error.reason)
}

fn finish(device: &OnMachine<'_>, mapping: RawMapping) {
    // SAFETY: no device is at it.
    unsafe { device.unmap_raw(mapping, 0) }.expect("its own");
}

/// One try of who waits, as the documentation of the module has it.
fn try_map(
    device: &OnMachine<'_>,
    wakers: &Wakers,
    buffer: &mut [u8],
    context: &Context<'_>,
) -> Poll<Result<RawMapping, Refuse>> {
    let refused = match map(device, buffer) {
        Ok(mapping) => return Poll::Ready(Ok(mapping)),
        Err(reason) => reason,
    };
    wakers.list.lock().expect("the list").push(context.waker().clone());
    match (device.watch_capacity(refused), map(device, buffer)) {
        (_, Ok(mapping)) => Poll::Ready(Ok(mapping)),
        (Watch::Never, Err(reason)) => Poll::Ready(Err(reason)),
        (Watch::Set, Err(reason)) if reason == refused => {
            wakers.slept.fetch_add(1, Ordering::SeqCst);
            Poll::Pending
        }
        (Watch::Set | Watch::Retry, Err(_)) => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }
}

fn caches(count: usize) -> &'static [Cache] {
    (0..count).map(|_| Cache::new()).collect::<Vec<_>>().leak()
}

/// So many slots, and whom the pool tells.
fn pool_of(slots: usize, caches: &'static [Cache]) -> (Machine, Pool<'static>, &'static Wakers) {
    let machine = Machine::new(PlatformName::Tdx, slots * SLOT);
    let wakers: &'static Wakers = Box::leak(Box::default());
    let pool = machine.pool(PoolLabel::GuestShared).with_caches(caches).with_listener(wakers);
    (machine, pool, wakers)
}

#[test]
fn who_asked_is_told_once_and_who_did_not_never() {
    let (machine, pool, wakers) = pool_of(3, &[]);
    let pools = [pool];
    let dma = Dma::new(&machine, &pools);
    let device = dma.bind(Endpoint::new("disk"), Limits::NONE).expect("bound");
    let mut buffer = [1; 100];
    let mut next = || map(&device, &mut buffer);
    let [first, second, third] = [(); 3].map(|()| next().expect("room"));
    assert_eq!(next().err(), Some(Refuse::PoolFull));
    finish(&device, first);
    assert_eq!(wakers.told(), 0, "nobody asked");
    let first = next().expect("room");
    assert_eq!(device.watch_capacity(Refuse::PoolFull), Watch::Set);
    assert_eq!(next().err(), Some(Refuse::PoolFull));
    assert_eq!(wakers.told(), 0, "nothing was given back yet");
    finish(&device, first);
    finish(&device, second);
    assert_eq!(wakers.told(), 1, "once for one question");
    assert_eq!(device.watch_capacity(Refuse::PoolFull), Watch::Set);
    // SAFETY: there is no device, and no other thread.
    unsafe { device.revoke() };
    assert_eq!(wakers.told(), 2, "there will be none");
    finish(&device, third);
}

#[test]
fn where_nobody_would_tell_the_answer_says_so() {
    let (machine, pool, _) = pool_of(2, &[]);
    let silent = Machine::with_pool_at(PlatformName::Tdx, machine::POOL + (1 << 30), SLOT);
    let (pools, more) = ([pool], [silent.pool(PoolLabel::GuestShared)]);
    let (own, dma) = ([&more[0]], Dma::new(&machine, &pools));
    let one = dma.bind(Endpoint::new("one"), Limits::NONE).expect("bound");
    let two = dma.bind(Endpoint::new("two").pools(&own), Limits::NONE).expect("bound");
    assert_eq!(one.watch_capacity(Refuse::PoolFull), Watch::Set);
    assert_eq!(
        two.watch_capacity(Refuse::PoolFull),
        Watch::Never,
        "one of the two has no listener"
    );
    for reason in [Refuse::Quota, Refuse::IovaFull, Refuse::Busy, Refuse::TooLarge] {
        assert_eq!(one.watch_capacity(reason), Watch::Never, "{reason:?}");
    }
}

/// A listener that panics while a CPU's cache is emptied left its slots in the cache and in the
/// bitmap: they were handed out twice.
#[test]
fn a_listener_that_panics_leaves_no_slot_in_two_places() {
    struct Panics(AtomicBool);
    impl CapacityListener for Panics {
        fn capacity(&self) {
            assert!(!self.0.swap(false, Ordering::SeqCst), "the listener's own fault");
        }
    }
    const SLOTS: usize = 512;
    let panics: &'static Panics = Box::leak(Box::new(Panics(AtomicBool::new(false))));
    let machine = Machine::new(PlatformName::Tdx, SLOTS * SLOT);
    let pool = machine.pool(PoolLabel::GuestShared).with_caches(caches(2)).with_listener(panics);
    let one = Constraints::of(1);
    let first = pool.alloc_raw(0, &one).expect("room");
    while pool.watch_capacity() != Watch::Set {}
    panics.0.store(true, Ordering::SeqCst);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let run = pool.alloc_raw(0, &one).expect("room");
        // SAFETY: nobody uses the bytes.
        unsafe { pool.free_raw(0, run) }
    }));
    assert!(caught.is_err(), "what came into the cache with it was given back, and told of");
    let mut offsets = vec![first.offset()];
    while let Ok(run) = pool.alloc_raw(offsets.len() % 2, &one) {
        offsets.push(run.offset());
        assert!(offsets.len() <= SLOTS, "more allocations than slots");
    }
    let taken = offsets.len();
    offsets.sort_unstable();
    offsets.dedup();
    assert_eq!(offsets.len(), taken, "no slot is handed out twice");
}

/// While somebody waits no CPU keeps anything, and a handle no longer than to its next give.
#[test]
fn what_cpus_keep_comes_to_who_waits() {
    let (_, pool, wakers) = pool_of(256, caches(1));
    let (one, all) = (Constraints::of(1), Constraints::of(256 * SLOT as u64));
    // SAFETY: nobody uses the bytes.
    let give = |run| assert!(unsafe { pool.free_raw(0, run) });
    give(pool.alloc_raw(0, &one).expect("room"));
    assert_eq!(pool.watch_capacity(), Watch::Retry, "the CPU kept a word");
    assert_eq!(pool.watch_capacity(), Watch::Set);
    let told = wakers.told();
    let run = pool.alloc_raw(0, &one).expect("room");
    assert_eq!(wakers.told(), told + 1, "what came with it is not kept");
    give(run);

    let mut mine = pool.claim(0).expect("nobody has it");
    let run = mine.alloc_raw(&one).expect("room");
    assert!(
        pool.alloc_raw(0, &Constraints::of(255 * SLOT as u64)).is_err(),
        "the handle keeps a word"
    );
    assert_eq!(pool.watch_capacity(), Watch::Set, "and counts as a user");
    let told = wakers.told();
    // SAFETY: nobody uses the bytes.
    assert!(unsafe { mine.free_raw(run) });
    assert_eq!(wakers.told(), told + 1);
    give(pool.alloc_raw(0, &all).expect("all of it"));

    let run = mine.alloc_raw(&one).expect("room");
    assert_eq!(pool.watch_capacity(), Watch::Set);
    let told = wakers.told();
    drop(mine);
    assert_eq!(wakers.told(), told + 1, "the end of a handle is one, too");
    give(run);
    give(pool.alloc_raw(0, &all).expect("all of it"));
}

#[test]
fn quota_is_waited_for_by_itself() {
    let (machine, pool, pool_wakers) = pool_of(4, &[]);
    let (pools, wakers) = ([pool], Wakers::default());
    let dma = Dma::new(&machine, &pools);
    let endpoint = Endpoint::new("disk").quota(1).listener(&wakers);
    let device = dma.bind(endpoint, Limits::NONE).expect("bound");
    let mut buffer = [1; 100];
    let mapping = map(&device, &mut buffer).expect("room");
    assert_eq!(map(&device, &mut buffer).err(), Some(Refuse::Quota));
    assert_eq!(device.watch_capacity(Refuse::Quota), Watch::Set);
    assert_eq!(map(&device, &mut buffer).err(), Some(Refuse::Quota));
    assert_eq!(wakers.told(), 0);
    finish(&device, mapping);
    assert_eq!((wakers.told(), pool_wakers.told()), (1, 0), "nobody asked the pool");
    assert_eq!(device.watch_capacity(Refuse::Quota), Watch::Set);
    device.lose_trust().expect("there is no domain");
    assert_eq!(wakers.told(), 2, "there will be none");
}

/// Many threads for few slots: each has its turn, none sleeps for good.
#[test]
fn threads_that_wait_all_get_on() {
    const THREADS: usize = 4;
    const MAPS: usize = 2000;
    for (slots, caches) in [(2, caches(0)), (256, caches(1)), (256, caches(2))] {
        let (machine, pool, wakers) = pool_of(slots, caches);
        // Two slots for all of them.
        let filler = Constraints::of(((slots - 2) * SLOT) as u64);
        let filler = (slots > 2).then(|| pool.alloc_raw(0, &filler).expect("room"));
        let pools = [pool];
        let dma = Dma::new(&machine, &pools);
        let device = dma.bind(Endpoint::new("disk"), Limits::NONE).expect("bound");
        let mut buffer = [1; 100];
        let both = [(); 2].map(|()| map(&device, &mut buffer).expect("room"));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let mut buffer = [1; 100];
                    for _ in 0..MAPS {
                        let map = poll_fn(|cx| try_map(&device, wakers, &mut buffer, cx));
                        let mapping = block_on(map).expect("at last");
                        std::thread::yield_now();
                        finish(&device, mapping);
                    }
                });
            }
            while wakers.slept.load(Ordering::SeqCst) < THREADS {
                std::thread::yield_now();
            }
            both.into_iter().for_each(|mapping| finish(&device, mapping));
        });
        let counters = device.counters();
        assert_eq!((counters.bounced, counters.live()), (THREADS * MAPS + 2, 0));
        if let Some(filler) = filler {
            // SAFETY: nobody uses the bytes.
            assert!(unsafe { pools[0].free_raw(0, filler) });
        }
        assert_eq!(pools[0].used(), 0);
    }
}

/// Two devices, of which the first is at its quota, and one slot beside what that holds.
fn at_quota(caches: &'static [Cache], look: impl FnOnce([&OnMachine<'_>; 2], &Pool<'_>)) {
    let (machine, pool, _) = pool_of(256, caches);
    let filler = pool.alloc_raw(0, &Constraints::of(254 * SLOT as u64)).expect("room");
    let (pools, wakers) = ([pool], Wakers::default());
    let dma = Dma::new(&machine, &pools);
    let greedy = Endpoint::new("greedy").quota(1).listener(&wakers);
    let greedy = dma.bind(greedy, Limits::NONE).expect("bound");
    let modest = dma.bind(Endpoint::new("modest"), Limits::NONE).expect("bound");
    let mut buffer = [1; 100];
    let held = map(&greedy, &mut buffer).expect("room");
    look([&greedy, &modest], &pools[0]);
    assert_eq!(greedy.charged(), 1);
    finish(&greedy, held);
    // SAFETY: nobody uses the bytes.
    assert!(unsafe { pools[0].free_raw(0, filler) });
    assert_eq!((pools[0].used(), wakers.told()), (0, 1), "one finish in all, and it was asked for");
}

/// Where the maps of a device lie, one after the other; `between` is done before each, and leaves
/// every word of the pool as it was: maps behind it meet nothing that is not there without it.
fn places(device: &OnMachine<'_>, pool: &Pool<'_>, between: impl Fn()) -> Vec<u64> {
    let mut buffer = [2; 100];
    let place = |_| {
        let before = format!("{pool:?}");
        between();
        assert_eq!(format!("{pool:?}"), before, "not a word of the pool was touched");
        let mapping = map(device, &mut buffer).expect("the last slot is its own");
        let before = format!("{pool:?}");
        between();
        assert_eq!(format!("{pool:?}"), before, "in a full pool, too");
        let place = mapping.addr().raw();
        finish(device, mapping);
        place
    };
    (0..50).map(place).collect()
}

#[test]
fn who_is_at_its_quota_leaves_every_word_of_the_pool_alone() {
    for count in [0, 1, 2] {
        at_quota(caches(count), |[greedy, modest], pool| {
            let alone = places(modest, pool, || ());
            let refused = || {
                let mut buffer = [3; 100];
                for _ in 0..10 {
                    // Not even that the pool is full is found out: it is not looked at.
                    assert_eq!(map(greedy, &mut buffer).err(), Some(Refuse::Quota));
                    assert_eq!(greedy.watch_capacity(Refuse::Quota), Watch::Set);
                }
            };
            assert_eq!(places(modest, pool, refused), alone);
            assert_eq!(greedy.counters().refused, 1000);
            assert_eq!(modest.counters().refused, 0);
        });
    }
}

/// The last slot is had at every map, whatever another device does at its quota on another CPU.
#[test]
fn who_is_at_its_quota_starves_nobody() {
    const MAPS: usize = 20_000;
    for count in [0, 1, 2] {
        at_quota(caches(count), |[greedy, modest], _| {
            let (begun, done) = (AtomicUsize::new(0), AtomicBool::new(false));
            let tries = std::thread::scope(|scope| {
                let tries = scope.spawn(|| {
                    let mut buffer = [3; 100];
                    assert_eq!(greedy.watch_capacity(Refuse::Quota), Watch::Set);
                    while !done.load(Ordering::SeqCst) {
                        assert_eq!(map(greedy, &mut buffer).err(), Some(Refuse::Quota));
                        begun.fetch_add(1, Ordering::SeqCst);
                    }
                    begun.load(Ordering::SeqCst)
                });
                let mut buffer = [2; 100];
                while begun.load(Ordering::SeqCst) == 0 && !tries.is_finished() {
                    std::thread::yield_now();
                }
                for _ in 0..MAPS {
                    let mapping = map(modest, &mut buffer).expect("the last slot is its own");
                    finish(modest, mapping);
                }
                done.store(true, Ordering::SeqCst);
                tries.join().expect("refused each time")
            });
            let (greedy, modest) = (greedy.counters(), modest.counters());
            assert_eq!((greedy.refused, greedy.bounced), (tries, 1));
            assert_eq!((modest.refused, modest.bounced), (0, MAPS), "a map, an attempt");
        });
    }
}
