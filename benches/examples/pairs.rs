//! Runs so many pairs of map and finish and ends, for counting instructions: the difference of two
//! runs of different length is what the pairs cost. `cargo xtask instructions` does that.
//!
//! `pairs WHAT SIZE PAIRS`; WHAT is `reference` (no bytes are copied), `copy` (nothing else is), or
//! what `pairs --list` lists: the ways through the core.
// UNSAFETY: buffers are mapped raw.
#![expect(unsafe_code)]

use std::error::Error;
use std::ptr::NonNull;

use coco_dma_bench::Buffers;
use coco_dma_bench::Handle;
use coco_dma_bench::Linux;
use coco_dma_bench::OFFERED;
use coco_dma_bench::Region;
use coco_dma_bench::Subject;
use coco_dma_bench::Terms;
use coco_dma_bench::Visit;
use coco_dma_bench::Way;
use coco_dma_bench::Worker;
use coco_dma_bench::with;

/// The pool, in bytes.
const POOL: usize = 64 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, size, pairs] = arguments.as_slice() else {
        for way in OFFERED {
            println!("{}", name(*way));
        }
        return Ok(());
    };
    let (size, pairs) = (size.parse()?, pairs.parse()?);
    let region = Region::new(POOL, false)?;
    let buffers = Buffers::new(1, size)?;
    let work = Pairs { buffer: buffers.get(0), pairs };
    match what.as_str() {
        "reference" => {
            let terms = Terms { sync: false, ..Terms::TO_DEVICE };
            work.visit(&Linux::new(&region, terms).ok_or("a pool of whole sets")?);
        }
        "copy" => work.copy(&region),
        _ => {
            let way = OFFERED.iter().copied().find(|way| name(*way) == *what);
            let way = way.ok_or("this way is not offered")?;
            // The whole way cannot be had without its copies.
            let terms = Terms { sync: way.0 == Way::Whole, ..Terms::TO_DEVICE };
            with(way, &region, &buffers, terms, work)?;
        }
    }
    Ok(())
}

fn name((way, handle): (Way, Handle)) -> String {
    let way = match way {
        Way::Pool => "pool",
        Way::Whole => "whole",
    };
    let handle = match handle {
        Handle::Exclusive => "exclusive",
        Handle::Shared => "shared",
    };
    format!("{way}-{handle}")
}

struct Pairs {
    buffer: NonNull<[u8]>,
    pairs: usize,
}

impl Pairs {
    /// What the whole way copies, and nothing else.
    fn copy(&self, region: &Region) {
        let len = self.buffer.len();
        for _ in 0..self.pairs {
            let (from, to) = (self.buffer.cast::<u8>(), region.at(0, len));
            // SAFETY: buffers and region are apart, and both have that many bytes.
            unsafe { std::hint::black_box(to).copy_from_nonoverlapping(from, len) };
        }
    }
}

impl Visit for Pairs {
    type Out = ();

    fn visit<S: Subject>(self, subject: &S) {
        let Some(mut hand) = subject.worker(0) else { return };
        for _ in 0..self.pairs {
            // SAFETY: the buffer lives as long as `main` runs.
            if let Some(record) = unsafe { hand.map(self.buffer) } {
                // SAFETY: as above; the record is of this subject.
                unsafe { hand.unmap(record) };
            }
        }
    }
}
