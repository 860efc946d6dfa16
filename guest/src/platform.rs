//! The machine under the layer: the one trait that a kernel implements.
//!
//! The rules are those of a guest whose addresses carry no bit (pKVM's forms): who may see a page
//! is decided by the host's tables, here played by the guest's own and by the IOMMU that stands
//! in front of every device. To convert a granule changes both.
// UNSAFETY: the trait is unsafe to implement.
#![expect(unsafe_code)]

use core::cell::RefCell;
use core::ptr::NonNull;

use coco_dma::addr::PhysAddr;
use coco_dma::addr::PhysRange;
use coco_dma::platform::ConvertError;
use coco_dma::platform::ConvertVerdict;
use coco_dma::platform::CpuView;
use coco_dma::platform::NoView;
use coco_dma::platform::Platform;
use coco_dma::regime::Parameters;
use coco_dma::regime::PlatformName;
use coco_dma::regime::Regime;
use coco_dma::state::CacheMode;
use coco_dma::state::Context;
use coco_dma::state::State;
use coco_dma::state::Visibility;

use crate::iommu::Iommu;
use crate::iommu::PASSTHROUGH;
use crate::iommu::Rights;
use crate::memory::PAGE;
use crate::memory::paging::ALIAS;
use crate::memory::paging::PAGING;
use crate::memory::private;
use crate::memory::shared;
use crate::rt::OneCpu;

const RULES: Regime = match PlatformName::Pkvm.regime(&Parameters {
    c_bit: None,
    ipa_bits: None,
    gpaw: None,
    vtom: None,
    granule: None,
}) {
    Ok(rules) => rules,
    Err(_) => panic!("the defaults of a platform are its own"),
};

/// The guest.
#[derive(Debug)]
pub struct Guest {
    /// What stands in front of every device.
    pub iommu: RefCell<Iommu>,
}

/// The one machine.
pub static GUEST: OneCpu<Guest> = OneCpu::new(Guest { iommu: RefCell::new(Iommu::None) });

/// The same as the layer wants it.
pub fn platform() -> &'static (dyn Platform + 'static) {
    &GUEST
}

// SAFETY: 1. the rules are a constant. 2. a pointer into one of the two windows names its page by
// subtraction. 3. `convert` changes page after page, both tables, and says how far it came. 4. a
// view is a pointer to the window in which the pages are mapped now.
unsafe impl Platform for OneCpu<Guest> {
    fn regime(&self) -> Regime {
        RULES
    }

    fn locate(&self, bytes: NonNull<[u8]>) -> Option<PhysRange> {
        let start = bytes.cast::<u8>().addr().get() as u64;
        let at = start.checked_sub(ALIAS).unwrap_or(start);
        let range = PhysRange::new(PhysAddr::new(at), bytes.len() as u64)?;
        (range.last().raw() < PAGING.end()).then_some(range)
    }

    unsafe fn convert(&self, run: PhysRange, _: State, to: State) -> Result<(), ConvertError> {
        let mut iommu = self.iommu.borrow_mut();
        for done in (0..run.len()).step_by(PAGE as usize) {
            let page = run.base().raw() + done;
            let (answer, doubt) = match to {
                // First the host may look, then the devices; and back in the other order.
                State::SHARED => {
                    PAGING.convert(page, Visibility::Shared);
                    let answer = iommu.map(PASSTHROUGH, page, page, Rights::ALL);
                    if answer.is_err() {
                        PAGING.convert(page, Visibility::Private);
                    }
                    (answer, 0)
                }
                _ => {
                    let answer = iommu.unmap(PASSTHROUGH, page, PAGE);
                    if answer.is_ok() {
                        PAGING.convert(page, Visibility::Private);
                    }
                    // Whether devices still reach it nobody knows.
                    (answer, PAGE)
                }
            };
            if let Err(refused) = answer {
                return Err(ConvertError {
                    done,
                    doubt,
                    code: refused.code(),
                    verdict: ConvertVerdict::Retry,
                });
            }
        }
        Ok(())
    }

    unsafe fn map_cpu(
        &self,
        run: PhysRange,
        state: State,
        _: CacheMode,
        _: Context,
    ) -> Result<CpuView, NoView> {
        let (start, last) = (run.base().raw(), run.last().raw());
        if start >= PAGING.end() {
            PAGING.map_registers(start, run.len());
            return NonNull::new(private(start)).map(CpuView::from).ok_or(NoView);
        }
        let wanted = if state == State::SHARED { Visibility::Shared } else { Visibility::Private };
        let mut pages = (start & !(PAGE - 1)..=last).step_by(PAGE as usize);
        if last >= PAGING.end() || !pages.all(|page| PAGING.state(page) == wanted) {
            return Err(NoView);
        }
        NonNull::new(match wanted {
            Visibility::Shared => shared(start),
            Visibility::Private => private(start),
        })
        .map(CpuView::from)
        .ok_or(NoView)
    }
}
