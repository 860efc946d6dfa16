//! One "encrypted" for host and guest.

use coco_dma::state::Cipher;
use coco_dma::state::State;
use coco_dma::state::Visibility;

pub fn state() -> (State, State) {
    #[cfg(misuse)]
    let _ = State::Guest(Cipher::Encrypted); //~ E0308
    (State::Guest(Visibility::Private), State::Host(Cipher::Encrypted))
}
