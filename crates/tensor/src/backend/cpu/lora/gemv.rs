//! Batched GEMV of low-rank updates (BGMV, Chen et al. 2023): single rows, each with its own A and B.
//!
//! Every matrix is read once, so the kernel is bound by memory bandwidth. Updates are computed side by side, which
//! hides the latency of the multiply-adds and keeps several loads in flight. Each element is one chain of multiply-adds
//! in the order of k, as in GEMM.

use crate::backend::cpu::gemm::{Rhs, floor_power_of_two};
use crate::backend::cpu::micro_tile::{MicroTile, PanelPair, PanelVec, Rows1, SinglePanel, dispatch_panels};
use crate::backend::cpu::simd::{LANES, Simd, SimdElement, SimdKernel};

/// Prefetch distance in elements.
const PREFETCH_DISTANCE: usize = 512;

/// `out[row] += scale · (input · A) · B`
pub struct LoraGemv<'a, N> {
    pub row: usize,
    pub input: &'a [f32],
    pub rank: usize,
    /// `(input, rank)`
    pub a: Rhs<'a, N>,
    /// `(rank, width)`
    pub b: Rhs<'a, N>,
    pub scale: f32,
    /// Scales of each rank in A and in B, if they are int8.
    pub rank_scales: Option<[&'a [f32]; 2]>,
}

/// Factor of a rank's projected value.
#[inline(always)]
pub fn rank_scale(scale: f32, rank_scales: Option<[&[f32]; 2]>, rank: usize) -> f32 {
    rank_scales.map_or(scale, |[a, b]| scale * a[rank] * b[rank])
}

/// Adds updates to rows of `width` values. Adjacent updates of equal rank are computed side by side.
pub struct BatchedLoraGemv<'a, N> {
    pub updates: &'a [LoraGemv<'a, N>],
    pub width: usize,
    pub out: &'a mut [f32],
}

/// Accumulators of several updates.
///
/// # Safety
/// The CPU supports the instructions of `L`. `lhs` and `rhs` point to one pointer per accumulator, to `k` values and to
/// `k` vectors `stride` elements apart.
#[allow(clippy::missing_safety_doc, reason = "stated at the trait")]
trait Accumulators<L: Simd, N: SimdElement>: Copy {
    const COUNT: usize;

    unsafe fn zero() -> Self;
    /// Each plus its left-hand value times its right-hand vector.
    unsafe fn mul_acc(self, lhs: *const *const f32, rhs: *const *const N, k_index: usize, stride: usize) -> Self;
    /// Multiplies each by the vector at `dst`, `stride` elements apart, and stores the product there.
    unsafe fn scale(self, dst: *mut f32, stride: usize);
}

#[derive(Clone, Copy)]
struct SingleAccumulator<L>(L);

impl<L: Simd, N: SimdElement> Accumulators<L, N> for SingleAccumulator<L> {
    const COUNT: usize = 1;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the arguments keep this function's contract, and so do the parts of them that are passed on.
        Self(unsafe { L::splat(0.0) })
    }

    #[inline(always)]
    unsafe fn mul_acc(self, lhs: *const *const f32, rhs: *const *const N, k_index: usize, stride: usize) -> Self {
        // SAFETY: the arguments keep this function's contract, and so do the parts of them that are passed on.
        unsafe {
            let rhs_vector = (*rhs).wrapping_add(k_index.wrapping_mul(stride));
            L::prefetch_l2(rhs_vector.wrapping_add(PREFETCH_DISTANCE).cast());
            Self(L::load_splat((*lhs).wrapping_add(k_index)).mul_add(N::load(rhs_vector), self.0))
        }
    }

    #[inline(always)]
    unsafe fn scale(self, dst: *mut f32, _: usize) {
        // SAFETY: the arguments keep this function's contract, and so do the parts of them that are passed on.
        unsafe { self.0.mul(L::load(dst)).store(dst) }
    }
}

#[derive(Clone, Copy)]
struct AccumulatorPair<A>(A, A);

