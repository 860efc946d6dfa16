//! Cases: the decisions that the field has argued about, as data that anyone can read, run and add
//! to. A case says what happens on which machine, and why; the runner builds the machine in
//! `coco-dma-sim`, does what the case says through the real layer, and compares what device, host
//! and driver saw. The format is described in `docs/cases.md`.
//!
//! ```
//! use coco_dma_cases::{read_file, run};
//!
//! let text = r#"
//!     name = "in-reach"
//!     title = "An open machine maps in place"
//!     source = "own"
//!     machine = { platform = "open" }
//!     device = [{ name = "nic" }]
//!     memory = [{ name = "buffer", at = 0x4000_0000, size = 64 }]
//!     [[step]]
//!     op = "map"
//!     device = "nic"
//!     memory = "buffer"
//!     as = "m"
//!     expect = { outcome = "direct", address = 0x4000_0000 }
//!     [[step]]
//!     op = "unmap"
//!     map = "m"
//! "#;
//! let cases = read_file("in-reach.toml", text)?;
//! let outcome = run(&cases[0]);
//! assert!(outcome.ok, "{}", outcome.got);
//! # Ok::<(), coco_dma_cases::Wrong>(())
//! ```

mod case;
mod ids;
mod read;
mod run;
mod suite;

pub use case::{Case, read_file};
pub use ids::{Coverage, Ids, allowed_missing};
pub use read::{Place, Wrong};
pub use run::{Answer, Heed, Outcome, Path, Told, Witness, answer, run, run_with, trace};
pub use suite::{File, Loaded, built_in, load, run_all};
