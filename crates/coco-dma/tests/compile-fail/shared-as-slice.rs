//! A slice over shared memory: the host changes it while one looks.

use coco_dma::shared::OutOfBounds;
use coco_dma::shared::SharedBytes;

pub fn look(shared: SharedBytes<'_>) -> Result<u8, OutOfBounds> {
    let copy = shared.read_array::<4>(0)?;
    let bytes: &[u8] = &copy;
    #[cfg(misuse)]
    let bytes: &[u8] = &shared; //~ E0308
    Ok(bytes[0])
}
