//! A domain that translates: the layer gives addresses out of a window, and this maps them. What
//! is mapped is what one transfer needs, for as long as it lasts.
// UNSAFETY: the trait is unsafe to implement, since what devices reach rests on it.
#![expect(unsafe_code)]

use alloc::boxed::Box;

use coco_dma::addr::DmaAddr;
use coco_dma::addr::PhysRange;
use coco_dma::iommu::Domain;
use coco_dma::iommu::Entry;
use coco_dma::iommu::Iommu;
use coco_dma::iommu::IommuError;
use coco_dma::iommu::IovaWindow;

use super::Rights;
use crate::Failure;
use crate::layer::words;
use crate::memory::PAGE;
use crate::platform::GUEST;

/// The number of the one domain that translates.
pub const TRANSLATED: u16 = 1;

/// The addresses that it gives out: within edu's 28 bits, and where private memory lies, so that
/// one which were taken for a physical address would do harm.
const WINDOW: Option<IovaWindow> = IovaWindow::new(0xa00_0000, 4 << 20);

/// The domain's side of the machine's IOMMU.
#[derive(Debug)]
struct Tables;

// SAFETY: 1. a constant. 2. and 3. page after page is mapped, and all of them are taken out again
// where one is refused; the IOMMU refuses pages that are there. 4. `unmap` waits for the IOMMU.
// 5. the IOMMU passes through nothing: devices are moved behind this domain as a whole.
unsafe impl Iommu for Tables {
    fn page(&self) -> u64 {
        PAGE
    }

    unsafe fn map(&self, iova: DmaAddr, run: PhysRange, entry: Entry) -> Result<(), IommuError> {
        let mut iommu = GUEST.iommu.borrow_mut();
        let (iova, page) = (iova.raw(), run.base().raw());
        // VT-d and virtio-iommu, as a host emulates them, know no state: the layer lets nothing
        // but shared memory come here, or private memory for an accepted device.
        let rights = Rights { reads: entry.reads, writes: entry.writes };
        for done in (0..run.len()).step_by(PAGE as usize) {
            let answer = iommu.map(TRANSLATED, iova + done, page + done, rights);
            if let Err(refused) = answer {
                if done > 0 {
                    let undone = iommu.unmap(TRANSLATED, iova, done);
                    assert!(undone.is_ok(), "the IOMMU does not take back what it did");
                }
                return Err(IommuError { code: refused.code() });
            }
        }
        Ok(())
    }

    unsafe fn unmap(&self, iova: DmaAddr, len: u64) -> Result<(), IommuError> {
        let unmapped = GUEST.iommu.borrow_mut().unmap(TRANSLATED, iova.raw(), len);
        unmapped.map_err(|refused| IommuError { code: refused.code() })
    }
}

/// The domain. Ask for it once.
pub fn domain() -> Result<&'static Domain<'static>, Failure> {
    let window = WINDOW.ok_or("the window is empty")?;
    let storage = words(Domain::words(window.len(), PAGE));
    Ok(Box::leak(Box::new(Domain::new(&Tables, window, storage)?)))
}
