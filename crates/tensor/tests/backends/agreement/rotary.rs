//! Agreement of the backends: rotary embeddings, masked attention, channel slices and gated linear units.

use super::{BackendUnderTest, LENGTHS, compare, tensor};
use espalier_tensor::attention_mask::{AttentionMask, MaskContext};
use espalier_tensor::backend::cpu::CpuBackend;
use espalier_tensor::backend::{Activation, AttentionInput, Direction, PoolingKind, SaveForBackward};
use espalier_tensor::rotary::{self, RotaryTable};
use espalier_tensor::seeded_rng::SeededRng;
use espalier_tensor::{Backend, RaggedLayout, Tensor};

#[test]
fn rotary_positions() {
    for [heads, width] in [[1, 2], [4, 8], [3, 64], [2, 10]] {
        let mut random = SeededRng::new(8, &["rotary"]);
        let positions = [0, 1, 2, 511, 7, 0, 100];
        let rows = tensor(&mut random, [positions.len(), heads * width]);
        compare(&format!("rotary {heads} {width}"), &|backend| {
            let under_test = BackendUnderTest { backend };
            let rotation = RotaryTable::new(backend, 512, &rotary::inverse_frequencies(10_000.0, width), 1.0).unwrap();
            let turn = |way| backend.apply_rotary(under_test.upload(&rows), heads, &rotation, &positions, way).unwrap();
            let there = turn(Direction::Forward);
            let again = backend.apply_rotary(there.clone(), heads, &rotation, &positions, Direction::Inverse).unwrap();
            let difference =
                under_test.download(&again).into_iter().zip(&rows.values).map(|(one, other)| (one - other).abs());
            assert!(difference.fold(0f32, f32::max) < 1e-5, "there and back again");
            [there, turn(Direction::Inverse)].map(|rows| under_test.download(&rows)).to_vec()
        });
    }
}

#[test]
fn slices_of_fused_rows() {
    for [rows, width] in [[1, 1], [3, 16], [5, 20], [33, 40]] {
        let mut random = SeededRng::new(8, &["fused"]);
        let [input, gradient] = [2 * width, width].map(|width| tensor(&mut random, [rows, width]));
        compare(&format!("fused {rows} {width}"), &|backend| {
            let under_test = BackendUnderTest { backend };
            let (input, gradient) = (under_test.upload(&input), under_test.upload(&gradient));
            let (output, factors) = backend.glu(Activation::Gelu, &input, SaveForBackward::Yes).unwrap();
            let (again, nothing) = backend.glu(Activation::Gelu, &input, SaveForBackward::No).unwrap();
            assert!(nothing.is_none() && under_test.download(&again) == under_test.download(&output));
            let back = backend.glu_backward(&gradient, &factors.unwrap()).unwrap();
            let part = backend.slice_channels(&input, width / 2..2 * width).unwrap();
            let spread = backend.scatter_channels(&gradient, 1..width + 1, width + 2).unwrap();
            [output, back, part, spread].map(|rows| under_test.download(&rows)).to_vec()
        });
    }
}

/// Left window, right window, and maximum distance of the bias.
const MASKS: [([Option<usize>; 2], Option<usize>); 6] = [
    ([Some(4); 2], None),
    ([Some(0); 2], None),
    ([None; 2], Some(16)),
    ([Some(20); 2], Some(3)),
    ([None, Some(0)], None),
    ([Some(5), Some(0)], None),
];

