//! A flag instead of a proof.

use coco_dma::device::Attested;
use coco_dma::device::Endpoint;

pub fn claim(proof: Attested) -> Endpoint<'static> {
    #[cfg(misuse)]
    let proof = true;
    Endpoint::new("disk").accepted(proof) //~ E0308
}
