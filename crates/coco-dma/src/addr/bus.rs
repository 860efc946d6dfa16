//! Bus ranges: the windows through which a bus shows memory to a device, each with its offset
//! (`dma-ranges` in a device tree).

use super::PhysAddr;
use super::PhysRange;

/// One window: the memory `cpu` appears on the bus from `bus` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusRange {
    cpu: PhysRange,
    bus: u64,
}

impl BusRange {
    /// The window that shows `cpu` from bus address `bus` on; `None` where it would wrap on the
    /// bus.
    #[inline]
    pub const fn new(cpu: PhysRange, bus: u64) -> Option<Self> {
        match bus.checked_add(cpu.len() - 1) {
            Some(_) => Some(Self { cpu, bus }),
            None => None,
        }
    }

    /// The memory that shows through the window.
    #[inline]
    pub const fn cpu(self) -> PhysRange {
        self.cpu
    }

    /// The bus address of the byte at `memory`; `None` outside of the window.
    #[inline]
    fn at(self, memory: PhysAddr) -> Option<u64> {
        let offset = memory.offset_from(self.cpu.base()).filter(|at| *at < self.cpu.len())?;
        self.bus.checked_add(offset)
    }

    /// Whether `next` shows what follows this window in memory, right behind it on the bus.
    fn leads_to(&self, next: &Self) -> bool {
        let (memory, bus) = (self.cpu.last().checked_add(1), self.bus.checked_add(self.cpu.len()));
        memory == Some(next.cpu.base()) && bus == Some(next.bus)
    }

    /// Where the window starts on the bus.
    #[inline]
    pub const fn bus(self) -> u64 {
        self.bus
    }
}

/// The windows of a bus, first match first. None at all means that the bus shows memory at its
/// own address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusRanges<'a>(&'a [BusRange]);

impl<'a> BusRanges<'a> {
    /// A bus without windows: every address is its own.
    pub const IDENTITY: Self = Self(&[]);

    /// The bus with these windows.
    #[inline]
    pub const fn new(ranges: &'a [BusRange]) -> Self {
        Self(ranges)
    }

    /// Whether addresses are their own.
    #[inline]
    pub const fn is_identity(self) -> bool {
        self.0.is_empty()
    }

