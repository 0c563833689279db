//! Rotary positions, attention by distance, and fused rows.

use super::{Desk, LENGTHS, compare, tensor};
use espalier_tensor::cpu::Cpu;
use espalier_tensor::distance::{Distance, Near};
use espalier_tensor::kernels::{Activation, Attention, Keep, Pool};
use espalier_tensor::random::Random;
use espalier_tensor::rotary::{self, Rotation, Way};
use espalier_tensor::{Kernels, Packed, Tensor};

#[test]
fn rotary_positions() {
    for [heads, width] in [[1, 2], [4, 8], [3, 64], [2, 10]] {
        let mut random = Random::new(8, &["rotary"]);
        let positions = [0, 1, 2, 511, 7, 0, 100];
        let rows = tensor(&mut random, [positions.len(), heads * width]);
        compare(&format!("rotary {heads} {width}"), &|kernels| {
            let desk = Desk { kernels };
            let rotation = Rotation::new(kernels, 512, &rotary::frequencies(10_000.0, width), 1.0).unwrap();
            let turn = |way| kernels.rotate(desk.up(&rows), heads, &rotation, &positions, way).unwrap();
            let there = turn(Way::Forward);
            let again = kernels.rotate(there.clone(), heads, &rotation, &positions, Way::Back).unwrap();
            let difference = desk.down(&again).into_iter().zip(&rows.values).map(|(one, other)| (one - other).abs());
            assert!(difference.fold(0f32, f32::max) < 1e-5, "there and back again");
            [there, turn(Way::Back)].map(|rows| desk.down(&rows)).to_vec()
        });
    }
}

#[test]
fn parts_of_fused_rows() {
    for [rows, width] in [[1, 1], [3, 16], [5, 20], [33, 40]] {
        let mut random = Random::new(8, &["fused"]);
        let [input, gradient] = [2 * width, width].map(|width| tensor(&mut random, [rows, width]));
        compare(&format!("fused {rows} {width}"), &|kernels| {
            let desk = Desk { kernels };
            let (input, gradient) = (desk.up(&input), desk.up(&gradient));
            let (output, factors) = kernels.gated(Activation::Gelu, &input, Keep::ForBackward).unwrap();
            let (again, nothing) = kernels.gated(Activation::Gelu, &input, Keep::Nothing).unwrap();
            assert!(nothing.is_none() && desk.down(&again) == desk.down(&output));
            let back = kernels.gated_backward(&gradient, &factors.unwrap()).unwrap();
            let part = kernels.take_columns(&input, width / 2..2 * width).unwrap();
            let spread = kernels.spread_columns(&gradient, 1..width + 1, width + 2).unwrap();
            [output, back, part, spread].map(|rows| desk.down(&rows)).to_vec()
        });
    }
}

/// How far is looked back and ahead, and how far what is added to the scores reaches.
const DISTANCES: [([Option<usize>; 2], Option<usize>); 6] = [
    ([Some(4); 2], None),
    ([Some(0); 2], None),
    ([None; 2], Some(16)),
    ([Some(20); 2], Some(3)),
    ([None, Some(0)], None),
    ([Some(5), Some(0)], None),
];

