//! A machine that promises nothing.
// UNSAFETY: what is implemented is a promise; the misuse does not make it.
#![expect(unsafe_code)]

use core::ptr::NonNull;

use coco_dma::addr::PhysRange;
use coco_dma::platform::Platform;
use coco_dma::regime::Regime;

pub struct Bare;

macro_rules! implement {
    ($($promise:tt)?) => {
        $($promise)? impl Platform for Bare { //~ E0200
            fn regime(&self) -> Regime {
                Regime::Open
            }

            fn locate(&self, _: NonNull<[u8]>) -> Option<PhysRange> {
                None
            }
        }
    };
}

#[cfg(not(misuse))]
implement!(unsafe);
#[cfg(misuse)]
implement!();
