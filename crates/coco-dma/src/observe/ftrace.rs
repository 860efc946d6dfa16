//! The lines of Linux's trace points: `dma:dma_map_phys` and its kin (`include/trace/events/dma.h`
//! of 7.3) and `swiotlb:swiotlb_bounced`, framed as tracefs prints its file `trace`, so that what
//! reads a trace of Linux reads one of this layer. A scatter list is a line for each segment
//! (`dma_map_phys`, not `dma_map_sg`). No clock is asked: a line's time is a number of
//! steps, printed as microseconds. Any context; nothing is allocated.

use core::fmt;

use crate::addr::DmaAddr;
use crate::addr::PhysAddr;
use crate::attrs::Attrs;
use crate::observe::BounceCause;
use crate::observe::Event;
use crate::observe::MapInfo;
use crate::observe::SyncFor;
use crate::reason::Bounce;
use crate::state::Context;
use crate::state::Direction;

/// What stands above the lines of a file.
pub const HEADER: &str = "\
# tracer: nop
#
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
";

/// One line of the file, without its end: who, when, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'l, T = Point<'l>> {
    /// The task's name; Linux has at most 15 bytes of one.
    pub task: &'l str,
    /// The task's number.
    pub pid: u32,
    /// The CPU.
    pub cpu: u32,
    /// Steps since the trace began.
    pub step: u64,
    /// What happened.
    pub point: T,
}

/// A trace point of Linux with its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Point<'p> {
    /// `dma_map_phys`.
    Map {
        /// The device.
        device: &'p str,
        /// Which way the bytes go.
        direction: Direction,
        /// What the device was given.
        addr: DmaAddr,
        /// Bytes.
        len: u64,
        /// Where the buffer lies.
        phys: PhysAddr,
        /// What the driver asked for.
        attrs: Attrs,
    },
    /// `dma_unmap_phys`.
    Unmap {
        /// The device.
        device: &'p str,
        /// Which way the bytes went.
        direction: Direction,
        /// What the device had been given.
        addr: DmaAddr,
        /// Bytes.
        len: u64,
        /// What the driver asked for.
        attrs: Attrs,
    },
    /// `dma_sync_single_for_cpu` and `dma_sync_single_for_device`.
    Sync {
        /// The device.
        device: &'p str,
        /// Which way the bytes of the map go.
        direction: Direction,
        /// What the device was given, of the first byte that is synced.
        addr: DmaAddr,
        /// Bytes.
        len: u64,
        /// Whom it is shown to.
        to: SyncFor,
    },
    /// `dma_alloc`. Linux prints a hash of the pointer, by which the free is found; here it is
    /// where the memory lies.
    Alloc {
        /// The device.
        device: &'p str,
        /// What the device was given.
        addr: DmaAddr,
        /// Bytes.
        len: u64,
        /// Where the memory lies.
        phys: PhysAddr,
        /// Whether the caller could block.
        context: Context,
        /// What the driver asked for.
        attrs: Attrs,
    },
    /// `dma_free`.
    Free {
        /// The device.
        device: &'p str,
        /// What the device had been given.
        addr: DmaAddr,
        /// Bytes.
        len: u64,
        /// Where the memory lies.
        phys: PhysAddr,
        /// What the driver asked for.
        attrs: Attrs,
    },
    /// `swiotlb_bounced`.
    Bounced {
        /// The device.
        device: &'p str,
        /// The last address that the device reaches.
        mask: u64,
        /// What the buffer's own address would be for the device.
        addr: DmaAddr,
        /// Bytes.
        len: u64,
        /// Whether all maps bounce here, or this one alone had to.
        forced: bool,
    },
}

/// What Linux prints for a physical address that there is none of.
const NO_PHYS: PhysAddr = PhysAddr::new(u64::MAX);

