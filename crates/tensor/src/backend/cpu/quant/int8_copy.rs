//! 8-bit copies of weights in `f32` and in 16 bits, for products with int8 activations.

use super::weight::QuantizedWeight;
use crate::backend::cpu::matrix::Matrix;
use crate::backend::cpu::simd::{Isa, LANES, Simd, SimdKernel};
use crate::quant::{BLOCK_SIZE, QuantFormat, STRIP_COLUMNS};
use half::f16;

const FORMAT: QuantFormat = QuantFormat::Q7Group64;
/// Weights of a column that share a scale.
const GROUP_SIZE: usize = FORMAT.values_per_scale();
/// Largest magnitude of a code, which is also the code of zero.
const MAX_CODE: f32 = 64.0;

/// A group of each of the 32 columns of a strip, `(k, 32 columns)`.
type StripGroup = [f32; GROUP_SIZE * STRIP_COLUMNS];

impl QuantizedWeight {
    /// Quantizes a weight `(output, input)` from its panels for `x·Wᵀ` to [`QuantFormat::Q7Group64`].
    pub fn int8_copy_of_panels(isa: Isa, panels: &Matrix, shape: [usize; 2]) -> Self {
        let [_, input] = shape;
        Self::int8_copy_of_groups(isa, shape, |strip, first_k, group| {
            let k_count = GROUP_SIZE.min(input - first_k);
            // The last strip may have one panel.
            for index in (0..STRIP_COLUMNS / LANES).take_while(|index| 2 * strip + index < panels.rows()) {
                let panel = &panels.row(2 * strip + index)[first_k * LANES..][..k_count * LANES];
                for (row, values) in group.chunks_exact_mut(STRIP_COLUMNS).zip(panel.chunks_exact(LANES)) {
                    row[index * LANES..][..LANES].copy_from_slice(values);
                }
            }
        })
    }

    /// Quantizes this weight to [`QuantFormat::Q7Group64`].
    pub fn int8_copy(&self, isa: Isa) -> Self {
        let shape = [self.out_features(), self.in_features()];
        Self::int8_copy_of_groups(isa, shape, |strip, first_k, group| {
            let values = (self.in_features() - first_k).next_multiple_of(BLOCK_SIZE).min(GROUP_SIZE) * STRIP_COLUMNS;
            self.dequantize_strip_blocks(isa, strip, first_k / BLOCK_SIZE, &mut group[..values]);
        })
    }

    /// Quantizes the groups of all strips. `read_group` gets the index of a strip and the first k of a group of zeros.
    fn int8_copy_of_groups(
        isa: Isa,
        [output, input]: [usize; 2],
        read_group: impl Fn(usize, usize, &mut StripGroup) + Sync,
    ) -> Self {
        Self::from_strips(FORMAT, [output, input], |strip, bytes| {
            for (index, out) in bytes.chunks_exact_mut(FORMAT.file_block_bytes() * STRIP_COLUMNS).enumerate() {
                let mut values = [0.0; GROUP_SIZE * STRIP_COLUMNS];
                read_group(strip, index * GROUP_SIZE, &mut values);
                isa.run(QuantizeGroup { values: &values, out });
            }
        })
    }
}

/// Quantizes a group of each column of a strip to the bytes of a superblock.
struct QuantizeGroup<'a> {
    values: &'a StripGroup,
    out: &'a mut [u8],
}

