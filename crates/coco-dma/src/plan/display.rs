//! The steps of a decision in words.

use core::fmt;

use super::memory::Protection;
use super::step::Known;
use super::step::Misfit;
use super::step::PoolVerdict;
use super::step::Source;
use super::step::Step;
use super::transfer::Bytes;
use super::transfer::Transfer;
use crate::state::CacheMode;
use crate::state::PoolLabel;

const fn told(cache: CacheMode) -> &'static str {
    match cache {
        CacheMode::WriteBack => "and it is cached",
        CacheMode::WriteCombine => "and writes are combined, past the caches",
        CacheMode::Uncached => "and it is not cached",
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Attributes(attrs) => write!(f, "attributes: {attrs}; the operation takes them"),
            Self::NotTaken(attrs) => {
                write!(f, "not taken here: {attrs}, for {}", attrs.why_not())
            }
            Self::Peer => f.write_str("the memory is another device's"),
            Self::Range(range) => write!(f, "{range} is a range that this machine can have"),
            Self::Unlocated => f.write_str("the buffer is in no single run of physical memory"),
            Self::Memory { state, mmio, known } => {
                let what = if mmio { "registers are" } else { "memory is" };
                let why = match known {
                    Known::Machine => "this machine knows no other state",
                    Known::Ledger => "as the ledger has it",
                    Known::Label => "the label of the restricted pool that it lies in says so",
                    Known::Attributes => "nobody tracks it, so the attributes decide",
                    Known::Host => "what a device has that is not accepted is the host's",
                };
                write!(f, "the {what} {state}: {why}")
            }
            Self::Reach { trust, state, reached } => {
                let verb = if reached { "reaches" } else { "cannot reach" };
                write!(f, "an {trust} device {verb} {state} memory")
            }
            Self::Restricted { inside: true } => {
                f.write_str("the memory lies in the device's restricted pool")
            }
            Self::Restricted { inside: false } => {
                f.write_str("the device has a restricted pool, and the memory lies outside")
            }
            Self::Forced => f.write_str("every map of this device is to be bounced"),
            Self::Unmapped(range) => write!(f, "no window of the bus shows {range} whole"),
            Self::Form { bus, mark: 0, addr } => {
                write!(f, "the device's address for it is {addr}: bus address {bus:#x}, no mark")
            }
            Self::Form { bus, mark, addr } => {
                write!(f, "the device's address for it is {addr}: bus address {bus:#x} plus ")?;
                write!(f, "the mark {mark:#x}")
            }
            Self::Translated(state) => {
                write!(f, "the domain gives an address, with an entry for {state} memory")
            }
            Self::Limit { last, limit, by_bus } => {
                let whose = if by_bus { "bus" } else { "mask" };
                match last {
                    Some(last) if last.raw() <= limit.raw() => {
                        write!(f, "its last byte {last} is within the {whose}, up to {limit}")
                    }
                    Some(last) => {
                        write!(f, "its last byte {last} is past the {whose}, up to {limit}")
                    }
                    None => write!(f, "its last byte is past 64 bits (the {whose}: up to {limit})"),
                }
            }
            Self::Misaligned(misfit) => match misfit {
                Misfit::Segment(most) => {
                    write!(f, "it is longer than the device's segments of {most:#x} bytes")
                }
                Misfit::Boundary => f.write_str("it crosses the device's segment boundary"),
                Misfit::Start(align) => {
                    write!(
                        f,
                        "the device takes addresses that are multiples of {} alone",
                        align.bytes()
                    )
                }
                Misfit::CacheLine(line) => {
                    write!(f, "it shares a cache line of {line} bytes with a neighbour, and the ")?;
                    f.write_str("device writes past the caches")
                }
            },
            Self::Length(align) => {
                write!(f, "the device takes lengths that are multiples of {} alone", align.bytes())
            }
            Self::Segments { count, most } => {
                write!(f, "the list is {count} segments, and the device takes {most} at most")
            }
            Self::TooLong(Misfit::Segment(segment)) => {
                write!(f, "the device takes {segment:#x} bytes at once, in a pool as elsewhere")
            }
            Self::TooLong(_) => f.write_str(
                "the device counts no further than its boundary, in a pool as elsewhere",
            ),
            Self::SharesPages => f.write_str("other data lies in the pages that an entry shows"),
            Self::InPlaceOnly => {
                f.write_str("a heap never bounces: the device reaches the memory, or stays out")
            }
            Self::Pool { label, range, verdict } => {
                let found = match verdict {
                    PoolVerdict::Suits => "can take it",
                    PoolVerdict::Label => match label {
                        PoolLabel::GuestShared => "for untrusted devices of a guest alone",
                        PoolLabel::GuestPrivate => "for accepted devices of a guest alone",
                        PoolLabel::HostPlain => "for SME hosts, where the C-bit is out of reach",
                        PoolLabel::Ordinary => "for open machines and SME hosts alone",
                    },
                    PoolVerdict::Reach => "not wholly in the device's reach",
                    PoolVerdict::Size => "too small for it, even empty",
                    PoolVerdict::Purpose => "kept for something else",
                    PoolVerdict::NotRestricted => "is not the device's restricted pool",
                };
                write!(f, "{label} at {range}: {found}")
            }
            Self::Order { place, label, range, own, far } => {
                let whose = if own { "the device's own" } else { "the machine's" };
                let far = if far { ", on another node" } else { "" };
                write!(f, "{}. {label} at {range}: {whose}{far}", place.saturating_add(1))
            }
            Self::Wanted(reason) => write!(f, "a bounce is wanted ({reason}): {}", reason.text()),
            Self::Slot { label, range, addr: Some(addr) } => {
                write!(f, "{label} at {range}: where it is empty, the device is given {addr}")
            }
            Self::Slot { label, range, addr: None } => {
                write!(f, "{label} at {range}: the domain gives the address")
            }
            Self::Revoked => f.write_str(
                "the device was revoked: it is shown nothing more, and what it left stays away",
            ),
            Self::Pages { state, convert: true, len, align } => {
                write!(f, "pages of our own have to be converted to become {state}: ")?;
                write!(f, "{len:#x} bytes, aligned to {align:#x}")
            }
            Self::Part { offset, part, len, inside } => {
                let verb = if inside { "lie in" } else { "are not all in" };
                write!(f, "{part:#x} bytes from {offset:#x} on {verb} the {len:#x} allocated")
            }
            Self::Pages { state, convert: false, .. } => {
                write!(f, "pages of our own are {state} already")
            }
            Self::PagesOutOfReach { state, limit } => {
                write!(f, "no {state} pages of our own are in the device's reach, up to {limit}")
            }
            Self::Transfer(Transfer { bytes, cache_work }) => {
                f.write_str(match bytes {
                    Bytes::Stay => "no byte is copied",
                    Bytes::Out => "the buffer is copied into the slot",
                    Bytes::Zero => "the slot is zeroed: no byte goes out that was not given",
                    Bytes::Back => "what arrived is copied back to the buffer, and nothing else",
                })?;
                f.write_str(if cache_work { "; caches are maintained" } else { "" })
            }
            Self::Protection { state, protection: Protection { mark: 0, cache } } => {
                write!(f, "page-table entries for {state} memory carry no mark, {}", told(cache))
            }
            Self::Protection { state, protection: Protection { mark, cache } } => {
                write!(
                    f,
                    "page-table entries for {state} memory carry the mark {mark:#x}, {}",
                    told(cache)
                )
            }
            Self::Free { converted: true } => {
                f.write_str("the record says that we converted the memory, so we convert it back")
            }
            Self::Free { converted: false } => {
                f.write_str("the record says that we did not convert the memory, so nobody does")
            }
            Self::Atomic => f.write_str("atomic context never converts memory"),
            Self::Source { place, source } => {
                f.write_str(if place == 0 { "allocate " } else { "where that gives nothing, " })?;
                f.write_str(match source {
                    Source::Reservoir { grow: true } => {
                        "from the reservoir, which is converted already and may grow by a region"
                    }
                    Source::Reservoir { grow: false } => {
                        "from the reservoir, which is converted already"
                    }
                    Source::Pages => "pages of our own",
                    Source::Pools => "slots of a pool",
                })
            }
            Self::Direct(reason) => write!(f, "direct ({reason}): {}", reason.text()),
            Self::Bounce(reason) => {
                write!(f, "bounce ({reason}): the bytes go through a pool")
            }
            Self::Refuse(reason) => {
                write!(f, "refuse ({reason}): {}; way out: {}", reason.text(), reason.way_out())
            }
        }
    }
}