/// The trace points of an event, in Linux's order: a map that bounces has two, and what Linux does
/// not trace has none. [`Event::Bounced`] is no point: [`Event::Mapped`] tells it with the map.
pub fn points<'e>(event: &Event<'e>) -> impl Iterator<Item = Point<'e>> {
    let (first, second) = match *event {
        Event::Mapped {
            lent: MapInfo { device, direction, phys, addr, len, attrs, .. },
            bounce,
        } => {
            let (len, phys) = (len as u64, phys.unwrap_or(NO_PHYS));
            let bounced = bounce.map(|BounceCause { reason, in_place, limit }| Point::Bounced {
                device,
                mask: limit.raw(),
                addr: in_place.unwrap_or(DmaAddr::new(phys.raw())),
                len,
                forced: is_forced(reason),
            });
            (bounced, Some(Point::Map { device, direction, addr, len, phys, attrs }))
        }
        Event::Unmapped(MapInfo { device, direction, addr, len, attrs, .. }) => {
            (Some(Point::Unmap { device, direction, addr, len: len as u64, attrs }), None)
        }
        Event::Synced { lent: MapInfo { device, direction, addr, len, .. }, to } => {
            (Some(Point::Sync { device, direction, addr, len: len as u64, to }), None)
        }
        Event::Allocated { lent: MapInfo { device, phys, addr, len, attrs, .. }, context } => {
            let (len, phys) = (len as u64, phys.unwrap_or(NO_PHYS));
            (Some(Point::Alloc { device, addr, len, phys, context, attrs }), None)
        }
        Event::Freed(MapInfo { device, phys, addr, len, attrs, .. }) => {
            let (len, phys) = (len as u64, phys.unwrap_or(NO_PHYS));
            (Some(Point::Free { device, addr, len, phys, attrs }), None)
        }
        _ => (None, None),
    };
    first.into_iter().chain(second)
}

/// Whether Linux would call the bounce forced: all maps of such a device bounce.
fn is_forced(reason: Bounce) -> bool {
    matches!(
        reason,
        Bounce::RestrictedPool | Bounce::Forced | Bounce::PrivateMemory | Bounce::SharedUnreachable
    )
}

impl<T: fmt::Display> fmt::Display for Line<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, pid, cpu, step, point } = self;
        let (seconds, micros) = (step / 1_000_000, step % 1_000_000);
        write!(f, "{task:>16}-{pid:<7} [{cpu:03}] ..... {seconds:>5}.{micros:06}: {point}")
    }
}

impl fmt::Display for Point<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Map { device, direction, addr, len, phys, attrs } => write!(
                f,
                "dma_map_phys: {device} dir={} dma_addr={:x} size={len} phys_addr={:x} attrs={}",
                direction_name(direction),
                addr.raw(),
                phys.raw(),
                Flags(attrs)
            ),
            Self::Unmap { device, direction, addr, len, attrs } => write!(
                f,
                "dma_unmap_phys: {device} dir={} dma_addr={:x} size={len} attrs={}",
                direction_name(direction),
                addr.raw(),
                Flags(attrs)
            ),
            Self::Sync { device, direction, addr, len, to } => write!(
                f,
                "dma_sync_single_for_{}: {device} dir={} dma_addr={:x} size={len}",
                match to {
                    SyncFor::Cpu => "cpu",
                    SyncFor::Device => "device",
                },
                direction_name(direction),
                addr.raw()
            ),
            Self::Alloc { device, addr, len, phys, context, attrs } => write!(
                f,
                "dma_alloc: {device} dir=BIDIRECTIONAL dma_addr={:x} size={len} \
                 virt_addr={:016x} flags={} attrs={}",
                addr.raw(),
                phys.raw(),
                match context {
                    Context::Atomic => "GFP_ATOMIC",
                    Context::Blocking => "GFP_KERNEL",
                },
                Flags(attrs)
            ),
            Self::Free { device, addr, len, phys, attrs } => write!(
                f,
                "dma_free: {device} dir=BIDIRECTIONAL dma_addr={:x} size={len} \
                 virt_addr={:016x} attrs={}",
                addr.raw(),
                phys.raw(),
                Flags(attrs)
            ),
            Self::Bounced { device, mask, addr, len, forced } => write!(
                f,
                "swiotlb_bounced: dev_name: {device} dma_mask={mask:x} dev_addr={:x} size={len} {}",
                addr.raw(),
                if forced { "FORCE" } else { "NORMAL" }
            ),
        }
    }
}

/// Linux's word for a direction.
fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Both => "BIDIRECTIONAL",
        Direction::ToDevice => "TO_DEVICE",
        Direction::FromDevice => "FROM_DEVICE",
    }
}

