//! The proof of one device serves for another.

use coco_dma::device::Attested;
use coco_dma::device::Endpoint;

pub fn claim(proof: Attested) {
    let _ = Endpoint::new("disk").accepted(proof);
    #[cfg(misuse)]
    let _ = Endpoint::new("net").accepted(proof); //~ E0382
}
