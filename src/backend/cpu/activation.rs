//! Activations in the pass of another kernel, on its vectors.

use super::simd::{Isa, Kernel, Vector, dispatch};
use crate::activation::Activation;

impl Activation {
    /// Of a vector's lanes. (The order of `max` and `min`: a NaN stays a NaN.)
    ///
    /// # Safety
    /// Inside [`super::simd::dispatch`] of the vector's instruction set.
    #[inline(always)]
    pub(crate) unsafe fn forward_lanes<V: Vector>(self, x: V) -> V {
        debug_assert!(self.is_fusable());
        unsafe {
            match self {
                Activation::Relu => V::splat(0.0).max(x),
                Activation::Relu6 => V::splat(6.0).min(V::splat(0.0).max(x)),
                _ => x,
            }
        }
    }

    /// What of a gradient's lanes comes through, where the activation's input was x: its slope is 1 or 0.
    ///
    /// # Safety
    /// As [`Activation::forward_lanes`].
    #[inline(always)]
    pub(crate) unsafe fn backward_lanes<V: Vector>(self, g: V, x: V) -> V {
        debug_assert!(self.is_fusable());
        unsafe {
            match self {
                Activation::Relu => g.where_less(V::splat(0.0), x),
                Activation::Relu6 => g.where_less(V::splat(0.0), x).where_less(x, V::splat(6.0)),
                _ => g,
            }
        }
    }

    /// Of values that a kernel has written already.
    ///
    /// # Safety
    /// As [`Activation::forward_lanes`].
    #[inline(always)]
    pub(crate) unsafe fn in_place_lanes<V: Vector>(self, y: &mut [f32]) {
        for y in y.chunks_mut(V::LANES) {
            let (lanes, at) = (y.len(), y.as_mut_ptr());
            // SAFETY: as many lanes as the piece has.
            unsafe { self.forward_lanes(V::load_partial(at, lanes)).store_partial(at, lanes) };
        }
    }

    /// [`Activation::in_place_lanes`] in an instruction set.
    pub(crate) fn in_place(self, isa: Isa, y: &mut [f32]) {
        struct InPlace<'a>(Activation, &'a mut [f32]);
        impl Kernel for InPlace<'_> {
            type Output = ();
            #[inline(always)]
            fn run<V: Vector>(self) {
                // SAFETY: `dispatch` gives the vector type its instruction set.
                unsafe { self.0.in_place_lanes::<V>(self.1) };
            }
        }
        if self != Activation::Linear {
            dispatch(isa, InPlace(self, y));
        }
    }
}
