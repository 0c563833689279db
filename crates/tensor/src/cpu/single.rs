//! Low-rank updates of single rows, each with an A and a B of its own: a step of texts of many adapters.
//!
//! Every matrix is read once, so memory is what a step waits for. Updates go side by side: one's chain of multiply-adds does not
//! wait for its own last sum, and memory is asked for many of them at once. Each element is the one chain along the depth
//! that it is in [`super::product`].

use super::lanes::{LANES, Lanes, Number, Work};
use super::product::{Right, floor_power_of_two};
use super::tile::{Panel, Panels, R1, Sums, Twice};

/// How far ahead of its use memory is asked for, in numbers.
const AHEAD: usize = 512;

/// `out[row] += scale · (input · A) · B`
pub struct Single<'a, N> {
    pub row: usize,
    pub input: &'a [f32],
    pub rank: usize,
    /// `(input, rank)`
    pub a: Right<'a, N>,
    /// `(rank, width)`
    pub b: Right<'a, N>,
    pub scale: f32,
    /// What the numbers of each rank are multiplied by in A and in B, where they are whole ones.
    pub scales: Option<[&'a [f32]; 2]>,
}

/// What a rank's number between A and B is multiplied by.
#[inline(always)]
pub fn factor(scale: f32, scales: Option<[&[f32]; 2]>, rank: usize) -> f32 {
    scales.map_or(scale, |[a, b]| scale * a[rank] * b[rank])
}

/// Onto rows of `width` numbers. Neighbours of one rank go side by side.
pub struct Singles<'a, N> {
    pub updates: &'a [Single<'a, N>],
    pub width: usize,
    pub out: &'a mut [f32],
}

/// Sums of several updates, in registers.
///
/// # Safety
/// As [`Lanes`]; there are as many lefts and rights as sums, each with `depth` numbers and sixteen numbers a `step`.
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
trait Chains<L: Lanes, N: Number>: Copy {
    const COUNT: usize;

    unsafe fn zero() -> Self;
    /// Each plus its number on the left times its lanes on the right.
    unsafe fn plus(self, left: *const *const f32, right: *const *const N, depth: usize, step: usize) -> Self;
    /// Times the numbers there, each sum's a `step` further, and in their place.
    unsafe fn scale(self, onto: *mut f32, step: usize);
}

#[derive(Clone, Copy)]
struct Chain<L>(L);

impl<L: Lanes, N: Number> Chains<L, N> for Chain<L> {
    const COUNT: usize = 1;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's.
        Self(unsafe { L::splat(0.0) })
    }

    #[inline(always)]
    unsafe fn plus(self, left: *const *const f32, right: *const *const N, depth: usize, step: usize) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let lanes = (*right).wrapping_add(depth.wrapping_mul(step));
            L::fetch(lanes.wrapping_add(AHEAD).cast());
            Self(L::splat_from((*left).wrapping_add(depth)).fused(N::load(lanes), self.0))
        }
    }

    #[inline(always)]
    unsafe fn scale(self, onto: *mut f32, _: usize) {
        // SAFETY: the caller's.
        unsafe { self.0.times(L::load(onto)).store(onto) }
    }
}

#[derive(Clone, Copy)]
struct Both<A>(A, A);

impl<L: Lanes, N: Number, A: Chains<L, N>> Chains<L, N> for Both<A> {
    const COUNT: usize = 2 * A::COUNT;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's.
        unsafe { Self(A::zero(), A::zero()) }
    }

    #[inline(always)]
    unsafe fn plus(self, left: *const *const f32, right: *const *const N, depth: usize, step: usize) -> Self {
        let (others, other_lanes) = (left.wrapping_add(A::COUNT), right.wrapping_add(A::COUNT));
        // SAFETY: the caller's.
        unsafe { Self(self.0.plus(left, right, depth, step), self.1.plus(others, other_lanes, depth, step)) }
    }

    #[inline(always)]
    unsafe fn scale(self, onto: *mut f32, step: usize) {
        let others = onto.wrapping_add(A::COUNT.wrapping_mul(step));
        // SAFETY: the caller's.
        unsafe {
            self.0.scale(onto, step);
            self.1.scale(others, step);
        }
    }
}

/// Updates side by side at most.
const MOST: usize = 8;

impl<N: Number> Single<'_, N> {
    /// Numbers of its row between A and B, in whole registers.
    fn inner(&self) -> usize {
        self.rank.next_multiple_of(LANES)
    }

    /// That every address lies within its slice.
    fn check(&self, width: usize, out: &[f32]) {
        self.a.check(self.input.len(), self.rank);
        self.b.check(self.rank, width);
        assert!((self.row + 1) * width <= out.len(), "the output has the row");
    }

    fn goes_beside(&self, other: &Self) -> bool {
        let shape = |one: &Self| (one.rank, one.input.len(), one.a.panel_step, one.a.depth_step);
        shape(self) == shape(other)
    }
}