impl<L: Simd, N: SimdElement, A: Accumulators<L, N>> Accumulators<L, N> for AccumulatorPair<A> {
    const COUNT: usize = 2 * A::COUNT;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the arguments keep this function's contract, and so do the parts of them that are passed on.
        unsafe { Self(A::zero(), A::zero()) }
    }

    #[inline(always)]
    unsafe fn mul_acc(self, lhs: *const *const f32, rhs: *const *const N, k_index: usize, stride: usize) -> Self {
        let (other_lhs, other_rhs) = (lhs.wrapping_add(A::COUNT), rhs.wrapping_add(A::COUNT));
        // SAFETY: the arguments keep this function's contract, and so do the parts of them that are passed on.
        unsafe {
            Self(self.0.mul_acc(lhs, rhs, k_index, stride), self.1.mul_acc(other_lhs, other_rhs, k_index, stride))
        }
    }

    #[inline(always)]
    unsafe fn scale(self, dst: *mut f32, stride: usize) {
        let other_dst = dst.wrapping_add(A::COUNT.wrapping_mul(stride));
        // SAFETY: the arguments keep this function's contract, and so do the parts of them that are passed on.
        unsafe {
            self.0.scale(dst, stride);
            self.1.scale(other_dst, stride);
        }
    }
}

/// Maximum number of updates side by side.
const MAX_BATCH: usize = 8;

impl<N: SimdElement> LoraGemv<'_, N> {
    /// The rank, rounded up to whole vectors.
    fn padded_rank(&self) -> usize {
        self.rank.next_multiple_of(LANES)
    }

    /// Asserts that every address lies within its slice.
    fn assert_bounds(&self, width: usize, out: &[f32]) {
        self.a.assert_bounds(self.input.len(), self.rank);
        self.b.assert_bounds(self.rank, width);
        assert!((self.row + 1) * width <= out.len(), "the output has the row");
    }

    fn can_batch_with(&self, other: &Self) -> bool {
        let shape = |update: &Self| (update.rank, update.input.len(), update.a.panel_stride, update.a.k_stride);
        shape(self) == shape(other)
    }
}

impl<N: SimdElement> SimdKernel for BatchedLoraGemv<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Simd>(self) {
        let Self { mut updates, width, out } = self;
        let max_padded_rank = updates.iter().map(LoraGemv::padded_rank).max().unwrap_or(0);
        let mut projected = vec![0.0; MAX_BATCH * max_padded_rank];
        while let Some(first_update) = updates.first() {
            let batchable =
                updates.iter().take(MAX_BATCH).take_while(|update| update.can_batch_with(first_update)).count();
            let (batch, remaining) = updates.split_at(floor_power_of_two(batchable));
            batch.iter().for_each(|update| update.assert_bounds(width, out));
            // SAFETY: `assert_bounds` has checked the operands of every update in the batch against their slices,
            // `projected` has a row per update, and the CPU supports `L`.
            unsafe {
                match batch.len() {
                    8 => bgmv_shrink::<L, N, AccumulatorPair<AccumulatorPair<AccumulatorPair<SingleAccumulator<L>>>>>(
                        batch,
                        &mut projected,
                    ),
                    4 => bgmv_shrink::<L, N, AccumulatorPair<AccumulatorPair<SingleAccumulator<L>>>>(
                        batch,
                        &mut projected,
                    ),
                    2 => bgmv_shrink::<L, N, AccumulatorPair<SingleAccumulator<L>>>(batch, &mut projected),
                    _ => bgmv_shrink::<L, N, SingleAccumulator<L>>(batch, &mut projected),
                }
                let mut index = 0;
                while index < batch.len() {
                    let update = &batch[index];
                    let projected_row = projected.as_ptr().add(index * update.padded_rank());
                    bgmv_expand::<L, N>(update, projected_row, width, out.as_mut_ptr().add(update.row * width));
                    index += 1;
                }
            }
            updates = remaining;
        }
    }
}