#[test]
fn causal_and_sliding_window_attention() {
    let sizes = [[1, 4], [2, 8], [3, 32], [4, 32], [2, 20], [1, 64]];
    for (lengths, [heads, width]) in LENGTHS.into_iter().zip(sizes) {
        for (([behind, ahead], reach), front) in MASKS.into_iter().zip([0, 0, 3, 2, 0, 3]) {
            let own = RaggedLayout::from_lengths(lengths.iter().copied());
            let keys = own.with_prefix(vec![front; lengths.len()]);
            let mut random = SeededRng::new(5, &["distance"]);
            let [q, gradient] = std::array::from_fn(|_| tensor(&mut random, [own.num_rows(), heads * width]));
            let [k, v] = std::array::from_fn(|_| tensor(&mut random, [keys.num_rows(), heads * width]));
            let bias = reach.map(|reach| tensor(&mut random, [heads, 2 * reach + 1]));
            compare(&format!("distance {lengths:?} {heads} {width} {behind:?} {ahead:?} {reach:?}"), &|backend| {
                let under_test = BackendUnderTest { backend };
                let distance = AttentionMask {
                    left_window: behind,
                    right_window: ahead,
                    relative_position_bias: bias.as_ref().map(|bias| under_test.upload(bias)),
                };
                let [query, key, value, gradient] = [&q, &k, &v, &gradient].map(|tensor| under_test.upload(tensor));
                let near = Some(MaskContext { mask: &distance, unprefixed_key_layout: &own });
                let (asking, layout) = (&own, &keys);
                let inputs = AttentionInput {
                    query: &query,
                    key: &key,
                    value: &value,
                    query_layout: asking,
                    key_layout: layout,
                    heads,
                    mask: near,
                };
                let (output, saved) = backend.attention(inputs, SaveForBackward::Yes).unwrap();
                let [dq, dk, dv] = backend.attention_backward(&gradient, inputs, &saved.unwrap()).unwrap();
                let which = if ahead == Some(0) { PoolingKind::Last } else { PoolingKind::First };
                let one = backend.pool(&query, &own, which).unwrap();
                let ones = RaggedLayout::one_row_per_sequence(own.num_sequences());
                let few = AttentionInput { query: &one, query_layout: &ones, ..inputs };
                let (of_one, _) = backend.attention(few, SaveForBackward::No).unwrap();
                let same = backend.pool(&output, &own, which).unwrap();
                let pairs = under_test.download(&of_one).into_iter().zip(under_test.download(&same));
                assert!(pairs.into_iter().all(|(one, same)| (one - same).abs() < 1e-5), "asked alone or with all");
                [output, dq, dk, dv, of_one].iter().map(|rows| under_test.download(rows)).collect()
            });
        }
    }
}

#[test]
fn window_as_wide_as_the_sequence_equals_full_attention() {
    let backend = CpuBackend::detect();
    let (own, mut random) = (RaggedLayout::from_lengths([5, 40, 1]), SeededRng::new(5, &["wide"]));
    let rows = backend.upload(&tensor(&mut random, [own.num_rows(), 32])).unwrap();
    let attended = |distance: Option<&AttentionMask>| {
        let near = distance.map(|distance| MaskContext { mask: distance, unprefixed_key_layout: &own });
        let (query, asking) = (&rows, &own);
        let inputs = AttentionInput {
            query,
            key: query,
            value: query,
            query_layout: asking,
            key_layout: asking,
            heads: 2,
            mask: near,
        };
        backend.download(&backend.attention(inputs, SaveForBackward::No).unwrap().0).unwrap().values
    };
    let wide = AttentionMask::symmetric_window(39);
    assert_eq!(attended(None), attended(Some(&wide)));
    assert_ne!(attended(None), attended(Some(&AttentionMask::symmetric_window(3))));
}

#[test]
fn grouped_query_attention() {
    for (lengths, [heads, shared, width]) in LENGTHS.into_iter().zip([[2, 1, 4], [4, 2, 8], [6, 2, 32], [9, 3, 64]]) {
        let own = RaggedLayout::from_lengths(lengths.iter().copied());
        let mut random = SeededRng::new(6, &["groups"]);
        let [q, gradient] = std::array::from_fn(|_| tensor(&mut random, [own.num_rows(), heads * width]));
        let [k, v] = std::array::from_fn(|_| tensor(&mut random, [own.num_rows(), shared * width]));
        // Repeats keys and values for every query head.
        let each = |rows: &Tensor| {
            let one = |head: usize| head / (heads / shared) * width;
            let row = |row: &[f32]| (0..heads).flat_map(|head| row[one(head)..one(head) + width].to_vec()).collect();
            let values: Vec<Vec<f32>> = rows.values.chunks_exact(shared * width).map(row).collect();
            Tensor::new([own.num_rows(), heads * width], values.concat())
        };
        compare(&format!("groups {lengths:?} {heads} {shared} {width}"), &|backend| {
            let under_test = BackendUnderTest { backend };
            let attended = |tensors: [&Tensor; 4]| {
                let [query, key, value, gradient] = tensors.map(|tensor| under_test.upload(tensor));
                let (asking, layout, distance) = (&own, &own, AttentionMask::causal(None));
                let near = Some(MaskContext { mask: &distance, unprefixed_key_layout: &own });
                let inputs = AttentionInput {
                    query: &query,
                    key: &key,
                    value: &value,
                    query_layout: asking,
                    key_layout: layout,
                    heads,
                    mask: near,
                };
                let (output, saved) = backend.attention(inputs, SaveForBackward::Yes).unwrap();
                let by = backend.attention_backward(&gradient, inputs, &saved.unwrap()).unwrap();
                [vec![output], by.to_vec()].concat().iter().map(|rows| under_test.download(rows)).collect::<Vec<_>>()
            };
            let grouped = attended([&q, &k, &v, &gradient]);
            let apart = attended([&q, &each(&k), &each(&v), &gradient]);
            assert_eq!(grouped[..2], apart[..2], "heads that share are heads with the same keys and values");
            grouped
        });
    }
}