#[test]
fn attention_by_distance() {
    let sizes = [[1, 4], [2, 8], [3, 32], [4, 32], [2, 20], [1, 64]];
    for (lengths, [heads, width]) in LENGTHS.into_iter().zip(sizes) {
        for (([behind, ahead], reach), front) in DISTANCES.into_iter().zip([0, 0, 3, 2, 0, 3]) {
            let own = Packed::from_lengths(lengths.iter().copied());
            let keys = own.behind(vec![front; lengths.len()]);
            let mut random = Random::new(5, &["distance"]);
            let [q, gradient] = std::array::from_fn(|_| tensor(&mut random, [own.rows(), heads * width]));
            let [k, v] = std::array::from_fn(|_| tensor(&mut random, [keys.rows(), heads * width]));
            let bias = reach.map(|reach| tensor(&mut random, [heads, 2 * reach + 1]));
            compare(&format!("distance {lengths:?} {heads} {width} {behind:?} {ahead:?} {reach:?}"), &|kernels| {
                let desk = Desk { kernels };
                let distance = Distance { behind, ahead, bias: bias.as_ref().map(|bias| desk.up(bias)) };
                let [query, key, value, gradient] = [&q, &k, &v, &gradient].map(|tensor| desk.up(tensor));
                let near = Some(Near { distance: &distance, own: &own });
                let (asking, layout) = (&own, &keys);
                let inputs = Attention { query: &query, key: &key, value: &value, asking, layout, heads, near };
                let (output, saved) = kernels.attention(inputs, Keep::ForBackward).unwrap();
                let [dq, dk, dv] = kernels.attention_backward(&gradient, inputs, &saved.unwrap()).unwrap();
                let which = if ahead == Some(0) { Pool::Last } else { Pool::First };
                let one = kernels.pool(&query, &own, which).unwrap();
                let ones = Packed::single_rows(own.sequences());
                let few = Attention { query: &one, asking: &ones, ..inputs };
                let (of_one, _) = kernels.attention(few, Keep::Nothing).unwrap();
                let same = kernels.pool(&output, &own, which).unwrap();
                let pairs = desk.down(&of_one).into_iter().zip(desk.down(&same));
                assert!(pairs.into_iter().all(|(one, same)| (one - same).abs() < 1e-5), "asked alone or with all");
                [output, dq, dk, dv, of_one].iter().map(|rows| desk.down(rows)).collect()
            });
        }
    }
}

#[test]
fn a_window_as_wide_as_the_sequence_is_no_window() {
    let kernels = Cpu::best();
    let (own, mut random) = (Packed::from_lengths([5, 40, 1]), Random::new(5, &["wide"]));
    let rows = kernels.upload(&tensor(&mut random, [own.rows(), 32])).unwrap();
    let attended = |distance: Option<&Distance>| {
        let near = distance.map(|distance| Near { distance, own: &own });
        let (query, asking) = (&rows, &own);
        let inputs = Attention { query, key: query, value: query, asking, layout: asking, heads: 2, near };
        kernels.download(&kernels.attention(inputs, Keep::Nothing).unwrap().0).unwrap().values
    };
    let wide = Distance::window(39);
    assert_eq!(attended(None), attended(Some(&wide)));
    assert_ne!(attended(None), attended(Some(&Distance::window(3))));
}

#[test]
fn heads_that_share_keys_and_values() {
    for (lengths, [heads, shared, width]) in LENGTHS.into_iter().zip([[2, 1, 4], [4, 2, 8], [6, 2, 32], [9, 3, 64]]) {
        let own = Packed::from_lengths(lengths.iter().copied());
        let mut random = Random::new(6, &["groups"]);
        let [q, gradient] = std::array::from_fn(|_| tensor(&mut random, [own.rows(), heads * width]));
        let [k, v] = std::array::from_fn(|_| tensor(&mut random, [own.rows(), shared * width]));
        // Each head of queries with keys and values of its own, the same as its neighbours'.
        let each = |rows: &Tensor| {
            let one = |head: usize| head / (heads / shared) * width;
            let row = |row: &[f32]| (0..heads).flat_map(|head| row[one(head)..one(head) + width].to_vec()).collect();
            let values: Vec<Vec<f32>> = rows.values.chunks_exact(shared * width).map(row).collect();
            Tensor::new([own.rows(), heads * width], values.concat())
        };
        compare(&format!("groups {lengths:?} {heads} {shared} {width}"), &|kernels| {
            let desk = Desk { kernels };
            let attended = |tensors: [&Tensor; 4]| {
                let [query, key, value, gradient] = tensors.map(|tensor| desk.up(tensor));
                let (asking, layout, distance) = (&own, &own, Distance::causal(None));
                let near = Some(Near { distance: &distance, own: &own });
                let inputs = Attention { query: &query, key: &key, value: &value, asking, layout, heads, near };
                let (output, saved) = kernels.attention(inputs, Keep::ForBackward).unwrap();
                let by = kernels.attention_backward(&gradient, inputs, &saved.unwrap()).unwrap();
                [vec![output], by.to_vec()].concat().iter().map(|rows| desk.down(rows)).collect::<Vec<_>>()
            };
            let grouped = attended([&q, &k, &v, &gradient]);
            let apart = attended([&q, &each(&k), &each(&v), &gradient]);
            assert_eq!(grouped[..2], apart[..2], "heads that share are heads with the same keys and values");
            grouped
        });
    }
}
