//! Random calls on whole machines of every guest platform, against a plain model: after each
//! step ledger, pins, slots, quarantine, quota, counters, events and bytes agree, and nothing that
//! was not given can be seen by the host, at that moment or at any one in between.

mod alloc;
mod build;
mod call;
mod calls;
mod check;
mod convert;
mod ends;
mod lists;
mod maps;
mod model;
mod paths;
mod peers;
mod pools;
mod world;

use std::cell::RefCell;

use coco_dma::regime::PlatformName;
use coco_dma::state::Direction;
use coco_dma_sim::Effect;
use coco_dma_sim::Leak;
use coco_dma_sim::Moment;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use proptest::test_runner::TestRunner;

use crate::support::GUESTS;
use crate::support::convert;
use build::with_world;
use call::Call;
use paths::Path;
use world::Met;
use world::Truth;

/// Few cases unless somebody asks for more, always the same unless somebody asks for others.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let given = ProptestConfig::default();
    let rng_seed = match given.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        asked => asked,
    };
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { given.cases } else { cases };
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..given }
}

fn play(met: &mut Met, platform: PlatformName, granule: u64, truth: Truth, calls: &[(Path, Call)]) {
    with_world(platform, granule, truth, |world| {
        for (number, (path, call)) in calls.iter().enumerate() {
            world.now = format!("{platform}, call {number} ({path:?}): {call:?}");
            world.path = *path;
            world.call(call);
            world.check();
        }
        world.end();
        for (what, count) in &world.met {
            *met.entry(what.clone()).or_default() += count;
        }
    });
}

/// Plays many sequences on these platforms; answers with what was met.
fn play_many(cases: u32, wild: bool, platforms: &[PlatformName]) -> Met {
    let met = RefCell::new(Met::new());
    let calls = proptest::collection::vec((paths::path(), call::call(wild)), 1..80);
    let case = (calls, proptest::bool::weighted(0.25), any::<bool>());
    let played = TestRunner::new(config(cases)).run(&case, |(calls, wide, honest)| {
        let truth = match (wild, honest) {
            (true, _) => Truth::Wild,
            (false, true) => Truth::Honest,
            (false, false) => Truth::Seen,
        };
        for platform in platforms {
            let granule = if wide { 16384 } else { 4096 };
            play(&mut met.borrow_mut(), *platform, granule, truth, &calls);
        }
        Ok(())
    });
    if let Err(failed) = played {
        panic!("{failed}");
    }
    met.into_inner()
}

/// What a few hundred sequences have to meet, or the test is about nothing.
const MUST_MEET: &[&str] = &[
    "Uncached Coherent",
    "WriteBack Coherent",
    "WriteBack NonContiguous",
    "WriteBack Pages",
    "WriteCombine Coherent",
    "a part of a peer's memory",
    "a peer's memory is not converted",
    "allocation: bad-attribute",
    "peer-to-peer",
    "refused without a word",
    "slots of another node",
    "synced an allocation",
    "allocated from All",
    "allocated from Reserve",
    "allocation: pool-full",
    "allocation: quota",
    "allocation: too-large",
    "attribute-contradicts-ledger",
    "bounced",
    "bounced for a cache line",
    "conversion of what is pinned",
    "finished after its device",
    "free lost some",
    "grow",
    "grow failed",
    "grow lost some",
    "in place",
    "list",
    "list refused",
    "lost",
    "mixed-run",
    "no conversion",
    "no room",
    "not rebound",
    "owned",
    "pages failed, slots served",
    "path Bitmap",
    "path Cache",
    "path Handle",
    "path Slow",
    "pages freed",
    "pool-full",
    "private pages",
    "quarantined",
    "quota",
    "rebound",
    "reclaim",
    "reclaim lost some",
    "reclaim stopped",
    "rest fetched",
    "retry",
    "retry in vain",
    "revoked",
    "revoked maps",
    "room",
    "share",
    "share lost some",
    "share undone",
    "shared pages",
    "shrink",
    "shrink failed",
    "shrink in use",
    "too-large",
    "trespass",
    "trust-lost",
];

/// A platform that says what it did, or whose lie a look at the memory shows.
#[test]
fn the_layer_does_what_the_model_does() {
    let met = play_many(120, false, &GUESTS);
    let missing: Vec<_> = MUST_MEET.iter().filter(|what| !met.contains_key(**what)).collect();
    // A run of a few cases, on demand, meets less.
    assert!(missing.is_empty() || config(120).cases < 120, "{missing:?} of {met:#?}");
}

/// A platform that lies as it likes: where its memory is, nobody knows, but the books are kept.
#[test]
fn the_books_are_kept_whatever_the_platform_says() {
    play_many(40, true, &[PlatformName::Snp, PlatformName::Cca, PlatformName::Pef]);
}

/// The control of all that is searched for: what a driver gives by mistake is seen, when it goes
/// out; and so is memory that is converted past the layer, inside the conversion.
#[test]
fn a_planted_leak_is_seen() {
    for platform in GUESTS {
        with_world(platform, 4096, Truth::Honest, |world| {
            let secret = world.secret;
            world.driver_writes(40, &secret);
            world.now = "a secret is mapped".to_owned();
            let _mapping = world.map_as_it_is(0, 40, secret.len(), Direction::ToDevice);
            let leaks = world.machine.leaks();
            assert!(matches!(leaks[..], [Leak { moment: Moment::HandOver, .. }]), "{leaks:?}");
        });
        with_world(platform, 4096, Truth::Honest, |world| {
            let granules = world.heap().start..world.heap().start + 1;
            let granule = world.part(granules);
            convert(world.machine, granule);
            let kept = world.machine.on_share() == Effect::Keep;
            assert_eq!(!world.machine.leaks().is_empty(), kept, "{platform}");
            let inside = |leak: &Leak| matches!(leak.moment, Moment::Convert { .. });
            assert!(world.machine.leaks().iter().all(inside), "{platform}");
        });
    }
}
