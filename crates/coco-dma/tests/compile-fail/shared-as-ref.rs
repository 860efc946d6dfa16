//! Shared memory goes where bytes are wanted.

use coco_dma::shared::SharedBytes;

pub fn parse(bytes: impl AsRef<[u8]>) -> usize {
    bytes.as_ref().len()
}

pub fn look(shared: SharedBytes<'_>) -> usize {
    #[cfg(misuse)]
    parse(shared); //~ E0277
    parse(shared.read_array::<4>(0).unwrap_or_default())
}
