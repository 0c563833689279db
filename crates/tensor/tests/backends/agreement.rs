//! The backends agree: the CPU backend with candle up to rounding, and its instruction sets with each other bit for
//! bit, for all shapes.
mod attention;
mod rotary;

use espalier_tensor::backend::candle::CandleBackend;
use espalier_tensor::backend::cpu::{CpuBackend, Isa, WeightStorage};
use espalier_tensor::backend::{
    Activation, AttentionInput, LoraArgs, NormKind, PoolingKind, PrependedRows, SaveForBackward, WeightOps,
};
use espalier_tensor::quant::{QuantFormat, StoredWeight};
use espalier_tensor::seeded_rng::SeededRng;
use espalier_tensor::{Backend, Buffer, LoraPrecision, RaggedLayout, Tensor, WeightFormat};

/// Tolerance relative to the largest value.
const TOLERANCE: f32 = 2e-5;

fn tensor(random: &mut SeededRng, shape: impl Into<Vec<usize>>) -> Tensor {
    let shape = shape.into();
    let values = (0..shape.iter().product()).map(|_| random.standard_normal()).collect();
    Tensor::new(shape, values)
}

/// `operation` returns any number of tensors.
fn compare(what: &str, operation: &dyn Fn(&dyn Backend) -> Vec<Vec<f32>>) {
    let expected = operation(&CandleBackend::cpu());
    let mut fused: Option<Vec<Vec<f32>>> = None;
    for level in Isa::available() {
        let found = operation(&CpuBackend::with_isa(level));
        assert_eq!(found.len(), expected.len());
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.len(), expected.len(), "{what} on {level:?}, output {index}");
            let largest = expected.iter().fold(1e-6f32, |largest, value| largest.max(value.abs()));
            for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
                let error = (found - expected).abs() / largest;
                assert!(
                    error <= TOLERANCE,
                    "{what} on {level:?}, output {index}, place {place}: {found}, not {expected}"
                );
            }
        }
        if !level.is_portable() {
            let first = fused.get_or_insert_with(|| found.clone());
            assert!(bits(first) == bits(&found), "{what}: the instruction sets give the same bits");
        }
    }
}

fn bits(values: &[Vec<f32>]) -> Vec<Vec<u32>> {
    values.iter().map(|values| values.iter().map(|value| value.to_bits()).collect()).collect()
}

struct BackendUnderTest<'a> {
    backend: &'a dyn Backend,
}

impl BackendUnderTest<'_> {
    fn upload(&self, tensor: &Tensor) -> Buffer {
        self.backend.upload(tensor).unwrap()
    }

    fn download(&self, rows: &Buffer) -> Vec<f32> {
        self.backend.download(rows).unwrap().values
    }
}

/// Rows, input and output widths: below, at and beyond a vector, a tile and a block.
const SHAPES: [[usize; 3]; 12] = [
    [1, 1, 1],
    [1, 384, 384],
    [2, 7, 33],
    [3, 64, 130],
    [4, 400, 48],
    [5, 16, 16],
    [11, 31, 17],
    [12, 768, 32],
    [13, 5, 40],
    [64, 100, 100],
    [241, 33, 47],
    [500, 20, 24],
];

#[test]
fn frozen_linear_maps() {
    for [rows, input, output] in SHAPES {
        let mut random = SeededRng::new(1, &["linear"]);
        let [weight, bias] = [tensor(&mut random, [output, input]), tensor(&mut random, [output])];
        let [x, dy, onto] = [[rows, input], [rows, output], [rows, input]].map(|shape| tensor(&mut random, shape));
        compare(&format!("linear {rows} {input} {output}"), &|backend| {
            let under_test = BackendUnderTest { backend };
            let map = backend.freeze_linear(weight.clone(), Some(bias.clone())).unwrap();
            let plain = backend.freeze_linear(weight.clone(), None).unwrap();
            let (x, dy, onto) = (under_test.upload(&x), under_test.upload(&dy), under_test.upload(&onto));
            let results = [
                backend.linear(&x, &map),
                backend.linear(&x, &plain),
                backend.linear_backward(&dy, &map, None),
                backend.linear_backward(&dy, &map, Some(onto)),
            ];
            results.map(|result| under_test.download(&result.unwrap())).to_vec()
        });
    }
}