impl<N: Number> Work for Singles<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { mut updates, width, out } = self;
        let widest = updates.iter().map(Single::inner).max().unwrap_or(0);
        let mut inner = vec![0.0; MOST * widest];
        while let Some(first) = updates.first() {
            let like = updates.iter().take(MOST).take_while(|update| update.goes_beside(first)).count();
            let (some, rest) = updates.split_at(floor_power_of_two(like));
            some.iter().for_each(|update| update.check(width, out));
            // SAFETY: every address was checked; the caller's for the rest.
            unsafe {
                match some.len() {
                    8 => project::<L, N, Both<Both<Both<Chain<L>>>>>(some, &mut inner),
                    4 => project::<L, N, Both<Both<Chain<L>>>>(some, &mut inner),
                    2 => project::<L, N, Both<Chain<L>>>(some, &mut inner),
                    _ => project::<L, N, Chain<L>>(some, &mut inner),
                }
                let mut index = 0;
                while index < some.len() {
                    let update = &some[index];
                    let inner = inner.as_ptr().add(index * update.inner());
                    add::<L, N>(update, inner, width, out.as_mut_ptr().add(update.row * width));
                    index += 1;
                }
            }
            updates = rest;
        }
    }
}

/// `inner = scale · input · A` of each, in rows of whole registers.
///
/// # Safety
/// As [`Lanes`]; the updates are checked, of one rank and depth, and as many as the sums.
#[inline(always)]
unsafe fn project<L: Lanes, N: Number, C: Chains<L, N>>(updates: &[Single<N>], inner: &mut [f32]) {
    let (mut left, mut right) = ([std::ptr::null(); MOST], [std::ptr::null(); MOST]);
    let first = &updates[0];
    let (depth, step) = (first.input.len(), first.inner());
    let mut index = 0;
    while index < updates.len() {
        let update = &updates[index];
        (left[index], right[index]) = (update.input.as_ptr(), update.a.values.as_ptr());
        let factors = &mut inner[index * step..][..step];
        let mut rank = 0;
        while rank < update.rank {
            factors[rank] = factor(update.scale, update.scales, rank);
            rank += 1;
        }
        index += 1;
    }
    let mut panel = 0;
    while panel < step {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = C::zero();
            let mut at = 0;
            while at < depth {
                sums = sums.plus(left.as_ptr(), right.as_ptr(), at, first.a.depth_step);
                at += 1;
            }
            sums.scale(inner.as_mut_ptr().add(panel), step);
        }
        index = 0;
        while index < updates.len() {
            right[index] = right[index].wrapping_add(first.a.panel_step);
            index += 1;
        }
        panel += LANES;
    }
}

/// `out += inner · B`
///
/// # Safety
/// As [`Lanes`]; the update is checked, `inner` has its rank's numbers and `out` so many columns.
#[inline(always)]
unsafe fn add<L: Lanes, N: Number>(update: &Single<N>, inner: *const f32, width: usize, out: *mut f32) {
    let panels = width.div_ceil(LANES);
    let mut panel = 0;
    while panel < panels {
        let count = floor_power_of_two((panels - panel).min(8));
        let column = panel * LANES;
        let (right, out) =
            (update.b.values.as_ptr().wrapping_add(panel * update.b.panel_step), out.wrapping_add(column));
        // SAFETY: the caller's.
        unsafe {
            match count {
                8 => tile::<L, N, Twice<Twice<Twice<Panel<L>>>>>(update, inner, right, width - column, out),
                4 => tile::<L, N, Twice<Twice<Panel<L>>>>(update, inner, right, width - column, out),
                2 => tile::<L, N, Twice<Panel<L>>>(update, inner, right, width - column, out),
                _ => tile::<L, N, Panel<L>>(update, inner, right, width - column, out),
            }
        }
        panel += count;
    }
}

/// # Safety
/// As [`add`].
#[inline(always)]
unsafe fn tile<L: Lanes, N: Number, P: Panels<L>>(
    update: &Single<N>,
    inner: *const f32,
    right: *const N,
    columns: usize,
    out: *mut f32,
) {
    let (panel_step, depth_step) = (update.b.panel_step, update.b.depth_step);
    let ahead = P::COUNT.wrapping_mul(panel_step);
    // SAFETY: the caller's.
    unsafe {
        let mut sums = <R1<P> as Sums<L, P>>::read(out, 0, columns);
        let (mut at, mut right) = (0, right);
        while at < update.rank {
            P::fetch(right.wrapping_add(ahead), panel_step);
            sums = sums.plus(inner.wrapping_add(at), 0, P::load(right, panel_step));
            right = right.wrapping_add(depth_step);
            at += 1;
        }
        sums.write(out, 0, columns);
    }
}