    /// The windows, first match first.
    #[inline]
    pub const fn windows(self) -> &'a [BusRange] {
        self.0
    }

    /// The bus address of the first byte of `range`; `None` unless one window shows it whole, or
    /// several do that follow each other in memory and on the bus.
    #[inline]
    pub fn to_bus(self, range: PhysRange) -> Option<u64> {
        if self.is_identity() {
            return Some(range.base().raw());
        }
        if let Some(window) = self.0.iter().find(|window| window.cpu.contains(range)) {
            return window.at(range.base());
        }
        let mut joined = self.each().flatten().filter(|window| window.cpu.contains(range));
        joined.next()?.at(range.base())
    }

    /// Each window by itself, with those joined to it that follow it in memory and on the bus; `None`
    /// for the bus as it is where it has no windows.
    pub(crate) fn each(self) -> impl Iterator<Item = Option<BusRange>> {
        let identity = self.is_identity().then_some(None);
        let first = move |window: &&BusRange| !self.0.iter().any(|other| other.leads_to(window));
        let joined = self.0.iter().filter(first).map(move |window| Some(self.joined(*window)));
        identity.into_iter().chain(joined)
    }

    /// A window with all that follow it.
    fn joined(self, mut window: BusRange) -> BusRange {
        let next = |window: &BusRange| {
            let next = self.0.iter().filter(|next| window.leads_to(next));
            let len = window.cpu.len().checked_add(next.map(|next| next.cpu.len()).max()?)?;
            BusRange::new(PhysRange::new(window.cpu.base(), len)?, window.bus)
        };
        while let Some(longer) = next(&window) {
            window = longer;
        }
        window
    }

    /// The first byte of memory that shows through the first window, and its address on the bus.
    pub(crate) fn first_shown(self) -> (PhysAddr, u64) {
        self.0.first().map_or((PhysAddr::new(0), 0), |window| (window.cpu.base(), window.bus))
    }

    /// The last byte of memory, which ends with `most`, that shows at bus address `last` or below;
    /// `None` where nothing does.
    pub(crate) fn last_shown(self, last: u64, most: PhysAddr) -> Option<PhysAddr> {
        if self.is_identity() {
            return Some(most.min(PhysAddr::new(last)));
        }
        let shown = self.0.iter().filter_map(|window| {
            let offset = last.checked_sub(window.bus)?.min(window.cpu.len() - 1);
            let memory = most.offset_from(window.cpu.base())?;
            window.cpu.base().checked_add(offset.min(memory))
        });
        shown.max()
    }

    /// The memory that `len` bytes at bus address `bus` are; `None` unless one window shows it, or
    /// several do that follow each other in memory and on the bus.
    pub fn to_phys(self, bus: u64, len: u64) -> Option<PhysRange> {
        if self.is_identity() {
            return PhysRange::new(PhysAddr::new(bus), len);
        }
        let part = |window: &BusRange| window.cpu.slice(bus.checked_sub(window.bus)?, len);
        let joined = || self.each().flatten().find_map(|window| part(&window));
        self.0.iter().find_map(part).or_else(joined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(base: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(base), len).unwrap()
    }

    #[test]
    fn windows_move_addresses_and_hide_the_rest() {
        let windows = [
            BusRange::new(range(0x8000_0000, 0x1000_0000), 0).unwrap(),
            BusRange::new(range(0x1_0000_0000, 0x1000), 0x4000_0000).unwrap(),
        ];
        let bus = BusRanges::new(&windows);
        assert_eq!(bus.to_bus(range(0x8000_1000, 0x10)), Some(0x1000));
        assert_eq!(bus.to_bus(range(0x1_0000_0ff0, 0x10)), Some(0x4000_0ff0));
        assert_eq!(bus.to_bus(range(0x1_0000_0ff0, 0x11)), None);
        assert_eq!(bus.to_bus(range(0x7fff_ffff, 2)), None);
        assert_eq!(bus.to_phys(0x4000_0ff0, 0x10), Some(range(0x1_0000_0ff0, 0x10)));
        assert_eq!(bus.to_phys(0x4000_0ff0, 0x11), None);
        assert_eq!(BusRanges::IDENTITY.to_bus(range(5, 5)), Some(5));
    }

    #[test]
    fn windows_that_follow_each_other_in_memory_and_on_the_bus_are_one() {
        let window = |cpu, len, bus| BusRange::new(range(cpu, len), bus).unwrap();
        let windows = [
            window(0x8000_2000, 0x1000, 0x2000),
            window(0x8000_0000, 0x1000, 0),
            window(0x8000_1000, 0x1000, 0x1000),
            // Next in memory, and elsewhere on the bus.
            window(0x8000_3000, 0x1000, 0x9000),
        ];
        let bus = BusRanges::new(&windows);
        for (base, len, shown) in [
            (0x8000_0800, 0x1000, Some(0x800)),
            (0x8000_0000, 0x3000, Some(0)),
            (0x8000_2fff, 2, None),
            (0x8000_0000, 0x3001, None),
            (0x7fff_ffff, 2, None),
        ] {
            assert_eq!(bus.to_bus(range(base, len)), shown, "{base:#x} {len:#x}");
            if let Some(at) = shown {
                assert_eq!(bus.to_phys(at, len), Some(range(base, len)), "{base:#x} {len:#x}");
            }
        }
        assert_eq!(bus.to_phys(0x2fff, 2), None);
        assert_eq!(bus.to_phys(0x8fff, 2), None);
        // Windows over each other: whichever leads on.
        let windows =
            [window(0, 0x1000, 0), window(0, 0x1000, 0x5000), window(0x1000, 0x1000, 0x6000)];
        assert_eq!(BusRanges::new(&windows).to_bus(range(0x800, 0x1000)), Some(0x5800));
        // The last byte of all.
        let last = u64::MAX - 0xfff;
        let windows = [window(last - 0x1000, 0x1000, last - 0x1000), window(last, 0x1000, last)];
        let all = range(last - 0x1000, 0x2000);
        assert_eq!(BusRanges::new(&windows).to_bus(all), Some(last - 0x1000));
    }

    #[test]
    fn a_window_does_not_wrap_on_the_bus() {
        assert!(BusRange::new(range(0, 2), u64::MAX).is_none());
        assert!(BusRange::new(range(0, 1), u64::MAX).is_some());
    }

    #[test]
    fn a_window_is_what_it_was_made_of() {
        let window = BusRange::new(range(0x8000_0000, 0x1000), 0x4000).unwrap();
        assert_eq!((window.cpu(), window.bus()), (range(0x8000_0000, 0x1000), 0x4000));
    }

    #[test]
    fn the_highest_memory_that_shows_is_the_last_byte_of_a_window_or_of_its_part() {
        let windows = [
            BusRange::new(range(0x8000_0000, 0x1000), 0x4000).unwrap(),
            BusRange::new(range(0x2000, 0x1000), 0x8000).unwrap(),
        ];
        let bus = BusRanges::new(&windows);
        let all = PhysAddr::new(u64::MAX);
        let shown = |last| bus.last_shown(last, all).map(PhysAddr::raw);
        assert_eq!(shown(0x3fff), None);
        assert_eq!(shown(0x4000), Some(0x8000_0000));
        assert_eq!(shown(0x4ffe), Some(0x8000_0ffe));
        assert_eq!(shown(u64::MAX), Some(0x8000_0fff));
        assert_eq!(BusRanges::IDENTITY.last_shown(0x1234, all), Some(PhysAddr::new(0x1234)));
    }
}