#[test]
fn int8_activations_change_loaded_maps_a_little_and_frozen_maps_not_at_all() {
    let mut random = SeededRng::new(1, &["int8"]);
    let [weight, x] = [[96, 200], [7, 200]].map(|shape| tensor(&mut random, shape));
    let values = weight.values[..96 * 192].iter();
    let bytes = values.flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect();
    let halves = StoredWeight::Quantized { format: QuantFormat::Bf16, shape: [96, 192], bytes };
    for isa in Isa::available() {
        let f32 = CpuBackend::with_isa(isa).with_weight_storage(WeightStorage::Native);
        let int8 = f32.with_int8_activations(LoraPrecision::F32).unwrap();
        for stored in [StoredWeight::Dense(weight.clone()), halves.clone()] {
            let x =
                f32.upload(&Tensor::new([7, stored.shape()[1]], x.values[..7 * stored.shape()[1]].to_vec())).unwrap();
            let map = f32.load_linear(stored, None).unwrap();
            let [exact, rounded] = [&f32 as &dyn Backend, int8.as_ref()]
                .map(|backend| backend.download(&backend.linear(&x, &map).unwrap()).unwrap().values);
            let square = |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>();
            let difference = square(&mut exact.iter().zip(&rounded).map(|(one, other)| one - other));
            let relative = (difference / square(&mut exact.iter().copied())).sqrt();
            assert!(relative > 0.0 && relative < 0.02, "{isa:?}: {relative}");
        }
        let frozen = f32.freeze_linear(weight.clone(), None).unwrap();
        let x = f32.upload(&x).unwrap();
        let [exact, same] = [&f32 as &dyn Backend, int8.as_ref()]
            .map(|backend| backend.download(&backend.linear(&x, &frozen).unwrap()).unwrap().values);
        assert_eq!(exact, same);
    }
}

#[test]
fn dense_layers() {
    for [rows, input, output] in SHAPES {
        let mut random = SeededRng::new(2, &["dense"]);
        let [weight, bias] = [tensor(&mut random, [output, input]), tensor(&mut random, [output])];
        let [x, dy] = [[rows, input], [rows, output]].map(|shape| tensor(&mut random, shape));
        compare(&format!("dense {rows} {input} {output}"), &|backend| {
            let under_test = BackendUnderTest { backend };
            let [x, dy] = [&x, &dy].map(|tensor| under_test.upload(tensor));
            let layer = backend.upload_parameters(&[weight.clone(), bias.clone()]).unwrap();
            let [weight, bias] = [&layer[0], &layer[1]];
            let by = backend.dense_backward_parameters(&dy, &x).unwrap();
            let y = backend.dense(&x, weight, bias).unwrap();
            let dx = backend.dense_backward_input(&dy, weight).unwrap();
            [y, dx, by.weight, by.bias].map(|rows| under_test.download(&rows)).to_vec()
        });
    }
}

