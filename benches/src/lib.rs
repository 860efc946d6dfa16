//! What maps cost: coco-dma beside the memcpy floor and beside a reference slot allocator, in one
//! process and one run.
//!
//! [`bench()`] measures a [`Choice`] of [`Point`]s. At each it races, window by window in turn, what
//! the core offers (`subjects`), the [`reference`](mod@reference), and the bare copies of both:
//! the same bytes to the same places in the same order. Windows that the scheduler came into are
//! discarded; what is told is the lower quartile of the others, and as ratio the median over the
//! rounds. Two threads are kept on two processors, and how far these are from each other just then
//! is told beside what they did.
//!
//! | module | what |
//! |---|---|
//! | [`reference`](mod@reference) | the allocator that follows Linux's published algorithm |
//! | `subjects` | what is measured: the reference with bytes, and each way through the core |
//! | `work` | what threads do: steady, hand over, with a device, in vain; how pools are filled |
//! | `measure` | windows, processors, quartiles |
//! | `menu`, `aims` | the points; what issue 6 asks for at each |
//! | `plot` | the report as a picture |

mod aims;
mod bench;
mod hand;
mod measure;
mod memory;
mod menu;
mod plot;
pub mod reference;
mod row;
mod subjects;
mod terms;
mod work;

pub use aims::Aim;
pub use aims::Measure;
pub use bench::bench;
pub use hand::Handle;
pub use hand::Subject;
pub use hand::Way;
pub use hand::Worker;
pub use measure::Cores;
pub use measure::Latency;
pub use measure::Pace;
pub use measure::Placement;
pub use memory::Buffers;
pub use memory::Region;
pub use menu::Choice;
pub use plot::svg;
pub use row::Fragmentation;
pub use row::Order;
pub use row::Point;
pub use row::Report;
pub use row::Row;
pub use row::Work;
pub use row::word;
pub use subjects::Linux;
pub use subjects::OFFERED;
pub use subjects::Visit;
pub use subjects::with;
pub use terms::Rules;
pub use terms::Terms;
