//! A proof that nobody vouched for.

use coco_dma::device::Attested;

pub fn forge(proof: Attested) -> Attested {
    #[cfg(misuse)]
    let proof = Attested(()); //~ E0423
    proof
}