#[test]
fn low_rank_maps() {
    for ([rows, input, output], rank) in SHAPES.into_iter().zip([1, 8, 2, 4, 16, 3, 8, 8, 1, 17, 8, 5]) {
        let mut random = SeededRng::new(3, &["low rank"]);
        let [a, b] = [[rank, input], [output, rank]].map(|shape| tensor(&mut random, shape));
        let [x, dy, onto, dx] =
            [[rows, input], [rows, output], [rows, output], [rows, input]].map(|shape| tensor(&mut random, shape));
        compare(&format!("low rank {rows} {input} {output} {rank}"), &|backend| {
            let under_test = BackendUnderTest { backend };
            let [x, dy] = [&x, &dy].map(|tensor| under_test.upload(tensor));
            let pair = backend.upload_parameters(&[a.clone(), b.clone()]).unwrap();
            let [a, b] = [&pair[0], &pair[1]];
            let (update, shared) = (LoraArgs { input: &x, a, b, scale: 0.7 }, under_test.upload(&onto));
            let (y, projected) = backend.lora_add(shared.clone(), 0..rows, update).unwrap();
            assert_eq!(under_test.download(&shared), onto.values, "rows that somebody else has are not written on");
            let last = backend.slice_rows(&x, rows - 1..rows).unwrap();
            let update = LoraArgs { input: &last, ..update };
            let (of_last, _) = backend.lora_add(under_test.upload(&onto), rows - 1..rows, update).unwrap();
            let both = [(rows - 1..rows, update), (0..rows, LoraArgs { input: &x, ..update })];
            let both = backend.lora_add_batched(under_test.upload(&onto), &both).unwrap();
            let inner = backend.lora_backward_projected(&dy, b, 0.7).unwrap();
            let by = backend.lora_backward_parameters(&dy, &inner, &x, &projected).unwrap();
            let alone = backend.lora_backward_input(&inner, a, None).unwrap();
            let added = backend.lora_backward_input(&inner, a, Some(under_test.upload(&dx))).unwrap();
            [y, projected, of_last, both, inner, by.a, by.b, alone, added]
                .map(|rows| under_test.download(&rows))
                .to_vec()
        });
    }
}

#[test]
fn elementwise_and_norm_ops() {
    for [rows, width, _] in SHAPES {
        if width < 2 {
            continue; // the norm of a single value is 0 divided by its rounding error
        }
        let mut random = SeededRng::new(4, &["rows"]);
        let [x, y, gain, shift] =
            [[rows, width], [rows, width], [1, width], [1, width]].map(|shape| tensor(&mut random, shape));
        let [gain, shift] = [gain, shift].map(|one| Tensor::new([width], one.values));
        compare(&format!("rows {rows} {width}"), &|backend| {
            let under_test = BackendUnderTest { backend };
            let [x, y] = [&x, &y].map(|tensor| under_test.upload(tensor));
            let simple = [backend.add(&x, &y), backend.mul(&x, &y), backend.scale(&x, -1.5)].map(Result::unwrap);
            let mut all = simple.to_vec();
            for form in [NormKind::LayerNorm, NormKind::RmsNorm] {
                let norm = backend.freeze_norm(form, gain.clone(), shift.clone(), 1e-5).unwrap();
                let (normed, saved) = backend.norm(&x, None, &norm, SaveForBackward::Yes).unwrap();
                let (summed, nothing) = backend.norm(&x, Some(&y), &norm, SaveForBackward::No).unwrap();
                assert!(nothing.is_none());
                all.extend([normed, summed, backend.norm_backward(&y, &saved.unwrap(), &norm).unwrap()]);
            }
            for activation in
                [Activation::Gelu, Activation::GeluTanh, Activation::Tanh, Activation::Relu, Activation::Silu]
            {
                let (activated, derivative) = backend.activate(activation, &x, SaveForBackward::Yes).unwrap();
                let (again, nothing) = backend.activate(activation, &x, SaveForBackward::No).unwrap();
                assert!(nothing.is_none() && under_test.download(&again) == under_test.download(&activated));
                all.extend([activated, derivative.unwrap()]);
            }
            all.iter().map(|rows| under_test.download(rows)).collect()
        });
    }
}