/// Computes `projected = scale · input · A` of each update, in rows of whole vectors.
///
/// # Safety
/// The CPU supports the instructions of `L`. The updates passed `assert_bounds`, have one rank and one k, and are as
/// many as the accumulators.
#[inline(always)]
unsafe fn bgmv_shrink<L: Simd, N: SimdElement, C: Accumulators<L, N>>(updates: &[LoraGemv<N>], projected: &mut [f32]) {
    let (mut lhs, mut rhs) = ([std::ptr::null(); MAX_BATCH], [std::ptr::null(); MAX_BATCH]);
    let first_update = &updates[0];
    let (k, padded_rank) = (first_update.input.len(), first_update.padded_rank());
    let mut index = 0;
    while index < updates.len() {
        let update = &updates[index];
        (lhs[index], rhs[index]) = (update.input.as_ptr(), update.a.values.as_ptr());
        let rank_scales = &mut projected[index * padded_rank..][..padded_rank];
        let mut rank = 0;
        while rank < update.rank {
            rank_scales[rank] = rank_scale(update.scale, update.rank_scales, rank);
            rank += 1;
        }
        index += 1;
    }
    let mut panel = 0;
    while panel < padded_rank {
        // SAFETY: the arguments keep this function's contract, and so do the parts of them that are passed on.
        unsafe {
            let mut sums = C::zero();
            let mut k_index = 0;
            while k_index < k {
                sums = sums.mul_acc(lhs.as_ptr(), rhs.as_ptr(), k_index, first_update.a.k_stride);
                k_index += 1;
            }
            sums.scale(projected.as_mut_ptr().add(panel), padded_rank);
        }
        index = 0;
        while index < updates.len() {
            rhs[index] = rhs[index].wrapping_add(first_update.a.panel_stride);
            index += 1;
        }
        panel += LANES;
    }
}

/// out += projected · B
///
/// # Safety
/// The CPU supports the instructions of `L`. The update passed `assert_bounds`, `projected` points to `rank` values and
/// `out` to `width`.
#[inline(always)]
unsafe fn bgmv_expand<L: Simd, N: SimdElement>(
    update: &LoraGemv<N>,
    projected: *const f32,
    width: usize,
    out: *mut f32,
) {
    let panels = width.div_ceil(LANES);
    let mut panel = 0;
    while panel < panels {
        let panel_count = floor_power_of_two((panels - panel).min(8));
        let column = panel * LANES;
        let (rhs, out) =
            (update.b.values.as_ptr().wrapping_add(panel * update.b.panel_stride), out.wrapping_add(column));
        // SAFETY: the arguments keep this function's contract, and so do the parts of them that are passed on.
        unsafe {
            dispatch_panels!(panel_count, L, (expand_tile)[L, N](update, projected, rhs, width - column, out));
        }
        panel += panel_count;
    }
}

/// # Safety
/// The CPU supports the instructions of `L`. `rhs` points to the panels of `P` in B, `projected` to `rank` values and
/// `out` to `columns`.
#[inline(always)]
unsafe fn expand_tile<L: Simd, N: SimdElement, P: PanelVec<L>>(
    update: &LoraGemv<N>,
    projected: *const f32,
    rhs: *const N,
    columns: usize,
    out: *mut f32,
) {
    let (panel_stride, k_stride) = (update.b.panel_stride, update.b.k_stride);
    let prefetch_offset = P::COUNT.wrapping_mul(panel_stride);
    // SAFETY: the arguments keep this function's contract, and so do the parts of them that are passed on.
    unsafe {
        let mut sums = <Rows1<P> as MicroTile<L, P>>::load_partial(out, 0, columns);
        let (mut rank_index, mut rhs) = (0, rhs);
        while rank_index < update.rank {
            P::prefetch(rhs.wrapping_add(prefetch_offset), panel_stride);
            sums = sums.mul_acc(projected.wrapping_add(rank_index), 0, P::load(rhs, panel_stride));
            rhs = rhs.wrapping_add(k_stride);
            rank_index += 1;
        }
        sums.store_partial(out, 0, columns);
    }
}
