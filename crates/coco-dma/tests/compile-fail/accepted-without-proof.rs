//! A driver claims that its device is accepted.

use coco_dma::device::Attested;
use coco_dma::device::Endpoint;

pub fn claim(proof: Attested) -> Endpoint<'static> {
    #[cfg(misuse)]
    let _ = Endpoint::new("disk").accepted(); //~ E0061
    Endpoint::new("disk").accepted(proof)
}