#[test]
fn per_channel_ops_and_prepended_rows() {
    for width in [1, 16, 40] {
        let mut random = SeededRng::new(6, &["columns"]);
        let layout = RaggedLayout::from_lengths([1, 3, 2, 5]);
        let [x, vector, front] =
            [vec![11, width], vec![1, width], vec![2, width]].map(|shape| tensor(&mut random, shape));
        let tables = [vec![9, width], vec![4, width]].map(|shape| tensor(&mut random, shape));
        compare(&format!("columns {width}"), &|backend| {
            let under_test = BackendUnderTest { backend };
            let vector = under_test.upload(&vector);
            let some = backend.slice_rows(&under_test.upload(&x), 2..6).unwrap();
            let sequences = [1..2, 3..4];
            let rows = under_test.upload(&front);
            let fronts = sequences.map(|sequences| PrependedRows { sequences, rows: &rows });
            let behind = backend.prepend_rows(&under_test.upload(&x), &layout, &fronts).unwrap();
            let all = backend
                .prepend_rows(&under_test.upload(&x), &layout, &[PrependedRows { sequences: 0..4, rows: &rows }])
                .unwrap();
            let [own, before] = backend.prepend_rows_backward(&all, &layout, 2).unwrap();
            let [first, second] = tables.clone().map(|table| backend.freeze_embedding(table).unwrap());
            let ids: [&[u32]; 2] = [&[8, 0, 3], &[1, 1, 0]];
            let whole = backend.embed(&[(&first, ids[0]), (&second, ids[1])], None).unwrap();
            let begun = backend.embed(&[(&first, ids[0])], None).unwrap();
            let onto = backend.embed(&[(&second, ids[1])], Some(begun)).unwrap();
            assert_eq!(under_test.download(&whole), under_test.download(&onto), "tables are added in their order");
            let changed = [
                backend.scale_channels(under_test.upload(&x), 3..7, &vector),
                backend.add_channels(under_test.upload(&x), 0..11, &vector),
                backend.add_rows_scaled(under_test.upload(&x), 4..8, &some, -0.5),
                backend.sum_rows(&under_test.upload(&x)),
                backend.sum_row_products(&some, &some),
            ];
            let mut all = vec![behind, own, before, whole];
            all.extend(changed.map(Result::unwrap));
            all.iter().map(|rows| under_test.download(rows)).collect()
        });
    }
}

/// Lengths of sequences: one token, around a vector's width, and beyond the length whose probabilities are saved.
const LENGTHS: [&[usize]; 6] = [&[1], &[5, 1, 1, 3], &[16, 17, 15], &[33, 2, 64], &[300], &[260, 9]];

#[test]
fn attention_and_pooling_over_ragged_sequences() {
    for (lengths, [heads, width]) in LENGTHS.into_iter().zip([[1, 4], [2, 8], [3, 32], [12, 32], [2, 20], [1, 64]]) {
        let layout = RaggedLayout::from_lengths(lengths.iter().copied());
        let mut random = SeededRng::new(5, &["attention"]);
        let shape = [layout.num_rows(), heads * width];
        let [q, k, v, gradient] = std::array::from_fn(|_| tensor(&mut random, shape));
        let pooled = tensor(&mut random, [layout.num_sequences(), heads * width]);
        compare(&format!("attention {lengths:?} {heads} {width}"), &|backend| {
            let under_test = BackendUnderTest { backend };
            let [query, key, value, gradient] = [&q, &k, &v, &gradient].map(|tensor| under_test.upload(tensor));
            let (asking, layout) = (&layout, &layout);
            let inputs = AttentionInput {
                query: &query,
                key: &key,
                value: &value,
                query_layout: asking,
                key_layout: layout,
                heads,
                mask: None,
            };
            let (output, saved) = backend.attention(inputs, SaveForBackward::Yes).unwrap();
            let (again, nothing) = backend.attention(inputs, SaveForBackward::No).unwrap();
            assert!(nothing.is_none() && under_test.download(&again) == under_test.download(&output));
            let [dq, dk, dv] = backend.attention_backward(&gradient, inputs, &saved.unwrap()).unwrap();
            let firsts = RaggedLayout::one_row_per_sequence(layout.num_sequences());
            let one = backend.pool(&query, layout, PoolingKind::First).unwrap();
            let few = AttentionInput { query: &one, query_layout: &firsts, ..inputs };
            let (of_first, saved) = backend.attention(few, SaveForBackward::Yes).unwrap();
            let by_first = backend.attention_backward(&under_test.upload(&pooled), few, &saved.unwrap()).unwrap();
            let pools = [PoolingKind::Mean, PoolingKind::First].map(|pool| backend.pool(&query, layout, pool).unwrap());
            let back = [PoolingKind::Mean, PoolingKind::First]
                .map(|pool| backend.pool_backward(&under_test.upload(&pooled), layout, pool).unwrap());
            let mut all = vec![output, dq, dk, dv];
            all.extend(pools.into_iter().chain(back).chain([of_first]).chain(by_first));
            all.iter().map(|rows| under_test.download(rows)).collect()
        });
    }
}