/// Attributes as `__print_flags` prints them: capitals with bars between, nothing for none.
struct Flags(Attrs);

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, name) in self.0.names().enumerate() {
            if place > 0 {
                f.write_str("|")?;
            }
            if name == "debugging-ignore-cachelines" {
                // The one that the trace calls by another name than the header.
                f.write_str("CACHELINES_OVERLAP")?;
                continue;
            }
            for byte in name.chars() {
                fmt::Write::write_char(
                    f,
                    if byte == '-' { '_' } else { byte.to_ascii_uppercase() },
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;

    use super::*;

    const MAP: Point<'_> = Point::Map {
        device: "0000:00:03.0",
        direction: Direction::ToDevice,
        addr: DmaAddr::new(0x80_9000_0000),
        len: 4096,
        phys: PhysAddr::new(0x9000_0000),
        attrs: Attrs::CC_SHARED,
    };

    #[test]
    fn a_map_is_the_line_of_dma_map_phys() {
        assert_eq!(
            MAP.to_string(),
            "dma_map_phys: 0000:00:03.0 dir=TO_DEVICE dma_addr=8090000000 size=4096 \
             phys_addr=90000000 attrs=CC_SHARED"
        );
    }

    #[test]
    fn an_unmap_has_no_physical_address() {
        let unmap = Point::Unmap {
            device: "nic",
            direction: Direction::FromDevice,
            addr: DmaAddr::new(0x1000),
            len: 64,
            attrs: Attrs::NONE,
        };
        assert_eq!(
            unmap.to_string(),
            "dma_unmap_phys: nic dir=FROM_DEVICE dma_addr=1000 size=64 attrs="
        );
    }

    #[test]
    fn a_bounce_is_the_line_of_swiotlb_bounced() {
        let point = |forced| Point::Bounced {
            device: "nic",
            mask: 0xffff_ffff,
            addr: DmaAddr::new(0x1_0000_0000),
            len: 512,
            forced,
        };
        let fields = "swiotlb_bounced: dev_name: nic dma_mask=ffffffff dev_addr=100000000 size=512";
        assert_eq!(point(true).to_string(), format!("{fields} FORCE"));
        assert_eq!(point(false).to_string(), format!("{fields} NORMAL"));
    }

    #[test]
    fn allocations_and_syncs_are_the_lines_of_their_points() {
        let (device, addr, len) = ("nic", DmaAddr::new(0x8000), 4096);
        let (phys, attrs) = (PhysAddr::new(0x9000), Attrs::CC_SHARED);
        let alloc = |context| Point::Alloc { device, addr, len, phys, context, attrs }.to_string();
        let fields = "nic dir=BIDIRECTIONAL dma_addr=8000 size=4096 virt_addr=0000000000009000";
        let may = format!("dma_alloc: {fields} flags=GFP_KERNEL attrs=CC_SHARED");
        assert_eq!(alloc(Context::Blocking), may);
        let atomic = format!("dma_alloc: {fields} flags=GFP_ATOMIC attrs=CC_SHARED");
        assert_eq!(alloc(Context::Atomic), atomic);
        let free = Point::Free { device, addr, len, phys, attrs };
        assert_eq!(free.to_string(), format!("dma_free: {fields} attrs=CC_SHARED"));
        let direction = Direction::FromDevice;
        let sync = |to| Point::Sync { device, direction, addr, len, to }.to_string();
        let fields = "nic dir=FROM_DEVICE dma_addr=8000 size=4096";
        assert_eq!(sync(SyncFor::Cpu), format!("dma_sync_single_for_cpu: {fields}"));
        assert_eq!(sync(SyncFor::Device), format!("dma_sync_single_for_device: {fields}"));
    }

    #[test]
    fn attributes_have_the_names_of_the_trace() {
        let set = Attrs::MMIO.with(Attrs::DEBUGGING_IGNORE_CACHELINES).with(Attrs::CC_SHARED);
        assert_eq!(Flags(set).to_string(), "MMIO|CACHELINES_OVERLAP|CC_SHARED");
        assert_eq!(Flags(Attrs::SKIP_CPU_SYNC).to_string(), "SKIP_CPU_SYNC");
    }

    #[test]
    fn a_line_says_who_and_when() {
        let line = Line { task: "coco-dma", pid: 1, cpu: 0, step: 1_000_007, point: MAP };
        assert_eq!(
            line.to_string(),
            format!("        coco-dma-1       [000] .....     1.000007: {MAP}")
        );
        assert!(
            HEADER.starts_with("# tracer: nop\n") && HEADER.lines().all(|l| l.starts_with('#'))
        );
    }
}