impl SimdKernel for QuantizeGroup<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Simd>(self) {
        /// 1.5 · 2²³. The sum with a small number is that number rounded to the nearest integer, ties to even, in the last bits of its
        /// mantissa.
        const ROUNDING_OFFSET: f32 = 12_582_912.0;
        let Self { values, out } = self;
        assert_eq!(out.len(), FORMAT.file_block_bytes() * STRIP_COLUMNS, "the output is a superblock");
        let mut panel = 0;
        while panel < STRIP_COLUMNS {
            let panel_values = values.as_ptr().wrapping_add(panel);
            let (mut scales, mut offset_codes) = ([0.0; LANES], [[0.0; LANES]; 4]);
            // SAFETY: each load reads sixteen of the group's values, whose rows have 32; the CPU supports `L`.
            let reciprocal = unsafe {
                let (zero, mut max_abs, mut k) = (L::splat(0.0), L::splat(0.0), 0);
                while k < GROUP_SIZE {
                    let values = L::load(panel_values.add(k * STRIP_COLUMNS));
                    max_abs = values.max(zero.sub(values)).max(max_abs);
                    k += 1;
                }
                let scale = max_abs.mul(L::splat(1.0 / MAX_CODE));
                scale.store(scales.as_mut_ptr());
                L::splat(1.0).div(scale.max(L::splat(f32::MIN_POSITIVE)))
            };
            let mut lane = 0;
            while lane < LANES {
                let offset = FORMAT.superblock_scale_offset(panel + lane, 0);
                out[offset..offset + 2].copy_from_slice(&f16::from_f32(scales[lane]).to_le_bytes());
                lane += 1;
            }
            let mut first_k = 0;
            while first_k < GROUP_SIZE {
                let mut step = 0;
                while step < 4 {
                    // SAFETY: the load reads sixteen of the group's values, and `offset_codes` has sixteen for each step; the CPU
                    // supports `L`.
                    unsafe {
                        let values = L::load(panel_values.add((first_k + step) * STRIP_COLUMNS));
                        let codes = values.mul(reciprocal).add(L::splat(ROUNDING_OFFSET + MAX_CODE));
                        codes.store(offset_codes[step].as_mut_ptr());
                    }
                    step += 1;
                }
                // Codes of a byte are stored as words of four steps, one word per column; the blocks follow one another.
                let start = FORMAT.block_offset(0) + (first_k / 4 * STRIP_COLUMNS + panel) * 4;
                let words = &mut out[start..start + 4 * LANES];
                let code = |step: usize, lane: usize| offset_codes[step][lane].to_bits() & 0xff;
                let mut lane = 0;
                while lane < LANES {
                    let word = code(0, lane) | code(1, lane) << 8 | code(2, lane) << 16 | code(3, lane) << 24;
                    words[4 * lane..4 * lane + 4].copy_from_slice(&word.to_le_bytes());
                    lane += 1;
                }
                first_k += 4;
            }
            panel += LANES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::packing;
    use crate::seeded_rng::SeededRng;

    /// The nearest multiple of the scale of each group, which is a 64th of its largest magnitude, rounded to a half.
    fn expected(values: &[f32], input: usize) -> Vec<f32> {
        let group = |group: &[f32]| {
            let scale = group.iter().fold(0f32, |most, value| most.max(value.abs())) / 64.0;
            let reciprocal = if scale == 0.0 { 0.0 } else { 1.0 / scale };
            let stored_scale = f16::from_f32(scale).to_f32();
            group.iter().map(|value| (value * reciprocal).round_ties_even() * stored_scale).collect::<Vec<f32>>()
        };
        values.chunks_exact(input).flat_map(|row| row.chunks(GROUP_SIZE)).flat_map(group).collect()
    }

    #[test]
    fn a_copy_has_the_nearest_code_of_each_weight_on_every_instruction_set() {
        for [output, input] in [[1, 1], [16, 64], [17, 33], [33, 97], [64, 256], [70, 160]] {
            let mut random = SeededRng::new(3, &["copy"]);
            let mut values: Vec<f32> = (0..output * input).map(|_| random.standard_normal()).collect();
            // A group of zeros, and ties.
            values[..input.min(GROUP_SIZE)].fill(0.0);
            values.iter_mut().skip(input).step_by(7).for_each(|value| *value = (*value * 8.0).round() / 8.0);
            let panels = packing::pack_rows(&values, output, input);
            for isa in Isa::available() {
                let copy = QuantizedWeight::int8_copy_of_panels(isa, &panels, [output, input]);
                assert_eq!(copy.dequantize().values, expected(&values, input), "{isa:?} {output} {input}");
                for format in [QuantFormat::F16, QuantFormat::Bf16] {
                    let weight = QuantizedWeight::quantize(format, &values, output, input);
                    let copy = weight.int8_copy(isa);
                    assert_eq!(copy.format(), FORMAT);
                    assert_eq!(copy.dequantize().values, expected(&weight.dequantize().values, input), "{format:?}");
                }
            }
        }
    }
}