#[test]
fn embedding_slicing_and_loss_ops() {
    let mut random = SeededRng::new(6, &["tables"]);
    let [words, places] = [[9, 20], [4, 20]].map(|shape| tensor(&mut random, shape));
    let (ids, positions) = ([8, 0, 3, 3, 7], [0, 1, 2, 3, 0]);
    let logits = tensor(&mut random, [5, 37]);
    compare("tables", &|backend| {
        let under_test = BackendUnderTest { backend };
        let [words, places] = [&words, &places].map(|table| backend.freeze_embedding(table.clone()).unwrap());
        let embedded = backend.embed(&[(&words, &ids), (&places, &positions)], None).unwrap();
        let [middle, end] = [1..4, 4..5].map(|range| backend.slice_rows(&embedded, range).unwrap());
        let found = backend.cross_entropy(&under_test.upload(&logits), &[36, 0, 5, 5, 12]).unwrap();
        let picked = backend.gather_rows(&embedded, &[4, 0, 0]).unwrap();
        let back = backend.gather_rows_backward(&picked, &[4, 0, 0], 5).unwrap();
        let mut all: Vec<Vec<f32>> = [embedded, middle, end, found.gradient, picked, back]
            .iter()
            .map(|rows| under_test.download(rows))
            .collect();
        all.push(found.losses.iter().map(|loss| *loss as f32).collect());
        all
    });
}

#[test]
fn row_is_bit_identical_alone_and_batched() {
    let mut random = SeededRng::new(7, &["alone"]);
    let (input, output) = (400, 70);
    let (weight, bias) = (tensor(&mut random, [output, input]), tensor(&mut random, [output]));
    let x = tensor(&mut random, [500, input]);
    for level in Isa::available() {
        let backend = CpuBackend::with_isa(level);
        let map = backend.freeze_linear(weight.clone(), Some(bias.clone())).unwrap();
        let rows = backend.upload(&x).unwrap();
        let all = backend.download(&backend.linear(&rows, &map).unwrap()).unwrap().values;
        for (start, count) in [(0, 1), (239, 1), (240, 2), (3, 3), (100, 4), (7, 13), (250, 250)] {
            let part = backend.slice_rows(&rows, start..start + count).unwrap();
            let part = backend.download(&backend.linear(&part, &map).unwrap()).unwrap().values;
            let expected = &all[start * output..(start + count) * output];
            assert!(part.iter().zip(expected).all(|(one, other)| one.to_bits() == other.to_bits()), "{level:?}");
        }
    }
}

#[test]
fn bf16_weights_agree_with_f32_to_rounding() {
    let mut random = SeededRng::new(5, &["bf16"]);
    let [weight, bias, input] = [vec![48, 64], vec![48], vec![9, 64]].map(|shape| tensor(&mut random, shape));
    let answers = [WeightFormat::F32, WeightFormat::Bf16].map(|weights| {
        let candle = CandleBackend::cpu_with_weight_format(weights);
        let under_test = BackendUnderTest { backend: &candle };
        let map = candle.freeze_linear(weight.clone(), Some(bias.clone())).unwrap();
        let rows = candle.linear(&under_test.upload(&input), &map).unwrap();
        let back = candle.linear_backward(&rows, &map, Some(under_test.upload(&input))).unwrap();
        let table = candle.freeze_embedding(weight.clone()).unwrap();
        [rows, back, candle.embed(&[(&table, &[3, 0, 47])], None).unwrap()].map(|rows| under_test.download(&rows))
    });
    for (exact, rounded) in answers[0].iter().zip(&answers[1]) {
        let largest = exact.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        assert!(exact != rounded, "bf16 is not f32");
        for (exact, rounded) in exact.iter().zip(rounded) {
            assert!((exact - rounded).abs() <= 2e-2 * largest, "{rounded}, not {exact}");
        }
    }
}
