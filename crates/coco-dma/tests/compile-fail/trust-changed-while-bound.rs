//! Trust, masks and limits change under live maps.

use coco_dma::device::Device;
use coco_dma::plan::Limits;

pub fn widen(device: &mut Device<'_>) -> Limits {
    #[cfg(misuse)]
    {
        device.info().limits = Limits::NONE; //~ E0594
    }
    device.info().limits
}
